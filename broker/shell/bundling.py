"""Sign the bundle and the CRL when their content changed; keep the last ones while locked."""

from broker.errors import MeshError
from broker.pki.bundle import sign_bundle
from broker.pki.crl import sign_crl
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.state import BrokerState
from broker.units import UnixSeconds
from broker.wire.base import Body
from broker.wire.claims import Head
from broker.wire.codec import decode_body, encode_body
from broker.wire.ids import Hex, Term
from broker.wire.node import Endpoint
from broker.wire.roster import BundleBody, KeyHolder, SignedBundle

CRL_LIFETIME_S = 7 * 86_400
"""A relying party may use a CRL this long; a new one is signed at half of it."""
CRL_TERM_SHIFT = 40
CRL_REISSUE_BITS = 8
LOCAL_BUNDLE = "bundle"
LOCAL_CRL = "crl"
LOCAL_PRIMARY = "primary"
LOCAL_STILL_REVOKED = "still-revoked"
CRL_BYTES_MAX = 900_000
"""A larger CRL would not fit into one answer; the enrol port then serves none, and says so."""
BUNDLE_REVOKED_MAX = 4_000
"""Newest revocations in a bundle. Nodes admit by the list of key holders in it, so an older
revoked member is refused there anyway; the CRL stays complete."""


class KnownPrimary(Body, frozen=True):
    """The primary of the highest term this node has heard of."""

    term: Term
    endpoint: Endpoint


class StillRevoked(Body, frozen=True):
    """Serials of earlier bundles that the newest one, of a later term, does not list."""

    serials: tuple[Hex, ...]


class StoredCRL(Body, frozen=True):
    """The newest CRL as kept in the ledger's local part."""

    number: int
    bundle_sequence: int
    this_update: UnixSeconds
    crl: bytes
    term: int = 0


def current_bundle(
    state: BrokerState, batch: Batch, now: UnixSeconds
) -> tuple[bytes, BundleBody | None]:
    """Return the newest bundle, signing a new one when the roster moved and the key is open."""
    follow = state.follow
    if not state.serves or state.keys.issuer is None:
        return follow.bundle_bytes, follow.bundle
    if batch.bundle is not None and batch.bundle_sequence == state.ledger.bundle_sequence():
        return batch.bundle
    sequence, term = state.ledger.bundle_sequence(), state.ledger.term
    known = follow.bundle
    if known is not None and (known.bundle_sequence, known.head.term) == (sequence, term):
        return follow.bundle_bytes, known
    body = _compose(state, now)
    raw = encode_body(sign_bundle(state.keys.issuer, body))
    batch.bundle, batch.bundle_sequence = (raw, body), sequence
    batch.keep(LOCAL_BUNDLE, raw)

    def adopt() -> None:
        follow.bundle, follow.bundle_bytes = body, raw

    # Only what is durable may be shown under this sequence to a later drain.
    batch.after_commit.append(adopt)
    return raw, body


def restore_follow(state: BrokerState) -> None:
    """Load what this node knew of its mesh before it restarted; verified when it was stored."""
    follow = state.follow
    raw = state.ledger.local_get(LOCAL_BUNDLE)
    if raw is not None:
        try:
            body = decode_body(decode_body(raw, SignedBundle).body, BundleBody)
        except MeshError as error:
            log(EventName.ROSTER_REJECTED, detail=f"the stored bundle: {error.detail}")
        else:
            follow.bundle, follow.bundle_bytes = body, raw
            follow.term = max(follow.term, body.head.term)
            follow.primary = primary_of(body)
    carried = state.ledger.local_get(LOCAL_STILL_REVOKED)
    if carried is not None:
        follow.still_revoked = decode_body(carried, StillRevoked).serials
    stored = state.ledger.local_get(LOCAL_PRIMARY)
    if stored is not None:
        try:
            known = decode_body(stored, KnownPrimary)
        except MeshError as error:
            log(EventName.ROSTER_REJECTED, detail=f"the stored primary: {error.detail}")
            return
        if known.term >= follow.term:
            follow.term, follow.primary = known.term, known.endpoint


def primary_of(body: BundleBody) -> Endpoint | None:
    """Return the doors of the primary a bundle names."""
    for holder in body.key_holders:
        if holder.role == "primary" and holder.endpoint.host == body.head.primary:
            return holder.endpoint
    return None


def current_crl(state: BrokerState, batch: Batch, now: UnixSeconds) -> tuple[bytes, int]:
    """Return the newest CRL and its number, signing a new one when needed and possible."""
    raw = state.ledger.local_get(LOCAL_CRL)
    stored = decode_body(raw, StoredCRL) if raw else None
    if not state.serves or state.keys.issuer is None:
        return (stored.crl, stored.number) if stored else (b"", 0)
    sequence = state.ledger.bundle_sequence()
    if (
        stored is not None
        and (stored.term, stored.bundle_sequence) == (state.ledger.term, sequence)
        and now - stored.this_update < CRL_LIFETIME_S // 2
    ):
        return stored.crl, stored.number
    # Numbers grow over changes of the primary too (RFC 5280 5.2.3): the term leads.
    base = (state.ledger.term << CRL_TERM_SHIFT) + (sequence << CRL_REISSUE_BITS)
    number = max((stored.number if stored else 0) + 1, base)
    revoked = [(int(serial, 16), at) for serial, at in state.ledger.revoked_serials(now)]
    crl = sign_crl(
        state.keys.issuer, revoked, number=number, now=now, next_update=now + CRL_LIFETIME_S
    )
    if len(crl) > CRL_BYTES_MAX:
        log(EventName.CRL_PUBLISHED, level="error", number=number, bytes=len(crl), served=False)
        crl = b""
    batch.keep(LOCAL_CRL, encode_body(StoredCRL(number, sequence, now, crl, state.ledger.term)))
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
        revoked_serials=tuple(s for s, _ in state.ledger.revoked_serials(now))[
            -BUNDLE_REVOKED_MAX:
        ],
        revoked_members=tuple(state.ledger.revoked_members())[-BUNDLE_REVOKED_MAX:],
    )
