"""The outage budget: what is planned, what is met, and advice that keeps its word."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from broker.cli.policyfields import patch_of
from broker.core.outage import assess, plan_advice, planned_s
from broker.core.policy import patched
from broker.core.renewal import PULL_DELAY_FRACTION, pull_at, renew_at
from broker.core.spans import seconds_up, span_down, span_up
from broker.runtime.duration import Duration
from broker.units import UnixSeconds
from broker.wire.node import MemberLine, OutageView
from broker.wire.policy import Policy

DAY_S = 86_400
NOW = UnixSeconds(1_800_000_000)
POLICY = Policy(names=("*.internal",))
SHORT = replace(POLICY, leaf_lifetime_s=10 * DAY_S)


def line(left_s: int, **changed: Any) -> MemberLine:
    """Return the member pi, whose certificate ends in `left_s`."""
    until = UnixSeconds(NOW + left_s)
    fields: dict[str, Any] = {
        "host": "pi",
        "member_id": "ab",
        "role": "member",
        "state": "up",
        "serial": "02",
        "not_before": UnixSeconds(NOW - DAY_S),
        "not_after": until,
        "renew_at": UnixSeconds(until - 10 * DAY_S),
        "served": "served",
        "served_serial": "02",
        "last_seen_at": NOW,
        "address": "",
        "delivery": "served",
        "survives_until": until,
    }
    return MemberLine(**(fields | changed))


def view(
    weakest: MemberLine | None,
    *,
    policy: Policy = POLICY,
    short: int = 1,
    ca_not_after: int | None = None,
) -> OutageView:
    """Return the assessment now."""
    return assess(policy, weakest, short, now=NOW, ca_not_after=ca_not_after)


def settings_in(advice: str) -> list[str]:
    """Return each `KEY=VALUE` of an advice."""
    assert "certmesh ca policy set " in advice
    return re.findall(r"\b(?:leaf_lifetime|renew_at|outage_budget)=[^\s,)]+", advice)


def test_the_plan_is_what_a_member_has_left_that_pulls_late() -> None:
    """The worst case of a renewal on time: asleep for the sweep, it pulls a twentieth later."""
    lifetime_s = POLICY.leaf_lifetime_s
    end = UnixSeconds(NOW + lifetime_s)
    due = renew_at(NOW, end, fraction=POLICY.renew_at, jitter=0.0)
    assert 0 <= end - pull_at(due, NOW, end) - planned_s(POLICY) <= 1
    assert planned_s(replace(POLICY, renew_at=0.99)) == 0
    assert planned_s(replace(POLICY, renew_at=1 - PULL_DELAY_FRACTION)) == 0


def test_the_default_policy_keeps_its_own_promise() -> None:
    """A new mesh must not begin with a warning."""
    assert planned_s(POLICY) >= POLICY.outage_budget_s
    assert plan_advice(POLICY) == ""


def test_a_plan_below_the_budget_names_exact_settings() -> None:
    """A person copies the command; the first is the one to take, the others are choices."""
    assert plan_advice(SHORT) == (
        "a member that renews on time has 2d left without a CA, and 7d are promised "
        "(outage_budget): certmesh ca policy set leaf_lifetime=25d "
        "(or renew_at=0.25, or outage_budget=2d)"
    )


@given(st.integers(1, 366 * DAY_S), st.floats(0.001, 0.999), st.integers(0, 366 * DAY_S))
def test_every_advised_setting_is_accepted_and_meets_the_budget(
    lifetime_s: int, fraction: float, budget_s: int
) -> None:
    """Property: no rounding makes the advice wrong, and no value is out of bounds."""
    policy = replace(
        POLICY, leaf_lifetime_s=lifetime_s, renew_at=fraction, outage_budget_s=budget_s
    )
    advice = plan_advice(policy)
    assert (advice == "") is (planned_s(policy) >= budget_s)
    for word in settings_in(advice) if advice else ():
        assert plan_advice(patched(policy, patch_of([word]))) == "", word


@pytest.mark.parametrize(("left_s", "met"), [(7 * DAY_S, True), (7 * DAY_S - 1, False)])
def test_the_budget_is_met_to_the_second(left_s: int, *, met: bool) -> None:
    """Seven days are seven days."""
    found = view(line(left_s), short=3)
    assert (found.met, found.weakest) == (met, "pi")
    assert found.survives_until == NOW + left_s
    assert found.short_members == (0 if met else 3)
    assert bool(found.advice) is not met


def test_a_budget_that_is_met_by_luck_is_met_and_still_warned_about() -> None:
    """All certificates are fresh today; the policy will break the promise before they are due."""
    found = view(line(9 * DAY_S), policy=SHORT)
    assert found.met
    assert found.advice == plan_advice(SHORT)


def test_a_mesh_without_certificates_meets_nothing() -> None:
    """Silence is not evidence."""
    found = view(None)
    assert (found.met, found.weakest, found.survives_until, found.advice) == (False, "", None, "")


WHY: list[tuple[dict[str, Any], str]] = [
    ({"delivery": "away"}, "or, if it is gone for good, certmesh member revoke pi"),
    (
        {"delivery": "stale", "served_detail": "port 443 still serves 01"},
        "pi serves an old certificate (port 443 still serves 01): certmesh hook log, on pi",
    ),
    ({"delivery": "failed"}, "pi serves an old certificate: certmesh hook log, on pi"),
    ({"last_error": "no route"}, "renewing pi fails (no route): certmesh cert renew, on pi"),
    ({}, "renew pi, its certificate ends too soon: certmesh cert renew, on pi"),
]


@pytest.mark.parametrize(("changed", "advice"), WHY)
def test_a_member_that_ends_too_soon_is_named_with_what_to_do(
    changed: dict[str, Any], advice: str
) -> None:
    """The policy is fine: it is this host, for this reason."""
    assert advice in view(line(DAY_S, **changed)).advice


def test_a_policy_that_cannot_meet_the_budget_is_said_before_any_member() -> None:
    """Renewing hosts one by one would mend nothing."""
    assert view(line(DAY_S, delivery="failed"), policy=SHORT).advice == plan_advice(SHORT)


def test_an_expired_member_inside_the_grace_may_just_be_started() -> None:
    """It renews with its old key."""
    graceful = replace(POLICY, expired_grace_s=DAY_S)
    over = line(-DAY_S, delivery="expired")
    assert "start it, it may still renew" in view(over, policy=graceful).advice
    late = line(-DAY_S - 1, delivery="expired")
    rejoins = "certmesh invite create pi --rejoin, then certmesh join there"
    assert rejoins in view(late, policy=graceful).advice
    assert rejoins in view(line(0, delivery="expired")).advice


def test_grace_does_not_lengthen_survival() -> None:
    """Without a CA there is nobody to grant it."""
    graceful = replace(POLICY, expired_grace_s=30 * DAY_S)
    found = view(line(DAY_S), policy=graceful)
    assert not found.met
    assert found.survives_until == NOW + DAY_S


def test_an_ending_ca_is_said_instead_of_the_member_it_shortens() -> None:
    """No certificate outlives its issuer: renewing again would give the same end."""
    found = view(line(DAY_S), ca_not_after=NOW + DAY_S)
    assert "certmesh ca rollover start" in found.advice
    assert "rollover" not in view(line(DAY_S), ca_not_after=NOW + 8 * DAY_S).advice


def test_a_long_reason_does_not_make_the_status_unreadable() -> None:
    """Text is bounded on the wire, and hosts write the reasons."""
    found = view(line(DAY_S, delivery="stale", served_detail="x" * 1024))
    assert len(found.advice) < 1024
    assert found.advice.endswith("certmesh hook log, on pi")


@given(st.integers(0, 400 * DAY_S))
def test_spans_are_read_back_on_the_safe_side(seconds: int) -> None:
    """Down is never more, up is never less, and both are settings."""
    assert Duration.parse(span_down(seconds)).s <= seconds
    assert Duration.parse(span_up(seconds)).s == seconds_up(seconds) >= seconds
