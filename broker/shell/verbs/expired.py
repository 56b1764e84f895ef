"""Renewal after expiry: the old key signs, because mutual TLS takes no expired certificate.

The order of the checks is their price: nothing is signed or parsed at length for a caller that has
not proved to have the key of a certificate in the roster. The CA's clock decides what is expired;
no time of the caller's enters a decision. A request that is repeated brings the same certificate,
for the statement covers the CSR.
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from broker.core.limiter import source_key
from broker.errors import (
    BadCredentialError,
    CertificateExpiredError,
    ConflictError,
    ErrorCode,
    MeshError,
    NotAMemberError,
    RenewalNotDueError,
    RevokedError,
)
from broker.ledger.rows import CertificateRow, MemberRow, MeshRow
from broker.pki.authority import fingerprint
from broker.pki.chain import key_id_of, p256_key, read_certificate, utc, was_issued_by
from broker.pki.request import parse_request
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.keyproof import held_by, serial_of
from broker.shell.peers import note_refusal
from broker.shell.state import BrokerState
from broker.shell.verbs.renewal import renew_pulled
from broker.wire.expired import expired_statement
from broker.wire.facts import AuthFailed
from broker.wire.renewal import RenewalAnswer, RenewExpired
from broker.wire.roster import Peer

STRANGERS_EVERY_MS = 10_000
"""The same refusal of the same source is one audit row in this time."""

_ECDSA = ec.ECDSA(hashes.SHA256())


def renew_expired(
    state: BrokerState, batch: Batch, caller: Caller, request: RenewExpired
) -> RenewalAnswer:
    """Sign for a member whose certificate has expired, within the grace of the policy.

    Raises:
        ThrottledError: The source proved nothing too often, or the member was just renewed.
        NotAMemberError: The certificate is not in the roster, or long replaced.
        BadCredentialError: Its key did not sign this request.
        RevokedError: The member or the certificate was revoked, or the member left.
        RenewalNotDueError: The certificate has not expired: the mesh port is the way.
        CertificateExpiredError: The grace is over, or the mesh grants none.
    """
    mesh = state.mesh()
    state.issuer()
    state.limiter.check_key(request.source, caller.now_ms)
    try:
        member, certificate = _proven(state, mesh, request)
    except MeshError as refusal:
        _note_stranger(state, batch, caller, (request, refusal))
        raise
    try:
        _check_standing(state, member, certificate)
        _check_time(mesh, caller, member, certificate)
    except MeshError as refusal:
        if refusal.code is not ErrorCode.RENEWAL_NOT_DUE:
            peer = _peer_of(member, certificate, request.source)
            note_refusal(state, batch, caller, peer, refusal.code)
        raise
    _check_name(member, request.csr)
    what = (member, request.csr)
    return RenewalAnswer(renew_pulled(state, batch, caller, what, by_old_key=True))


def _proven(
    state: BrokerState, mesh: MeshRow, request: RenewExpired
) -> tuple[MemberRow, CertificateRow]:
    """Return whose certificate it is, once its key is proved to have signed this request."""
    try:
        leaf = read_certificate(request.leaf)
        key = p256_key(leaf)
    except ValueError as error:
        raise NotAMemberError(
            f"no certificate of this mesh: {error}",
            hint="only ECDSA P-256 keys can renew after expiry",
        ) from None
    found = state.ledger.certificate(serial_of(leaf))
    if found is None or found[1].fingerprint != fingerprint(request.leaf):
        raise NotAMemberError(
            "this certificate is not in the roster", hint="join again: certmesh join INVITE"
        )
    try:
        key.verify(
            request.signature,
            expired_statement(mesh.mesh_id, request.leaf, request.csr),
            _ECDSA,
        )
    except InvalidSignature:
        raise BadCredentialError(
            "the key of the expired certificate did not sign this request",
            hint=_rejoin(found[0].host),
        ) from None
    return found


def _check_standing(state: BrokerState, member: MemberRow, certificate: CertificateRow) -> None:
    """Refuse what was revoked, replaced, or issued by a CA that is no longer in force."""
    again = _rejoin(member.host)
    if member.state != "active" or certificate.state == "revoked":
        raise RevokedError(f"{member.host} was revoked or has left", hint=again)
    # The octets are those of the roster, so the key identifier in them is of whoever signed them.
    if not any(was_issued_by(certificate.certificate, key_id_of(der)) for der in _in_force(state)):
        raise NotAMemberError(
            f"the certificate of {member.host} is of a CA that was replaced", hint=again
        )
    if certificate.serial not in held_by(state, member):
        raise NotAMemberError(
            f"{member.host} has had newer certificates than this one",
            hint=f"a restored disk? {again}",
        )


def _in_force(state: BrokerState) -> set[bytes]:
    """Return the issuing certificates that count: ours, and during a rollover the other one too.

    What the newest bundle still names is not asked: that may be older than the end of a rollover.
    """
    row = state.rollover()
    both = {row.issuing, row.retiring_issuing} if row is not None else set()
    return {state.issuer().issuing_der, *both} - {b""}


def _check_time(
    mesh: MeshRow, caller: Caller, member: MemberRow, certificate: CertificateRow
) -> None:
    """Refuse before the expiry and after the grace.

    In its last second a certificate is valid (RFC 5280 4.1.2.5), but OpenSSL refuses it already at
    the mesh port; so it is taken here.
    """
    over_s = caller.now - certificate.not_after
    grace_s, since = mesh.policy.expired_grace_s, _moment(certificate.not_after)
    if over_s < 0:
        raise RenewalNotDueError(
            f"the certificate of {member.host} is valid until {since}, and here it is "
            f"{_moment(caller.now)}",
            hint="renew over the mesh port; if it looks expired there, that host's clock is wrong",
        )
    if not grace_s:
        raise CertificateExpiredError(
            f"the certificate of {member.host} expired at {since}, and this mesh renews none "
            "after expiry (expired_grace 0s)",
            hint=_rejoin(member.host),
        )
    if over_s > grace_s:
        # Moments, not spans: the same refusal reads the same each time, and is told once.
        raise CertificateExpiredError(
            f"the certificate of {member.host} expired at {since}, and its key could renew it "
            f"until {_moment(certificate.not_after + grace_s)} (expired_grace)",
            hint=_rejoin(member.host),
        )


def _check_name(member: MemberRow, csr: bytes) -> None:
    """Refuse a member that does not know its new name: it could not use what it would get."""
    asked = parse_request(csr).common_name
    if asked and asked != member.host and asked not in member.sans:
        raise ConflictError(
            f"the request is for {asked!r}, but that member is called {member.host} now",
            hint=_rejoin(member.host),
        )


def _moment(at: int) -> str:
    """Return wall time as people and programs read it, in UTC."""
    return utc(at).strftime("%Y-%m-%dT%H:%M:%SZ")


def _rejoin(host: str) -> str:
    return (
        f"on the CA: certmesh invite create {host} --rejoin; "
        "on this host: certmesh leave --force, then certmesh join INVITE"
    )


def _peer_of(member: MemberRow, certificate: CertificateRow, source: str) -> Peer:
    return Peer(
        certificate.serial, member.host, certificate.fingerprint, certificate.not_after, source
    )


def _note_stranger(
    state: BrokerState, batch: Batch, caller: Caller, what: tuple[RenewExpired, MeshError]
) -> None:
    """Count a proof that failed, and audit it within the bounds of what strangers may fill."""
    request, refusal = what
    if state.limiter.key_failed(request.source, caller.now_ms):
        log(EventName.AUTH_THROTTLED, source=request.source, method="expired")
    key = ("expired", source_key(request.source), refusal.code)
    if not state.refusals.passes(key, caller.now_ms, STRANGERS_EVERY_MS):
        return
    if state.refusal_rows.takes(caller.now_ms):
        batch.append(AuthFailed(request.source[:64], "", refusal.code.value), "gateway")
