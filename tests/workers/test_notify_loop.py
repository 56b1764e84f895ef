"""The notify loop with a real desk and a stub broker: streams, deadlines, stops."""

import logging
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from broker.clock import boottime_ms
from broker.errors import LeaseLostError, MeshError, StorageError
from broker.runtime.events import EventName
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings, parse_settings
from broker.wire.control import Ack
from broker.wire.ids import Service
from broker.wire.work import (
    Approve,
    CompleteWork,
    Failed,
    Lease,
    LeaseWork,
    ReleaseLease,
    SendNotice,
    Sent,
    WorkAnswer,
)
from tests.stub_broker import StubBroker
from tests.support import eventually
from tests.workers.approval_office import ITEM
from tests.workers.fake_node import Page
from tests.workers.loop_desk import StopByHand, desk_at, logged
from tests.workers.notify_place import NOTICE, PlainServer
from workers.notify.logic import IDLE
from workers.notify.loop import NotifyLoop
from workers.process import Outcome


class House:
    """A broker with notices to give; each is leased once."""

    def __init__(self, paths: Paths, *items: SendNotice | Approve) -> None:
        self.paths, self.stop = paths, StopByHand()
        self.leases = [Lease(n, 60_000, item) for n, item in enumerate(items, start=1)]
        self.refusal: MeshError | None = None
        self.broker = StubBroker(
            paths,
            {
                LeaseWork: lambda _: self._lease(),
                CompleteWork: lambda _: self._complete(),
                ReleaseLease: lambda _: Ack(),
            },
        )

    def _lease(self) -> WorkAnswer:
        lease = self.leases.pop(0) if self.leases else None
        return WorkAnswer(lease, next_in_ms=0 if lease else 4_000)

    def _complete(self) -> Ack:
        if self.refusal is not None:
            raise self.refusal
        return Ack()

    def round(self, settings: Settings) -> Outcome:
        """Run one round in this thread."""
        with self.broker, desk_at(self.paths, settings, Service.NOTIFY, self.stop) as desk:
            return NotifyLoop(settings, self.paths).round(desk)

    def results(self) -> dict[int, Any]:
        """Return what came back by lease."""
        return {call.lease_id: call.result for call in self.broker.seen(CompleteWork)}


def settings_of(**notify: Any) -> Settings:
    """Return settings with somebody to tell."""
    return parse_settings({"notify": {"timeout": "2s", **notify}}, "test settings")


def item(*waiting: str) -> SendNotice:
    """Return a notice for these targets."""
    return SendNotice("atlas", NOTICE, waiting)


@contextmanager
def hanging() -> Iterator[tuple[PlainServer, threading.Event]]:
    """Give a server that says nothing until the block ends."""
    over = threading.Event()

    def hang(_: object) -> None:
        over.wait(30)

    with PlainServer(hang) as server:
        try:
            yield server, over
        finally:
            over.set()


def test_nobody_to_tell_means_idle_and_says_so(paths: Paths) -> None:
    """`certmesh ps` shows why nothing happens."""
    house = House(paths)
    assert house.round(settings_of()) == Outcome(state=IDLE)
    assert house.broker.seen(LeaseWork) == []


def test_a_notice_that_was_taken_is_completed(paths: Paths) -> None:
    """And the log says to whom it went."""
    with PlainServer() as server:
        house = House(paths, item("webhook"))
        outcome = house.round(settings_of(webhook=server.url))
        assert len(server.visits) == 1
    assert house.results() == {1: Sent(("webhook",))}
    assert (outcome.error, outcome.next_in_ms) == ("", 4_000)


def test_a_target_that_hangs_holds_up_nobody_else(paths: Paths) -> None:
    """Ten notices reach ntfy while the webhook is silent."""
    done: list[int] = []

    def take(_: object) -> Page:
        done.append(boottime_ms())
        return _page()

    with hanging() as (dead, _), PlainServer(take) as live:
        house = House(paths, item("webhook"), *[item("ntfy") for _ in range(10)])
        started_ms = boottime_ms()
        outcome = house.round(settings_of(webhook=dead.url, ntfy=live.url))
        assert len(done) == 10
        assert max(done) - started_ms < 1_900, "before the other one was given up"
    assert house.results()[1] == Sent((), "did not answer in time")
    assert outcome.error == "webhook: did not answer in time"


def test_a_server_that_drips_is_cut_at_the_deadline(paths: Paths) -> None:
    """Each byte comes in time, the answer never."""
    over = threading.Event()

    class Dripping(socketserver.BaseRequestHandler):
        def handle(self) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
            """Say a little, again and again."""
            self.request.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: ")
            while not over.wait(0.1):
                self.request.sendall(b"x")

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
            """Say nothing: the call is cut, that is the test."""

    with Server(("127.0.0.1", 0), Dripping) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        house = House(paths, item("webhook"))
        started_ms = boottime_ms()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        house.round(settings_of(webhook=url, timeout="700ms"))
        took_ms = boottime_ms() - started_ms
        over.set()
        server.shutdown()
        thread.join()
    assert house.results() == {1: Sent((), "did not answer in time")}
    assert took_ms < 5_000


def test_a_stop_hands_back_what_is_under_way(paths: Paths) -> None:
    """Within a second, whatever the server does; the broker gives it to the next process."""
    with hanging() as (dead, _):
        house = House(paths, item("webhook"))

        def stop_soon() -> None:
            eventually(lambda: dead.visits, within_s=5)
            house.stop.ask()

        thread = threading.Thread(target=stop_soon)
        thread.start()
        started_ms = boottime_ms()
        house.round(settings_of(webhook=dead.url, timeout="30s"))
        thread.join()
        assert boottime_ms() - started_ms < 4_000
    assert house.results() == {}
    assert [call.lease_id for call in house.broker.seen(ReleaseLease)] == [1]


def test_a_lease_that_was_lost_is_no_crash(paths: Paths, caplog: Any) -> None:
    """It went out; whoever has the lease tells it once more, under the same id."""
    caplog.set_level(logging.INFO, logger="certmesh")
    with PlainServer() as server:
        house = House(paths, item("webhook"))
        house.refusal = LeaseLostError("lease 1 is over")
        assert house.round(settings_of(webhook=server.url)).error == ""
    (line,) = logged(caplog, EventName.NOTICE_FAILED)
    assert line["notice_id"] == NOTICE.notice_id


@pytest.mark.parametrize(
    "refusal", [StorageError("the disk is full"), LeaseLostError("lease 1 is over")]
)
def test_a_notice_that_went_out_is_not_sent_again_because_it_could_not_be_noted(
    paths: Paths, refusal: MeshError
) -> None:
    """A disk that stays full over night would page people every minute."""
    with PlainServer() as server:
        settings = settings_of(webhook=server.url)
        loop = NotifyLoop(settings, paths)
        house = House(paths, item("webhook"))
        with house.broker, desk_at(paths, settings, Service.NOTIFY, house.stop) as desk:
            house.refusal = refusal
            assert loop.round(desk).error == ""
            house.leases = [Lease(2, 60_000, item("webhook"))]
            loop.round(desk)
            house.refusal, house.leases = None, [Lease(3, 60_000, item("webhook"))]
            loop.round(desk)
            assert len(server.visits) == 1
            assert house.results()[3] == Sent(("webhook",))
            house.leases = [Lease(4, 60_000, item("webhook"))]
            loop.round(desk)
            assert len(server.visits) == 2, "asked for once more after it was noted"


def test_a_result_that_cannot_be_noted_breaks_off_no_other_call(paths: Paths) -> None:
    """Each target is a stream of its own, also when the broker's disk is full."""
    go = threading.Event()

    def slow(_: object) -> Page:
        go.wait(5)
        return _page()

    def quick(_: object) -> Page:
        threading.Timer(0.4, go.set).start()
        return _page()

    with PlainServer(slow) as first, PlainServer(quick) as second:
        house = House(paths, item("webhook"), item("ntfy"))
        house.refusal = StorageError("the disk is full")
        house.round(settings_of(webhook=first.url, ntfy=second.url))
    assert house.results() == {1: Sent(("webhook",)), 2: Sent(("ntfy",))}


@pytest.mark.parametrize("wrong", [item("pigeon"), item(), ITEM])
def test_work_for_nobody_here_goes_back_as_failed(paths: Paths, wrong: Any) -> None:
    """The settings changed under a running broker, or something is confused."""
    house = House(paths, wrong)
    house.round(settings_of(webhook="http://127.0.0.1:9/x"))
    assert isinstance(house.results()[1], Failed)


def test_a_secret_that_cannot_be_used_is_that_targets_trouble_alone(paths: Paths) -> None:
    """The other people are told."""
    with PlainServer() as server:
        house = House(paths, item("webhook"), item("ntfy"))
        told = settings_of(
            webhook=server.url, webhook_secret_file="missing.secret", ntfy=server.url
        )
        house.round(told)
    results = house.results()
    assert "cannot read" in results[1].detail
    assert results[2] == Sent(("ntfy",))


def test_who_failed_is_shown_until_it_takes_something(paths: Paths) -> None:
    """`certmesh status` warns as long as it lasts."""
    pages = [_page(500), _page()]
    with PlainServer(lambda _: pages.pop(0)) as server:
        settings = settings_of(webhook=server.url)
        loop = NotifyLoop(settings, paths)
        house = House(paths, item("webhook"))
        with house.broker, desk_at(paths, settings, Service.NOTIFY, house.stop) as desk:
            assert loop.round(desk).error == "webhook: answered status 500"
            house.leases = [Lease(2, 60_000, item("webhook"))]
            assert loop.round(desk).error == ""


def _page(status: int = 204) -> Page:
    return Page(b"", status)
