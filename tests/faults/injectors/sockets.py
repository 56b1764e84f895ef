"""Strangers at every socket of a node while it works: octets without sense, and slow ones."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import zmq

from tests.faults.harness.injector import Harm, Injector
from tests.faults.pool import Pool

CONNECT_S = 1.0
SHOTS = 24
SLOW = 16
"""Of the 64 connections that one source may have; the workload comes from the same one."""
DRIP_S = 0.05
DRIP_MAX = 400
OCTETS_MAX = 4096
LOCAL = ("broker.sock", "control.sock", "api.sock", "supervisor.sock")
ROUTERS = ("broker.sock", "control.sock")


class Garbage:
    """Random octets at both TLS ports, inside TLS, at the local sockets and as ZeroMQ frames."""

    name = "garbage"
    weight = 3
    settles_s = 30.0

    def fits(self, nodes: Sequence[Pool]) -> bool:
        """Return True: every node has sockets."""
        return bool(nodes)

    def harm(self, nodes: Sequence[Pool], chance: Random) -> Harm:
        """Throw all of it; there is nothing to heal."""
        node = chance.choice(nodes)
        for _ in range(SHOTS):
            octets = chance.randbytes(chance.randint(1, OCTETS_MAX))
            with contextlib.suppress(OSError):
                _throw(node, octets, chance)
        _frames(node, chance)
        return Harm(f"garbage at every socket of {node.name}", _nothing)


class Slowloris:
    """Connections that are never ready: silent ones, handshakes and requests octet by octet."""

    name = "slow-peers"
    weight = 2
    settles_s = 30.0

    def fits(self, nodes: Sequence[Pool]) -> bool:
        """Return True: every node has doors."""
        return bool(nodes)

    def harm(self, nodes: Sequence[Pool], chance: Random) -> Harm:
        """Open them; they go on until healed."""
        node = chance.choice(nodes)
        stopped = threading.Event()
        threads = [
            threading.Thread(target=_drip, args=(node, stopped, number), daemon=True)
            for number in range(SLOW)
        ]
        for thread in threads:
            thread.start()

        def heal() -> None:
            stopped.set()
            for thread in threads:
                thread.join(10)

        return Harm(f"{SLOW} slow peers at the doors of {node.name}", heal)


def _nothing() -> None:
    """Nothing of it stays."""


def _throw(node: Pool, octets: bytes, chance: Random) -> None:
    """Send octets to one socket and hang up."""
    match chance.randrange(4):
        case 0:
            with _tcp(node, chance.randrange(2)) as plain:
                plain.sendall(octets)
        case 1:
            with _tcp(node, 0) as plain, _anybody().wrap_socket(plain) as inside:
                inside.sendall(octets)
        case 2:
            with _tcp(node, 0) as plain, _anybody().wrap_socket(plain) as inside:
                head = b"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
                inside.sendall(head % len(octets) + octets)
                inside.recv(OCTETS_MAX)
        case _:
            with _unix(node.home / "run" / chance.choice(LOCAL)) as local:
                local.sendall(octets)


def _frames(node: Pool, chance: Random) -> None:
    """Send ZeroMQ messages that are none of ours, in every number of frames."""
    with zmq.Context() as context:
        for name in ROUTERS:
            with context.socket(zmq.DEALER) as link:
                link.linger = 100
                link.sndtimeo = 200
                link.connect(f"ipc://{node.home / 'run' / name}")
                for count in range(1, 6):
                    frames = [chance.randbytes(chance.randint(0, 200)) for _ in range(count)]
                    with contextlib.suppress(zmq.Again):
                        link.send_multipart(frames)


def _drip(node: Pool, stopped: threading.Event, number: int) -> None:
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)
    with contextlib.suppress(OSError), _tcp(node, number % 2) as plain:
        wire: socket.socket = plain
        if number % 4 == 0:  # half of those at the enrol port get as far as HTTP
            wire = _anybody().wrap_socket(plain)
            hello = b"POST /v1/join HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"x" * DRIP_MAX
        with contextlib.closing(wire):
            for at in range(DRIP_MAX):
                if stopped.wait(DRIP_S):
                    return
                if number % 3:
                    wire.sendall(hello[at : at + 1])


def _anybody() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _tcp(node: Pool, which: int) -> socket.socket:
    return socket.create_connection((node.address, node.port + which), timeout=CONNECT_S)


@contextlib.contextmanager
def _unix(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as local:
        local.settimeout(CONNECT_S)
        local.connect(str(path))
        yield local


INJECTORS: tuple[Injector, ...] = (Garbage(), Slowloris())
