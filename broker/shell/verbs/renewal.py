"""Renewal: a CSR with a fresh key in, a certificate out, and what became of it."""

from broker.core.own import OwnCertificate
from broker.errors import (
    CSRRejectedError,
    ForbiddenError,
    MeshError,
    NoMeshError,
    NotAMemberError,
    RenewalInProgressError,
    RenewalNotDueError,
    StaleTermError,
    ThrottledError,
)
from broker.ledger.rows import MemberRow
from broker.pki.request import parse_request
from broker.shell.batch import Batch
from broker.shell.caller import DEFERRED, Caller, Deferred
from broker.shell.issue import issue_first, issue_renewal, issued_before, subject_of
from broker.shell.peers import authorize_key_holder, authorize_member
from broker.shell.served import note_served
from broker.shell.state import BrokerState
from broker.shell.tasks import Task
from broker.shell.trust import renew_for_trust
from broker.wire.control import Ack
from broker.wire.enrollment import Issued
from broker.wire.events import CertificateMoved, WorkAvailable
from broker.wire.ids import Service
from broker.wire.renewal import (
    ForceRenewal,
    NoteOwnCertificate,
    RenewalAnswer,
    RenewAsPeer,
    RenewWithLease,
    ReportInstalled,
    StartInstall,
    StartRekey,
)
from broker.wire.work import Install, Rekey, RenewMember, RenewOwn

PULL_EVERY_MS = 10_000
"""A member may ask for one new certificate in this time, whatever it says."""
FEW_CERTIFICATES = 16
"""A healthy member has two valid ones at a time; with more it has to slow down."""
CROWDED_PULL_EVERY_MS = 600_000
"""Slow enough for the CRL, quick enough for a member whose hook was broken for days."""
LIVE_CERTIFICATES_MAX = 1_000
"""A runaway member stops here: all of them count when it is revoked."""


def renew_with_lease(
    state: BrokerState, batch: Batch, caller: Caller, request: RenewWithLease
) -> RenewalAnswer:
    """Sign for the host whose lease the caller holds; a stale number is refused here."""
    grant = state.leases.live(request.lease_id, caller.identity, caller.now_ms)
    state.issuer()
    match grant.item:
        case RenewMember(member_id=member_id):
            member = state.ledger.member(member_id)
        case RenewOwn(via_broker=True):
            member = state.ledger.member_by_host(state.host)
        case _:
            raise ForbiddenError("this lease is not for a renewal at this broker")
    if member is None or member.state != "active":
        raise NotAMemberError("the member was revoked meanwhile")
    return RenewalAnswer(_renew(state, batch, caller, (member, request.csr)))


def renew_as_peer(
    state: BrokerState, batch: Batch, caller: Caller, request: RenewAsPeer
) -> RenewalAnswer:
    """Sign for the member that asks for itself."""
    state.issuer()
    member = authorize_member(state, batch, caller, request.peer)
    if state.leases.is_held(("member", member.member_id)):
        raise RenewalInProgressError(
            f"the CA is renewing {member.host} right now", retry_after_ms=5000
        )
    csr = parse_request(request.csr)
    if state.ledger.certificate_by_key(member.member_id, csr.key_hash) is None:
        _check_pull(state, caller, member)
        batch.on_void.append(lambda: state.pulls.forget(member.member_id))
        try:
            return RenewalAnswer(_renew(state, batch, caller, (member, request.csr)))
        except MeshError:
            state.pulls.forget(member.member_id)
            raise
    return RenewalAnswer(_renew(state, batch, caller, (member, request.csr)))


def _check_pull(state: BrokerState, caller: Caller, member: MemberRow) -> None:
    """Bound how many certificates a member can collect: they all count when it is revoked."""
    live = _live_certificates(state, caller, member, FEW_CERTIFICATES)
    crowded = live > FEW_CERTIFICATES
    if crowded:
        live = _live_certificates(state, caller, member, LIVE_CERTIFICATES_MAX)
    if live > LIVE_CERTIFICATES_MAX:
        raise RenewalNotDueError(
            f"{member.host} holds {live} valid certificates already",
            hint="wait until older ones expire",
            retry_after_ms=3_600_000,
        )
    every_ms = CROWDED_PULL_EVERY_MS if crowded else PULL_EVERY_MS
    if not state.pulls.passes(member.member_id, caller.now_ms, every_ms):
        raise ThrottledError(f"{member.host} was renewed a moment ago", retry_after_ms=every_ms)


def _live_certificates(state: BrokerState, caller: Caller, member: MemberRow, limit: int) -> int:
    rows = state.ledger.certificates_of(member.member_id, limit + 1)
    return sum(1 for row in rows if row.not_after > caller.now)


def report_installed(
    state: BrokerState, batch: Batch, caller: Caller, request: ReportInstalled
) -> Ack:
    """Note what a member says it serves."""
    state.mesh()
    if request.peer is None:
        raise ForbiddenError("a report over the mesh port carries its peer")
    member = authorize_member(state, batch, caller, request.peer)
    report = (request.serial, request.state, request.detail)
    note_served(state, batch, member.member_id, report, source="report")
    return Ack()


def note_own_certificate(
    state: BrokerState, batch: Batch, caller: Caller, request: NoteOwnCertificate
) -> Ack:
    """Note what is live on this node's disk; listeners reload when the serial is new."""
    before = state.own
    state.own = OwnCertificate(
        known=True,
        present=request.present,
        serial=request.serial,
        not_before=request.not_before,
        not_after=request.not_after,
        state=request.state,
        detail=request.detail,
        roots=request.roots,
    )
    if renew_for_trust(state, caller.now):
        batch.publish(WorkAvailable(Service.RENEWAL))
    if request.present and before.serial != request.serial:
        batch.publish(CertificateMoved(request.serial))
    if request.present and state.serves and state.membership is not None:
        found = state.ledger.certificate(request.serial)
        if found is not None and found[0].member_id == state.membership.member_id:
            report = (request.serial, request.state, request.detail)
            note_served(state, batch, state.membership.member_id, report, source="report")
    return Ack()


def force_renewal(state: BrokerState, batch: Batch, _caller: Caller, _request: ForceRenewal) -> Ack:
    """Make this node's own certificate due now."""
    if state.membership is None:
        raise NoMeshError("this node belongs to no mesh", hint="certmesh join INVITE")
    if state.role == "primary":
        state.issuer()
    state.force_renewal, state.own_failure = True, ""
    batch.publish(WorkAvailable(Service.RENEWAL))
    return Ack()


def start_rekey(state: BrokerState, batch: Batch, caller: Caller, request: StartRekey) -> Deferred:
    """Have the local renewal worker make a key and a CSR; answered when it did."""
    authorize_key_holder(state, batch, caller, request.peer)
    _require_current(state, request.term)
    return _defer(state, batch, caller, Rekey(state.host))


def start_install(
    state: BrokerState, batch: Batch, caller: Caller, request: StartInstall
) -> Deferred:
    """Have the local renewal worker install a certificate; answered when it is served."""
    authorize_key_holder(state, batch, caller, request.peer)
    _require_current(state, request.term)
    return _defer(state, batch, caller, Install(state.host, request.leaf, request.issuing))


def _require_current(state: BrokerState, term: int) -> None:
    """Refuse a primary that was replaced: what it signs nobody may install.

    Raises:
        StaleTermError: This node knows a higher term.
    """
    highest = state.election.highest_term if state.election else 0
    if term < max(highest, state.term):
        raise StaleTermError(
            f"term {term} is over, {state.host} knows term {max(highest, state.term)}",
            hint="this primary was replaced; it will step down when it hears of it",
        )


def _defer(state: BrokerState, batch: Batch, caller: Caller, item: Rekey | Install) -> Deferred:
    state.tasks.add(Task(caller.request_id, item))
    state.wait(caller, caller.now_ms + caller.ttl_ms)
    batch.publish(WorkAvailable(Service.RENEWAL))
    return DEFERRED


def _renew(
    state: BrokerState, batch: Batch, caller: Caller, what: tuple[MemberRow, bytes]
) -> Issued:
    member, der = what
    csr = parse_request(der)
    known = state.ledger.certificate_by_key(member.member_id, csr.key_hash)
    if known is not None:
        # The answer to an earlier request with this key was lost: the same certificate again.
        if known.serial == member.current_serial:
            return issued_before(state, known)
        raise CSRRejectedError(
            "a renewal needs a fresh key; this one was certified before",
            hint="remove the pending key and try again",
        )
    if not member.current_serial:
        return issue_first(state, batch, caller, csr, subject_of(member))
    return issue_renewal(state, batch, caller, csr, member)
