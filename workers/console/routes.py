"""The route table of the local socket: everything the command can ask, one line each."""

from broker.wire.approval import (
    ApprovalsView,
    ApprovalView,
    DecideApproval,
    GetApproval,
    ListApprovals,
)
from broker.wire.authority import AuthorityView, GetAuthority, LockAuthority, UnlockAuthority
from broker.wire.console_api import (
    CertificateView,
    EnrollmentBody,
    HookRunsView,
    HooksView,
    InviteBody,
    InviteCreated,
    ReasonBody,
    RenameBody,
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
    MembersView,
    MemberView,
    ReinstateMember,
    RenameMember,
    RevocationAnswer,
    RevokeMember,
)
from workers.console.audit import AUDIT_ROUTES
from workers.console.backups import BACKUP_ROUTES
from workers.console.local import RUNS_SHOWN, LocalDesk
from workers.console.members import MEMBERS_QUERY, list_members
from workers.console.notices import NOTICE_ROUTES
from workers.console.policy import POLICY_ROUTES
from workers.console.remote import REMOTE_ROUTES
from workers.console.rollover import ROLLOVER_ROUTES
from workers.console.slots import SLOT_ROUTES
from workers.console.succession import SUCCESSION_ROUTES
from workers.query import Number, Text
from workers.route import Route, Visit

UNLOCK_TIMEOUT_MS = 30_000
APPROVAL_STATES = ("pending", "approved", "denied", "expired", "issued")
LIMIT_MEMBERS = Number(name="limit", summary="At most so many members.", default=500)
LIMIT_DOOR = Number(name="limit", summary="At most so many.", default=200)
LIMIT_RUNS = Number(name="limit", summary="At most so many runs.", default=RUNS_SHOWN)


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


def _rename(visit: Visit) -> RenameMember:
    body = visit.content(RenameBody)
    return RenameMember(
        host=visit.parameters["host"],
        new_host=body.new_host,
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
        make=lambda visit: GetStatus(limit=visit.number("limit")),
        reply=StatusView,
        scope="read",
        query=(LIMIT_MEMBERS,),
    ),
    Route(
        method="GET",
        path="/v1/node",
        summary="Role, term and sequence of this node.",
        make=lambda _visit: GetNode(),
        reply=NodeView,
        scope="read",
    ),
    Route(
        method="GET",
        path="/v1/workers",
        summary="The processes of this node.",
        make=lambda _visit: ListWorkers(),
        reply=WorkersView,
        scope="read",
    ),
    Route(
        method="GET",
        path="/v1/peers",
        summary="Known and discovered nodes.",
        make=lambda _visit: ListPeers(),
        reply=PeersView,
        scope="read",
    ),
    Route(
        method="POST",
        path="/v1/certificate/renew",
        summary="Renew this node's own certificate now.",
        make=lambda visit: ForceRenewal(operator=visit.caller.operator),
        reply=Ack,
        scope="admin",
    ),
)

AUTHORITY_ROUTES = (
    Route(
        method="GET",
        path="/v1/ca",
        summary="The certificate authority of this node.",
        make=lambda _visit: GetAuthority(),
        reply=AuthorityView,
        scope="read",
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
        scope="admin",
    ),
)

ENROLLMENT_ROUTES = (
    Route(
        method="GET",
        path="/v1/invites",
        summary="Invites that still matter.",
        make=lambda visit: ListInvites(limit=visit.number("limit")),
        reply=InvitesView,
        scope="invite",
        query=(LIMIT_DOOR,),
    ),
    Route(
        method="DELETE",
        path="/v1/invites/{id}",
        summary="Make an unused invite worthless.",
        make=lambda visit: RevokeInvite(
            invite_id=visit.parameters["id"], operator=visit.caller.operator
        ),
        reply=Ack,
        scope="invite",
    ),
    Route(
        method="GET",
        path="/v1/enrollment",
        summary="Whether strangers with a code may ask.",
        make=lambda _visit: GetEnrollment(),
        reply=EnrollmentView,
        scope="read",
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
        scope="admin",
    ),
    Route(
        method="GET",
        path="/v1/approvals",
        summary="Joins that wait for a person, or did; ?state= filters.",
        make=lambda visit: ListApprovals(
            state=visit.query.get("state", ""), limit=visit.number("limit")
        ),
        reply=ApprovalsView,
        scope="approve",
        query=(
            Text(name="state", summary="Only these.", choices=APPROVAL_STATES),
            LIMIT_DOOR,
        ),
    ),
    Route(
        method="GET",
        path="/v1/approvals/{id}",
        summary="One of them.",
        make=lambda visit: GetApproval(approval_id=visit.parameters["id"]),
        reply=ApprovalView,
        scope="approve",
    ),
    Route(
        method="POST",
        path="/v1/approvals/{id}/approve",
        summary="Say yes.",
        body=ReasonBody,
        make=lambda visit: _decide(visit, approve=True),
        reply=ApprovalView,
        scope="approve",
    ),
    Route(
        method="POST",
        path="/v1/approvals/{id}/deny",
        summary="Say no.",
        body=ReasonBody,
        make=lambda visit: _decide(visit, approve=False),
        reply=ApprovalView,
        scope="approve",
    ),
)

ROSTER_ROUTES = (
    Route(
        method="GET",
        path="/v1/members",
        summary="The roster, in pages by ?after and ?limit.",
        make=list_members,
        reply=MembersView,
        scope="read",
        query=(LIMIT_MEMBERS, *MEMBERS_QUERY),
    ),
    Route(
        method="GET",
        path="/v1/members/{host}",
        summary="One member with its certificates.",
        make=lambda visit: GetMember(host=visit.parameters["host"]),
        reply=MemberView,
        scope="read",
    ),
    Route(
        method="POST",
        path="/v1/members/{host}/revoke",
        summary="Put a member out for ever; dry_run only tells what would be.",
        body=RevokeBody,
        make=_revoke,
        reply=RevocationAnswer,
        scope="admin",
    ),
    Route(
        method="POST",
        path="/v1/members/{host}/reinstate",
        summary="Free the name of a revoked member.",
        make=lambda visit: ReinstateMember(
            host=visit.parameters["host"], operator=visit.caller.operator
        ),
        reply=Ack,
        scope="admin",
    ),
    Route(
        method="POST",
        path="/v1/members/{host}/rename",
        summary="Give a member another name; dry_run only tells what would be.",
        body=RenameBody,
        make=_rename,
        reply=MemberView,
        scope="admin",
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
            scope="invite",
            statuses=(201,),
        ),
        Route(
            method="GET",
            path="/v1/certificate",
            summary="This node's own certificate and where its files are.",
            reply=CertificateView,
            serve=desk.certificate,
            scope="read",
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
            query=(
                Text(name="name", summary="Only of this hook."),
                LIMIT_RUNS,
            ),
        ),
    )


ASKING_ROUTES = (
    NODE_ROUTES
    + AUTHORITY_ROUTES
    + ENROLLMENT_ROUTES
    + ROSTER_ROUTES
    + SUCCESSION_ROUTES
    + AUDIT_ROUTES
    + POLICY_ROUTES
    + ROLLOVER_ROUTES
    + SLOT_ROUTES
    + BACKUP_ROUTES
    + REMOTE_ROUTES
    + NOTICE_ROUTES
)
