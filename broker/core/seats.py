"""Which user of this machine may speak as which service.

The kernel says who is at the other end of a local socket when it connects (SO_PEERCRED); libzmq
hands that on with every message, and nobody can choose it. Three rules come from it:

1. A service has a user. Somebody else, root aside, does not introduce itself as it.
2. What is known about a worker belongs to its process. A routing identity is free to take once its
   owner is gone; whoever takes it is a stranger, has no name, and beats for nobody.
3. A process has the pid that the kernel says: the watchdog kills by that number.

Where all processes of a node are one user, the first rule keeps out other users and no more: that
user could read every file as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from broker.errors import ForbiddenError
from broker.wire.ids import Service

ROOT_UID = 0
_FIELDS = 4
"""`localhost:UID:GID:PID`, as libzmq writes it."""


@dataclass(frozen=True, slots=True)
class LocalPeer:
    """A process of this machine; `pid` is 0 where the kernel cannot say it (PID namespaces)."""

    uid: int
    pid: int


def read_peer(address: str) -> LocalPeer | None:
    """Return the peer that libzmq's `Peer-Address` of a local connection names, None if none."""
    parts = address.split(":")
    if len(parts) != _FIELDS or not (parts[1].isdecimal() and parts[3].isdecimal()):
        return None
    return LocalPeer(int(parts[1]), int(parts[3]))


def seat_key(identity: bytes, address: str) -> bytes:
    """Return the name of a local connection in the tables of this broker: process and identity.

    The address comes first and has no slash: no identity makes one process look like another, nor
    like a worker on another machine (`broker.core.remote.route_key`).
    """
    return b"ipc:" + address.encode() + b"/" + identity


class Seats:
    """The users of the services.

    Args:
        uids: Whose process speaks as which service; root always may, it could become anybody.
    """

    def __init__(self, uids: Mapping[Service, int]) -> None:
        self._uids = dict(uids)

    @property
    def everybody(self) -> frozenset[int]:
        """All users that have business at the sockets."""
        return frozenset({ROOT_UID, *self._uids.values()})

    def check(self, service: Service, address: str) -> LocalPeer:
        """Return who introduces itself as `service`.

        Raises:
            ForbiddenError: Another user's process, or nobody the kernel vouches for.
        """
        peer = read_peer(address)
        if peer is None:
            raise ForbiddenError(
                f"nobody vouches for who wants to be {service}", hint="connect over the socket file"
            )
        if peer.uid not in {ROOT_UID, self._uids[service]}:
            raise ForbiddenError(
                f"a process of uid {peer.uid} may not be {service} here",
                hint=f"start it as uid {self._uids[service]}: [users] in certmesh.toml says who",
            )
        return peer
