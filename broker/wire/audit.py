"""Reading the journal as the audit trail."""

from typing import Annotated

from msgspec import Meta

from broker.wire.base import Body, Reply, Request
from broker.wire.ids import Count, Hex, Sequence, Term, Text, UnixSeconds


class AuditLine(Body, frozen=True):
    """One journal row; `fields` is the fact as a flat JSON-like mapping without secrets."""

    sequence: Sequence
    term: Term
    at: UnixSeconds
    actor: Text
    event: Text
    fields: dict[str, object]
    hash: Hex


class ListAudit(Request, frozen=True, tag="list-audit"):
    """Ask for rows with sequence greater than `after`, or the last `limit` when negative."""

    after: Annotated[int, Meta(ge=-1, lt=1 << 53)] = -1
    limit: Count = 100


class AuditView(Reply, frozen=True, tag="audit-view"):
    """Rows in sequence order."""

    rows: tuple[AuditLine, ...]
    head_sequence: Sequence


class VerifyAudit(Request, frozen=True, tag="verify-audit"):
    """Recompute the hash chain from the first row."""


class AuditVerdict(Reply, frozen=True, tag="audit-verdict"):
    """`first_bad` is None when the chain holds."""

    rows: Count
    head_hash: Hex
    first_bad: Sequence | None
    detail: Text
