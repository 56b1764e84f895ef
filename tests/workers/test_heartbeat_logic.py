"""What a heartbeat says, to whom, and when the next one is due."""

from typing import Any

import pytest

from broker.units import UnixSeconds
from broker.wire.node import Endpoint
from broker.wire.roster import HeartbeatAnswer, HeartbeatPlan
from tests.workers.loop_desk import GOSSIP, PIN, endpoint
from workers.heartbeat.logic import (
    BEAT_MS_MAX,
    BEAT_MS_MIN,
    TARGETS_MAX,
    addressees,
    body,
    next_beat_ms,
    obstacle,
    skew_s,
)

NOW = UnixSeconds(1_800_000_000)


def plan(*targets: Endpoint, **changes: Any) -> HeartbeatPlan:
    """Return a plan of node-b."""
    fields: dict[str, Any] = {
        "targets": targets,
        "pin": PIN,
        "served_serial": "0a",
        "served_not_after": NOW,
        "served": "served",
        "endpoint": endpoint("node-b"),
        "bundle_sequence": 7,
        "term": 3,
        "gossip": GOSSIP,
    }
    return HeartbeatPlan(**{**fields, **changes})


def answer(next_ms: int = 10_000, *, valid: bool = True, clock: int = NOW) -> HeartbeatAnswer:
    """Return what a key holder says."""
    return HeartbeatAnswer(
        valid=valid,
        primary=endpoint("node-a"),
        term=3,
        bundle_sequence=7,
        clock=UnixSeconds(clock),
        next_beat_ms=next_ms,
    )


def test_a_node_never_beats_to_itself() -> None:
    """Defect 1: a node that asks itself hears only good news."""
    targets = addressees(plan(endpoint("Node-B"), endpoint("node-a")), "node-b")

    assert [target.host for target in targets] == ["node-a"]


def test_each_key_holder_is_asked_once_and_not_too_many() -> None:
    """A broken plan must not turn into a flood."""
    many = [endpoint(f"node-{number}") for number in range(TARGETS_MAX + 9)]

    assert len(addressees(plan(endpoint("node-a"), endpoint("NODE-A")), "node-b")) == 1
    assert len(addressees(plan(*many), "node-b")) == TARGETS_MAX


def test_a_key_holder_without_an_address_cannot_be_asked() -> None:
    """It is left out instead of failing each time."""
    nowhere = Endpoint("node-a", (), 7642, 7643, "node-a.home.internal")

    assert addressees(plan(nowhere), "node-b") == ()


def test_what_stands_in_the_way_is_named() -> None:
    """No endpoint and no pin are different troubles."""
    assert "no endpoint" in obstacle(plan(), ())
    assert "no pin" in obstacle(plan(pin=""), (endpoint("node-a"),))
    assert obstacle(plan(), (endpoint("node-a"),)) == ""


def test_the_body_carries_the_plan_and_the_wall_clock() -> None:
    """The CA compares clocks and serials."""
    said = body(plan(), NOW)

    assert (said.pin, said.served_serial, said.served, said.clock) == (PIN, "0a", "served", NOW)
    assert (said.bundle_sequence, said.term, said.endpoint) == (7, 3, endpoint("node-b"))
    assert said.gossip == GOSSIP


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ([4_000, 9_000], 4_000),
        ([], 10_000),
        ([10**9], BEAT_MS_MAX),
        ([1], BEAT_MS_MIN),
        ([0], 10_000),
        ([-5], 10_000),
    ],
)
def test_answers_set_the_pace_within_bounds(asked: list[int], expected: int) -> None:
    """A large mesh spreads its load; no answer can silence a node or make it spin."""
    assert next_beat_ms([answer(ms) for ms in asked], 10_000) == expected


def test_another_ca_does_not_set_the_pace() -> None:
    """An answer that does not know our CA is no reason to fall silent."""
    assert next_beat_ms([answer(60_000, valid=False)], 10_000) == 10_000


def test_a_slow_setting_is_capped_as_well() -> None:
    """No timer longer than a minute: laptops sleep."""
    assert next_beat_ms([], 3_600_000) == BEAT_MS_MAX


def test_skew_has_a_sign() -> None:
    """Positive: this node's clock is ahead."""
    assert skew_s(answer(clock=NOW - 9), NOW) == 9
