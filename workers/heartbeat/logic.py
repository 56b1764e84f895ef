"""What a heartbeat says, to whom, and when the next one is due: decisions only.

A node never beats to itself: the plan's targets are filtered by name here as well, because a node
that asks itself hears only good news.
"""

from collections.abc import Iterable, Sequence

from broker.units import UnixSeconds
from broker.wire.mesh_api import HeartbeatBody
from broker.wire.node import Endpoint
from broker.wire.roster import HeartbeatAnswer, HeartbeatPlan

TARGETS_MAX = 16
"""More key holders than any sane mesh has; the rest of a longer list is left out."""

BEAT_MS_MAX = 60_000
"""No answer can make this node silent for longer: laptops sleep, clocks lie."""

BEAT_MS_MIN = 250
"""No answer can make this node beat faster than four times a second."""


def addressees(plan: HeartbeatPlan, own_host: str) -> tuple[Endpoint, ...]:
    """Return whom to beat to: each key holder once, never this node."""
    seen = {own_host.lower()}
    chosen: list[Endpoint] = []
    for target in plan.targets:
        if target.host.lower() not in seen and target.addresses:
            seen.add(target.host.lower())
            chosen.append(target)
    return tuple(chosen[:TARGETS_MAX])


def obstacle(plan: HeartbeatPlan, targets: Sequence[Endpoint]) -> str:
    """Return why there is nothing to send, or an empty string."""
    if not targets:
        return "no endpoint: no key holder to beat to"
    if not plan.pin:
        return "no pin: this node does not know its CA's fingerprint"
    return ""


def body(plan: HeartbeatPlan, now: UnixSeconds) -> HeartbeatBody:
    """Return the heartbeat of `plan` at wall time `now`."""
    return HeartbeatBody(
        pin=plan.pin,
        served_serial=plan.served_serial,
        served=plan.served,
        clock=now,
        bundle_sequence=plan.bundle_sequence,
        term=plan.term,
        served_not_after=plan.served_not_after,
        endpoint=plan.endpoint,
        gossip=plan.gossip,
        trusts=plan.trusts,
        witness=plan.witness,
        bundle_term=plan.bundle_term,
    )


def next_beat_ms(answers: Iterable[HeartbeatAnswer], interval_ms: int) -> int:
    """Return the time until the next beat: the shortest any key holder asked for, within bounds.

    Only answers that know this node's CA count: another CA does not set the pace.
    """
    asked = [answer.next_beat_ms for answer in answers if answer.valid and answer.next_beat_ms > 0]
    return max(BEAT_MS_MIN, min([*asked, BEAT_MS_MAX] if asked else [interval_ms, BEAT_MS_MAX]))


def skew_s(answer: HeartbeatAnswer, now: UnixSeconds) -> int:
    """Return by how many seconds this node's clock is ahead of the answering one's."""
    return now - answer.clock
