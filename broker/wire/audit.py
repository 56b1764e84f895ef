"""Reading the journal as the audit trail."""

from typing import Annotated, Literal

from msgspec import Meta

from broker.wire.base import Body, Reply, Request
from broker.wire.ids import Count, Hex, Host, Sequence, Term, Text, UnixSeconds


class AuditLine(Body, frozen=True):
    """One journal row; `fields` is the fact as a flat JSON-like mapping without secrets.

    The last four are sent on request: with them anybody can recompute the hash, see
    `broker.wire.chain`. `payload` is the fact as it was hashed.
    """

    sequence: Sequence
    term: Term
    at: UnixSeconds
    actor: Text
    event: Text
    fields: dict[str, object]
    hash: Hex
    node: Text = ""
    incarnation: Hex = ""
    previous_hash: Hex = ""
    payload: bytes = b""


class ListAudit(Request, frozen=True, tag="list-audit"):
    """Ask for rows with sequence greater than `after`, or the last `limit` when negative.

    `full` asks for everything that the hash covers; the page then ends where it would be too large.
    """

    after: Annotated[int, Meta(ge=-1, lt=1 << 53)] = -1
    limit: Count = 100
    full: bool = False


class AuditView(Reply, frozen=True, tag="audit-view"):
    """Rows in sequence order."""

    rows: tuple[AuditLine, ...]
    head_sequence: Sequence


class VerifyAudit(Request, frozen=True, tag="verify-audit"):
    """Recompute the hash chain from the first row."""


class AuditVerdict(Reply, frozen=True, tag="audit-verdict"):
    """`first_bad` is None when the chain holds.

    `witnesses` members remember a signed head that agrees with this journal; `contradicted_by`
    remember one that does not.
    """

    rows: Count
    head_hash: Hex
    first_bad: Sequence | None
    detail: Text
    witnesses: Count = 0
    contradicted_by: tuple[Host, ...] = ()


class GetCompliance(Request, frozen=True, tag="get-compliance"):
    """Ask for the `ComplianceView`."""


class ComplianceLine(Body, frozen=True):
    """One rule and whether this mesh keeps it; `hint` says what to do."""

    rule: Text
    state: Literal["ok", "warn", "fail"]
    detail: Text
    hint: Text = ""


class ComplianceView(Reply, frozen=True, tag="compliance-view"):
    """The rules of a well-kept mesh, each with its state."""

    mesh_name: Text
    profile: Text
    lines: tuple[ComplianceLine, ...]
