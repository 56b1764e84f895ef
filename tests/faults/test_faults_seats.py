"""Identities and services at the sockets of a real broker: who is whom, and who may do what."""

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import zmq

from broker.core.capability import CAPABILITIES
from broker.runtime.sockets import dealer
from broker.wire.authority import LockAuthority
from broker.wire.base import Reply, Request
from broker.wire.codec import WIRE_VERSION, decode_answer, encode
from broker.wire.control import Fault
from broker.wire.ids import Service
from broker.wire.liveness import Ready, Welcome
from broker.wire.messages import Call
from tests.faults.lone import Home, Nursery
from tests.wire.samples import REQUESTS, sample

pytestmark = pytest.mark.faults
PATIENCE_MS = 60_000


class Line:
    """One connection with an identity that is known."""

    def __init__(self, home: Home, identity: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = dealer(self._context, home.paths.control_socket, identity.encode())

    def ask(self, request: Request) -> Reply:
        """Return the reply to one request."""
        assert self._socket.poll(PATIENCE_MS, zmq.POLLOUT)
        call = Call(secrets.token_bytes(16), 30_000, cast("Any", request))
        self._socket.send_multipart(encode(call), zmq.NOBLOCK)
        assert self._socket.poll(PATIENCE_MS, zmq.POLLIN)
        return decode_answer(self._socket.recv_multipart()).reply

    def be(self, service: Service) -> None:
        """Introduce this process."""
        ready = Ready(service, service.value, secrets.token_hex(4), 1, WIRE_VERSION)
        assert isinstance(self.ask(ready), Welcome)

    def close(self) -> None:
        """Leave without a word."""
        self._context.destroy(linger=0)


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    """Yield a home with a running broker, started by this user alone."""
    made = Home.create()
    try:
        with Nursery() as nursery:
            nursery.start(made)
            yield made
    finally:
        made.remove()


def _intruder(home: Home, service: str, identity: str) -> dict[str, str]:
    line = [sys.executable, "-m", "tests.faults.intruder", str(home.paths.settings)]
    done = subprocess.run(
        [*line, "be", service, identity],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_nobody_gets_in_under_an_identity_that_is_in_use(home: Home) -> None:
    """The second connection is never answered, the first one never notices (row 40)."""
    first = Line(home, "console/one/aa")
    try:
        first.be(Service.CONSOLE)
        assert _intruder(home, "gateway", "console/one/aa") == {"beat": "silence"}
        assert not isinstance(first.ask(LockAuthority(operator="root")), Fault)
    finally:
        first.close()


def test_the_identity_of_a_dead_console_is_worth_nothing(home: Home) -> None:
    """Its process is gone, the broker does not know yet: another takes its identity (row 40)."""
    first = Line(home, "console/two/bb")
    first.be(Service.CONSOLE)
    first.close()
    found = _intruder(home, "gateway", "console/two/bb")
    assert (found["beat"], found["before"], found["after"]) == (
        "unknown",
        "unregistered",
        "forbidden",
    )


@pytest.mark.parametrize("service", list(Service))
def test_whatever_is_not_in_the_row_of_a_service_is_forbidden(home: Home, service: Service) -> None:
    """Every request there is, over a real socket, with the service's identity (row 41) (L6)."""
    line = Line(home, f"{service}/table/{secrets.token_hex(4)}")
    try:
        line.be(service)
        others = [kind for kind in REQUESTS if kind not in CAPABILITIES[service]]
        assert len(others) > len(REQUESTS) // 3
        for kind in others:
            reply = line.ask(cast("Request", sample(kind)))
            assert isinstance(reply, Fault), kind
            assert reply.code == "forbidden", (kind, reply)
    finally:
        line.close()
