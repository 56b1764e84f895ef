"""The remote renewal loop between two brokers: its own node's and that of the CA."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from broker.client import Link
from broker.client.remote import RemoteDoor
from broker.errors import (
    ForbiddenError,
    KeyRejectedError,
    MeshError,
    NotPrimaryError,
    PeerUnreachableError,
    RevokedError,
)
from broker.runtime.curve import new_pair, worker_pair
from broker.runtime.events import EventName
from broker.runtime.paths import Paths, node_paths
from broker.runtime.settings import parse_settings
from broker.wire.claims import SignedMandate
from broker.wire.control import Ack
from broker.wire.enrollment import Issued
from broker.wire.ids import Service
from broker.wire.liveness import Beat, Goodbye
from broker.wire.mesh_api import InstallBody, RekeyBody
from broker.wire.node import Endpoint, GetNode, Membership, NodeView
from broker.wire.remote import WorkerBody, WorkerDoor
from broker.wire.renewal import InstallAnswer, RekeyAnswer, RenewalAnswer, RenewWithLease
from broker.wire.work import (
    CompleteWork,
    Installed,
    Lease,
    LeaseWork,
    ReleaseLease,
    RenewMember,
    WorkAnswer,
)
from tests.stub_broker import StubBroker
from tests.support import eventually
from tests.workers.loop_desk import (
    StopByHand,
    desk_at,
    endpoint,
    logged,
    node_in_mesh,
    write_membership,
)
from workers.process import Desk, Outcome
from workers.remote_renewal.key import pair_after
from workers.remote_renewal.logic import LED_HERE, NO_MESH, NO_PRIMARY, NOT_LEADING
from workers.remote_renewal.loop import RemoteRenewalLoop

DOOR = WorkerDoor(port=7644, server_key=new_pair().public, grant_id="c1")
MANDATE = SignedMandate(b"a mandate", b"signed")
NO_WORK = WorkAnswer(None, next_in_ms=60_000)
ISSUED = Issued("1f", b"leaf", b"issuing", b"root", 0, 0, 0)  # type: ignore[arg-type]  # not looked at


@dataclass
class Wire:
    """Sessions to other nodes: what was asked, and who answers; the real interface."""

    bind: Callable[[Endpoint, str], WorkerDoor]
    asked: list[tuple[str, str, Any]] = field(default_factory=list)

    def open(self, _paths: Paths, _membership: Membership) -> "Wire":
        """Return a session."""
        return self

    def call(  # noqa: PLR0913 (as that of a session)
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        body: Any,
        kind: Any,
        *,
        timeout_s: float | None = None,
    ) -> Any:
        """Answer as the CA's gateway, or as a member."""
        assert (method, timeout_s is not None) == ("POST", True)
        self.asked.append((endpoint.host, path, body))
        answers: dict[Any, Callable[[], Any]] = {
            WorkerDoor: lambda: self.bind(endpoint, body.public_key),
            RekeyAnswer: lambda: RekeyAnswer(b"csr"),
            InstallAnswer: lambda: InstallAnswer("1f", "served", ""),
        }
        return answers[kind]()

    def fetch(self, *_: Any, **__: Any) -> bytes:
        """Nothing is fetched here."""
        raise AssertionError

    def abort(self) -> None:
        """Calls of this session end by themselves."""

    def close(self) -> None:
        """Nothing is open."""

    def keys(self) -> list[str]:
        """Return the public keys that the CA was told."""
        return [body.public_key for _, _, body in self.asked if isinstance(body, WorkerBody)]


def settings() -> Any:
    """Return settings with short timeouts."""
    return parse_settings({"renewal": {"peer_timeout": "2s"}}, "test")


@dataclass
class Stage:
    """The own node's broker, the CA's, and the loop between them."""

    node: StubBroker
    ca: StubBroker
    desk: Desk
    loop: RemoteRenewalLoop
    wire: Wire
    ways: list[RemoteDoor]
    stop: StopByHand
    view: NodeView = field(default_factory=node_in_mesh)
    work: list[WorkAnswer] = field(default_factory=list)

    def round(self) -> Outcome:
        """Do one round."""
        return self.loop.round(self.desk)

    def refuse_binding(self, error: MeshError) -> None:
        """Have the CA's door refuse every key."""

        def refuse(_: Endpoint, __: str) -> WorkerDoor:
            raise error

        self.wire.bind = refuse


@pytest.fixture
def stage(paths: Paths, tmp_path: Path) -> Iterator[Stage]:
    """A member whose CA has let its workers in and has nothing to do."""
    away = node_paths(tmp_path / "ca" / "certmesh.toml", settings())
    for directory in (away.run, away.data):
        directory.mkdir(parents=True, exist_ok=True)
    write_membership(paths)
    stop = StopByHand()
    ways: list[RemoteDoor] = []

    def connect(way: RemoteDoor, desk: Desk) -> Link:
        ways.append(way)
        name = f"remote-renewal-{len(ways)}"
        return Link(away, Service.REMOTE_RENEWAL, name, stopping=desk.stopping)

    wire = Wire(lambda _endpoint, _key: DOOR)
    loop = RemoteRenewalLoop(settings(), paths, wire.open, connect)
    with (
        StubBroker(paths) as node,
        StubBroker(away) as ca,
        desk_at(paths, settings(), Service.REMOTE_RENEWAL, stop) as desk,
    ):
        found = Stage(node, ca, desk, loop, wire, ways, stop)
        node.answers[GetNode] = lambda _: found.view
        ca.answers[LeaseWork] = lambda _: found.work.pop(0) if found.work else NO_WORK
        ca.answers[RenewWithLease] = lambda _: RenewalAnswer(ISSUED)
        ca.answers[CompleteWork] = lambda _: Ack()
        ca.answers[ReleaseLease] = lambda _: Ack()
        try:
            yield found
        finally:
            loop.close()


def lease(number: int, host: str) -> WorkAnswer:
    """Return a leased member with the mandate for it."""
    item = RenewMember(host, "ab", endpoint(host), "01", 0, 3, MANDATE)  # type: ignore[arg-type]  # not looked at
    return WorkAnswer(Lease(number, 60_000, item), next_in_ms=0)


def test_it_binds_its_key_and_renews_what_the_ca_leases(stage: Stage) -> None:
    """The mandate of the lease goes to the member; the result goes to the CA, not to the node."""
    stage.work = [lease(1, "elm"), lease(2, "fir")]
    outcome = stage.round()
    assert (outcome.state, outcome.error) == ("works for node-a", "")
    assert outcome.next_in_ms == 5_000
    assert stage.wire.keys() == [worker_pair(stage.desk.paths).public]
    (way,) = stage.ways
    assert (way.addresses, way.port, way.server_key) == (("127.0.0.1",), 7644, DOOR.server_key)
    bodies = [body for _, _, body in stage.wire.asked if isinstance(body, RekeyBody | InstallBody)]
    assert [body.mandate for body in bodies] == [MANDATE] * 4
    done = {call.lease_id: call.result for call in stage.ca.seen(CompleteWork)}
    assert done == {number: Installed("1f", "served", "", 0) for number in (1, 2)}
    assert not stage.node.seen(CompleteWork)
    assert not [call for call in stage.ca.seen(LeaseWork) if call.local]


def test_one_binding_serves_many_rounds(stage: Stage) -> None:
    """And each round tells the CA that this worker lives, for longer than until the next."""
    for _ in range(3):
        stage.round()
    assert len(stage.wire.keys()) == len(stage.ways) == 1
    eventually(lambda: len(stage.ca.seen(Beat)) == 3)
    assert all(beat.within_ms > 5_000 for beat in stage.ca.seen(Beat))


def test_it_rests_where_there_is_nobody_to_work_for(stage: Stage) -> None:
    """No mesh, no known primary, or this node leads itself."""
    mesh = stage.view.mesh
    assert mesh is not None
    for view, state in (
        (replace(stage.view, mesh=replace(mesh, primary=None)), NO_PRIMARY),
        (replace(stage.view, mesh=replace(mesh, primary=endpoint("node-b"))), NO_PRIMARY),
        (replace(stage.view, role="primary"), LED_HERE),
    ):
        stage.view = view
        assert stage.round() == Outcome(state=state)
    stage.desk.paths.membership.unlink()
    assert stage.round() == Outcome(state=NO_MESH)
    assert not stage.wire.asked


def test_without_a_grant_it_waits_and_says_what_a_person_has_to_do(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """Visible in `certmesh ps`, one line of the log however long it takes, and then it works."""
    hint = "on the CA: certmesh worker enroll node-b"
    stage.refuse_binding(ForbiddenError("nobody let renewal workers of node-b in", hint=hint))
    for _ in range(3):
        outcome = stage.round()
        state = "waiting for a grant: certmesh worker enroll node-b on the CA"
        assert (outcome.state, outcome.error) == (state, "")
        assert outcome.next_in_ms == 5_000
    assert len(logged(caplog, EventName.WORKER_REFUSED)) == 1
    stage.wire.bind = lambda _endpoint, _key: DOOR
    assert stage.round().state == "works for node-a"


def test_a_revoked_worker_stops_at_once_and_asks_at_the_door(stage: Stage) -> None:
    """Whether it was granted anew is learned there, and a used key is replaced."""
    stage.round()
    used = worker_pair(stage.desk.paths).public

    def revoked(_: LeaseWork) -> WorkAnswer:
        raise RevokedError("the key is not granted (any more)")

    answers, stage.ca.answers[LeaseWork] = stage.ca.answers[LeaseWork], revoked
    outcome = stage.round()
    assert outcome.state.startswith("refused: the key is not granted")
    assert outcome.next_in_ms == 250
    eventually(lambda: stage.ca.seen(Goodbye))

    def another(_: Endpoint, key: str) -> WorkerDoor:
        if key == used:
            raise KeyRejectedError("this key was used before")
        return DOOR

    stage.ca.answers[LeaseWork] = answers
    stage.wire.bind = another
    assert stage.round().state == "works for node-a"
    assert worker_pair(stage.desk.paths).public == stage.wire.keys()[-1] != used
    assert stage.ways[-1].pair.public != used


def test_a_key_that_is_refused_twice_ends_the_round(stage: Stage) -> None:
    """It never makes keys in a circle: the host of the loop backs off."""
    stage.refuse_binding(KeyRejectedError("this key was used before"))
    with pytest.raises(KeyRejectedError):
        stage.round()
    assert len(stage.wire.keys()) == len(set(stage.wire.keys())) == 2


def test_it_follows_whoever_leads(stage: Stage) -> None:
    """After a takeover it leaves the old primary and binds the same key at the new one."""
    stage.round()
    mesh = stage.view.mesh
    assert mesh is not None
    stage.view = replace(stage.view, term=4, mesh=replace(mesh, primary=endpoint("node-c")))
    assert stage.round().state == "works for node-c"
    assert [host for host, _, _ in stage.wire.asked] == ["node-a", "node-c"]
    assert len(set(stage.wire.keys())) == 1
    eventually(lambda: stage.ca.seen(Goodbye))
    stage.view = replace(stage.view, role="primary")
    assert stage.round().state == LED_HERE
    eventually(lambda: len(stage.ca.seen(Goodbye)) == 2)


def test_a_ca_that_does_not_serve_is_asked_again_soon(stage: Stage) -> None:
    """Between two primaries there is nothing to report."""
    stage.refuse_binding(NotPrimaryError("node-a is not the primary of home"))
    outcome = stage.round()
    assert (outcome.state, outcome.next_in_ms, outcome.error) == (NOT_LEADING, 1_000, "")


def test_a_ca_that_is_away_is_left_to_the_backoff(stage: Stage) -> None:
    """The next round begins at the door: the port or the key may have changed meanwhile."""
    stage.round()

    def away(_: LeaseWork) -> WorkAnswer:
        raise PeerUnreachableError("gone")

    stage.ca.answers[LeaseWork] = away
    with pytest.raises(PeerUnreachableError):
        stage.round()
    stage.ca.answers[LeaseWork] = lambda _: NO_WORK
    stage.round()
    assert len(stage.wire.keys()) == len(stage.ways) == 2


def test_a_stop_gives_back_what_is_in_flight(stage: Stage) -> None:
    """The CA has it again at once."""
    stage.work = [lease(7, "elm")]
    stage.ca.answers[RenewWithLease] = lambda _: stage.stop.ask()
    stage.round()
    assert [call.lease_id for call in stage.ca.seen(ReleaseLease)] == [7]
    assert not stage.ca.seen(CompleteWork)
    assert not [body for _, _, body in stage.wire.asked if isinstance(body, InstallBody)]


def test_a_stop_ends_the_call_to_the_door(stage: Stage) -> None:
    """A CA that never answers does not hold up the end of the process."""

    def never(_: Endpoint, __: str) -> WorkerDoor:
        stage.stop.ask()
        eventually(lambda: False, within_s=1.5)
        raise AssertionError

    stage.wire.bind = never
    assert stage.round() == Outcome()
    assert not stage.ways


def test_processes_that_are_refused_together_end_up_with_one_key(paths: Paths) -> None:
    """A grant takes one key: the second process uses what the first one made."""
    used = worker_pair(paths).public
    first = pair_after(paths, used)
    assert first.public != used
    assert pair_after(paths, used).public == first.public
    assert worker_pair(paths).public == first.public
