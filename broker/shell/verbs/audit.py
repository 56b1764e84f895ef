"""The journal as the audit trail."""

import msgspec

from broker.errors import BusyError, InternalError, MeshError
from broker.ledger.file import inspect_file
from broker.ledger.journal import ChainVerdict
from broker.ledger.rows import JournalRow
from broker.shell.batch import Batch
from broker.shell.caller import DEFERRED, Caller, Deferred
from broker.shell.state import BrokerState
from broker.units import UnixSeconds
from broker.wire.audit import AuditLine, AuditVerdict, AuditView, ListAudit, VerifyAudit
from broker.wire.codec import decode_fact, fault_of
from broker.wire.control import Fault

PAGE_MAX = 500


def list_audit(state: BrokerState, _batch: Batch, _caller: Caller, request: ListAudit) -> AuditView:
    """Return a page of rows."""
    rows = state.ledger.audit(request.after, max(1, min(request.limit, PAGE_MAX)))
    return AuditView(tuple(_line(row) for row in rows), state.ledger.head.sequence)


def verify_audit(
    state: BrokerState, _batch: Batch, caller: Caller, _request: VerifyAudit
) -> Deferred:
    """Recompute the chain from the first row, off the loop and over committed rows only."""
    path = state.paths.ledger

    def settle(_batch: Batch, outcome: object) -> None:
        state.resolve(caller.request_id, _verdict(outcome))

    if caller.request_id not in state.waiting and not state.offloop.submit(
        lambda: inspect_file(path), settle
    ):
        raise BusyError("another slow job is running", retry_after_ms=1000)
    state.wait(caller, caller.now_ms + caller.ttl_ms)
    return DEFERRED


def _verdict(outcome: object) -> AuditVerdict | Fault:
    if isinstance(outcome, ChainVerdict):
        return AuditVerdict(
            outcome.rows, outcome.head_hash.hex(), outcome.first_bad, outcome.detail
        )
    if isinstance(outcome, MeshError):
        return fault_of(outcome)
    return fault_of(InternalError(f"the check failed: {outcome!r}"))


def _line(row: JournalRow) -> AuditLine:
    fields = msgspec.to_builtins(decode_fact(row.payload), builtin_types=(bytes,))
    return AuditLine(
        sequence=row.sequence,
        term=row.term,
        at=UnixSeconds(row.at),
        actor=row.actor,
        event=row.event,
        fields={
            name: f"{len(value)} bytes" if isinstance(value, bytes) else value
            for name, value in fields.items()
            if name != "kind"
        },
        hash=row.hash.hex(),
    )
