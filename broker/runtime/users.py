"""`[users]`: which user each program of a node runs as.

Nothing here changes anything; `broker.cli.owners` gives the files their owners, supervisord starts
each program as its user, and the broker lets nobody else speak as that service.
"""

import os
import pwd
from dataclasses import dataclass

from broker.errors import SettingsError
from broker.runtime.section import Section
from broker.wire.ids import Service

BROKER = "broker"
_OWN_KEYS = {
    BROKER: "broker",
    Service.CONSOLE.value: "console",
    Service.GATEWAY.value: "gateway",
    Service.RENEWAL.value: "renewal",
}


class Users(Section, frozen=True):
    """`[users]`: accounts of a node that root starts; all of the same primary group.

    Empty means the user that starts the pool. `workers` is everybody not named here; the watchdog
    stays with whoever starts the pool. `renewal` runs hooks, as itself if it is not root.
    """

    broker: str = ""
    console: str = ""
    gateway: str = ""
    renewal: str = ""
    workers: str = ""

    @property
    def differ(self) -> bool:
        """Whether the processes of this node are different users."""
        return self != Users()


@dataclass(frozen=True, slots=True)
class User:
    """One account; `gid` is its primary group."""

    name: str
    uid: int
    gid: int


def user_name(users: Users, program: str) -> str:
    """Return the account that a program runs as; empty for the one that starts the pool."""
    if program == Service.WATCHDOG.value:
        return ""
    name: str = getattr(users, _OWN_KEYS.get(program, "workers"))
    return name


def user_of(users: Users, program: str) -> User:
    """Return who a program runs as; who starts the pool is root, where `[users]` is used.

    Raises:
        SettingsError: This machine has no such account.
    """
    name = user_name(users, program)
    if name:
        return _account(name)
    return _account("root") if users.differ else User("", os.geteuid(), os.getegid())


def service_uids(users: Users) -> dict[Service, int]:
    """Return whose process may speak as which service.

    Raises:
        SettingsError: This machine has no such account.
    """
    return {service: user_of(users, service.value).uid for service in Service}


def shared_group(users: Users) -> int:
    """Return the group that all accounts of `[users]` have in common.

    Raises:
        SettingsError: There is no such account, or they do not share one.
    """
    named = (users.broker, users.console, users.gateway, users.renewal, users.workers)
    names = sorted({name for name in named if name})
    groups = {_account(name).gid for name in names}
    if len(groups) != 1:
        raise SettingsError(
            f"[users]: {', '.join(names)} do not have the same primary group",
            hint=f"groupadd certmesh; usermod -g certmesh {names[0]}, and so with the others",
        )
    return groups.pop()


def _account(name: str) -> User:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise SettingsError(
            f"[users]: this machine has no account {name}",
            hint=f"useradd --system --gid certmesh --home-dir / --shell /usr/sbin/nologin {name}",
        ) from None
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid)
