"""The gateway as a process: start, events, shared ports, refusals to start, polite stop."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.wire.events import CertificateMoved
from broker.wire.liveness import Beat, Goodbye, Ready
from broker.wire.roster import WhoAmI, WhoAmIAnswer
from tests.stub_broker import StubBroker
from tests.support import eventually
from tests.workers.door_house import visit
from tests.workers.tls_lab import Lab, install, write_membership

ROOT = Path(__file__).parents[2]
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def start(paths: Paths, port: int) -> Iterator[Start]:
    """Start gateway processes that listen on `port` for the mesh only; reap them at the end."""
    paths.settings.write_text(
        f'[node]\nname = "atlas"\n[listen]\nenroll = ""\nmesh = "127.0.0.1:{port}"\n'
    )
    running = []

    def run(*flags: str, name: str = "gateway") -> subprocess.Popen[bytes]:
        log = (paths.log / f"{name}.log").open("wb")
        command = [sys.executable, "-m", "workers.gateway", str(paths.settings), *flags]
        environ = {**os.environ, "SUPERVISOR_PROCESS_NAME": name}
        with log:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=environ
            )
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.wait(10)


def lines(paths: Paths, name: str = "gateway") -> list[dict[str, object]]:
    """Return what a process has logged."""
    text = (paths.log / f"{name}.log").read_text()
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def said(paths: Paths, event: str, name: str = "gateway") -> list[dict[str, object]]:
    """Return the lines of one event."""
    return [line for line in lines(paths, name) if line["event"] == event]


def whoami(request: WhoAmI) -> WhoAmIAnswer:
    """Answer as the CA would."""
    return WhoAmIAnswer(
        host=request.peer.host, member_id="c", role="member", serial="1", state="active"
    )


def test_it_waits_for_its_certificate_then_serves_then_follows_the_event(
    paths: Paths, start: Start, port: int
) -> None:
    """The main path: any start order, reload on the broker's word, Goodbye and 0 on SIGTERM."""
    lab = Lab()
    own, renewed = lab.leaf(), lab.leaf()
    member = lab.trusting(paths.home, lab.leaf("nas"))
    write_membership(paths, lab.root_pem)
    with StubBroker(paths, {WhoAmI: whoami}) as broker:
        process = start()
        waiting = "waiting for certificate"
        eventually(lambda: any(beat.state == waiting for beat in broker.seen(Beat)), 10)
        install(paths, own)
        broker.publish_until(
            CertificateMoved(serial=own.serial), lambda: said(paths, "listener.opened")
        )
        assert len(said(paths, "listener.delayed")) == 1
        eventually(lambda: broker.seen(Beat)[-1].state == "ready")
        with visit(port, member) as open_connection:
            assert open_connection.ask("GET", "/v1/whoami").status == 200
            install(paths, renewed)
            broker.publish(CertificateMoved(serial=renewed.serial))
            eventually(lambda: said(paths, "listener.reloaded"))
            assert open_connection.ask("GET", "/v1/whoami").status == 200
            with visit(port, member) as fresh:
                assert fresh.served_serial == renewed.serial
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == Exit.OK
        assert broker.seen(Goodbye)


def test_two_processes_share_one_port(paths: Paths, start: Start, port: int) -> None:
    """One is killed, the other goes on: no request has to know how many there are."""
    lab = Lab()
    write_membership(paths, lab.root_pem)
    install(paths, lab.leaf())
    member = lab.trusting(paths.home, lab.leaf("nas"))
    with StubBroker(paths, {WhoAmI: whoami}) as broker:
        first, second = start(name="gateway_00"), start(name="gateway_01")
        for name in ("gateway_00", "gateway_01"):
            eventually(lambda name=name: said(paths, "listener.opened", name), 10)  # type: ignore[misc]  # mypy cannot infer this lambda
        both = {"gateway_00", "gateway_01"}
        eventually(lambda: {ready.instance for ready in broker.seen(Ready)} == both)
        first.kill()
        first.wait(5)
        for _ in range(5):
            with visit(port, member) as visitor:
                assert visitor.ask("GET", "/v1/whoami").status == 200
        second.send_signal(signal.SIGTERM)
        assert second.wait(5) == Exit.OK


def test_a_taken_port_is_named_and_tried_again(paths: Paths, start: Start, port: int) -> None:
    """The log says which address; the door opens when the other program is gone."""
    lab = Lab()
    write_membership(paths, lab.root_pem)
    install(paths, lab.leaf())
    with StubBroker(paths):
        with socket.create_server(("127.0.0.1", port)):
            start()
            delayed = eventually(lambda: said(paths, "listener.delayed"), 10)
            assert f"127.0.0.1:{port}" in str(delayed[0]["reason"])
        eventually(lambda: said(paths, "listener.opened"), 10)


def test_a_request_in_flight_is_finished_before_the_process_ends(
    paths: Paths, start: Start, port: int
) -> None:
    """SIGTERM refuses new work and keeps the promise already made (row 3)."""
    lab = Lab()
    write_membership(paths, lab.root_pem)
    install(paths, lab.leaf())
    started: list[subprocess.Popen[bytes]] = []

    def slow(request: WhoAmI) -> WhoAmIAnswer:
        started[0].send_signal(signal.SIGTERM)
        eventually(lambda: said(paths, "process.stopping"))
        return whoami(request)

    with StubBroker(paths, {WhoAmI: slow}):
        started.append(start())
        eventually(lambda: said(paths, "listener.opened"), 10)
        with visit(port, lab.trusting(paths.home, lab.leaf("nas"))) as visitor:
            assert visitor.ask("GET", "/v1/whoami").status == 200
        assert started[0].wait(5) == Exit.OK


def test_once_runs_one_round_and_ends(paths: Paths, start: Start) -> None:
    """Also without a broker and without a certificate: it says what is missing."""
    process = start("--once")
    assert process.wait(15) == Exit.OK
    assert said(paths, "listener.delayed")[0]["reason"] == "waiting for membership"


def test_a_malformed_listen_address_ends_the_process_with_78(paths: Paths, start: Start) -> None:
    """The supervisor must not restart for ever what cannot start."""
    paths.settings.write_text('[listen]\nmesh = "everywhere"\n')
    process = start()
    assert process.wait(15) == Exit.SETTINGS
    assert "host:port" in (paths.log / "gateway.log").read_text()
