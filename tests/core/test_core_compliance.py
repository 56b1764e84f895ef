"""The rules of a well-kept mesh, one by one."""

import dataclasses
from typing import Any

import msgspec
import pytest

from broker.core.compliance import BACKUP_AGE_S_MAX, DAY_S, Checkup, judge
from broker.units import UnixSeconds
from broker.wire.node import OutageView
from broker.wire.policy import Policy

NOW = UnixSeconds(1_000 * DAY_S)
POLICY = Policy(names=("*.internal",))
OUTAGE = OutageView(
    7 * DAY_S, 8 * DAY_S, met=True, weakest="pi", survives_until=UnixSeconds(NOW + 19 * DAY_S)
)
SHORT = msgspec.structs.replace(
    OUTAGE, met=False, survives_until=UnixSeconds(NOW + DAY_S), advice="start pi"
)
WELL = Checkup(
    policy=POLICY,
    enrollment_open=True,
    slots=("passphrase", "credential"),
    unattended=("credential",),
    locked=False,
    is_primary=True,
    members=3,
    standbys=("nas",),
    ready=("nas",),
    last_backup_at=UnixSeconds(NOW - 3600),
    outage=OUTAGE,
    expired=(),
    outside=(),
    clock_off_s=0,
    clock_limit_s=60,
    reviews=0,
    rows=41,
    first_bad=None,
    witnesses=2,
    contradicted_by=(),
)


def states(**changed: Any) -> dict[str, str]:
    """Return the state of each rule that is not well, after some changes."""
    lines = judge(dataclasses.replace(WELL, **changed), NOW)
    assert len({line.rule for line in lines}) == len(lines)
    for line in lines:
        assert line.state == "ok" or line.hint, f"{line.rule} does not say what to do"
    return {line.rule: line.state for line in lines if line.state != "ok"}


def test_a_well_kept_mesh_has_nothing_to_complain_about() -> None:
    """Or nobody reads the rest."""
    assert states() == {}


def policy(**changed: Any) -> Policy:
    """Return a policy with some changes."""
    return msgspec.structs.replace(POLICY, **changed)


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"policy": policy(approval=False)}, "approval"),
        ({"policy": policy(operator_required=False)}, "operator"),
        ({"policy": policy(profile="my-organization")}, "enrollment"),
        ({"slots": ("credential",)}, "ca-at-rest"),
        ({"policy": policy(unattended=False)}, "unlock"),
        ({"standbys": (), "ready": ()}, "standby"),
        ({"ready": ()}, "standby"),
        ({"last_backup_at": None}, "backup"),
        ({"last_backup_at": UnixSeconds(NOW - BACKUP_AGE_S_MAX - 1)}, "backup"),
        ({"outage": SHORT}, "outage-budget"),
        ({"expired": ("pi",)}, "certificates"),
        ({"outside": ("pi",)}, "policy"),
        ({"first_bad": 7}, "audit"),
        ({"contradicted_by": ("nas",)}, "witnesses"),
        ({"witnesses": 0}, "witnesses"),
        ({"clock_off_s": -61}, "clock"),
        ({"reviews": 1}, "reviews"),
    ],
)
def test_each_rule_fails_by_itself(changed: dict[str, Any], rule: str) -> None:
    """A rule that cannot fail is decoration."""
    assert states(**changed) == {rule: "fail"}


@pytest.mark.parametrize(
    "changed",
    [
        {"policy": policy(profile="just-me", approval=False, operator_required=False)},
        {"policy": policy(profile="just-me")},
        {"enrollment_open": False},
        {"unattended": (), "slots": ("passphrase",)},
        {"last_backup_at": UnixSeconds(NOW - BACKUP_AGE_S_MAX)},
        {"clock_off_s": 60},
    ],
)
def test_what_a_profile_does_not_promise_and_more_than_it_promises_is_fine(
    changed: dict[str, Any],
) -> None:
    """A rule that is never kept is ignored, with all the others."""
    assert states(**changed) == {}


def test_what_cannot_be_judged_here_is_a_warning_and_no_pass() -> None:
    """A standby does not hear what members remember."""
    assert states(witnesses=0, is_primary=False) == {"witnesses": "warn"}
    assert states(locked=True) == {"unlocked": "warn"}


def test_an_outage_budget_that_is_met_by_luck_is_a_warning_that_says_what_to_set() -> None:
    """All members are fresh today; in a fortnight the same policy breaks the promise."""
    lucky = msgspec.structs.replace(OUTAGE, planned_s=3 * DAY_S, advice="certmesh ca policy set")
    assert states(outage=lucky) == {"outage-budget": "warn"}
    empty = OutageView(7 * DAY_S, 8 * DAY_S, met=False)
    assert states(outage=empty) == {"outage-budget": "warn"}


def test_a_long_list_of_hosts_is_shortened() -> None:
    """Five names and a number say enough."""
    lines = judge(dataclasses.replace(WELL, expired=tuple(f"h{n}" for n in range(9))), NOW)
    (line,) = [line for line in lines if line.rule == "certificates"]
    assert line.detail == "over: h0, h1, h2, h3, h4 and 4 more"
