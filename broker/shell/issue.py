"""Issue one certificate: decide the lifetime, sign, put it in the journal, hand it out.

The row with the serial and the certificate joins the drain's transaction; the certificate leaves
this process only after the commit, so none exists that the ledger does not know.
"""

from dataclasses import dataclass

from broker.core.names import server_name
from broker.core.policy import check_names, lifetime_end
from broker.core.renewal import BACKDATE_S, renew_at
from broker.errors import CSRRejectedError
from broker.ledger.rows import CertificateRow, MemberRow, MeshRow
from broker.pki.authority import fingerprint
from broker.pki.chain import key_id_of, was_issued_by
from broker.pki.profile import LeafProfile
from broker.pki.request import CertificateRequest
from broker.shell.batch import Batch
from broker.shell.bundling import other_ca
from broker.shell.caller import Caller
from broker.shell.clockcare import require_clock
from broker.shell.state import BrokerState
from broker.units import UnixSeconds
from broker.wire.enrollment import Issued
from broker.wire.facts import CertificateIssued, CertificateRenewed

SERIAL_BYTES = 16
"""126 random bits in 16 octets; RFC 5280 4.1.2.2 wants a positive number of at most 20 octets."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose certificate it is."""

    member_id: str
    host: str
    sans: tuple[str, ...]


def subject_of(member: MemberRow) -> Subject:
    """Return the subject of an enrolled member."""
    return Subject(member.member_id, member.host, member.sans)


def check_request(mesh: MeshRow, request: CertificateRequest, subject: Subject) -> None:
    """Refuse a CSR that asks for more than the subject gets.

    Raises:
        NameNotAllowedError: The subject itself is outside the policy.
        CSRRejectedError: SANs or common name that are not the subject's.
    """
    check_names(mesh.policy, mesh.domain, subject.sans)
    allowed = {subject.host, *subject.sans}
    foreign = [san for san in request.sans if san not in allowed]
    if request.common_name and request.common_name not in allowed:
        foreign.insert(0, request.common_name)
    if foreign:
        raise CSRRejectedError(
            "the request asks for names that are not this host's: "
            + ", ".join(repr(name) for name in foreign[:8]),
            hint=f"allowed are {', '.join(sorted(allowed))}",
        )


def issue_first(
    state: BrokerState, batch: Batch, caller: Caller, request: CertificateRequest, subject: Subject
) -> Issued:
    """Issue the first certificate of a member that the drain already made known."""
    issued = sign(state, caller, request, subject)
    enter_first(batch, request, subject, issued)
    return issued


def enter_first(
    batch: Batch, request: CertificateRequest, subject: Subject, issued: Issued
) -> None:
    """Write down a first certificate that was signed in this drain."""
    batch.append(
        CertificateIssued(
            member_id=subject.member_id,
            serial=issued.serial,
            key_hash=request.key_hash,
            not_before=issued.not_before,
            not_after=issued.not_after,
            renew_at=issued.renew_at,
            certificate=issued.leaf,
        ),
        actor=subject.host,
    )


def enter_renewal(
    batch: Batch,
    member: MemberRow,
    request: CertificateRequest,
    issued: Issued,
    *,
    by_old_key: bool = False,
) -> None:
    """Write down a certificate that replaces the member's current one, signed in this drain."""
    batch.append(
        CertificateRenewed(
            member_id=member.member_id,
            serial=issued.serial,
            key_hash=request.key_hash,
            not_before=issued.not_before,
            not_after=issued.not_after,
            renew_at=issued.renew_at,
            certificate=issued.leaf,
            replaces=member.current_serial,
            by_old_key=by_old_key,
        ),
        actor=member.host,
    )


def issued_before(state: BrokerState, row: CertificateRow) -> Issued:
    """Return a certificate again that was issued earlier for the same key.

    It goes with the CA that signed it: that may have been replaced meanwhile.
    """
    issuer, rollover = state.issuer(), state.rollover()
    root, issuing = issuer.root_der, issuer.issuing_der
    if rollover is not None and not was_issued_by(row.certificate, key_id_of(issuing)):
        root, issuing = other_ca(rollover, fingerprint(root))
    return Issued(
        serial=row.serial,
        leaf=row.certificate,
        issuing=issuing,
        root=root,
        not_before=UnixSeconds(row.not_before),
        not_after=UnixSeconds(row.not_after),
        renew_at=UnixSeconds(row.renew_at),
    )


def sign(
    state: BrokerState, caller: Caller, request: CertificateRequest, subject: Subject
) -> Issued:
    """Return a certificate that nobody knows of yet; it counts once its row is committed.

    Whatever can be refused is refused here, so whoever writes other rows for it signs first.

    Raises:
        ClockSkewError: This machine's clock is off by more than a day.
        CSRRejectedError: The request asks for more than the subject gets, or nothing can be issued.
        NameNotAllowedError: The subject is outside the policy.
    """
    mesh, issuer = state.mesh(), state.issuer()
    require_clock(state, caller)
    check_request(mesh, request, subject)
    policy = mesh.policy
    not_after = lifetime_end(policy, caller.now, issuer.not_after)
    profile = LeafProfile(
        serial=serial_from(state.draw(SERIAL_BYTES)),
        host=subject.host,
        sans=subject.sans,
        not_before=UnixSeconds(caller.now - BACKDATE_S),
        not_after=not_after,
        crl_url=_crl_url(state, mesh),
        mesh_id=mesh.mesh_id,
        member_id=subject.member_id,
        wildcards=policy.wildcards,
    )
    leaf = issuer.sign_leaf(request, profile)
    jitter = state.settings.renewal.jitter * state.chance()
    return Issued(
        serial=f"{profile.serial:x}",
        leaf=leaf,
        issuing=issuer.issuing_der,
        root=issuer.root_der,
        not_before=UnixSeconds(profile.not_before),
        not_after=not_after,
        renew_at=renew_at(caller.now, not_after, fraction=policy.renew_at, jitter=jitter),
    )


def serial_from(drawn: bytes) -> int:
    """Return a positive serial of fixed length: the top bits are 01, the rest is random."""
    return int.from_bytes(bytes([drawn[0] & 0x3F | 0x40]) + drawn[1:])


def _crl_url(state: BrokerState, mesh: MeshRow) -> str:
    port = state.settings.listen.enroll.rpartition(":")[2] or "7642"
    return f"https://{server_name(state.host, mesh.domain)}:{port}/v1/crl.der"
