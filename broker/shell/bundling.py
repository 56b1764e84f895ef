"""Sign the bundle when its content changed; keep the last one while locked."""

from collections.abc import Iterable

from broker.errors import MeshError
from broker.ledger.rows import RolloverRow
from broker.pki.authority import fingerprint
from broker.pki.bundle import sign_bundle
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

LOCAL_BUNDLE = "bundle"
LOCAL_PRIMARY = "primary"
LOCAL_HANDOVER = "handover"
LOCAL_STILL_REVOKED = "still-revoked"
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
    if fingerprint(state.keys.issuer.root_der) != body.pin:
        # The rows have moved to another CA and the keys follow with the commit.
        return follow.bundle_bytes, known
    raw = encode_body(sign_bundle(state.keys.issuer, body))
    batch.bundle, batch.bundle_sequence = (raw, body), sequence
    batch.keep(LOCAL_BUNDLE, raw)
    keep_handover(state, batch, body)

    def adopt() -> None:
        follow.bundle, follow.bundle_bytes = body, raw

    # Only what is durable may be shown under this sequence to a later drain.
    batch.after_commit.append(adopt)
    return raw, body


def keep_handover(state: BrokerState, batch: Batch, body: BundleBody) -> None:
    """Keep the last bundle of a CA that another one replaces, as long as the old one is trusted.

    It is the one bundle that a node which slept meanwhile can believe, and it names the next root.
    """
    known, raw = state.follow.bundle, state.follow.bundle_bytes
    if known is not None and known.pin != body.pin and body.pin in map(fingerprint, known.roots):
        batch.keep(LOCAL_HANDOVER, raw)
    elif not body.roots and state.ledger.local_get(LOCAL_HANDOVER):
        batch.keep(LOCAL_HANDOVER, b"")


def handover_bundle(state: BrokerState) -> tuple[bytes, BundleBody] | None:
    """Return the last bundle of the retiring CA, None while no CA retires."""
    raw = state.ledger.local_get(LOCAL_HANDOVER)
    if not raw:
        return None
    return raw, decode_body(decode_body(raw, SignedBundle).body, BundleBody)


def keep_refusing(state: BrokerState, batch: Batch, serials: Iterable[Hex]) -> None:
    """Remember revoked serials whose certificate this ledger never had, for bundles and lists."""
    before, known = state.follow.still_revoked, {s for s, _ in state.ledger.revoked_serials(0)}
    unknown = (s for s in serials if s not in known and state.ledger.certificate(s) is None)
    kept = tuple(dict.fromkeys((*before, *unknown)))[-BUNDLE_REVOKED_MAX:]
    if kept != before:
        batch.keep(LOCAL_STILL_REVOKED, encode_body(StillRevoked(kept)))
        state.follow.still_revoked = kept
        batch.on_void.append(lambda: setattr(state.follow, "still_revoked", before))


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


def _compose(state: BrokerState, now: UnixSeconds) -> BundleBody:
    mesh, head, row = state.mesh(), state.ledger.head, state.rollover()
    other = () if row is None else other_ca(row, mesh.pin)
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
        revoked_serials=_revoked_serials(state, now),
        revoked_members=tuple(state.ledger.revoked_members())[-BUNDLE_REVOKED_MAX:],
        roots=other[:1],
        issuers=other[1:],
    )


def _revoked_serials(state: BrokerState, now: UnixSeconds) -> tuple[Hex, ...]:
    """Return the newest revoked serials, those that only other nodes' bundles told of included."""
    told = state.follow.still_revoked[-BUNDLE_REVOKED_MAX:]
    known = tuple(s for s, _ in state.ledger.revoked_serials(now) if s not in set(told))
    return (*told, *known)[-BUNDLE_REVOKED_MAX:]


def other_ca(row: RolloverRow, pin: Hex) -> tuple[bytes, ...]:
    """Return root and issuing certificate of the CA that is trusted besides that of `pin`."""
    if row.pin == pin:
        return (row.retiring_root, row.retiring_issuing)
    return (row.root, row.issuing)
