"""Heads witnessed by members: what this node remembers, and what others remember of this journal.

A member keeps the newest signed head it has seen on its own disk, so that neither its restart nor
the loss of the primary makes it forget; it never goes back. The primary compares what it is told
with its journal, and writes a contradiction down when it still is one after a grace period.
"""

from functools import partial

from broker.core.observation import Version
from broker.core.witness import Doubt, newest
from broker.errors import MeshError
from broker.ledger.rows import MemberRow
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.gossip import verified_head
from broker.shell.state import BrokerState
from broker.units import Millis, UnixSeconds
from broker.wire.claims import Head, SignedHead
from broker.wire.codec import decode_body, encode_body
from broker.wire.facts import AuditBroken

LOCAL_WITNESS = "witness"
KEEP_EVERY_MS = 60_000
"""A newer head is kept on disk this often: the bundle on disk has one too, and changes more."""
GRACES = 2
"""Graces that a contradiction is given: rows of a former primary come home within one."""
BROKEN_EVERY_MS = 10_000
"""Members may lie; their lies come to one row in this time."""


def newest_head(state: BrokerState) -> Head | None:
    """Return the newest head of the mesh's journal that this node has seen signed."""
    bundle = state.follow.bundle
    return newest((_gossiped(state), bundle.head if bundle is not None else None))


def keep_head(state: BrokerState, batch: Batch, now_ms: Millis) -> None:
    """Remember the newest signed head over a restart."""
    signed, head = state.gossip.head, _gossiped(state)
    if signed is None or head is None or head.hash == state.gossip.kept_hash:
        return
    if not state.rows.passes(LOCAL_WITNESS, now_ms, KEEP_EVERY_MS):
        return
    batch.keep(LOCAL_WITNESS, encode_body(signed))
    batch.after_commit.append(lambda: setattr(state.gossip, "kept_hash", head.hash))
    batch.on_void.append(lambda: state.rows.forget(LOCAL_WITNESS))


def restore_head(state: BrokerState) -> None:
    """Take up the head this node kept: an older one is nothing new to it after a restart."""
    raw = state.ledger.local_get(LOCAL_WITNESS)
    if raw is None:
        return
    try:
        signed = decode_body(raw, SignedHead)
        head = verified_head(state, signed)
    except MeshError as error:
        log(EventName.CLAIM_REJECTED, sender=state.host, detail=f"the kept head: {error.detail}")
        return
    state.gossip.head, state.gossip.kept_hash = signed, head.hash
    state.gossip.head_version = Version(head.term, head.sequence)


def note_witness(
    state: BrokerState, member: MemberRow, head: Head | None, when: tuple[Millis, UnixSeconds]
) -> None:
    """Compare what a member remembers with this journal; only a primary's journal is asked."""
    if head is None or not head.hash or state.role != "primary":
        return
    if state.restored is not None and state.restored.explains(head):
        return  # of the rows that the backup does not have; the journal says since when
    now_ms, now = when
    if state.ledger.holds_row(head.sequence, head.hash):
        state.witnesses.agree(member.member_id, member.host, head, now)
    elif state.witnesses.doubt(member.host, head, now_ms):
        log(
            EventName.AUDIT_BROKEN,
            level="warning",
            host=member.host,
            term=head.term,
            sequence=head.sequence,
            detail="it remembers a row that is not here; looked at again in a while",
        )


def settle_doubts(state: BrokerState, batch: Batch, now_ms: Millis) -> None:
    """Write down the contradictions that did not resolve; called from the loop's tick."""
    if not state.serves:
        return
    book, grace_ms = state.witnesses, GRACES * state.settings.failover.grace.ms
    for doubt in book.due(now_ms, grace_ms):
        head = doubt.head
        if state.ledger.holds_row(head.sequence, head.hash):
            book.settle(doubt, real=False)
            continue
        if not state.rows.passes("broken", now_ms, BROKEN_EVERY_MS):
            return
        here = state.ledger.hash_at(head.sequence)
        batch.append(AuditBroken(doubt.host, head.sequence, here, head.hash), "broker")
        book.settle(doubt, real=True)
        batch.on_void.append(partial(_reopen, state, doubt))
        log(EventName.AUDIT_BROKEN, host=doubt.host, sequence=head.sequence, there=head.hash)


def _reopen(state: BrokerState, doubt: Doubt) -> None:
    state.witnesses.reopen(doubt)
    state.rows.forget("broken")


def _gossiped(state: BrokerState) -> Head | None:
    signed = state.gossip.head
    if signed is None:
        return None
    try:
        return verified_head(state, signed)
    except MeshError:
        return None  # of an issuing certificate that was replaced since
