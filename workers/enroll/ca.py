"""The CA's enrol port as a joiner sees it: pinned first, believed afterwards."""

import socket
from dataclasses import dataclass, replace

from broker.errors import MeshError, PeerUnreachableError, PinMismatchError
from broker.wire.enrollment import JoinAnswer, MeshAnswer
from broker.wire.mesh_api import JoinBody
from broker.wire.node import Endpoint
from workers.enroll.logic import MESH_PORT, Target
from workers.peer import ElsewhereError, PinnedSession, fetch_root, fingerprint, urls_of

PROBE_TIMEOUT_S = 5.0
CALL_TIMEOUT_S = 15.0


@dataclass(slots=True)
class CA:
    """A CA whose root is the pinned one.

    Attributes:
        target: Whom to ask.
        root: The root, DER.
        primary: Where the primary is and by which name it must answer, once known.
    """

    target: Target
    root: bytes
    primary: Endpoint | None = None

    def mesh(self) -> MeshAnswer:
        """Return the public face of the mesh, and note who the primary is.

        Raises:
            PinMismatchError: It speaks of another root than it showed.
            PeerUnreachableError: No address answered, or none with a certificate of this CA.
        """
        with PinnedSession(
            self.root, server_name=self.target.server_name, timeout_s=CALL_TIMEOUT_S
        ) as session:
            answer = session.get(self._urls("/v1/mesh"), MeshAnswer)
        if answer.pin != self.target.pin or fingerprint(answer.root) != self.target.pin:
            raise PinMismatchError("the CA speaks of another root than the one it showed")
        if self.target.server_name is None:
            self.primary = answer.primary
        return answer

    def join(self, body: JoinBody) -> JoinAnswer:
        """Return the answer to a join; a node that is not the primary is followed once.

        Raises:
            MeshError: The refusal.
        """
        try:
            return self._post(body)
        except ElsewhereError as error:
            if error.primary is None or error.primary == self.primary:
                raise
            self.primary = error.primary
            return self._post(body)

    def poll(self, ticket_id: str, secret: str) -> JoinAnswer:
        """Return what became of a waiting join.

        Raises:
            MeshError: The refusal.
        """
        headers = {"Authorization": f"Bearer {secret}"}
        with self._session() as session:
            return session.get(self._urls(f"/v1/join/{ticket_id}"), JoinAnswer, headers=headers)

    def endpoint(self) -> Endpoint:
        """Return the best that is known of where the primary is."""
        return self.primary or Endpoint(
            host=self.target.server_name or self.target.addresses[0],
            addresses=self.target.addresses,
            enroll_port=self.target.port,
            mesh_port=MESH_PORT,
            server_name=self.target.server_name or self.target.addresses[0],
        )

    def _post(self, body: JoinBody) -> JoinAnswer:
        with self._session() as session:
            return session.post(self._urls("/v1/join"), body, JoinAnswer)

    def _session(self) -> PinnedSession:
        name = self.primary.server_name if self.primary else self.target.server_name
        return PinnedSession(self.root, server_name=name, timeout_s=CALL_TIMEOUT_S)

    def _urls(self, path: str) -> list[str]:
        """Return where to ask: as the operator said first, then as the mesh says."""
        urls = urls_of(self.target.addresses, self.target.port, path)
        if self.primary is not None:
            urls += urls_of(self.primary.addresses, self.primary.enroll_port, path)
        return list(dict.fromkeys(urls))


def find_ca(target: Target) -> CA:
    """Return the CA behind the first address that shows the pinned root; nothing secret is sent.

    Raises:
        PinMismatchError: Somebody answered, but nobody with the pinned root.
        PeerUnreachableError: Nobody answered; lists the addresses tried.
    """
    failures: list[MeshError] = []
    for url in urls_of(target.addresses, target.port, ""):
        try:
            return CA(_from(target, url), fetch_root(url, target.pin, PROBE_TIMEOUT_S))
        except MeshError as error:
            failures.append(error)
    for failure in failures:
        if isinstance(failure, PinMismatchError):
            raise failure
    tried = "; ".join(item.detail.removeprefix("no address answered: ") for item in failures)
    raise PeerUnreachableError(
        f"the CA did not answer at any of its addresses: {tried or 'the invite names none'}",
        hint="is it running (`certmesh status` there), and is this host in the same network?",
    )


def source_address(target: Target) -> str:
    """Return the address this host has towards the CA; nothing is sent."""
    for address in target.addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((address, target.port))
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return ""


def _from(target: Target, url: str) -> Target:
    """Return `target` with the address that answered first."""
    urls = urls_of(target.addresses, target.port, "")
    first = target.addresses[urls.index(url)]
    others = tuple(address for address in target.addresses if address != first)
    return replace(target, addresses=(first, *others))
