"""Parallel errands: one dead node costs nobody else anything."""

import threading
from collections.abc import Callable, Iterator

import msgspec
import pytest

from broker.clock import boottime_ms
from broker.errors import NoMeshError, PeerUnreachableError
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.base import Body
from broker.wire.ids import Service
from broker.wire.node import Endpoint, Membership
from tests.stub_broker import StubBroker
from tests.support import eventually
from tests.workers.loop_desk import StopByHand, desk_at, endpoint, write_membership
from workers.fanout import Fanout, Session
from workers.process import Desk
from workers.repeats import SUBJECTS_MAX, Repeats


class Line:
    """A session that only counts how it ends."""

    def __init__(self) -> None:
        self.closed = 0
        self.cut = threading.Event()

    def call(
        self, endpoint: Endpoint, method: str, path: str, body: Body | None, kind: type
    ) -> msgspec.Struct:
        """Refuse: these tests need no answers."""
        raise PeerUnreachableError(f"{endpoint.host} {method} {path} {body} {kind}")

    def fetch(
        self,
        endpoint: Endpoint,
        path: str,
        body: Body | None = None,
        *,
        port: str = "mesh",
        timeout_s: float | None = None,
    ) -> bytes:
        """Return nothing new, once the line is cut or the time is over."""
        self.cut.wait(timeout_s)
        return f"{endpoint.host}{port}{path}{body}".encode()[:0]

    def abort(self) -> None:
        """Let go of whoever waits."""
        self.cut.set()

    def close(self) -> None:
        """Count."""
        self.closed += 1


class Lines:
    """Opens sessions and remembers them."""

    def __init__(self) -> None:
        self.opened: list[Line] = []

    def __call__(self, paths: Paths, membership: Membership) -> Session:
        """Open one."""
        assert paths.membership.exists()
        assert membership.host
        self.opened.append(Line())
        return self.opened[-1]  # type: ignore[return-value]  # `call` refuses whatever the kind


@pytest.fixture
def stop() -> StopByHand:
    """The stop signal of the desk."""
    return StopByHand()


@pytest.fixture
def desk(paths: Paths, settings: Settings, stop: StopByHand) -> Iterator[Desk]:
    """A desk of a node with a membership."""
    write_membership(paths)
    with StubBroker(paths), desk_at(paths, settings, Service.FAILOVER, stop) as found:
        yield found


@pytest.fixture
def lines() -> Lines:
    """The sessions of one fan-out."""
    return Lines()


@pytest.fixture
def fanout(lines: Lines) -> Iterator[Fanout[str]]:
    """What the tests are about."""
    with Fanout[str](lines) as found:
        yield found


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Holds errands up until the test lets them go."""
    event = threading.Event()
    yield event
    event.set()


def stuck(gate: threading.Event) -> Callable[[Session], str]:
    """Return an errand that hangs in its connect."""

    def errand(_: Session) -> str:
        gate.wait(10)
        return "late"

    return errand


def said(word: str) -> Callable[[Session], str]:
    """Return an errand that succeeds."""
    return lambda _: word


def test_one_hanging_node_does_not_delay_the_answer_of_another(
    fanout: Fanout[str], desk: Desk, gate: threading.Event
) -> None:
    """The deadline bounds the round, whatever hangs (P10)."""
    started_ms = boottime_ms()

    answers = fanout.ask({"dead": stuck(gate), "well": said("yes")}, desk, 200)

    assert boottime_ms() - started_ms < 1000
    assert answers["well"] == "yes"
    assert isinstance(answers["dead"], PeerUnreachableError)
    assert "no answer within 0.2 s" in answers["dead"].detail


def test_a_hanging_node_gets_no_second_thread(
    fanout: Fanout[str], desk: Desk, gate: threading.Event
) -> None:
    """Threads must not pile up behind a dead node."""
    before = threading.active_count()
    for _ in range(4):
        fanout.ask({"dead": stuck(gate)}, desk, 20)
    answers = fanout.ask({"dead": stuck(gate)}, desk, 20)

    assert threading.active_count() == before + 1
    assert "still unanswered" in str(answers["dead"])


def test_a_late_answer_is_not_taken_for_the_next_round(
    fanout: Fanout[str], desk: Desk, gate: threading.Event
) -> None:
    """An old answer would be reported with the new round's time."""
    fanout.ask({"a": stuck(gate)}, desk, 20)
    gate.set()
    eventually(lambda: not fanout._done.empty())

    assert fanout.ask({"a": said("new")}, desk, 1000) == {"a": "new"}


def test_a_late_answer_in_the_middle_of_a_round_is_not_taken_either(
    fanout: Fanout[str], desk: Desk, gate: threading.Event
) -> None:
    """The node was not asked in this round, so it cannot have answered in it."""
    fanout.ask({"a": stuck(gate)}, desk, 20)

    def release_then_dawdle(_: Session) -> str:
        gate.set()
        threading.Event().wait(0.2)
        return "b"

    answers = fanout.ask({"a": said("new"), "b": release_then_dawdle}, desk, 2000)

    assert "still unanswered" in str(answers["a"])
    assert answers["b"] == "b"


def test_a_crash_in_an_errand_is_its_answer(fanout: Fanout[str], desk: Desk) -> None:
    """A bug in one probe must not end the loop, nor vanish."""

    def crash(_: Session) -> str:
        raise KeyError("bug")

    answers = fanout.ask({"a": crash, "b": said("yes")}, desk, 1000)

    assert isinstance(answers["a"], KeyError)
    assert answers["b"] == "yes"


def test_a_stop_ends_the_wait_at_once(
    fanout: Fanout[str], desk: Desk, gate: threading.Event, stop: StopByHand
) -> None:
    """A process must be gone within a second, also in the middle of a probe."""
    threading.Timer(0.05, stop.ask).start()
    started_ms = boottime_ms()

    fanout.ask({"dead": stuck(gate)}, desk, 10_000)

    assert boottime_ms() - started_ms < 1000


def test_the_loop_beats_while_it_waits(
    fanout: Fanout[str], desk: Desk, gate: threading.Event
) -> None:
    """Waiting for others must not look like a hang."""
    before = desk.record.progress

    fanout.ask({"dead": stuck(gate)}, desk, 400)

    assert desk.record.progress >= before + 2


def test_a_session_is_kept_per_node_and_closed_when_the_node_is_gone(
    fanout: Fanout[str], desk: Desk, lines: Lines
) -> None:
    """One connection per call costs six times as much; a forgotten one is a leak."""
    for _ in range(3):
        fanout.ask({"a": said("x"), "b": said("y")}, desk, 1000)
    assert len(lines.opened) == 2

    fanout.keep({"a"})

    assert sorted(line.closed for line in lines.opened) == [0, 1]


def test_another_membership_means_other_sessions(
    fanout: Fanout[str], desk: Desk, lines: Lines, paths: Paths
) -> None:
    """Nothing of an old mesh may be used to talk to a new one."""
    fanout.ask({"a": said("x")}, desk, 1000)
    write_membership(paths, pin="cd" * 32)

    fanout.ask({"a": said("x")}, desk, 1000)

    assert [line.closed for line in lines.opened] == [1, 0]


def test_a_node_that_was_abandoned_can_be_asked_anew_at_once(
    fanout: Fanout[str], desk: Desk, lines: Lines
) -> None:
    """A long question must not stand in the way of the one that replaces it."""

    def patient(session: Session) -> str:
        session.fetch(endpoint("a"), "/", timeout_s=10)
        return "old"

    fanout.ask({"a": patient}, desk, 20)
    fanout.abandon(["a", "never asked"])

    assert fanout.ask({"a": said("new")}, desk, 1000) == {"a": "new"}
    assert lines.opened[0].cut.is_set()
    assert not lines.opened[1].cut.is_set()


def test_the_answer_to_an_abandoned_question_is_nobodys(
    fanout: Fanout[str], desk: Desk, lines: Lines, gate: threading.Event
) -> None:
    """It belongs to a plan that is over; its session is closed when its thread has ended."""

    def slow(_: Session) -> str:
        gate.set()
        eventually(lambda: lines.opened[0].closed)  # the late answer has been taken by now
        return "new"

    fanout.ask({"a": stuck(gate)}, desk, 20)
    fanout.abandon(["a"])

    assert fanout.ask({"a": slow}, desk, 2000) == {"a": "new"}
    assert [line.closed for line in lines.opened] == [1, 0]


def test_an_answer_is_told_while_others_are_still_silent(
    fanout: Fanout[str], desk: Desk, gate: threading.Event
) -> None:
    """What a living node knows must not grow old behind a dead one."""
    told: dict[str, str | Exception] = {}

    def tell(key: str, answer: str | Exception) -> None:
        told[key] = answer
        gate.set()

    answers = fanout.ask({"slow": stuck(gate), "well": said("yes")}, desk, 10_000, tell)

    assert answers == {"slow": "late", "well": "yes"}
    assert list(told) == ["well", "slow"]


def test_without_a_membership_nobody_is_called(
    fanout: Fanout[str], desk: Desk, lines: Lines, paths: Paths
) -> None:
    """A node of no mesh has nothing to verify others with."""
    paths.membership.unlink()

    with pytest.raises(NoMeshError):
        fanout.ask({"a": said("x")}, desk, 1000)
    assert lines.opened == []


def test_a_reason_is_news_once_until_it_changes() -> None:
    """A node that is dead all day is one line in the log, not one per tick."""
    repeats = Repeats()

    news = [repeats.is_news("a", why) for why in ("off", "off", "refused", "off")]

    assert news == [True, False, True, True]
    assert repeats.forget("a")
    assert not repeats.forget("a")
    assert repeats.is_news("a", "off")


def test_subjects_are_bounded() -> None:
    """Names come from other nodes."""
    repeats = Repeats()
    for number in range(SUBJECTS_MAX + 10):
        repeats.is_news(f"node-{number}", "off")

    assert not repeats.forget("node-0")
    assert repeats.forget(f"node-{SUBJECTS_MAX}")
