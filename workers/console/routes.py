"""The route table of the local socket: everything the command can ask, one line each."""

from broker.wire.approval import (
    ApprovalsView,
    ApprovalView,
    DecideApproval,
    GetApproval,
    ListApprovals,
)
from broker.wire.audit import AuditVerdict, AuditView, ListAudit, VerifyAudit
from broker.wire.authority import AuthorityView, GetAuthority, LockAuthority, UnlockAuthority
from broker.wire.console_api import (
    CertificateView,
    EnrollmentBody,
    HookRunsView,
    HooksView,
    InviteBody,
    InviteCreated,
    ReasonBody,
    RevokeBody,
    UnlockBody,
)
from broker.wire.control import Ack
from broker.wire.enrollment import (
    EnrollmentView,
    GetEnrollment,
    InvitesView,
    ListInvites,
    RevokeInvite,
    SetEnrollment,
)
from broker.wire.failover import ListPeers, PeersView
from broker.wire.node import GetNode, GetStatus, ListWorkers, NodeView, StatusView, WorkersView
from broker.wire.renewal import ForceRenewal
from broker.wire.roster import (
    GetMember,
    ListMembers,
    MembersView,
    MemberView,
    RevocationAnswer,
    RevokeMember,
)
from workers.console.local import LocalDesk
from workers.console.succession import SUCCESSION_ROUTES
from workers.route import Route, Visit

UNLOCK_TIMEOUT_MS = 30_000
VERIFY_TIMEOUT_MS = 60_000
PAGE_MEMBERS = 500
PAGE_AUDIT = 100


def _decide(visit: Visit, *, approve: bool) -> DecideApproval:
    return DecideApproval(
        approval_id=visit.parameters["id"],
        approve=approve,
        operator=visit.caller.operator,
        reason=visit.content(ReasonBody).reason,
    )


def _revoke(visit: Visit) -> RevokeMember:
    body = visit.content(RevokeBody)
    return RevokeMember(
        host=visit.parameters["host"],
        reason=body.reason,
        operator=visit.caller.operator,
        dry_run=body.dry_run,
    )


def _unlock(visit: Visit) -> UnlockAuthority:
    passphrase = visit.content(UnlockBody).passphrase.encode()
    return UnlockAuthority(passphrase=passphrase, operator=visit.caller.operator)


NODE_ROUTES = (
    Route(
        method="GET",
        path="/v1/status",
        summary="Mesh and node in one screen.",
        make=lambda visit: GetStatus(limit=visit.number("limit", PAGE_MEMBERS)),
        reply=StatusView,
    ),
    Route(
        method="GET",
        path="/v1/node",
        summary="Role, term and sequence of this node.",
        make=lambda _visit: GetNode(),
        reply=NodeView,
    ),
    Route(
        method="GET",
        path="/v1/workers",
        summary="The processes of this node.",
        make=lambda _visit: ListWorkers(),
        reply=WorkersView,
    ),
    Route(
        method="GET",
        path="/v1/peers",
        summary="Known and discovered nodes.",
        make=lambda _visit: ListPeers(),
        reply=PeersView,
    ),
    Route(
        method="POST",
        path="/v1/certificate/renew",
        summary="Renew this node's own certificate now.",
        make=lambda visit: ForceRenewal(operator=visit.caller.operator),
        reply=Ack,
    ),
)

AUTHORITY_ROUTES = (
    Route(
        method="GET",
        path="/v1/ca",
        summary="The certificate authority of this node.",
        make=lambda _visit: GetAuthority(),
        reply=AuthorityView,
    ),
    Route(
        method="POST",
        path="/v1/ca/unlock",
        summary="Open the issuing key with a passphrase.",
        body=UnlockBody,
        make=_unlock,
        reply=AuthorityView,
        timeout_ms=UNLOCK_TIMEOUT_MS,
    ),
    Route(
        method="POST",
        path="/v1/ca/lock",
        summary="Forget the issuing key.",
        make=lambda visit: LockAuthority(operator=visit.caller.operator),
        reply=AuthorityView,
    ),
)

ENROLLMENT_ROUTES = (
    Route(
        method="GET",
        path="/v1/invites",
        summary="Invites that still matter.",
        make=lambda visit: ListInvites(limit=visit.number("limit", 200)),
        reply=InvitesView,
    ),
    Route(
        method="DELETE",
        path="/v1/invites/{id}",
        summary="Make an unused invite worthless.",
        make=lambda visit: RevokeInvite(
            invite_id=visit.parameters["id"], operator=visit.caller.operator
        ),
        reply=Ack,
    ),
    Route(
        method="GET",
        path="/v1/enrollment",
        summary="Whether strangers with a code may ask.",
        make=lambda _visit: GetEnrollment(),
        reply=EnrollmentView,
    ),
    Route(
        method="PUT",
        path="/v1/enrollment",
        summary="Open or close the door for codes.",
        body=EnrollmentBody,
        make=lambda visit: SetEnrollment(
            open=visit.content(EnrollmentBody).open, operator=visit.caller.operator
        ),
        reply=EnrollmentView,
    ),
    Route(
        method="GET",
        path="/v1/approvals",
        summary="Joins that wait for a person, or did; ?state= filters.",
        make=lambda visit: ListApprovals(
            state=visit.query.get("state", ""), limit=visit.number("limit", 200)
        ),
        reply=ApprovalsView,
    ),
    Route(
        method="GET",
        path="/v1/approvals/{id}",
        summary="One of them.",
        make=lambda visit: GetApproval(approval_id=visit.parameters["id"]),
        reply=ApprovalView,
    ),
    Route(
        method="POST",
        path="/v1/approvals/{id}/approve",
        summary="Say yes.",
        body=ReasonBody,
        make=lambda visit: _decide(visit, approve=True),
        reply=ApprovalView,
    ),
    Route(
        method="POST",
        path="/v1/approvals/{id}/deny",
        summary="Say no.",
        body=ReasonBody,
        make=lambda visit: _decide(visit, approve=False),
        reply=ApprovalView,
    ),
)

ROSTER_ROUTES = (
    Route(
        method="GET",
        path="/v1/members",
        summary="The roster, in pages by ?after and ?limit.",
        make=lambda visit: ListMembers(
            after=visit.query.get("after", ""), limit=visit.number("limit", PAGE_MEMBERS)
        ),
        reply=MembersView,
    ),
    Route(
        method="GET",
        path="/v1/members/{host}",
        summary="One member with its certificates.",
        make=lambda visit: GetMember(host=visit.parameters["host"]),
        reply=MemberView,
    ),
    Route(
        method="POST",
        path="/v1/members/{host}/revoke",
        summary="Put a member out for ever; dry_run only tells what would be.",
        body=RevokeBody,
        make=_revoke,
        reply=RevocationAnswer,
    ),
    Route(
        method="GET",
        path="/v1/audit",
        summary="Rows of the journal after ?after, or the last ?limit.",
        make=lambda visit: ListAudit(
            after=visit.number("after", -1, lowest=-1), limit=visit.number("limit", PAGE_AUDIT)
        ),
        reply=AuditView,
    ),
    Route(
        method="GET",
        path="/v1/audit/verify",
        summary="Recompute the hash chain from the first row.",
        make=lambda _visit: VerifyAudit(),
        reply=AuditVerdict,
        timeout_ms=VERIFY_TIMEOUT_MS,
    ),
)


def local_routes(desk: LocalDesk) -> tuple[Route, ...]:
    """Return the routes that are answered with this machine's settings and files."""
    return (
        Route(
            method="POST",
            path="/v1/invites",
            summary="Draw a single-use invite; the only time its secret is shown.",
            body=InviteBody,
            reply=InviteCreated,
            serve=desk.create_invite,
        ),
        Route(
            method="GET",
            path="/v1/certificate",
            summary="This node's own certificate and where its files are.",
            reply=CertificateView,
            serve=desk.certificate,
        ),
        Route(
            method="GET",
            path="/v1/hooks",
            summary="What runs after a renewal.",
            reply=HooksView,
            serve=desk.hooks,
        ),
        Route(
            method="GET",
            path="/v1/hooks/runs",
            summary="What ran, newest first; ?name= filters.",
            reply=HookRunsView,
            serve=desk.hook_runs,
        ),
    )


ASKING_ROUTES = (
    NODE_ROUTES + AUTHORITY_ROUTES + ENROLLMENT_ROUTES + ROSTER_ROUTES + SUCCESSION_ROUTES
)
