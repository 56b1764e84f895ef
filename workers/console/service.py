"""The console process: a door on a Unix socket, for people the kernel vouches for.

And, where the settings name a port for it, a second one for programs that show a token. Both have
the same routes; each route says what a token needs to come in.
"""

import asyncio
import contextlib
import os
import secrets

from broker.errors import ErrorCode, MeshError, UnavailableError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.units import UnixSeconds
from workers.accounts import account_of
from workers.connection import Connection, Limits
from workers.console.dashboard import TokenGuard, check_loopback
from workers.console.local import LocalDesk
from workers.console.logic import admit
from workers.console.routes import ASKING_ROUTES, local_routes
from workers.console.tokens import TokenDesk
from workers.door import Door, OriginOf, Tally, local_origin
from workers.health import ExpiresAt, HealthDesk
from workers.idempotency import SecretDraw
from workers.listener import remove_own, tcp_listener, unix_listener
from workers.material import find_material
from workers.openapi import described
from workers.route import Asker, Caller, Route, RouteTable
from workers.web import Front


class Console:
    """The local door of one node, and its dashboard port.

    Args:
        settings: `[enrollment]` and `[listen]` of the node.
        paths: Where its socket and files are.
        asker: The link to the broker.
        limits: What callers may cost.
        origin_of: Who is at the other end; tests pretend to be somebody else.
    """

    def __init__(
        self,
        settings: Settings,
        paths: Paths,
        asker: Asker,
        limits: Limits,
        origin_of: OriginOf = local_origin,
    ) -> None:
        self._paths = paths
        self._limits = limits
        self._inode = 0
        self._address = settings.listen.dashboard
        if self._address:
            check_loopback(self._address)  # a typing error ends the process, it will not heal
        self._refusals = Tally()
        table = RouteTable(console_routes(settings, paths, self._expires_at))
        self.door = Door("local", Front(table, asker, meet_user, limits).serve, limits, origin_of)
        shown = Front(
            table, asker, meet_program, limits, self._note_refusal, guard=TokenGuard(asker)
        )
        self.dashboard = Door("dashboard", shown.serve, limits)

    @property
    def is_open(self) -> bool:
        """Whether the socket accepts connections, and the port if there is to be one."""
        return self.door.is_open and (self.dashboard.is_open or not self._address)

    def round(self) -> None:
        """Open what is not open; the socket first, people need it more than programs the port.

        Raises:
            ConflictError: Another process listens on the socket.
            UnavailableError: One of them cannot be opened.
        """
        if not self.door.is_open:
            self._open_socket()
        if self._address and not self.dashboard.is_open:
            self._open_port()

    def _open_socket(self) -> None:
        path = self._paths.api_socket
        try:
            listener = unix_listener(path, self._limits.backlog)
            self._inode = path.stat().st_ino
        except OSError as error:
            raise UnavailableError(f"cannot listen on {path}: {error.strerror or error}") from None
        self.door.open(listener, None)
        log(EventName.LISTENER_OPENED, listener=self.door.name, address=str(path))

    def _open_port(self) -> None:
        try:
            listener = tcp_listener(self._address, self._limits.backlog)
        except OSError as error:
            raise UnavailableError(
                f"cannot listen on {self._address}: {error.strerror or error}",
                hint="another program uses that port: change listen.dashboard",
            ) from None
        self.dashboard.open(listener, None)
        log(EventName.LISTENER_OPENED, listener=self.dashboard.name, address=self._address)

    async def close(self) -> None:
        """Finish what is in flight and remove the socket."""
        remove_own(self._paths.api_socket, self._inode)
        await asyncio.gather(self.door.close(), self.dashboard.close())

    def _note_refusal(self, caller: Caller | None, error: MeshError) -> None:
        unwelcome = error.code in (ErrorCode.BAD_CREDENTIAL, ErrorCode.FORBIDDEN)
        if not unwelcome or not self._refusals.is_due(asyncio.get_running_loop().time()):
            return
        log(
            EventName.AUTH_FAILED,
            listener=self.dashboard.name,
            source=caller.source if caller else "",
            code=error.code.value,
            count=self._refusals.take(),
        )

    def _expires_at(self) -> UnixSeconds | None:
        with contextlib.suppress(UnavailableError):
            return find_material(self._paths).not_after
        return None


def console_routes(
    settings: Settings, paths: Paths, expires_at: ExpiresAt = lambda: None
) -> tuple[Route, ...]:
    """Return every route of the console; both of its doors have all of them."""
    draws = SecretDraw(secrets.token_bytes(32))
    asking = ASKING_ROUTES + TokenDesk(draws).routes()
    local = local_routes(LocalDesk(settings, paths, draws))
    return described(asking + local + HealthDesk(expires_at).routes())


def meet_program(connection: Connection) -> Caller:
    """Return the caller of the dashboard port: nobody, until it shows a token."""
    return Caller(source=connection.origin.source)


def meet_user(connection: Connection) -> Caller:
    """Return the caller of the local socket, named as the machine knows the user.

    Raises:
        ForbiddenError: Neither the node's own user nor root.
    """
    uid = admit(connection.origin.uid, os.geteuid())
    account = account_of(uid)
    source = connection.origin.source
    if account.shared:
        return Caller(source=source, account=account.name)
    return Caller(source=source, operator=account.name)
