"""Renewal with the old key: this node's certificate has expired, and mutual TLS takes it no more.

The enrol doors ask for no certificate. At each the server proves to be of this mesh and to have the
name that was knocked for; what it gets is public but for the signature, which is worth nothing for
another request or in another mesh. Every door is asked once. A door that is not the primary's may
say who is: that is believed as far as its own name in this mesh goes, and followed once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from msgspec.structs import replace

from broker.clock import wall_s
from broker.errors import (
    CertificateExpiredError,
    CSRRejectedError,
    ErrorCode,
    MalformedMessageError,
    MeshError,
    NotAMemberError,
    PeerUnreachableError,
    RenewalNotDueError,
)
from broker.wire.enrollment import Issued
from broker.wire.expired import expired_statement
from broker.wire.mesh_api import RenewBody, RenewExpiredBody
from broker.wire.node import Endpoint, Membership
from broker.wire.renewal import RenewalAnswer
from broker.wire.work import RenewOwn
from workers.leaf import check_leaf, check_request, read_certificate, signed_by
from workers.pairs import UNREADABLE, LiveCertificate
from workers.peer import ElsewhereError, PinnedSession, urls_of
from workers.process import Desk
from workers.renewal.patience import patiently

PATH = "/v1/renew-expired"
REJOIN = (
    "on the CA: certmesh invite create {host} --rejoin; "
    "here: certmesh leave --force, then certmesh join INVITE"
)
UNDECIDED = frozenset(
    {
        ErrorCode.PEER_UNREACHABLE,
        ErrorCode.NOT_PRIMARY,
        ErrorCode.NO_MESH,
        ErrorCode.UNAVAILABLE,
        ErrorCode.UNREGISTERED,
        ErrorCode.NOT_FOUND,
    }
)
"""No answer to the question: the door could not be asked, or is not the one to ask.

`not_found` is what a node of an earlier release says.
"""

R = TypeVar("R")
AskMesh = Callable[[Endpoint, RenewBody], RenewalAnswer]


def signed_request(live: LiveCertificate, mesh_id: str, csr: bytes) -> RenewExpiredBody:
    """Return the request for `csr`, signed by the key of the live certificate.

    Raises:
        CertificateExpiredError: The key is none that can sign it.
    """
    try:
        leaf = x509.load_pem_x509_certificate(live.cert.read_bytes()).public_bytes(Encoding.DER)
        key = load_pem_private_key(live.key.read_bytes(), password=None)
    except UNREADABLE:
        raise _lost(live.host, "cannot be read") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _lost(live.host, "is no ECDSA P-256 key")
    signature = key.sign(expired_statement(mesh_id, leaf, csr), ec.ECDSA(hashes.SHA256()))
    return RenewExpiredBody(leaf=leaf, csr=csr, signature=signature)


@dataclass(frozen=True, slots=True)
class OldKey:
    """What asks for a new certificate with the old key.

    Attributes:
        desk: The broker.
        membership: The mesh.
        roots: The roots to trust, DER.
        call_ms: Longest time of one call.
        ask_mesh: Asks at a mesh door, with the live certificate.
    """

    desk: Desk
    membership: Membership
    roots: tuple[bytes, ...]
    call_ms: int
    ask_mesh: AskMesh

    def ask(
        self, item: RenewOwn, live: LiveCertificate | None, csr: bytes
    ) -> tuple[Issued, Endpoint]:
        """Return the certificate for `csr`, and who issued it.

        Raises:
            MeshError: The refusal of the primary, or why nobody could be asked.
            StoppedError: A stop was asked meanwhile.
        """
        if live is None:
            raise NotAMemberError(
                "this node has no usable certificate", hint=REJOIN.format(host=item.host)
            )
        body = signed_request(live, self.membership.mesh_id, csr)
        refusals: list[tuple[str, MeshError]] = []
        queue, asked, may_follow = list(item.doors), {item.host}, True
        while queue:
            door = queue.pop(0)
            if door.host in asked:
                continue
            asked.add(door.host)
            try:
                return self._fitting(self._at(door, body), csr), door
            except ElsewhereError as error:
                refusals.append((door.host, error))
                if may_follow and error.primary is not None and error.primary.host not in asked:
                    queue.insert(0, self._believed(error.primary))
                    may_follow = False
            except MeshError as error:
                refusals.append((door.host, error))
        raise worst_of(refusals)

    def _at(self, door: Endpoint, body: RenewExpiredBody) -> Issued:
        """Return what one door issues; it may know better whether the certificate has expired."""
        try:
            return patiently(self.desk, partial(self._post, door, body)).issued
        except RenewalNotDueError as error:
            # The clock that counts is the CA's: there this certificate is still good.
            try:
                return self.ask_mesh(door, RenewBody(body.csr)).issued
            except MeshError as trouble:
                raise RenewalNotDueError(
                    f"{error.detail}; but there: {trouble.detail}",
                    hint=f"is the clock of {self.membership.host} right?",
                ) from None

    def _fitting(self, issued: Issued, csr: bytes) -> Issued:
        """Return what a door issued if it is of use here; any member can have a door.

        Raises:
            PeerUnreachableError: It is not; the other doors count.
        """
        try:
            leaf = read_certificate(issued.leaf, "new certificate")
            issuing = read_certificate(issued.issuing, "issuing certificate")
            roots = [read_certificate(der, "root certificate") for der in self.roots]
            roots.sort(key=lambda root: not signed_by(issuing, root))
            check_leaf(leaf, (issuing, roots[0]), self.membership.host, wall_s())
            check_request(leaf, csr)
        except (CSRRejectedError, MalformedMessageError) as error:
            raise PeerUnreachableError(f"gave no certificate of use: {error.detail}") from None
        return issued

    def _post(self, door: Endpoint, body: RenewExpiredBody) -> RenewalAnswer:
        urls = urls_of(door.addresses, door.enroll_port, PATH)
        with PinnedSession(
            *self.roots, server_name=door.server_name, timeout_s=self.call_ms / 1000
        ) as session:
            return session.post(urls, body, RenewalAnswer)

    def _believed(self, told: Endpoint) -> Endpoint:
        """Return the doors that somebody named, to be verified by the name they have here."""
        mesh = self.desk.node().mesh
        name = told.host if mesh is None or "." in told.host else f"{told.host}.{mesh.domain}"
        return replace(told, server_name=name)


def worst_of(refusals: list[tuple[str, MeshError]]) -> MeshError:
    """Return the refusal that counts: a decision before silence, the first before later ones."""
    for _, error in refusals:
        if error.code not in UNDECIDED:
            return error
    said = "; ".join(f"{host}: {error.detail}" for host, error in refusals)
    return PeerUnreachableError(
        "this node's certificate has expired, and no primary could be asked for another: "
        + (said or "no door of the mesh is known"),
        hint="it goes on trying; is the CA running?",
    )


def _lost(host: str, why: str) -> CertificateExpiredError:
    return CertificateExpiredError(
        f"the certificate of {host} has expired, and its key {why}", hint=REJOIN.format(host=host)
    )
