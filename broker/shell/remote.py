"""Workers on other machines, as the desk sees them: admitted by key, anew with every message.

A grant that ends takes effect at the next message, and within a second also for a worker that says
nothing: its leases go back. What a revoked key sends changes nothing here, not even a sign of life.
"""

from dataclasses import dataclass

from msgspec.structs import replace

from broker.core.remote import (
    RemoteGrant,
    admit,
    instance_of,
    may_send,
    printable,
    refuse_crowd,
    route_key,
)
from broker.errors import ForbiddenError, MeshError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.state import BrokerState
from broker.shell.verbs.work import give_back
from broker.wire.base import Request
from broker.wire.liveness import Beat, Ready

REFUSAL_EVERY_MS = 10_000
"""The same refusal of the same key is one line of the log in this time."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a remote message came from: the key its connection proved, and what that is worth."""

    key: str
    grant: RemoteGrant | None
    identity: bytes


def connection_of(state: BrokerState, key: str, route: bytes) -> Connection:
    """Return whom a message over CURVE speaks for now.

    Args:
        state: Knows the grants.
        key: The public key that the connection proved, as 64 hexadecimal digits.
        route: The routing identity its socket knows it by.
    """
    grant = state.grant_of(key)
    return Connection(key, grant, route_key(grant, route))


def admit_remote(state: BrokerState, caller: Caller, request: Request) -> Request:
    """Return the request of a remote caller as it is taken here.

    Raises:
        RevokedError: Its key is not granted any more.
        ForbiddenError: It says that it is a local process.
        MalformedMessageError: Its name does not belong into a process table.
        BusyError: Its machine has too many workers here.
    """
    try:
        grant = admit(caller.grant, request)
    except MeshError as refusal:
        note_remote_refusal(state, caller, refusal)
        raise
    if isinstance(request, Ready):
        refuse_crowd(state.workers.count(caller.key, but=caller.identity))
        return replace(
            request,
            instance=instance_of(grant, request.instance),
            boot_id=printable(request.boot_id),
        )
    if isinstance(request, Beat):
        return replace(
            request, last_error=printable(request.last_error), state=printable(request.state)
        )
    return request


def refuse_incapable(state: BrokerState, caller: Caller, request: Request) -> None:
    """Refuse what the caller's service may not send over this kind of connection.

    Raises:
        ForbiddenError: The capability table has no row, or the row needs a granted key.
    """
    service = caller.service
    if service is None or may_send(service, request, by_key=bool(caller.key)):
        return
    refusal = ForbiddenError(f"{service} may not send {type(request).__name__}")
    if caller.key:
        note_remote_refusal(state, caller, refusal)
    raise refusal


def note_remote_refusal(state: BrokerState, caller: Caller, refusal: MeshError) -> None:
    """Log that a remote caller was turned away; its words do not go into the audit trail."""
    if state.refusals.passes(("remote", caller.key), caller.now_ms, REFUSAL_EVERY_MS):
        host = caller.grant.host if caller.grant else ""
        log(EventName.WORKER_REFUSED, host=host, key=caller.key[:16], code=refusal.code.value)


def end_ungranted(state: BrokerState, batch: Batch) -> None:
    """Let go of the workers whose grant is over; what they held is free again."""
    for worker in state.workers.everyone():
        if not worker.key:
            continue
        grant = state.grant_of(worker.key)
        if grant is None or not worker.identity.startswith(route_key(grant, b"")):
            state.workers.leave(worker.identity)
            give_back(batch, state.leases.lost_with(worker.identity))
