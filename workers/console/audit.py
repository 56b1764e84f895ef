"""Routes of the audit trail, of who enforces a revocation, and of the rules of a well-kept mesh."""

from broker.wire.audit import (
    AuditVerdict,
    AuditView,
    ComplianceView,
    GetCompliance,
    ListAudit,
    VerifyAudit,
)
from broker.wire.roster import GetReach, RevocationAnswer
from workers.query import Number
from workers.route import Route, Visit

VERIFY_TIMEOUT_MS = 60_000
"""A chain of a million rows takes seconds, on a small board more of them."""


def _list(visit: Visit) -> ListAudit:
    return ListAudit(
        after=visit.number("after", lowest=-1),
        limit=visit.number("limit"),
        full=visit.number("full") > 0,
    )


AUDIT_ROUTES = (
    Route(
        method="GET",
        path="/v1/audit",
        summary="Rows of the journal after ?after, or the last ?limit.",
        make=_list,
        reply=AuditView,
        scope="audit",
        query=(
            Number(
                name="after", summary="Rows behind this one; -1: the last.", default=-1, lowest=-1
            ),
            Number(name="limit", summary="At most so many rows.", default=100),
            Number(
                name="full",
                summary="1: with all that the hash covers, so that the chain can be recomputed.",
                default=0,
                highest=1,
            ),
        ),
    ),
    Route(
        method="GET",
        path="/v1/audit/verify",
        summary="Recompute the hash chain from the first row; compare with what members remember.",
        make=lambda _visit: VerifyAudit(),
        reply=AuditVerdict,
        timeout_ms=VERIFY_TIMEOUT_MS,
        scope="audit",
    ),
    Route(
        method="GET",
        path="/v1/compliance",
        summary="The rules of a well-kept mesh, each with its state.",
        make=lambda _visit: GetCompliance(),
        reply=ComplianceView,
        timeout_ms=VERIFY_TIMEOUT_MS,
        scope="audit",
    ),
    Route(
        method="GET",
        path="/v1/members/{host}/reach",
        summary="Who enforces the revocation of a member by now, and who does not yet.",
        make=lambda visit: GetReach(host=visit.parameters["host"]),
        reply=RevocationAnswer,
        scope="read",
    ),
)
