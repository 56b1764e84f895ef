"""The blocking link: what a caller sees when the broker restarts, hangs, refuses or lies."""

import threading
from collections.abc import Callable, Iterator

import pytest
import zmq

from broker.client import Link
from broker.client.link import STOP_MS
from broker.client.protocol import REPEAT_MS
from broker.clock import boottime_ms
from broker.errors import (
    CALockedError,
    DeadlineError,
    InternalError,
    MeshError,
    OversizedMessageError,
    UnavailableError,
    UnregisteredError,
    UnsupportedVersionError,
    error_classes,
)
from broker.runtime.paths import Paths
from broker.runtime.sockets import endpoint
from broker.wire.audit import AuditView, ListAudit
from broker.wire.base import Reply
from broker.wire.codec import MESSAGE_BYTES_MAX, WIRE_VERSION, encode
from broker.wire.control import Ack, Fault
from broker.wire.ids import Service
from broker.wire.liveness import Beat, Goodbye, Ready
from broker.wire.messages import Answer
from broker.wire.node import GetNode, GetStatus, NodeView
from broker.wire.work import CompleteWork, Rekeyed, ReleaseLease
from tests.stub_broker import StubBroker, idle_node
from tests.support import eventually

RELEASE = ReleaseLease(lease_id=7)


@pytest.fixture
def broker(paths: Paths) -> Iterator[StubBroker]:
    """A stub that accepts the release of a lease."""
    with StubBroker(paths, {ReleaseLease: lambda _: Ack()}) as stub:
        yield stub


@pytest.fixture
def link(paths: Paths) -> Iterator[Link]:
    """A link of one renewal process."""
    with Link(paths, Service.RENEWAL, "renewal-0") as made:
        yield made


def _only_once(reply: Reply) -> Callable[[object], Reply | None]:
    """Return a responder that stays silent the first time."""
    calls: list[object] = []

    def respond(request: object) -> Reply | None:
        calls.append(request)
        return reply if len(calls) > 1 else None

    return respond


def test_ready_is_the_first_message_and_says_who_calls(broker: StubBroker, link: Link) -> None:
    """The broker serves nobody it does not know."""
    link.ask(GetNode(), NodeView)

    ready = broker.calls[0].request
    assert isinstance(ready, Ready)
    assert (ready.service, ready.instance) == (Service.RENEWAL, "renewal-0")
    assert ready.wire == WIRE_VERSION
    assert ready.boot_id == link.boot_id
    assert broker.lanes[0] == "control"


def test_both_lanes_carry_one_identity_and_urgent_requests_take_the_control_lane(
    broker: StubBroker, link: Link
) -> None:
    """The broker drains the control lane first; READY there registers the other one too."""
    link.ask(GetNode(), NodeView)
    link.ask(RELEASE, Ack)

    assert len(set(broker.identities)) == 1
    service, instance, pid, nonce = broker.identities[0].split(b"/")
    assert (service, instance) == (b"renewal", b"renewal-0")
    assert pid.isdigit()
    assert len(nonce) == 8
    lanes = {
        type(call.request): lane for call, lane in zip(broker.calls, broker.lanes, strict=True)
    }
    assert lanes == {Ready: "control", GetNode: "control", ReleaseLease: "requests"}


def test_an_unanswered_request_is_repeated_under_the_same_id(
    broker: StubBroker, link: Link
) -> None:
    """Only so can the broker give the first answer again instead of acting twice."""
    broker.answers[ReleaseLease] = _only_once(Ack())

    link.ask(RELEASE, Ack)

    ids = [call.request_id for call in broker.calls if call.request == RELEASE]
    assert len(ids) == 2
    assert len(set(ids)) == 1
    assert len(ids[0]) == 16


def test_the_patience_in_a_repeat_is_what_is_left_of_it(broker: StubBroker, link: Link) -> None:
    """The broker may drop what nobody waits for any more."""
    broker.answers[ReleaseLease] = _only_once(Ack())

    link.ask(RELEASE, Ack, timeout_ms=4000)

    first, second = [call.ttl_ms for call in broker.calls if call.request == RELEASE]
    assert first <= 4000
    assert second <= first - REPEAT_MS


def test_each_request_has_its_own_id(broker: StubBroker, link: Link) -> None:
    """Two equal requests of a caller are two requests."""
    link.ask(RELEASE, Ack)
    link.ask(RELEASE, Ack)
    ids = [call.request_id for call in broker.calls if call.request == RELEASE]
    assert len(set(ids)) == 2


def test_a_request_survives_a_broker_that_restarts_meanwhile(
    broker: StubBroker, link: Link
) -> None:
    """The caller sees one slow answer; the new broker gets READY before the repeat.

    The repeat goes out on the new connection at once, not when the repeat period is over.
    """
    link.ask(RELEASE, Ack)
    broker.answers[ReleaseLease] = lambda _: None
    before = len(broker.calls)

    def die_and_return() -> None:
        eventually(lambda: len(broker.calls) > before)
        broker.stop()
        broker.answers[ReleaseLease] = lambda _: Ack()
        threading.Event().wait(0.2)
        broker.start()

    dying = threading.Thread(target=die_and_return)
    dying.start()
    began_ms = boottime_ms()
    link.ask(RELEASE, Ack)
    took_ms = boottime_ms() - began_ms
    dying.join()

    later = broker.calls[before:]
    assert [type(call.request) for call in later] == [ReleaseLease, Ready, ReleaseLease]
    assert later[0].request_id == later[2].request_id
    assert took_ms < REPEAT_MS * 3 // 4


def test_a_new_connection_is_used_at_once_and_not_at_the_next_repeat(
    broker: StubBroker, link: Link
) -> None:
    """Recovery of the broker is felt in milliseconds, not in whole repeat periods."""
    link.ask(RELEASE, Ack)
    broker.stop()
    threading.Timer(0.2, broker.start).start()

    began_ms = boottime_ms()
    link.ask(RELEASE, Ack)

    assert boottime_ms() - began_ms < 200 + REPEAT_MS // 2


def test_a_broker_that_forgot_us_gets_ready_and_the_same_request_again(
    broker: StubBroker, link: Link
) -> None:
    """`unregistered` is never the caller's problem."""
    link.ask(RELEASE, Ack)
    broker.forget()
    before = len(broker.calls)

    link.ask(RELEASE, Ack)

    later = broker.calls[before:]
    assert [type(call.request) for call in later] == [ReleaseLease, Ready, ReleaseLease]
    assert later[0].request_id == later[2].request_id


def test_a_beat_to_a_broker_that_forgot_us_brings_ready(broker: StubBroker, link: Link) -> None:
    """An idle worker must come back into the registry without asking anything."""
    link.introduce()
    broker.forget()

    link.beat(Beat(progress=1, within_ms=1000))

    def known() -> bool:
        link.collect()
        link.keep_registered()
        return len(broker.registered) == 1

    eventually(known)


def test_a_late_answer_is_not_taken_for_the_next_one(paths: Paths, link: Link) -> None:
    """Both requests expect the same kind of answer; the ids keep them apart."""
    seen: list[int] = []

    def number(request: ListAudit) -> AuditView | None:
        seen.append(request.limit)
        return None if request.limit == 1 else AuditView(rows=(), head_sequence=request.limit)

    with StubBroker(paths, {ListAudit: number}) as broker:
        with pytest.raises(DeadlineError):
            link.ask(ListAudit(after=0, limit=1), AuditView, timeout_ms=200)
        late = next(call for call in broker.calls if isinstance(call.request, ListAudit))
        broker.answer_later(late, AuditView(rows=(), head_sequence=1))

        assert link.ask(ListAudit(after=0, limit=2), AuditView).head_sequence == 2


def test_no_broker_is_unavailable_within_the_timeout(link: Link) -> None:
    """And the hint says what to do."""
    began_ms = boottime_ms()
    with pytest.raises(UnavailableError) as refusal:
        link.ask(GetNode(), NodeView, timeout_ms=300)
    assert 300 <= boottime_ms() - began_ms < 600
    assert "certmesh up" in refusal.value.hint


def test_a_frozen_broker_ends_in_a_deadline_because_the_outcome_is_unknown(
    broker: StubBroker, link: Link
) -> None:
    """The request may have been carried out: that is another error than `unavailable`."""
    link.ask(RELEASE, Ack)
    broker.silent = True
    began_ms = boottime_ms()
    with pytest.raises(DeadlineError):
        link.ask(RELEASE, Ack, timeout_ms=300)
    assert 300 <= boottime_ms() - began_ms < 600


def test_a_stop_signal_ends_a_long_wait_soon(paths: Paths) -> None:
    """Exit within a second also holds while the broker is away."""
    with Link(paths, Service.RENEWAL, "renewal-0", stopping=lambda: True) as link:
        for _ in range(2):
            began_ms = boottime_ms()
            with pytest.raises(UnavailableError):
                link.ask(GetNode(), NodeView, timeout_ms=30_000)
            assert boottime_ms() - began_ms < STOP_MS + 300


@pytest.mark.parametrize(
    "kind",
    [kind for kind in error_classes().values() if kind is not UnregisteredError],
    ids=lambda kind: kind.__name__,
)
def test_every_refusal_arrives_as_its_class(
    broker: StubBroker, link: Link, kind: type[MeshError]
) -> None:
    """All but `unregistered`, which the link answers itself."""

    def refuse(_: object) -> Reply:
        raise kind("because", hint="do this", retry_after_ms=7)

    broker.answers[ReleaseLease] = refuse
    with pytest.raises(kind) as refusal:
        link.ask(RELEASE, Ack)
    assert refusal.value.detail == "because"
    assert refusal.value.hint == "do this"
    assert refusal.value.retry_after_ms == 7


def test_a_refusal_of_a_newer_broker_is_internal_and_keeps_its_words(
    broker: StubBroker, link: Link
) -> None:
    """Codes are only appended: an unknown one is a newer broker's."""
    broker.answers[ReleaseLease] = lambda _: Fault(code="from_the_future", detail="because")
    with pytest.raises(InternalError, match="because"):
        link.ask(RELEASE, Ack)


def test_a_reply_of_the_wrong_kind_is_an_internal_error(broker: StubBroker, link: Link) -> None:
    """Behind the link there are only the promised types."""
    broker.answers[ReleaseLease] = lambda _: idle_node()
    with pytest.raises(InternalError, match="expected Ack, got NodeView"):
        link.ask(RELEASE, Ack)


def test_a_broker_that_refuses_ready_is_reported_and_not_waited_for(
    broker: StubBroker, link: Link
) -> None:
    """Another wire version will not go away by waiting; an upgraded broker is accepted later."""

    def refuse(_: object) -> Reply:
        raise UnsupportedVersionError("wire version 1, this side speaks 2")

    broker.answers[Ready] = refuse
    with pytest.raises(UnsupportedVersionError):
        link.ask(GetNode(), NodeView)
    del broker.answers[Ready]
    eventually(lambda: _succeeds(link), within_s=5)


def _succeeds(link: Link) -> bool:
    try:
        link.ask(GetNode(), NodeView)
    except UnsupportedVersionError:
        return False
    return True


def test_an_oversized_request_is_refused_before_it_is_sent(broker: StubBroker, link: Link) -> None:
    """Otherwise it would cost the connection."""
    huge = CompleteWork(lease_id=1, result=Rekeyed(csr=b"x" * MESSAGE_BYTES_MAX))
    with pytest.raises(OversizedMessageError):
        link.ask(huge, Ack)
    assert not broker.seen(CompleteWork)


def test_garbage_from_the_broker_is_dropped(paths: Paths) -> None:
    """A link never dies of what it receives."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        router.bind(endpoint(paths.control_socket))
        with Link(paths, Service.RENEWAL, "renewal-0", context=context) as link:
            assert not link.keep_registered()
            eventually(lambda: link.keep_registered() or router.poll(0))
            identity, *_ = router.recv_multipart()
            for frames in ([b""], [b"\x01", b"\xff\xff"], [b"\x09", b""], [b"a", b"b", b"c"]):
                router.send_multipart([identity, *frames])
            router.send_multipart([identity, *encode(Answer(request_id=b"i" * 16, reply=Ack()))])
            answers = eventually(link.collect)
            assert [answer.reply for answer in answers] == [Ack()]


def test_a_posted_request_is_answered_through_collect(broker: StubBroker, link: Link) -> None:
    """The watchdog must not wait for a broker that it is about to judge."""
    assert link.post(GetNode()) is None  # not connected yet: nothing is sent, nothing is queued
    link.introduce()

    request_id = link.post(GetNode())

    answers = eventually(link.collect)
    assert [answer.request_id for answer in answers] == [request_id]
    assert len(broker.seen(GetNode)) == 1


def test_goodbye_is_heard_before_the_process_is_gone(broker: StubBroker, paths: Paths) -> None:
    """Leases return at once instead of after the liveness deadline."""
    with Link(paths, Service.RENEWAL, "renewal-0") as link:
        link.introduce()
        link.goodbye("stopping")
    eventually(lambda: broker.seen(Goodbye) == [Goodbye(reason="stopping")])


def test_two_links_of_one_process_do_not_disturb_each_other(
    broker: StubBroker, paths: Paths, link: Link
) -> None:
    """Identities carry a nonce; without it the second would never get an answer."""
    with Link(paths, Service.RENEWAL, "renewal-0") as second:
        assert link.ask(RELEASE, Ack) == second.ask(RELEASE, Ack) == Ack()
    assert len(set(broker.identities)) == 2


def test_a_refusal_is_an_answer_and_not_a_reason_to_ask_again(
    broker: StubBroker, link: Link
) -> None:
    """Only silence is retried."""

    def locked(_: object) -> Reply:
        raise CALockedError("the key is sealed")

    broker.answers[GetStatus] = locked
    with pytest.raises(CALockedError):
        link.ask(GetStatus(), NodeView)
    assert len(broker.seen(GetStatus)) == 1
