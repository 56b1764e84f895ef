"""Descriptors that run short, and rubbish at the sockets of this machine: the node goes on."""

import contextlib
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from broker.clock import boottime_ms
from tests.faults.pool import Pool
from tests.faults.test_faults_doors import descriptors
from tests.support import eventually, throughout

PORT = 35_060
LIMIT = 1024
"""supervisord asks for no less; it is what many systems give."""
FLOOD_MS = 3_000
CLIENTS_MAX = 3 * LIMIT
GREETING = b"\xff" + b"\0" * 8 + b"\x7f\x03\x01NULL" + b"\0" * 48
pytestmark = [pytest.mark.faults, pytest.mark.mesh, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """A running node whose processes may open no more than a thousand files each."""
    found = Pool.create(PORT)
    try:
        command = [sys.executable, "-m", "broker.cli", "--home", str(found.home), "up"]
        limited = ["sh", "-c", f'ulimit -n {LIMIT} && exec "$@"', "sh", *command]
        subprocess.run(limited, check=True, capture_output=True)
        eventually(found.is_ok, within_s=60)
        yield found
    finally:
        found.remove()


@contextlib.contextmanager
def many() -> Iterator[list[socket.socket]]:
    """A list of sockets that are closed at the end."""
    kept: list[socket.socket] = []
    try:
        yield kept
    finally:
        for one in kept:
            one.close()


def crowd(path: Path, kept: list[socket.socket]) -> int:
    """Connect to a socket file as often as it goes, for a while; return how often that failed."""
    until_ms, failed = boottime_ms() + FLOOD_MS, 0
    while boottime_ms() < until_ms and len(kept) < CLIENTS_MAX:
        one = socket.socket(socket.AF_UNIX)
        one.setblocking(False)
        try:
            one.connect(str(path))
        except OSError:
            failed += 1
            one.close()
        else:
            kept.append(one)
    return failed


def test_a_broker_short_of_descriptors_turns_new_callers_away_and_lives(pool: Pool) -> None:
    """Or libzmq would end the process; who is connected is served all the time (row 16)."""
    before = pool.pids()
    path = pool.home / "run" / "broker.sock"
    idle = descriptors(before["broker"])
    with many() as kept:
        refused = crowd(path, kept)
        assert refused > 0
        assert idle + 100 < descriptors(before["broker"]) < LIMIT
        assert not path.exists()
        for _ in range(3):
            assert pool.is_ok()  # by the console, which was connected before
        assert pool.pids() == before
    eventually(path.exists, within_s=30)
    eventually(lambda: descriptors(before["broker"]) <= idle + 2, within_s=30)
    eventually(pool.is_ok, within_s=30)
    assert pool.pids() == before
    assert pool.log("broker").count("descriptors are in use") == 1


def test_who_never_shakes_hands_does_not_keep_the_broker_shut(pool: Pool) -> None:
    """They are cut off in seconds; a worker that restarts meanwhile comes in (row 16)."""
    path = pool.home / "run" / "control.sock"
    with many() as kept:
        crowd(path, kept)
        assert not path.exists()
        eventually(path.exists, within_s=25)
        pool.supervisorctl("restart", "heartbeat")
        eventually(lambda: "heartbeat" in pool.pids(), within_s=30)
        eventually(pool.is_ok, within_s=30)


def test_a_gateway_short_of_descriptors_keeps_some_for_itself(pool: Pool) -> None:
    """Its cap follows the limit of the process; the link to the broker stays (row 16)."""
    before = pool.pids()
    idle = descriptors(before["gateway"])
    with many() as kept:
        for number in range(2, 20):
            for _ in range(64):
                one = socket.socket()
                kept.append(one)
                one.bind((f"127.0.0.{number}", 0))
                one.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    one.connect(("127.0.0.1", PORT + number % 2))
        eventually(lambda: descriptors(before["gateway"]) > idle + 500, within_s=30)
        throughout(lambda: descriptors(before["gateway"]) < LIMIT - 20, for_s=1)
        assert pool.is_ok()
    eventually(lambda: descriptors(before["gateway"]) <= idle + 2, within_s=30)
    assert pool.pids() == before


def rubbish(draw: random.Random) -> bytes:
    """Return what is no ZMTP, or begins as such."""
    noise = draw.randbytes(draw.randrange(1, 400))
    shapes: list[Callable[[], bytes]] = [
        lambda: noise,
        lambda: b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        lambda: GREETING[: draw.randrange(len(GREETING))],
        lambda: GREETING.replace(b"NULL", b"KURV") + noise,
        lambda: GREETING + noise,
        lambda: GREETING + b"\x04\x05READY" + noise,
        lambda: GREETING + b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x02" + b"\xff" * 8,
        lambda: GREETING + b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x06DEALER" + noise,
    ]
    return draw.choice(shapes)()


def test_rubbish_at_any_local_socket_ends_its_own_connection_alone(pool: Pool) -> None:
    """Wrong greetings, torn frames, impossible lengths, at all four sockets (row 39)."""
    before = pool.pids()
    draw = random.Random(39)
    for round_ in range(400):
        name = ("broker", "control", "events", "api")[round_ % 4]
        with socket.socket(socket.AF_UNIX) as wire, contextlib.suppress(OSError):
            wire.settimeout(2)
            wire.connect(str(pool.home / "run" / f"{name}.sock"))
            wire.sendall(rubbish(draw))
    assert pool.is_ok()
    assert pool.pids() == before


def test_messages_that_are_none_are_dropped_counted_and_said_once(pool: Pool) -> None:
    """Wrong frame counts, versions, nesting and text: one line in the log a minute (row 39)."""
    before = pool.pids()
    draw = random.Random(16)
    bodies = [
        b"",
        b"\xc1",
        b"\x91" * 5000,
        b"\x81\xa4kind\xa5\xff\xfe\xfd\xfc\xfb",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa4kind\xa4none",
    ]
    with zmq.Context() as context, context.socket(zmq.DEALER) as link:
        link.linger = 1000
        link.connect(f"ipc://{pool.home}/run/broker.sock")
        for _ in range(1000):
            frames = [draw.choice([b"", b"\x01", b"\xff" * 9]), draw.choice(bodies)]
            link.send_multipart(frames[: draw.randrange(1, 3)] * draw.choice([1, 1, 3]))
    assert pool.is_ok()
    assert pool.pids() == before
    lines = [line for line in pool.log("broker").splitlines() if "is no message" in line]
    assert len(lines) == 1
