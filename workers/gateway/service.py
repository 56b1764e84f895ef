"""The gateway process: waits for what it shows, opens its doors, follows the certificate.

A round opens what is not open and takes over what is new; whatever fails is said once and tried
again. The old certificate keeps serving until a new one is good.
"""

import asyncio
import ssl
from socket import socket

from broker.clock import wall_s
from broker.errors import ErrorCode, MeshError, UnavailableError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.units import UnixSeconds
from workers.connection import Connection, Limits
from workers.door import Door, Tally
from workers.gateway.identity import peer_of
from workers.gateway.logic import refuse_expired
from workers.gateway.routes import ENROLL_ROUTES, MESH_ROUTES
from workers.gateway.tls import Contexts, build_contexts
from workers.health import HealthDesk
from workers.listener import parse_address, tcp_listener
from workers.material import Material, find_material
from workers.route import Asker, Caller, RouteTable
from workers.web import Front

UNWELCOME = frozenset({ErrorCode.REVOKED, ErrorCode.NOT_A_MEMBER, ErrorCode.FORBIDDEN})


class Gateway:
    """Both doors of one gateway process."""

    def __init__(self, settings: Settings, paths: Paths, asker: Asker, limits: Limits) -> None:
        self._listen = settings.listen
        for address in filter(None, (self._listen.enroll, self._listen.mesh)):
            parse_address(address)  # a typing error ends the process, it will not heal
        self._paths = paths
        self._limits = limits
        self._material: Material | None = None
        self._contexts: Contexts | None = None
        self._refusals = Tally()
        health = HealthDesk(self._expires_at).routes()
        enroll = Front(RouteTable(ENROLL_ROUTES + health), asker, meet_stranger, limits)
        mesh = Front(
            RouteTable(MESH_ROUTES + health), asker, meet_member, limits, self._note_refusal
        )
        self.enroll = Door("enroll", enroll.serve, limits)
        self.mesh = Door("mesh", mesh.serve, limits)

    @property
    def serial(self) -> str:
        """Serial of the certificate new connections see; empty before there is one."""
        return self._material.serial if self._material else ""

    def round(self) -> None:
        """Take over what is new and open what is closed.

        Raises:
            UnavailableError: Something is missing; whatever is open stays open as it is.
        """
        material = find_material(self._paths)
        if material != self._material:
            self._take_over(material, build_contexts(material))
        assert self._contexts is not None
        self._open(self.enroll, self._listen.enroll, self._contexts.enroll)
        self._open(self.mesh, self._listen.mesh, self._contexts.mesh)

    @property
    def is_open(self) -> bool:
        """Whether every door that has an address accepts connections."""
        pairs = ((self.enroll, self._listen.enroll), (self.mesh, self._listen.mesh))
        return all(door.is_open for door, address in pairs if address)

    async def close(self) -> None:
        """Close both doors politely."""
        await asyncio.gather(self.enroll.close(), self.mesh.close())

    def _take_over(self, material: Material, contexts: Contexts) -> None:
        self._material, self._contexts = material, contexts
        for door, context in ((self.enroll, contexts.enroll), (self.mesh, contexts.mesh)):
            if door.is_open:
                door.swap(context)
                log(EventName.LISTENER_RELOADED, listener=door.name, serial=material.serial)

    def _open(self, door: Door, address: str, context: ssl.SSLContext) -> None:
        if door.is_open or not address:
            return
        door.open(self._bind(address), context)
        log(EventName.LISTENER_OPENED, listener=door.name, address=address, serial=self.serial)

    def _bind(self, address: str) -> socket:
        try:
            return tcp_listener(address, self._limits.backlog)
        except OSError as error:
            raise UnavailableError(
                f"cannot listen on {address}: {error.strerror or error}",
                hint="another program uses that port, or the address is not of this machine",
            ) from None

    def _expires_at(self) -> UnixSeconds | None:
        return self._material.not_after if self._material else None

    def _note_refusal(self, caller: Caller | None, error: MeshError) -> None:
        if error.code not in UNWELCOME or caller is None or caller.peer is None:
            return
        if self._refusals.is_due(asyncio.get_running_loop().time()):
            log(
                EventName.AUTH_FAILED,
                listener=self.mesh.name,
                peer=caller.peer.host,
                serial=caller.peer.serial,
                code=error.code.value,
                count=self._refusals.take(),
            )


def meet_stranger(connection: Connection) -> Caller:
    """Return the caller of the enrol door: an address, nothing more is known."""
    return Caller(source=connection.origin.source)


def meet_member(connection: Connection) -> Caller:
    """Return the caller of the mesh door, whose certificate is checked on every request.

    Raises:
        NotAMemberError: The certificate names no host, or has expired since the handshake.
    """
    peer = peer_of(connection)
    refuse_expired(peer, wall_s())
    return Caller(source=peer.address, peer=peer)
