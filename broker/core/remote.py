"""A renewal worker on another machine: the grant behind its key, and what it may say.

Invariant: over CURVE the key is the authority. Service, host and capability come from the grant the
key is bound to, now; what the caller says of itself only has to agree. Without such a key the
service `remote-renewal` may introduce itself and beat at its own broker, and nothing else.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from broker.core.capability import EVERYONE, is_allowed
from broker.errors import BusyError, ForbiddenError, MalformedMessageError, RevokedError
from broker.wire.base import Request
from broker.wire.ids import Service
from broker.wire.liveness import Ready

WORKERS_PER_GRANT_MAX = 64
"""A machine runs at most half of these; more are somebody who fills the table of workers."""

_INSTANCE = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True, slots=True)
class RemoteGrant:
    """Who a CURVE key works for; `public_key` is 64 hexadecimal digits."""

    grant_id: str
    host: str
    member_id: str
    public_key: str


GrantOf = Callable[[str], RemoteGrant | None]
"""Returns the live grant that a public key (64 hexadecimal digits) is bound to.

None for keys that no grant knows and for grants that are over. Asked for every single message, so
it has to be quick and must never answer from before the last commit.
"""


def nobody(_public_key: str) -> RemoteGrant | None:
    """Grant nothing: the answer of a broker that knows of no grants."""
    return None


@dataclass(slots=True)
class RemotePort:
    """Where workers on other machines reach this broker; empty while they do not.

    `listen` is the bound `host:port`, `server_key` the public key they know this broker by,
    `trouble` says why the port is not open although the settings name it.
    """

    listen: str = ""
    port: int = 0
    server_key: str = ""
    trouble: str = ""


def route_key(grant: RemoteGrant | None, identity: bytes) -> bytes:
    """Return the name of a remote connection in the tables of this broker.

    A local caller picks its routing identity itself, and so does a remote one. Local identities
    begin with the name of a service, so these two never meet; two grants do not meet either.
    """
    return b"tcp:" + (grant.grant_id.encode() if grant else b"?") + b"/" + identity


def instance_of(grant: RemoteGrant, instance: str) -> str:
    """Return what the process table calls a remote worker, such as `nas/remote-renewal-0`."""
    return f"{grant.host}/{instance}"


def admit(grant: RemoteGrant | None, request: Request) -> RemoteGrant:
    """Return the grant under which a remote caller may go on with its request.

    Raises:
        RevokedError: Its key is bound to no live grant any more.
        ForbiddenError: It introduces itself as something that only a local process may be.
        MalformedMessageError: Its name does not belong into a process table.
    """
    if grant is None:
        raise RevokedError(
            "the key of this machine's renewal workers is not granted (any more)",
            hint="on the CA: certmesh worker enroll HOST",
        )
    if isinstance(request, Ready):
        if request.service is not Service.REMOTE_RENEWAL:
            raise ForbiddenError(
                f"{request.service.value} works on the broker's own machine only",
                hint="workers on another machine are of the service remote-renewal",
            )
        if not _INSTANCE.fullmatch(request.instance):
            raise MalformedMessageError("a remote worker has a name such as remote-renewal-0")
    return grant


def refuse_crowd(workers: int) -> None:
    """Refuse one worker more than a machine may have.

    Raises:
        BusyError: That many are registered under this grant.
    """
    if workers >= WORKERS_PER_GRANT_MAX:
        raise BusyError(f"{workers} workers of this machine are here", retry_after_ms=5000)


def may_send(service: Service, request: Request, *, by_key: bool) -> bool:
    """Whether `service` may send this request, over a connection with a granted key or without."""
    if service is Service.REMOTE_RENEWAL and not by_key:
        return type(request) in EVERYONE
    return is_allowed(service, request)


def printable(text: str) -> str:
    """Return a remote worker's words as they may be shown on a terminal."""
    return text if text.isprintable() else repr(text)
