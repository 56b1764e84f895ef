"""Listening sockets: TCP that several processes share, and Unix sockets that nobody loses."""

import contextlib
import os
import socket
import stat
from pathlib import Path

from broker.errors import ConflictError, SettingsError

SOCKET_MODE = 0o600
PORT_MAX = 65_535


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of `host:port` or `[v6]:port`.

    Raises:
        SettingsError: It is not that.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) <= PORT_MAX):
        raise SettingsError(
            f'listen address "{text}" is not host:port',
            hint='write an address of this machine and a port, such as "0.0.0.0:7643"',
        )
    return host, int(port)


def tcp_listener(address: str, backlog: int) -> socket.socket:
    """Return a socket listening on `address`; further processes of this user may share it.

    Raises:
        SettingsError: The address is malformed.
        OSError: It cannot be bound; the caller names it and tries again.
    """
    host, port = parse_address(address)
    family, kind, protocol, _, target = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(target)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


def unix_listener(path: Path, backlog: int) -> socket.socket:
    """Return a socket listening at `path`, mode 0600, after removing a dead one.

    Raises:
        ConflictError: Another process listens there, or it is no socket.
        OSError: It cannot be bound.
    """
    _remove_dead(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Nobody can connect before listen(), and by then the mode is right.
        listener.bind(os.fspath(path))
        path.chmod(SOCKET_MODE)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


def remove_own(path: Path, listener_inode: int) -> None:
    """Remove the socket file if it is still the one with this inode."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_ino == listener_inode:
            path.unlink()


def _remove_dead(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConflictError(f"{path} exists and is no socket", hint="move it away")
        if _answers(path):
            raise ConflictError(
                f"another process listens on {path}",
                hint="this node is already running from this home directory",
            )
        path.unlink()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:  # its backlog is full: very much alive
            return True
    return True
