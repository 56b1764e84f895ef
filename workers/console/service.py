"""The console process: one door on a Unix socket, for people the kernel vouches for."""

import contextlib
import os
import pwd

from broker.errors import UnavailableError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.units import UnixSeconds
from workers.connection import Connection, Limits
from workers.console.local import LocalDesk
from workers.console.logic import admit
from workers.console.routes import ASKING_ROUTES, local_routes
from workers.door import Door, OriginOf, local_origin
from workers.health import HealthDesk
from workers.listener import remove_own, unix_listener
from workers.material import find_material
from workers.route import Asker, Caller, RouteTable
from workers.web import Front


class Console:
    """The local door of one node.

    Args:
        settings: `[enrollment]` of the node.
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
        health = HealthDesk(self._expires_at).routes()
        table = RouteTable(ASKING_ROUTES + local_routes(LocalDesk(settings, paths)) + health)
        self.door = Door("local", Front(table, asker, meet_user, limits).serve, limits, origin_of)

    @property
    def is_open(self) -> bool:
        """Whether the socket accepts connections."""
        return self.door.is_open

    def round(self) -> None:
        """Open the socket if it is not open.

        Raises:
            ConflictError: Another process listens there.
            UnavailableError: It cannot be made.
        """
        if self.door.is_open:
            return
        path = self._paths.api_socket
        try:
            listener = unix_listener(path, self._limits.backlog)
            self._inode = path.stat().st_ino
        except OSError as error:
            raise UnavailableError(f"cannot listen on {path}: {error.strerror or error}") from None
        self.door.open(listener, None)
        log(EventName.LISTENER_OPENED, listener=self.door.name, address=str(path))

    async def close(self) -> None:
        """Finish what is in flight and remove the socket."""
        remove_own(self._paths.api_socket, self._inode)
        await self.door.close()

    def _expires_at(self) -> UnixSeconds | None:
        with contextlib.suppress(UnavailableError):
            return find_material(self._paths).not_after
        return None


def meet_user(connection: Connection) -> Caller:
    """Return the caller of the local socket, named as the machine knows the user.

    Raises:
        ForbiddenError: Neither the node's own user nor root.
    """
    uid = admit(connection.origin.uid, os.geteuid())
    return Caller(source=connection.origin.source, operator=_user_name(uid))


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid:{uid}"
