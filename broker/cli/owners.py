"""Whose files are whose, where `[users]` gives the processes of a node different users.

What each user may touch, from the top:

    home       root        settings (their group reads them), logs, hooks.d, the process table
    run        root        supervisord's socket; broker/ and console/ below it are those users' own
    data       broker      ledger, CA, credentials, backups: 0700 and 0600, its alone
    data/certs renewal     its group reads: the node's key is for all who speak TLS
    data/hook-runs         as certs; the top of certs is the broker's, which adds names
    data/trust workers     their group reads

So whoever takes over the gateway reads neither the CA's key, sealed as it is, nor the ledger, and
cannot put a socket where callers look for the broker.

Invariants: done while nothing of the node runs, as root, at every start; no symbolic link is
followed and no file with a second name is given away, because what lies in a directory of another
user may have been put there to be given away.
"""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from broker.errors import MeshError, SettingsError
from broker.runtime.files import SHARED_DIRECTORY_MODE, SHARED_FILE_MODE, private_directory
from broker.runtime.paths import Paths
from broker.runtime.privileges import LOW_PORTS_END
from broker.runtime.restraint import DIRECTORY as STARTS
from broker.runtime.settings import Settings
from broker.runtime.users import BROKER, User, shared_group, user_of
from broker.wire.ids import Service
from broker.wire.node import Membership
from broker.wire.plain import decode_json

PASSED_MODE = 0o2710
"""The group may pass, and not look around."""
EVERYBODYS_MODE = 0o3770
"""Everybody makes files here, nobody touches another's."""
OPEN_PORTS = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
PROBE_S = 30.0
HOST = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True)
class Lot:
    """What a tree is to be: owner, group, and modes; a mode of 0 leaves what is there."""

    uid: int
    gid: int
    directory_mode: int = 0
    file_mode: int = 0


def settle_owners(paths: Paths, settings: Settings) -> None:
    """Give every file of the node to the user that works with it; before anything is started.

    Nothing happens where `[users]` is empty.

    Raises:
        SettingsError: `[users]` cannot work like that; the hint says what would.
    """
    if not settings.users.differ:
        return
    group = _checked(paths, settings)
    try:
        _settle(paths, settings, group)
    except OSError as error:
        raise SettingsError(
            f"[users]: cannot give {error.filename} to its user: {error.strerror}",
            hint="look at it: a link or a file is where a directory should be, or the disk is full",
        ) from None
    for user in {user_of(settings.users, name) for name in (BROKER, *Service)}:
        _probe(user, paths)


def _settle(paths: Paths, settings: Settings, group: int) -> None:
    broker, console = user_of(settings.users, BROKER), user_of(settings.users, Service.CONSOLE)
    for directory, uid, mode in (
        (paths.home, 0, 0o2750),
        (paths.log, 0, 0o2750),
        (paths.run, 0, PASSED_MODE),
        (paths.supervisor_socket.parent, 0, PASSED_MODE),
        (paths.home / "run" / STARTS, 0, EVERYBODYS_MODE),
        (paths.broker_run, broker.uid, SHARED_DIRECTORY_MODE),
        (paths.console_run, console.uid, SHARED_DIRECTORY_MODE),
        (paths.data, broker.uid, PASSED_MODE),
    ):
        _own_directory(directory, uid, group, mode)
    _own_file(paths.settings, 0, group, SHARED_FILE_MODE)
    for words in (paths.log / "supervisord.log", paths.log / "watchdog.log"):
        words.touch(mode=SHARED_FILE_MODE)
        _own_file(words, 0, group, SHARED_FILE_MODE)
    _settle_trees(paths, settings, group)


def _settle_trees(paths: Paths, settings: Settings, group: int) -> None:
    broker, renewal = user_of(settings.users, BROKER), user_of(settings.users, Service.RENEWAL)
    fetching = user_of(settings.users, Service.ROSTER_SYNC)
    before = paths.data / paths.hook_runs.name
    shared = {
        paths.certificates: renewal,
        paths.hook_runs.parent: renewal,
        paths.trust: fetching,
    }
    host = _own_host(paths)
    if host:
        # Below a directory of the broker's it could not make its own.
        private_directory(paths.certificates / host)
    for place, user in shared.items():
        _own_directory(place, user.uid, group, SHARED_DIRECTORY_MODE)
        _own_tree(place, Lot(user.uid, group, SHARED_DIRECTORY_MODE, SHARED_FILE_MODE))
    # The broker puts a link there when the host is renamed.
    _own_directory(paths.certificates, broker.uid, group, SHARED_DIRECTORY_MODE)
    if before.is_file():
        before.replace(paths.hook_runs)
        _own_file(paths.hook_runs, renewal.uid, group, SHARED_FILE_MODE)
    _own_tree(paths.data, Lot(broker.uid, group), but=tuple(shared))
    if paths.membership.exists():
        _own_file(paths.membership, broker.uid, group, SHARED_FILE_MODE)
    if settings.backup.directory and Path(settings.backup.directory).is_dir():
        place = Path(settings.backup.directory)
        _own_directory(place, broker.uid, group, 0o700)
        _own_tree(place, Lot(broker.uid, group))


def _own_host(paths: Paths) -> str:
    """Return what this node is called, empty while nobody knows or it is no name of a directory."""
    try:
        host = decode_json(paths.membership.read_bytes(), Membership).host
    except (OSError, MeshError):
        return ""
    return host if HOST.fullmatch(host) else ""


def _checked(paths: Paths, settings: Settings) -> int:
    """Return the group of all users of the node.

    Raises:
        SettingsError: Not root, no such accounts, no place of the broker's own, or low ports.
    """
    if os.geteuid() != 0:
        raise SettingsError(
            "[users] needs root: only root can start processes as others",
            hint="start the node as root, or remove [users]",
        )
    group = shared_group(settings.users)
    if paths.data == paths.home:
        raise SettingsError(
            f"[users]: {paths.home} is root's, the broker's data need a directory of their own",
            hint="set node.data_dir in certmesh.toml, such as /var/lib/certmesh, and move there "
            "all but certmesh.toml, supervisord.conf, hooks.d, log and run",
        )
    if settings.pool.remote_renewal:
        raise SettingsError(
            "[users]: renewal for a CA elsewhere ([pool] remote_renewal) does not work with it",
            hint="run those workers in a home of their own, without [users]",
        )
    _check_ports(settings)
    return group


def _check_ports(settings: Settings) -> None:
    wanted = {
        "workers": BROKER,
        "enroll": Service.GATEWAY.value,
        "mesh": Service.GATEWAY.value,
        "dashboard": Service.CONSOLE.value,
    }
    for key, program in wanted.items():
        port = getattr(settings.listen, key).rpartition(":")[2]
        low = port.isdecimal() and 0 < int(port) < _open_ports()
        if low and user_of(settings.users, program).uid != 0:
            raise SettingsError(
                f"[users]: {program} is no root and cannot listen at port {port}",
                hint=f"sysctl -w net.ipv4.ip_unprivileged_port_start={port}, or another port",
            )


def _open_ports() -> int:
    with suppress(OSError, ValueError):
        return int(OPEN_PORTS.read_text(encoding="ascii"))
    return LOW_PORTS_END


def _probe(user: User, paths: Paths) -> None:
    """Start this program as somebody else, to the point where it can read its settings.

    Raises:
        SettingsError: It cannot; supervisord would only say that it exits too quickly.
    """
    # What `python -m broker` imports, and the file it is given.
    program = f"import broker.runtime.main; open({str(paths.settings)!r}).close()"
    try:
        done = subprocess.run(  # noqa: S603 (our own interpreter)
            [sys.executable, "-c", program],
            check=False,
            capture_output=True,
            cwd="/",
            stdin=subprocess.DEVNULL,
            timeout=PROBE_S,
            user=user.uid,
            group=user.gid,
            extra_groups=[user.gid],
        )
        status, said = done.returncode, done.stderr.decode(errors="replace").strip().splitlines()
    except (OSError, subprocess.TimeoutExpired) as error:
        status, said = -1, [str(error)]
    if status != 0:
        raise SettingsError(
            f"[users]: {user.name or user.uid} cannot run this program: {(said or ['?'])[-1]}",
            hint=f"{sys.executable}, its packages and {paths.home} must be in reach of that user; "
            "install the program below /opt, say",
        )


def _own_directory(path: Path, uid: int, gid: int, mode: int) -> None:
    """Make a directory what it is to be; a link in its place is refused by the kernel."""
    if not path.exists():
        private_directory(path)
    with _opened(path, os.O_DIRECTORY) as descriptor:
        os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, mode)


def _own_file(path: Path, uid: int, gid: int, mode: int) -> None:
    with _opened(path) as descriptor:
        os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, mode)


def _own_tree(top: Path, lot: Lot, but: tuple[Path, ...] = ()) -> None:
    """Give away everything below `top`, itself and the trees of `but` left out."""
    skipped = {path.name for path in but if path.parent == top}
    for place, directories, files, descriptor in os.fwalk(top, follow_symlinks=False):
        if Path(place) == top:
            directories[:] = [name for name in directories if name not in skipped]
        for name in (*directories, *files):
            _give(name, descriptor, lot)


def _give(name: str, directory: int, lot: Lot) -> None:
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISREG(found.st_mode) and found.st_nlink > 1 and found.st_uid != lot.uid:
        return
    os.chown(name, lot.uid, lot.gid, dir_fd=directory, follow_symlinks=False)
    mode = lot.directory_mode if stat.S_ISDIR(found.st_mode) else lot.file_mode
    if not mode or not (stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)):
        return
    with _opened(name, at=directory) as descriptor:
        os.fchmod(descriptor, mode)


@contextmanager
def _opened(path: Path | str, more: int = 0, at: int | None = None) -> Iterator[int]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | more
    descriptor = os.open(path, flags, dir_fd=at)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
