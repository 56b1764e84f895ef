"""Join and poll: the way from a stranger with a credential to a member with a certificate."""

import hashlib
import hmac

from broker.core.doors import ADDRESSES_MAX, check_doors
from broker.core.limiter import source_key
from broker.core.names import addresses_in, check_host, granted_sans, server_name
from broker.errors import (
    AlreadyEnrolledError,
    ApprovalDeniedError,
    ApprovalExpiredError,
    BadCredentialError,
    BusyError,
    MeshError,
    NameNotAllowedError,
    NotFoundError,
    ThrottledError,
)
from broker.ledger.rows import ApprovalRow, MeshRow
from broker.pki.request import CertificateRequest, parse_request
from broker.pki.words import comparison_words
from broker.runtime.wordlist import words as wordlist
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.credential import Credential, check_credential
from broker.shell.issue import Subject, check_request, issue_first, issued_before
from broker.shell.peers import own_endpoint
from broker.shell.state import BrokerState
from broker.units import UnixSeconds
from broker.wire.enrollment import Issued, Join, JoinAnswer, PollTicket
from broker.wire.events import WorkAvailable
from broker.wire.facts import ApprovalRequested, InviteUsed, JoinRefused, MemberJoined, TOTPStepUsed
from broker.wire.ids import Service
from broker.wire.node import Endpoint

PENDING_MAX = 256
"""Requests that may wait for a person; more are refused until somebody decided."""
POLL_EVERY_MS = 1000
TTL_S_MAX = 366 * 86_400
REFUSAL_EVERY_MS = 10_000
ANY_REFUSAL_EVERY_MS = 1_000
CLAIM_GRACE_S = 86_400
"""How long after its own end an approved request may still be claimed."""


def join(state: BrokerState, batch: Batch, caller: Caller, request: Join) -> JoinAnswer:
    """Enroll a host, or put it before a person; the credential is proven before anything costs."""
    mesh = state.mesh()
    state.issuer()
    state.full_powers(caller.now_ms)
    state.limiter.check(request.source, caller.now_ms)
    try:
        return _join(state, batch, caller, (mesh, request))
    except MeshError as refusal:
        if isinstance(refusal, BadCredentialError):
            state.limiter.failed(request.source, caller.now_ms)
        _note_refusal(state, batch, caller, (request, refusal))
        raise


def poll_ticket(
    state: BrokerState, batch: Batch, caller: Caller, request: PollTicket
) -> JoinAnswer:
    """Tell a waiting joiner what became of it; an approved one gets its certificate now."""
    mesh = state.mesh()
    row = state.ledger.approval(request.ticket_id)
    secret_hash = hashlib.sha256(request.ticket_secret.encode()).hexdigest()
    if row is None or not hmac.compare_digest(row.ticket_hash, secret_hash):
        raise NotFoundError("no such ticket", hint="join again with a new invite or code")
    if row.state == "denied":
        why = f": {row.reason}" if row.reason else ""
        raise ApprovalDeniedError(f"{row.operator or 'the CA'} denied this request{why}")
    if row.state == "expired" or (row.state == "pending" and row.expires_at <= caller.now):
        raise ApprovalExpiredError("nobody answered in time", hint="join again")
    if row.state == "pending":
        return _answer(state, mesh, row.host, ticket=row)
    state.full_powers(caller.now_ms)
    if row.state == "approved" and row.expires_at + CLAIM_GRACE_S <= caller.now:
        raise ApprovalExpiredError("approved, but never claimed in time", hint="join again")
    return _issue_approved(state, batch, caller, row)


def _join(
    state: BrokerState, batch: Batch, caller: Caller, what: tuple[MeshRow, Join]
) -> JoinAnswer:
    mesh, request = what
    host = check_host(request.host)
    check_doors(request.addresses, request.mesh_port, request.enroll_port)
    credential = check_credential(state, request, caller.now)
    csr = parse_request(request.csr)
    if (again := _issued_already(state, mesh, credential, csr)) is not None:
        return again
    credential.require_unused()
    subject = _subject(state, mesh, request, credential)
    check_request(mesh, csr, subject)
    if state.ledger.member_by_host(host) is not None:
        raise AlreadyEnrolledError(
            f"{host} is an active member of this mesh",
            hint=f"revoke it first on the CA: certmesh member revoke {host}",
        )
    if credential.invite is None and mesh.approval:
        return _ask_a_person(state, batch, caller, (mesh, request, credential, csr, subject))
    endpoint = _endpoint(request, mesh.domain)
    _spend(batch, credential, csr, subject)
    _enroll(batch, subject, endpoint, credential.method)
    issued = issue_first(state, batch, caller, csr, subject)
    return _answer(state, mesh, host, issued=issued, member_id=subject.member_id)


def _subject(state: BrokerState, mesh: MeshRow, request: Join, credential: Credential) -> Subject:
    """Return what the host gets: the source address is proven by TCP, other names by the invite."""
    invited = credential.invite.sans if credential.invite is not None else ()
    sans = granted_sans(
        request.host, mesh.domain, addresses_in([request.source], mesh.networks), invited
    )
    foreign = [san for san in request.sans if san not in {request.host, *sans}]
    if foreign:
        raise NameNotAllowedError(
            "this credential does not allow " + ", ".join(repr(name) for name in foreign[:8]),
            hint=f"invite with --san NAME, or ask for {', '.join(sans)}",
        )
    return Subject(state.draw(16).hex(), request.host, sans)


def _issued_already(
    state: BrokerState, mesh: MeshRow, credential: Credential, csr: CertificateRequest
) -> JoinAnswer | None:
    """Return the earlier answer when the same key comes back with the same credential."""
    host = credential.host
    member = state.ledger.member_by_host(host)
    if member is not None:
        row = state.ledger.certificate_by_key(member.member_id, csr.key_hash)
        if row is None or not credential.belongs_to(member.member_id, csr.key_hash):
            return None
        issued = issued_before(state.issuer(), row)
        return _answer(state, mesh, host, issued=issued, member_id=member.member_id)
    pending = state.ledger.approval_by_key(host, csr.key_hash)
    if pending is not None and pending.state in {"pending", "approved"}:
        return _answer(state, mesh, host, ticket=pending)
    return None


def _ask_a_person(
    state: BrokerState,
    batch: Batch,
    caller: Caller,
    what: tuple[MeshRow, Join, Credential, CertificateRequest, Subject],
) -> JoinAnswer:
    mesh, request, credential, csr, subject = what
    if state.ledger.approvals_pending() >= PENDING_MAX:
        raise BusyError("too many requests wait for approval", retry_after_ms=30_000)
    waiting = [
        row
        for row in state.ledger.approvals("pending", PENDING_MAX)
        if row.source == request.source and row.host == request.host
    ]
    if waiting:
        raise ThrottledError(
            f"a request for {request.host} from this address waits already",
            hint="certmesh approval list on the CA",
            retry_after_ms=30_000,
        )
    _spend(batch, credential, csr, subject)
    batch.append(
        ApprovalRequested(
            approval_id=state.draw(8).hex(),
            host=request.host,
            sans=subject.sans,
            csr=request.csr,
            key_hash=csr.key_hash,
            ticket_hash=request.ticket_hash,
            method=credential.method,
            source=request.source,
            words=comparison_words(csr.spki, mesh.pin, request.nonce, wordlist()),
            addresses=request.addresses,
            mesh_port=request.mesh_port,
            enroll_port=request.enroll_port,
            expires_at=UnixSeconds(
                caller.now + min(state.settings.enrollment.approval_ttl.s, TTL_S_MAX)
            ),
        ),
        actor=request.host,
    )
    batch.publish(WorkAvailable(Service.APPROVAL))
    row = state.ledger.approval_by_key(request.host, csr.key_hash)
    return _answer(state, mesh, request.host, ticket=row)


def _issue_approved(
    state: BrokerState, batch: Batch, caller: Caller, row: ApprovalRow
) -> JoinAnswer:
    mesh, issuer = state.mesh(), state.issuer()
    member = state.ledger.member_by_host(row.host)
    if member is not None:
        known = state.ledger.certificate_by_key(member.member_id, row.key_hash)
        if known is None:
            raise AlreadyEnrolledError(f"{row.host} was enrolled with another key meanwhile")
        again = issued_before(issuer, known)
        return _answer(state, mesh, row.host, issued=again, member_id=member.member_id)
    if row.state == "issued":
        raise ApprovalDeniedError(f"{row.host} was revoked after it joined", hint="join again")
    if state.ledger.totp_step_lost(row.key_hash):
        raise ApprovalDeniedError(
            "the same code was used on the other side of a partition, and earlier there",
            hint="join again with a new code",
        )
    csr = parse_request(row.csr)
    subject = Subject(state.draw(16).hex(), row.host, row.sans)
    endpoint = Endpoint(
        host=row.host,
        addresses=row.addresses[:ADDRESSES_MAX] or (row.source,),
        enroll_port=row.enroll_port,
        mesh_port=row.mesh_port,
        server_name=server_name(row.host, mesh.domain),
    )
    _enroll(batch, subject, endpoint, row.method, approval_id=row.approval_id)
    issued = issue_first(state, batch, caller, csr, subject)
    return _answer(state, mesh, row.host, issued=issued, member_id=subject.member_id)


def _spend(batch: Batch, credential: Credential, csr: CertificateRequest, who: Subject) -> None:
    if credential.invite is not None:
        batch.append(InviteUsed(credential.invite.invite_id, who.member_id, csr.key_hash), who.host)
    else:
        batch.append(TOTPStepUsed(credential.step, csr.key_hash), who.host)


def _enroll(
    batch: Batch, subject: Subject, endpoint: Endpoint, method: str, approval_id: str = ""
) -> None:
    batch.append(
        MemberJoined(
            member_id=subject.member_id,
            host=subject.host,
            sans=subject.sans,
            role="member",
            endpoint=endpoint,
            method=method,
            approval_id=approval_id,
        ),
        actor=subject.host,
    )


def _endpoint(request: Join, domain: str) -> Endpoint:
    return Endpoint(
        host=request.host,
        addresses=request.addresses[:ADDRESSES_MAX] or (request.source,),
        enroll_port=request.enroll_port,
        mesh_port=request.mesh_port,
        server_name=server_name(request.host, domain),
    )


def _answer(  # noqa: PLR0913 (one answer, two shapes)
    state: BrokerState,
    mesh: MeshRow,
    host: str,
    *,
    issued: Issued | None = None,
    member_id: str = "",
    ticket: ApprovalRow | None = None,
) -> JoinAnswer:
    return JoinAnswer(
        issued=issued,
        member_id=member_id,
        server_name=server_name(host, mesh.domain),
        mesh_id=mesh.mesh_id,
        mesh_name=mesh.name,
        primary=own_endpoint(state, mesh.domain),
        term=state.ledger.term,
        ticket_id=ticket.approval_id if ticket else "",
        words=ticket.words if ticket else (),
        retry_after_ms=POLL_EVERY_MS if ticket else 0,
    )


def _note_refusal(
    state: BrokerState, batch: Batch, caller: Caller, what: tuple[Join, MeshError]
) -> None:
    """Audit a refused join, the same source and reason at most every ten seconds."""
    request, refusal = what
    key = (source_key(request.source), refusal.code)
    if not state.refusals.passes(key, caller.now_ms, REFUSAL_EVERY_MS):
        return
    # Strangers can have many addresses; together they get a row a second.
    if not state.refusals.passes("joins", caller.now_ms, ANY_REFUSAL_EVERY_MS):
        return
    claimed = request.host if request.host.isprintable() else repr(request.host)
    batch.append(JoinRefused(claimed[:253], request.source[:64], refusal.code.value), "gateway")
