"""The port for renewal workers on other machines in bad times: noise, crowds, silence, restarts."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import zmq

from broker.client import Link
from broker.client.remote import RemoteDoor
from broker.errors import (
    DeadlineError,
    LeaseLostError,
    MeshError,
    UnavailableError,
)
from broker.runtime.curve import curve_directory, octets_of, server_pair
from broker.runtime.sockets import REMOTE_FRAME_BYTES_MAX
from broker.shell.desk import Incoming
from broker.shell.destroy import destroy_mesh
from broker.shell.loop import Loop
from broker.wire.backup import DestroyWish
from broker.wire.codec import encode
from broker.wire.control import Ack
from broker.wire.ids import Service
from broker.wire.liveness import Welcome
from broker.wire.messages import Call
from broker.wire.node import GetNode, ListWorkers, NodeView, WorkersView
from broker.wire.work import ExtendLease, LeaseWork
from tests.shell.office import Office
from tests.shell.remote_office import HERE, RemoteOffice, free_port
from tests.shell.remote_scenes import (
    PLAIN,
    curve_socket,
    lease_to,
    leases,
    only_worker,
    ready,
    reply_to,
    say,
)
from tests.support import eventually


@pytest.fixture
def office(home: Path) -> Iterator[RemoteOffice]:
    """A broker whose remote port is open."""
    with RemoteOffice(home) as made:
        made.open_port()
        yield made


@pytest.fixture
def context() -> Iterator[PLAIN]:
    """A context whose leaked sockets would hang the test."""
    with zmq.Context() as made:
        yield made


def test_garbage_and_frames_too_large_end_in_silence_or_the_connection(
    office: RemoteOffice, context: PLAIN
) -> None:
    """And everybody else is served on."""
    pair = office.grant()
    with curve_socket(office, context, pair, b"noise") as dealer:
        eventually(lambda: dealer.poll(0, zmq.POLLOUT))
        for frames in ([b""], [b"\x02"], [b"\x02", b"x"], [b"a"] * 9, [b"\xff" * 9, b"\x80"]):
            dealer.send_multipart(frames)
        assert isinstance(reply_to(dealer, ready()), Welcome)
        assert office.office is not None
        desk = office.office.desk
        before = desk.refused_frames
        dealer.send(b"x" * (REMOTE_FRAME_BYTES_MAX + 1))
        with office.link(pair, "remote-renewal-1") as link:
            link.ask(GetNode(), NodeView)
        assert desk.refused_frames == before  # the connection ended before the memory was taken


def test_raw_bytes_at_the_port_disturb_nobody(office: RemoteOffice) -> None:
    """A port scanner, a browser, half a greeting (row 39)."""
    port, _ = office.open_port()
    greeting = b"\xff\0\0\0\0\0\0\0\1\x7f\x03\x01CURVE" + bytes(15)
    held = []
    for content in (b"GET / HTTP/1.1\r\n\r\n", bytes(500), greeting, greeting + bytes(100)):
        stranger = socket.create_connection((HERE, port))
        stranger.sendall(content)
        held.append(stranger)
    with office.link(office.grant()) as link:
        link.ask(GetNode(), NodeView)
    for stranger in held:
        stranger.close()


def test_a_remote_worker_that_goes_silent_gives_its_work_back(home: Path) -> None:
    """Liveness as for all workers; the watchdog is told of none of them."""
    with (
        RemoteOffice(home, broker={"worker_dead_after": "200ms"}) as office,
        office.link(office.grant()) as link,
    ):
        link.introduce()
        lease_to(office, only_worker(office))
        eventually(lambda: office.workers() == {"nas/remote-renewal-0": "dead"})
        assert leases(office) == 0
        assert office.visit(lambda state: state.workers.overdue()) == ()


def test_a_taken_port_keeps_nobody_on_this_machine_from_being_served(home: Path) -> None:
    """And it is opened when it is free."""
    port = free_port()
    squatter = socket.create_server((HERE, port))
    with squatter, RemoteOffice(home, listen={"workers": f"{HERE}:{port}"}) as office:
        with office.local(Service.CONSOLE) as local:
            local.ask(GetNode(), NodeView)
        trouble = eventually(lambda: office.visit(lambda s: s.remote_port.trouble))
        assert str(port) in trouble
        assert office.visit(lambda state: state.remote_port.port) == 0
        squatter.close()
        assert office.open_port()[0] == port
        assert office.visit(lambda state: state.remote_port.trouble) == ""
        with office.link(office.grant()) as link:
            link.ask(GetNode(), NodeView)


def test_a_damaged_server_key_keeps_the_port_shut_until_it_is_mended(home: Path) -> None:
    """The rest of the broker has nothing to do with it."""
    (home / "curve").mkdir(mode=0o700)
    file = home / "curve" / "server.key"
    file.write_text("nonsense")
    file.chmod(0o600)
    with RemoteOffice(home) as office:
        trouble = eventually(lambda: office.visit(lambda s: s.remote_port.trouble))
        assert "damaged" in trouble
        file.unlink()
        assert office.open_port()[1] == octets_of(office.open_port()[1]).hex()


@pytest.mark.parametrize("setting", ["localhost:7644", "eth0:7644", "atlas.home.arpa:7644"])
def test_a_name_instead_of_an_address_is_not_resolved(home: Path, setting: str) -> None:
    """Resolving could hold the loop for seconds."""
    with RemoteOffice(home, listen={"workers": setting}) as office:
        trouble = eventually(lambda: office.visit(lambda s: s.remote_port.trouble))
        assert "no address" in trouble


def test_a_broker_that_comes_back_is_found_and_old_leases_stay_over(home: Path) -> None:
    """The link introduces itself again; the number of the old life is refused."""
    with RemoteOffice(home) as office:
        pair = office.grant()
        with office.link(pair) as link:
            link.introduce()
            key, lease_id = office.open_port()[1], lease_to(office, only_worker(office))
            assert link.ask(ExtendLease(lease_id, 60_000), Ack) == Ack()
            office.stop()
            with pytest.raises(UnavailableError):
                link.ask(GetNode(), NodeView, timeout_ms=300)
            office.start()
            assert link.ask(GetNode(), NodeView, timeout_ms=8000).host == "atlas"
            with pytest.raises(LeaseLostError):
                link.ask(ExtendLease(lease_id, 60_000), Ack)
            assert office.open_port()[1] == key == server_pair(office.office.paths).public  # type: ignore[union-attr]  # started


def test_many_workers_of_many_machines_are_served_and_one_machine_has_a_bound(
    office: RemoteOffice,
) -> None:
    """Sixty-four of one machine; the next is told to wait."""
    pairs = [office.grant(f"host-{n}") for n in range(8)]
    links: list[Link] = []
    try:
        links.extend(office.link(pairs[0], f"remote-renewal-{number}") for number in range(66))
        links.extend(office.link(pair) for pair in pairs[1:])
        refused: list[MeshError] = []
        for link in links:
            try:
                link.ask(GetNode(), NodeView)
            except MeshError as error:
                refused.append(error)
        assert [error.code.value for error in refused] == ["busy", "busy"]
        assert len(office.workers()) == 64 + 7
    finally:
        for link in links:
            link.close()


def test_a_flood_from_one_machine_does_not_keep_local_callers_waiting(
    office: RemoteOffice, context: PLAIN
) -> None:
    """It is drained last, a few messages at a time (row 49)."""
    with curve_socket(office, context, office.grant(), b"flood") as dealer:
        reply_to(dealer, ready())
        frames = encode(Call(bytes(16), 5000, LeaseWork()))
        with office.local(Service.CONSOLE) as local:
            local.introduce()
            for _ in range(30):
                with contextlib.suppress(zmq.Again):
                    for _ in range(200):
                        dealer.send_multipart(frames, zmq.NOBLOCK)
                local.ask(GetNode(), NodeView, timeout_ms=500)


class Cable:
    """A TCP wire that can be pulled: from then on nothing passes, and nobody is told."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._server = socket.create_server((HERE, 0))
        self._ends: list[socket.socket] = [self._server]
        self._pulled = threading.Event()
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def pull(self) -> None:
        """Lose what passes on the connections there are; new ones are carried."""
        self._pulled.set()
        self._pulled = threading.Event()

    def close(self) -> None:
        """Close every end."""
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection((HERE, self._to))
                self._ends += (near, far)
                for ways in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(*ways, self._pulled)).start()

    @staticmethod
    def _carry(source: socket.socket, sink: socket.socket, pulled: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while octets := source.recv(65536):
                if not pulled.is_set():
                    sink.sendall(octets)
        if not pulled.is_set():
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)


def test_a_pulled_cable_is_noticed_by_both_and_the_lease_outlives_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker gives up first: the worker comes back under its own name and goes on."""
    for name, value in (("PING", 100), ("TTL", 400), ("TIMEOUT", 1000)):
        monkeypatch.setattr(f"broker.runtime.sockets.REMOTE_{name}_MS", value)
    with RemoteOffice(home) as office:
        port, server_key = office.open_port()
        cable = Cable(port)
        door = RemoteDoor((HERE,), cable.port, server_key, office.grant())
        with Link(door, Service.REMOTE_RENEWAL, "remote-renewal-0") as link:
            link.introduce()
            lease_id = lease_to(office, only_worker(office))
            cable.pull()
            with pytest.raises(DeadlineError):
                link.ask(GetNode(), NodeView, timeout_ms=200)
            assert link.ask(GetNode(), NodeView, timeout_ms=6000).host == "atlas"
            assert link.ask(ExtendLease(lease_id, 60_000), Ack) == Ack()
        cable.close()


class Flood:
    """A remote port as the loop sees it, at which a message always waits."""

    sockets: tuple[()] = ()

    def __init__(self) -> None:
        self.taken = 0

    def tick(self, batch: object, now_ms: int) -> None:
        """Nothing is due."""

    def answer_questions(self, ready: object) -> None:
        """Nobody asks to come in."""

    def receive(self, _ready: object) -> Incoming:
        """Return one more message."""
        self.taken += 1
        frames = encode(Call(bytes(16), 5000, LeaseWork()))
        return Incoming(cast("Any", None), b"x", frames, "ab" * 32)


def test_one_drain_takes_a_bounded_number_from_other_machines(home: Path) -> None:
    """Half of what a local socket gets."""
    office, flood = Office.create(home), Flood()
    loop = Loop(office.desk, **cast("Any", dict.fromkeys(("control", "requests", "events"))))
    loop._remote = cast("Any", flood)
    batch, outgoing = office.desk.open_batch(), []  # type: ignore[var-annotated]  # not looked at
    loop._drain_remote(cast("Any", flood), (), batch, outgoing)
    assert 0 < flood.taken <= 32


def test_too_many_connections_shut_this_port_and_not_the_broker(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libzmq ends the process when descriptors run out; strangers can open connections (row 16)."""
    monkeypatch.setattr("broker.shell.listener.CONNECTIONS_MAX", 20)
    monkeypatch.setattr("broker.shell.listener.CROWDED_MS", 500)
    with RemoteOffice(home) as office:
        port, _ = office.open_port()
        crowd = [socket.create_connection((HERE, port)) for _ in range(25)]
        eventually(lambda: "connections" in office.visit(lambda s: s.remote_port.trouble))
        with office.local(Service.CONSOLE) as local:
            local.ask(GetNode(), NodeView)
        for stranger in crowd:
            stranger.close()
        with office.link(office.grant()) as link:
            link.ask(GetNode(), NodeView, timeout_ms=8000)


def test_connections_that_ended_are_not_counted(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that restarts all day must not shut the port."""
    monkeypatch.setattr("broker.shell.listener.CONNECTIONS_MAX", 3)
    with RemoteOffice(home) as office:
        pair = office.grant()
        for _ in range(12):
            with office.link(pair) as link:
                link.ask(GetNode(), NodeView)
        assert office.visit(lambda state: state.remote_port.trouble) == ""


def test_what_answers_a_caller_that_hung_up_is_dropped(
    office: RemoteOffice, context: PLAIN
) -> None:
    """MANDATORY makes it an error, and the error is nobody's."""
    with curve_socket(office, context, office.grant(), b"gone") as dealer:
        reply_to(dealer, ready())
        for _ in range(20):
            say(dealer, GetNode())
    with office.link(office.grant("pi")) as link:
        assert link.ask(GetNode(), NodeView).host == "atlas"


def test_the_key_of_the_port_ends_with_the_mesh(home: Path) -> None:
    """A machine that is given away keeps no key that once meant something."""
    with RemoteOffice(home) as office:
        office.open_port()
    assert office.office is not None
    paths = office.office.paths
    assert list(curve_directory(paths).iterdir())
    destroy_mesh(paths, DestroyWish("home", "ann"))
    assert not curve_directory(paths).exists()


def test_the_process_table_shows_a_remote_worker_without_a_pid_of_this_machine(
    office: RemoteOffice,
) -> None:
    """Its number would name an innocent process here."""
    with office.link(office.grant()) as link, office.local(Service.CONSOLE) as console:
        link.introduce()
        view = console.ask(ListWorkers(), WorkersView)
        (line,) = [one for one in view.workers if one.instance == "nas/remote-renewal-0"]
        assert (line.pid, line.supervisor, line.service) == (0, "", "remote-renewal")
