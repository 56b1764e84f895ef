"""What hosts send each other to measure their links: `python -m tests.lab.traffic VERB ...`.

All hosts read one clock, so a datagram carries the moment it was sent, and the travel time of one
direction can be measured. Programs that listen print `ready` first, and one JSON line at the end.
"""

import ipaddress
import json
import select
import socket
import sys
from collections.abc import Callable

from broker.clock import boottime_ms

QUIET_S = 0.3
"""Silence after which nothing more is expected, once the sender has finished."""

PATIENCE_S = 20.0
CHUNK = b"x" * 65_536


def collect(address: str, port: int) -> list[tuple[int, int]]:
    """Return number and travel time of datagrams until standard input ends and they stop coming.

    An address of a group is joined.
    """
    found: list[tuple[int, int]] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        ear.bind((address, port))
        if ipaddress.ip_address(address).is_multicast:
            group = socket.inet_aton(address) + bytes(4)
            ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        say("ready")
        waiting = [ear, sys.stdin]
        while ready := select.select(
            waiting, [], [], PATIENCE_S if sys.stdin in waiting else QUIET_S
        )[0]:
            if ear in ready:
                number, sent_ms = json.loads(ear.recv(2048))
                found.append((number, boottime_ms() - sent_ms))
            elif not sys.stdin.read(1):
                waiting.remove(sys.stdin)
    return found


def send(address: str, port: int, number: int) -> None:
    """Send numbered datagrams, a few at a time so that no queue overflows."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
        for index in range(number):
            mouth.sendto(json.dumps((index, boottime_ms())).encode(), (address, port))
            if index % 50 == 49:
                select.select([], [], [], 0.005)


def swallow(address: str, port: int) -> int:
    """Take one connection; return how many bytes came, and tell the sender."""
    with socket.create_server((address, port)) as door:
        door.settimeout(PATIENCE_S)
        say("ready")
        peer, _ = door.accept()
        with peer:
            total = sum(map(len, iter(lambda: peer.recv(len(CHUNK)), b"")))
            peer.sendall(b"%d" % total)
    return total


def pour(address: str, port: int, size_bytes: int) -> float:
    """Send bytes over one connection; return bytes per second, as confirmed by the other end."""
    began_ms = boottime_ms()
    with socket.create_connection((address, port), PATIENCE_S) as peer:
        for _ in range(size_bytes // len(CHUNK)):
            peer.sendall(CHUNK)
        peer.shutdown(socket.SHUT_WR)
        total = int(peer.recv(64))
    return total * 1000 / (boottime_ms() - began_ms)


def dial(address: str, port: int) -> str:
    """Connect; return what is heard of the other end soon after standard input ended."""
    with socket.create_connection((address, port), PATIENCE_S) as peer:
        say("ready")
        sys.stdin.read()
        return "an end" if select.select([peer], [], [], QUIET_S)[0] else "silence"


VERBS: dict[str, Callable[..., object]] = {
    "collect": collect,
    "send": send,
    "swallow": swallow,
    "pour": pour,
    "dial": dial,
}


def say(line: str) -> None:
    """Tell the test that runs this."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run one verb; numbers among its words are numbers."""
    verb, address, *numbers = sys.argv[1:]
    say(json.dumps(VERBS[verb](address, *map(int, numbers))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
