"""Sign the bundle and the CRL when their content changed; keep the last ones while locked."""

from broker.pki.bundle import sign_bundle
from broker.pki.crl import sign_crl
from broker.shell.batch import Batch
from broker.shell.state import BrokerState
from broker.units import UnixSeconds
from broker.wire.base import Body
from broker.wire.codec import decode_body, encode_body
from broker.wire.ids import DER
from broker.wire.roster import BundleBody, Head, KeyHolder, SignedBundle

CRL_LIFETIME_S = 7 * 86_400
"""A relying party may use a CRL this long; a new one is signed at half of it."""
LOCAL_BUNDLE = "bundle"
LOCAL_CRL = "crl"


class StoredCRL(Body, frozen=True):
    """The newest CRL as kept in the ledger's local part."""

    number: int
    bundle_sequence: int
    this_update: UnixSeconds
    crl: DER


def current_bundle(
    state: BrokerState, batch: Batch, now: UnixSeconds
) -> tuple[bytes, BundleBody | None]:
    """Return the newest bundle, signing a new one when the roster moved and the key is open."""
    follow = state.follow
    if state.role != "primary" or state.keys.issuer is None:
        return follow.bundle_bytes, follow.bundle
    sequence, term = state.ledger.bundle_sequence(), state.ledger.term
    known = follow.bundle
    if known is not None and (known.bundle_sequence, known.head.term) == (sequence, term):
        return follow.bundle_bytes, known
    body = _compose(state, now)
    raw = encode_body(sign_bundle(state.keys.issuer, body))
    follow.bundle, follow.bundle_bytes = body, raw
    batch.keep(LOCAL_BUNDLE, raw)
    return raw, body


def restore_bundle(state: BrokerState) -> None:
    """Load the bundle this node had before it restarted; it was verified when it was stored."""
    raw = state.ledger.local_get(LOCAL_BUNDLE)
    if raw is None:
        return
    body = decode_body(decode_body(raw, SignedBundle).body, BundleBody)
    state.follow.bundle, state.follow.bundle_bytes = body, raw
    state.follow.term = max(state.follow.term, body.head.term)
    for holder in body.key_holders:
        if holder.role == "primary":
            state.follow.primary = holder.endpoint


def current_crl(state: BrokerState, batch: Batch, now: UnixSeconds) -> tuple[bytes, int]:
    """Return the newest CRL and its number, signing a new one when needed and possible."""
    raw = state.ledger.local_get(LOCAL_CRL)
    stored = decode_body(raw, StoredCRL) if raw else None
    if state.role != "primary" or state.keys.issuer is None:
        return (stored.crl, stored.number) if stored else (b"", 0)
    sequence = state.ledger.bundle_sequence()
    if (
        stored is not None
        and stored.bundle_sequence == sequence
        and now - stored.this_update < CRL_LIFETIME_S // 2
    ):
        return stored.crl, stored.number
    number = (stored.number if stored else 0) + 1
    revoked = [(int(serial, 16), at) for serial, at in state.ledger.revoked_serials(now)]
    crl = sign_crl(
        state.keys.issuer, revoked, number=number, now=now, next_update=now + CRL_LIFETIME_S
    )
    batch.keep(LOCAL_CRL, encode_body(StoredCRL(number, sequence, now, crl)))
    return crl, number


def _compose(state: BrokerState, now: UnixSeconds) -> BundleBody:
    mesh, head = state.mesh(), state.ledger.head
    holders = tuple(
        KeyHolder(row.member_id, "primary" if row.role == "primary" else "standby", row.endpoint)
        for row in state.ledger.key_holders()
    )
    return BundleBody(
        mesh_id=mesh.mesh_id,
        pin=mesh.pin,
        head=Head(head.term, head.sequence, head.hash, state.host, now),
        bundle_sequence=state.ledger.bundle_sequence(),
        key_holders=holders,
        revoked_serials=tuple(serial for serial, _ in state.ledger.revoked_serials(now)),
        revoked_members=tuple(state.ledger.revoked_members()),
    )
