"""Would the mesh survive the loss of its primary: the verdicts on plain values."""

import msgspec
import pytest

from broker.cli.survival import Forecast
from broker.runtime.duration import Duration
from broker.runtime.settings import Failover
from broker.units import UnixSeconds
from broker.wire.console_api import Rehearsal, RehearsalStep
from broker.wire.standby import StandbyLine, StandbysView
from tests.cli.views import DAY_S, NOW, leader, standby, standbys

COPY = Rehearsal(
    steps=(),
    host="nas",
    primary="atlas",
    standbys=("nas", "pi"),
    others=5,
    term=3,
    sequence=41,
    survives_until=UnixSeconds(NOW + 19 * DAY_S),
)


def forecast(*lines: StandbyLine, copy: Rehearsal = COPY, **rules: object) -> Forecast:
    """Return what is known when these standbys are seen from nas."""
    return seen(standbys(leader(), *(lines or (standby("nas"),)), host="nas"), copy, **rules)


def seen(view: StandbysView, copy: Rehearsal = COPY, **rules: object) -> Forecast:
    """Return what is known with this view."""
    return Forecast(view, copy, Failover(**rules), NOW)  # type: ignore[arg-type]  # named settings


def step(found: Forecast, name: str) -> RehearsalStep:
    """Return one verdict."""
    return next(step for step in found.steps() if step.name == name)


def test_a_ready_standby_takes_over_after_grace_and_three_ticks() -> None:
    """30 s of silence, and at most three ticks until it is noticed and done."""
    found = forecast()
    assert (found.heir and found.heir.host, found.takeover_ms) == ("nas", 45_000)
    assert {step.state for step in found.steps()} == {"ok"}
    assert step(found, "takeover time").detail == "at most 45 s: grace 30s + 3 ticks of 5s"
    assert step(found, "standby nas").detail == "ready; lag 0, CA unlocked, heard here"


@pytest.mark.parametrize(
    ("state", "takeover_ms"),
    [
        ("ready", 45_000),
        ("away", 55_000),
        ("locked", 45_000),
        ("lagging", 45_000),
        ("unready", 45_000),
        ("nominated", 45_000),
    ],
)
def test_only_a_silent_standby_before_the_heir_costs_a_stagger(
    state: str, takeover_ms: int
) -> None:
    """A locked one says so and is passed over at once; a dead one has to be waited for."""
    found = forecast(standby("nas", state), standby("pi", rank=1))
    assert found.takeover_ms == takeover_ms
    assert found.heir is not None
    assert found.heir.host == ("nas" if state == "ready" else "pi")
    assert step(found, "standby nas").state == ("ok" if state == "ready" else "warn")


def test_a_silent_standby_behind_the_heir_costs_nothing() -> None:
    """Nobody waits for those who come later."""
    found = forecast(standby("nas"), standby("pi", "away", rank=1))
    assert found.takeover_ms == 45_000
    assert "stagger" not in step(found, "takeover time").detail


def test_a_fault_of_a_standby_is_told_with_its_remedy_and_where() -> None:
    """The command alone would be typed on the wrong machine."""
    found = forecast(standby("nas"), standby("pi", "locked", ca="locked", rank=1))
    told = step(found, "standby pi")
    assert (told.state, told.hint) == ("warn", "certmesh ca unlock, on pi")
    assert "CA locked" in told.detail


@pytest.mark.parametrize("state", ["locked", "lagging", "away", "unready", "nominated"])
def test_without_a_ready_standby_the_mesh_does_not_survive(state: str) -> None:
    """Key holders that could not take over are none."""
    found = forecast(standby("nas", state))
    assert (found.heir, found.takeover_ms) == (None, None)
    assert step(found, "succession").state == "fail"
    assert step(found, "takeover time").state == "skip"


def test_a_standby_that_the_copied_roster_does_not_name_is_no_heir() -> None:
    """What this node sees and what its disk says must agree: only the disk is there afterwards."""
    found = forecast(copy=msgspec.structs.replace(COPY, standbys=("pi",)))
    assert step(found, "standby nas").state == "warn"
    assert step(found, "succession").state == "fail"


@pytest.mark.parametrize(
    ("rules", "others", "state", "takeover_ms"),
    [
        ({"mode": "manual"}, 5, "fail", None),
        ({"mode": "witnessed", "witnesses": 3}, 5, "ok", 45_000),
        ({"mode": "witnessed", "witnesses": 4}, 5, "fail", None),
        ({"lone_pair": "caretaker"}, 1, "warn", 45_000),
        ({"lone_pair": "wait"}, 1, "fail", None),
        ({"lone_pair": "take-over"}, 1, "ok", 45_000),
        ({"lone_pair": "wait"}, 2, "ok", 45_000),
    ],
)
def test_settings_decide_whether_anybody_takes_over_by_itself(
    rules: dict[str, object], others: int, state: str, takeover_ms: int | None
) -> None:
    """A drill that ignores them would promise what the election refuses."""
    copy = msgspec.structs.replace(COPY, others=others)
    found = forecast(copy=copy, **rules)
    assert (step(found, "takeover time").state, found.takeover_ms) == (state, takeover_ms)


def test_witnesses_are_counted_the_same_from_the_primary() -> None:
    """Five others: two standbys, three plain members, whoever asks."""
    here = msgspec.structs.replace(COPY, host="atlas")
    assert forecast(copy=here, mode="witnessed", witnesses=3).takeover_ms == 45_000
    assert forecast(copy=here, mode="witnessed", witnesses=4).takeover_ms is None


def test_the_settings_of_the_node_make_the_prediction() -> None:
    """A demo with a grace of three seconds predicts seconds."""
    found = forecast(
        standby("nas", "away"),
        standby("pi", rank=1),
        grace=Duration(3000),
        stagger=Duration(1000),
        tick=Duration(500),
    )
    assert found.takeover_ms == 5500
    assert "grace 3s + stagger 1s for each of nas + 3 ticks of 500ms" in (
        step(found, "takeover time").detail
    )


def test_a_takeover_that_is_withheld_already_is_a_warning() -> None:
    """The rehearsal passes on copies, but the living node holds back."""
    view = standbys(leader(), standby("nas"), withheld="isolated")
    assert step(seen(view), "succession").state == "warn"
    following = standbys(powers="following: another node leads", phase="following")
    assert step(seen(following), "succession").state == "ok"
    powers = "caretaker: the other half of the pair may only be cut off"
    assert "standby promote" in step(seen(standbys(powers=powers)), "succession").detail


@pytest.mark.parametrize(
    ("until", "state"),
    [
        (None, "warn"),
        (NOW, "fail"),
        (NOW - 1, "fail"),
        (NOW + 44, "warn"),
        (NOW + 46, "ok"),
    ],
)
def test_the_first_expiry_bounds_how_long_members_live_without_any_ca(
    until: UnixSeconds | None, state: str
) -> None:
    """A certificate that ends before anybody could have taken over is worth a warning."""
    found = forecast(copy=msgspec.structs.replace(COPY, survives_until=until))
    assert step(found, "without any CA").state == state
