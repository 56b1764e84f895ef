"""Renewal: a CSR with a fresh key in, a certificate out, and what became of it."""

from broker.core.own import OwnCertificate
from broker.core.pace import since_issue_ms
from broker.errors import (
    CSRRejectedError,
    ForbiddenError,
    LeaseLostError,
    MalformedMessageError,
    NoMeshError,
    NotAMemberError,
    RenewalInProgressError,
    RenewalNotDueError,
    ThrottledError,
)
from broker.ledger.rows import MemberRow
from broker.pki.request import parse_request
from broker.shell.batch import Batch
from broker.shell.caller import DEFERRED, Caller, Deferred
from broker.shell.happenings import note_happenings
from broker.shell.issue import enter_renewal, issue_first, issued_before, sign, subject_of
from broker.shell.keyproof import require_proof
from broker.shell.mandate import authorize_renewer
from broker.shell.peers import authorize_member
from broker.shell.redelivery import follow_delivery
from broker.shell.served import note_served
from broker.shell.state import BrokerState
from broker.shell.tasks import Task
from broker.shell.trust import renew_for_trust
from broker.shell.turns import begin_pull, check_own_turn, issued_in_turn, keep_turn
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

FEW_CERTIFICATES = 16
"""A healthy member has two valid ones at a time; with more it has to slow down."""
CROWDED_PULL_EVERY_S = 600
"""Slow enough for the CRL, quick enough for a member whose hook was broken for days."""
LIVE_CERTIFICATES_MAX = 1_000
"""A runaway member stops here: all of them count when it is revoked."""


def renew_with_lease(
    state: BrokerState, batch: Batch, caller: Caller, request: RenewWithLease
) -> RenewalAnswer:
    """Sign for the host whose lease the caller holds; a stale number is refused here."""
    grant = state.leases.live(request.lease_id, caller.identity, caller.now_ms)
    state.issuer()
    serial = ""
    match grant.item:
        case RenewMember(member_id=member_id, serial=serial):
            member = state.ledger.member(member_id)
        case RenewOwn(via_broker=True):
            member = state.ledger.member_by_host(state.host)
        case _:
            raise ForbiddenError("this lease is not for a renewal at this broker")
    if member is None or member.state != "active":
        raise NotAMemberError("the member was revoked meanwhile")
    require_proof(state, caller, member, request)
    if serial and member.current_serial != serial:
        _check_retry(state, member, request.csr)
    issued = _renew(state, batch, caller, (member, request.csr))
    issued_in_turn(state, batch, member, pulled=False)
    return RenewalAnswer(issued)


def _check_retry(state: BrokerState, member: MemberRow, der: bytes) -> None:
    """Refuse a second certificate under one lease; the answer to the first may be asked again.

    Raises:
        LeaseLostError: The work of this lease is done, or somebody else did it.
    """
    key_hash = parse_request(der).key_hash
    if state.ledger.certificate_by_key(member.member_id, key_hash) is None:
        raise LeaseLostError(
            f"{member.host} has another certificate since this lease was given",
            hint="drop the work and ask for a new lease",
        )


def renew_as_peer(
    state: BrokerState, batch: Batch, caller: Caller, request: RenewAsPeer
) -> RenewalAnswer:
    """Sign for the member that asks for itself."""
    state.issuer()
    member = authorize_member(state, batch, caller, request.peer)
    return RenewalAnswer(renew_pulled(state, batch, caller, (member, request.csr)))


def renew_pulled(
    state: BrokerState,
    batch: Batch,
    caller: Caller,
    what: tuple[MemberRow, bytes],
    *,
    by_old_key: bool = False,
) -> Issued:
    """Sign for a member that proved who it is and asks for itself, within its pace.

    Args:
        state: The broker.
        batch: The drain.
        caller: The gateway.
        what: The member and its CSR.
        by_old_key: The proof was the key of an expired certificate.
    """
    member, der = what
    csr = parse_request(der)
    if state.leases.is_held(("member", member.member_id)):
        keep_turn(state, member, caller.now_ms)
        raise RenewalInProgressError(
            f"the CA is renewing {member.host} right now", retry_after_ms=5000
        )
    if state.ledger.certificate_by_key(member.member_id, csr.key_hash) is not None:
        return _renew(state, batch, caller, what)
    _check_crowd(state, caller, member)
    begin_pull(state, batch, caller, member)
    issued = _renew(state, batch, caller, what, by_old_key=by_old_key)
    issued_in_turn(state, batch, member, pulled=True)
    return issued


def _check_crowd(state: BrokerState, caller: Caller, member: MemberRow) -> None:
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
    if not crowded:
        return
    (newest,) = state.ledger.certificates_of(member.member_id, 1)
    wait_ms = since_issue_ms(newest.not_before, caller.now, CROWDED_PULL_EVERY_S * 1000)
    if wait_ms > 0:
        raise ThrottledError(
            f"{member.host} holds more than {FEW_CERTIFICATES} valid certificates already",
            hint="look at its hooks and probes: certmesh hook log",
            retry_after_ms=wait_ms,
        )


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
    """Note what is live on this node's disk; listeners reload when the serial is new.

    Raises:
        MalformedMessageError: A certificate without a serial: nobody could look for it in a list.
    """
    if request.present and not request.serial:
        raise MalformedMessageError("the certificate that was reported has no serial")
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
        serving_until=before.serving_after(request.state, request.not_after)
        if request.present
        else None,
    )
    follow_delivery(state, caller, before)
    note_happenings(state, batch)
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


def force_renewal(state: BrokerState, batch: Batch, caller: Caller, _request: ForceRenewal) -> Ack:
    """Make this node's own certificate due now.

    Raises:
        ThrottledError: The last attempt was a moment ago; nothing is queued for later.
    """
    if state.membership is None:
        raise NoMeshError("this node belongs to no mesh", hint="certmesh join INVITE")
    if state.role == "primary":
        state.issuer()
    check_own_turn(state, caller)
    state.wish_renewal()
    state.own_failure = ""
    batch.publish(WorkAvailable(Service.RENEWAL))
    return Ack()


def start_rekey(state: BrokerState, batch: Batch, caller: Caller, request: StartRekey) -> Deferred:
    """Have the local renewal worker make a key and a CSR; answered when it did."""
    authorize_renewer(state, batch, caller, request)
    return _defer(state, batch, caller, Rekey(state.host))


def start_install(
    state: BrokerState, batch: Batch, caller: Caller, request: StartInstall
) -> Deferred:
    """Have the local renewal worker install a certificate; answered when it is served."""
    authorize_renewer(state, batch, caller, request)
    return _defer(state, batch, caller, Install(state.host, request.leaf, request.issuing))


def _defer(state: BrokerState, batch: Batch, caller: Caller, item: Rekey | Install) -> Deferred:
    state.tasks.add(Task(caller.request_id, item))
    state.wait(caller, caller.now_ms + caller.ttl_ms)
    batch.publish(WorkAvailable(Service.RENEWAL))
    return DEFERRED


def _renew(
    state: BrokerState,
    batch: Batch,
    caller: Caller,
    what: tuple[MemberRow, bytes],
    *,
    by_old_key: bool = False,
) -> Issued:
    member, der = what
    csr = parse_request(der)
    known = state.ledger.certificate_by_key(member.member_id, csr.key_hash)
    if known is not None:
        # The answer to an earlier request with this key was lost: the same certificate again.
        if known.serial == member.current_serial and known.not_after > caller.now:
            return issued_before(state, known)
        raise CSRRejectedError(
            "a renewal needs a fresh key; this one was certified before",
            hint="remove the pending key and try again",
        )
    if not member.current_serial:
        return issue_first(state, batch, caller, csr, subject_of(member))
    issued = sign(state, caller, csr, subject_of(member))
    enter_renewal(batch, member, csr, issued, by_old_key=by_old_key)
    return issued
