"""The journal as the audit trail."""

import msgspec

from broker.errors import BusyError, InternalError, MeshError
from broker.ledger.rows import JournalRow
from broker.ledger.trail import Trail, inspect_trail
from broker.shell.batch import Batch
from broker.shell.caller import DEFERRED, Caller, Deferred
from broker.shell.state import BrokerState
from broker.units import UnixSeconds
from broker.wire.audit import AuditLine, AuditVerdict, AuditView, ListAudit, VerifyAudit
from broker.wire.chain import fields_of
from broker.wire.codec import fault_of
from broker.wire.control import Fault

PAGE_MAX = 500
PAGE_BYTES_MAX = 524_288
"""Rows of one answer: with everything the hash covers a few of them can be large."""
HOSTS_MAX = 200
TRAIL = "trail"
"""One reading of the whole journal at a time; no unlock waits behind it."""

_encoder = msgspec.msgpack.Encoder()


def list_audit(state: BrokerState, _batch: Batch, _caller: Caller, request: ListAudit) -> AuditView:
    """Return a page of rows: as many as were asked for and fit."""
    rows = state.ledger.audit(request.after, max(1, min(request.limit, PAGE_MAX)))
    newest = request.after < 0
    lines: list[AuditLine] = []
    size = 0
    for row in reversed(rows) if newest else rows:
        line = _line(row, full=request.full)
        size += len(_encoder.encode(line))
        if lines and size > PAGE_BYTES_MAX:
            break
        lines.append(line)
    if newest:
        lines.reverse()
    return AuditView(tuple(lines), state.ledger.head.sequence)


def verify_audit(
    state: BrokerState, _batch: Batch, caller: Caller, _request: VerifyAudit
) -> Deferred:
    """Recompute the chain from the first row, off the loop and over committed rows only.

    Raises:
        BusyError: It is being recomputed for somebody else.
    """
    path = state.paths.ledger

    def settle(_batch: Batch, outcome: object) -> None:
        state.resolve(caller.request_id, _verdict(state, caller, outcome))

    if caller.request_id not in state.waiting and not state.offloop.alone(
        TRAIL, lambda: inspect_trail(path), settle
    ):
        raise BusyError("the chain is being recomputed already", retry_after_ms=1000)
    state.wait(caller, caller.now_ms + caller.ttl_ms)
    return DEFERRED


def contradicting(state: BrokerState, trail: Trail) -> tuple[str, ...]:
    """Return the hosts whose memory differed from this journal, now or when it was written down."""
    now = {doubt.host for doubt in state.witnesses.contradicted_by()}
    return tuple(sorted(now | set(trail.broken)))[:HOSTS_MAX]


def _verdict(state: BrokerState, caller: Caller, outcome: object) -> AuditVerdict | Fault:
    if isinstance(outcome, Trail):
        chain = outcome.chain
        return AuditVerdict(
            rows=chain.rows,
            head_hash=chain.head_hash.hex(),
            first_bad=chain.first_bad,
            detail=chain.detail,
            witnesses=state.witnesses.witnesses(caller.now),
            contradicted_by=contradicting(state, outcome),
        )
    if isinstance(outcome, MeshError):
        return fault_of(outcome)
    return fault_of(InternalError(f"the check failed: {outcome!r}"))


def _line(row: JournalRow, *, full: bool) -> AuditLine:
    line = AuditLine(
        sequence=row.sequence,
        term=row.term,
        at=UnixSeconds(row.at),
        actor=row.actor,
        event=row.event,
        fields=fields_of(row.payload),
        hash=row.hash.hex(),
    )
    if not full:
        return line
    return msgspec.structs.replace(
        line,
        node=row.node,
        incarnation=row.incarnation,
        previous_hash=row.previous_hash.hex(),
        payload=row.payload,
    )
