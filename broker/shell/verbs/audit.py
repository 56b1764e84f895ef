"""The journal as the audit trail."""

import msgspec

from broker.ledger.rows import JournalRow
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.state import BrokerState
from broker.units import UnixSeconds
from broker.wire.audit import AuditLine, AuditVerdict, AuditView, ListAudit, VerifyAudit
from broker.wire.codec import decode_fact

PAGE_MAX = 500


def list_audit(state: BrokerState, _batch: Batch, _caller: Caller, request: ListAudit) -> AuditView:
    """Return a page of rows."""
    rows = state.ledger.audit(request.after, max(1, min(request.limit, PAGE_MAX)))
    return AuditView(tuple(_line(row) for row in rows), state.ledger.head.sequence)


def verify_audit(
    state: BrokerState, _batch: Batch, _caller: Caller, _request: VerifyAudit
) -> AuditVerdict:
    """Recompute the chain from the first row."""
    rows, head_hash, first_bad, detail = state.ledger.verify_chain()
    return AuditVerdict(rows, head_hash, first_bad, detail)


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
