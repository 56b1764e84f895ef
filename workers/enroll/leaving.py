"""Leaving: the primary is told over mutual TLS, with the certificate that ends thereby."""

from collections.abc import Callable
from typing import Any

from broker.errors import NoMeshError, RevokedError
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.wire.control import Ack
from broker.wire.node import Endpoint
from workers.membership import load_membership
from workers.peer import ElsewhereError, PeerSession

CALL_TIMEOUT_S = 15.0
PATH = "/v1/leave"


class Leaving:
    """One attempt to give this host's membership back; nothing on this disk changes here.

    Args:
        paths: Of this node.
        emit: Takes the one line of the answer.
    """

    def __init__(self, paths: Paths, emit: Callable[[dict[str, Any]], None]) -> None:
        self._paths = paths
        self._emit = emit

    def run(self, primary: Endpoint | None) -> int:
        """Tell the primary and return the exit status.

        Args:
            primary: Where the running pool last saw it; else the place noted at the join is asked.

        Raises:
            NoMeshError: There is nothing to leave.
            PeerUnreachableError: No primary answered, so the CA does not know.
            MeshError: It refused.
        """
        membership = load_membership(self._paths)
        if membership is None:
            raise NoMeshError("this node belongs to no mesh", hint="there is nothing to leave")
        line = {"kind": "left", "host": membership.host, "mesh": membership.mesh_name}
        with PeerSession(self._paths, membership, timeout_s=CALL_TIMEOUT_S) as session:
            try:
                _tell(session, primary or membership.primary)
            except RevokedError:
                # Said before and the answer was lost, or the operator was quicker: out is out.
                line["note"] = "the CA had let this host go before"
        self._emit(line)
        return Exit.OK


def _tell(session: PeerSession, primary: Endpoint) -> None:
    """Tell the primary; a node that is not it says who is, and is followed once."""
    try:
        session.call(primary, "POST", PATH, None, Ack)
    except ElsewhereError as error:
        if error.primary is None or error.primary == primary:
            raise
        session.call(error.primary, "POST", PATH, None, Ack)
