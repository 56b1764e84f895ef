"""The asyncio link: the same promises with many requests in flight."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from broker.client import AsyncLink, AsyncSubscription
from broker.clock import boottime_ms
from broker.errors import (
    CALockedError,
    ConflictError,
    DeadlineError,
    UnavailableError,
    UnsupportedVersionError,
)
from broker.runtime.paths import Paths
from broker.wire.audit import AuditView, ListAudit
from broker.wire.base import Reply
from broker.wire.control import Ack
from broker.wire.events import RoleMoved, RosterMoved
from broker.wire.ids import Service
from broker.wire.liveness import Beat, Goodbye, Ready
from broker.wire.node import GetNode, NodeView
from broker.wire.work import ReleaseLease
from tests.stub_broker import StubBroker
from tests.support import eventually

RELEASE = ReleaseLease(lease_id=7)


@pytest.fixture
def broker(paths: Paths) -> Iterator[StubBroker]:
    """A stub that accepts the release of a lease and wants a beat every 50 ms."""
    with StubBroker(paths, {ReleaseLease: lambda _: Ack()}, beat_every_ms=50) as stub:
        yield stub


def _with_link(paths: Paths, test: Callable[[AsyncLink], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with AsyncLink(paths, Service.GATEWAY, "gateway") as link:
            await test(link)

    asyncio.run(main())


async def _soon(probe: Callable[[], object], within_s: float = 5) -> None:
    async with asyncio.timeout(within_s):
        while not probe():  # noqa: ASYNC110 (what it waits for happens in another thread)
            await asyncio.sleep(0.01)


def test_many_requests_in_flight_each_get_their_own_answer(
    broker: StubBroker, paths: Paths
) -> None:
    """More than the sockets' queues hold at once."""
    broker.answers[ListAudit] = lambda call: AuditView(rows=(), head_sequence=call.limit)

    async def test(link: AsyncLink) -> None:
        asked = [link.ask(ListAudit(limit=n), AuditView) for n in range(1500)]
        views = await asyncio.gather(*asked)
        assert [view.head_sequence for view in views] == list(range(1500))

    _with_link(paths, test)


def test_one_slow_answer_does_not_hold_up_the_others(broker: StubBroker, paths: Paths) -> None:
    """Unlocking takes a while; status must not wait for it."""
    broker.answers[ReleaseLease] = lambda _: None

    async def test(link: AsyncLink) -> None:
        slow = asyncio.create_task(link.ask(RELEASE, Ack, timeout_ms=3000))
        await _soon(lambda: broker.seen(ReleaseLease))
        began_ms = boottime_ms()
        await link.ask(GetNode(), NodeView)
        assert boottime_ms() - began_ms < 500
        assert not slow.done()
        slow.cancel()

    _with_link(paths, test)


def test_a_caller_may_name_a_request_but_not_two_at_once(broker: StubBroker, paths: Paths) -> None:
    """The broker answers a repeated id with its first reply; two waiting for one would race."""
    broker.answers[ReleaseLease] = lambda _: None
    name = b"n" * 16

    async def test(link: AsyncLink) -> None:
        slow = asyncio.create_task(link.ask(RELEASE, Ack, request_id=name))
        await _soon(lambda: broker.seen(ReleaseLease))
        with pytest.raises(ConflictError, match="under way"):
            await link.ask(RELEASE, Ack, request_id=name)
        asked = [call for call in broker.calls if isinstance(call.request, ReleaseLease)]
        broker.answer_later(asked[-1], Ack())  # the newest call of all may be a beat
        await slow
        broker.answers[ReleaseLease] = lambda _: Ack()
        await link.ask(RELEASE, Ack, request_id=name)

    _with_link(paths, test)
    ids = {call.request_id for call in broker.calls if isinstance(call.request, ReleaseLease)}
    assert ids == {name}


def test_start_does_not_wait_for_the_broker_and_requests_find_it_when_it_comes(
    paths: Paths,
) -> None:
    """Any start order."""
    broker = StubBroker(paths, {ReleaseLease: lambda _: Ack()})

    async def test(link: AsyncLink) -> None:
        asked = asyncio.create_task(link.ask(RELEASE, Ack))
        await asyncio.sleep(0.1)
        broker.start()
        await asked

    try:
        _with_link(paths, test)
    finally:
        broker.stop()


def test_it_beats_by_itself_and_says_what_it_was_told_to_say(
    broker: StubBroker, paths: Paths
) -> None:
    """The gateway has no rounds: its event loop going round is its progress."""

    async def test(link: AsyncLink) -> None:
        link.note(state="doors open")
        await _soon(lambda: len(broker.seen(Beat)) >= 4)
        link.note(error="no certificate")
        await _soon(lambda: broker.seen(Beat)[-1].last_error == "no certificate")

    _with_link(paths, test)
    beats = broker.seen(Beat)
    progress = [beat.progress for beat in beats]
    assert progress == sorted(set(progress))
    assert beats[3].state == "doors open"
    assert beats[-1].last_success_at is not None


def test_a_request_survives_a_broker_restart_under_the_same_id(
    broker: StubBroker, paths: Paths
) -> None:
    """The old broker took it and died; the new one gets READY and the repeat."""
    broker.answers[ReleaseLease] = lambda _: None

    async def test(link: AsyncLink) -> None:
        asked = asyncio.create_task(link.ask(RELEASE, Ack))
        await _soon(lambda: broker.seen(ReleaseLease))
        broker.answers[ReleaseLease] = lambda _: Ack()
        await asyncio.to_thread(broker.restart)
        await asked

    _with_link(paths, test)
    ids = {call.request_id for call in broker.calls if call.request == RELEASE}
    assert len(ids) == 1
    assert len(broker.seen(Ready)) == 2


def test_a_broker_that_forgot_us_is_told_again(broker: StubBroker, paths: Paths) -> None:
    """Within a tick of the link, not after the caller's timeout."""

    async def test(link: AsyncLink) -> None:
        await link.ask(RELEASE, Ack)
        broker.forget()
        began_ms = boottime_ms()
        await link.ask(RELEASE, Ack)
        assert boottime_ms() - began_ms < 700

    _with_link(paths, test)


def test_silence_is_unavailable_without_a_broker_and_a_deadline_with_one(paths: Paths) -> None:
    """The second outcome is unknown."""

    async def away(link: AsyncLink) -> None:
        with pytest.raises(UnavailableError):
            await link.ask(GetNode(), NodeView, timeout_ms=100)

    _with_link(paths, away)

    with StubBroker(paths) as stub:

        async def frozen(link: AsyncLink) -> None:
            await link.ask(GetNode(), NodeView)
            stub.silent = True
            with pytest.raises(DeadlineError):
                await link.ask(GetNode(), NodeView, timeout_ms=100)

        _with_link(paths, frozen)


def test_refusals_arrive_as_errors(broker: StubBroker, paths: Paths) -> None:
    """Of requests and of READY."""

    def locked(_: object) -> Reply:
        raise CALockedError("sealed")

    broker.answers[ReleaseLease] = locked

    async def refused(link: AsyncLink) -> None:
        with pytest.raises(CALockedError, match="sealed"):
            await link.ask(RELEASE, Ack)

    _with_link(paths, refused)

    def newer(_: object) -> Reply:
        raise UnsupportedVersionError("this side speaks 2")

    broker.answers[Ready] = newer

    async def unwelcome(link: AsyncLink) -> None:
        with pytest.raises(UnsupportedVersionError):
            await link.ask(RELEASE, Ack)

    _with_link(paths, unwelcome)


def test_closing_says_goodbye_and_ends_what_still_waits(broker: StubBroker, paths: Paths) -> None:
    """Nobody hangs on a link that is gone."""
    broker.answers[ReleaseLease] = lambda _: None

    async def main() -> None:
        link = AsyncLink(paths, Service.GATEWAY, "gateway")
        await link.start()
        asked = asyncio.create_task(link.ask(RELEASE, Ack))
        await _soon(lambda: broker.seen(ReleaseLease))
        await link.close()
        with pytest.raises(UnavailableError):
            await asked

    asyncio.run(main())
    eventually(lambda: broker.seen(Goodbye))


def test_events_arrive_in_order_and_garbage_between_them_is_dropped(
    broker: StubBroker, paths: Paths
) -> None:
    """Only the kinds that were asked for."""

    async def main() -> None:
        async with AsyncSubscription(paths, (RosterMoved,)) as events:
            first = asyncio.create_task(events.receive())
            while not first.done():
                broker.publish(RosterMoved(term=1, sequence=1))
                await asyncio.sleep(0.01)
            broker.publish_raw([b"roster-moved", b"\x01", b"\xff"])
            broker.publish(RoleMoved(role="member", term=1))
            broker.publish(RosterMoved(term=1, sequence=2))
            async with asyncio.timeout(5):
                async for event in events:
                    assert isinstance(event, RosterMoved)
                    if event.sequence == 2:
                        return

    asyncio.run(main())
