"""The local door to policy and enrollment secret: what reaches the broker, and what does not."""

from collections.abc import Iterator

import pytest

from broker.errors import PolicyRefusedError
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.enrollment import (
    EnrollmentView,
    FinishTOTPRotation,
    StartTOTPRotation,
    TOTPRotationView,
)
from broker.wire.ids import Service
from broker.wire.policy import GetPolicy, Policy, PolicyPatch, PolicyView, SetPolicy
from tests.stub_broker import StubBroker
from tests.workers.door_house import House, visit_unix
from tests.workers.test_console_local import Flat, user_name

PATH = "/v1/ca/policy"
VIEW = PolicyView(
    policy=Policy(names=("*.local",)), permitted_names=("*.local",), permitted_networks=(), term=1
)


@pytest.fixture
def flat(paths: Paths, settings: Settings) -> Iterator[Flat]:
    """A console that stands open."""
    with StubBroker(paths) as broker, House(paths, Service.CONSOLE) as house:
        yield Flat(paths, settings, house, broker)


def test_a_patch_reaches_the_broker_as_it_was_written(flat: Flat) -> None:
    """What is not named stays None: as it is."""
    flat.broker.answers[GetPolicy] = lambda _request: VIEW
    flat.broker.answers[SetPolicy] = lambda _request: VIEW
    with visit_unix(flat.paths.api_socket) as visitor:
        assert visitor.ask("GET", PATH).json["policy"]["names"] == ["*.local"]
        body = {"patch": {"wildcards": True, "names": ["*.local"]}, "dry_run": True}
        assert visitor.ask("PUT", PATH, body).status == 200
    patch = PolicyPatch(wildcards=True, names=("*.local",))
    assert flat.broker.seen(SetPolicy) == [SetPolicy(patch, user_name(), dry_run=True)]


@pytest.mark.parametrize(
    "patch",
    [
        {"leaf_lifetime_s": 0},
        {"leaf_lifetime_s": 367 * 86_400},
        {"leaf_lifetime_s": "30d"},
        {"renew_at": 1.0},
        {"renew_at": 0},
        {"outage_budget_s": -1},
        {"wildcards": "yes"},
        {"profile": "mine"},
        {"names": ["*.local"] * 65},
        {"names": "*.local"},
    ],
)
def test_impossible_numbers_and_kinds_end_at_the_door(flat: Flat, patch: dict[str, object]) -> None:
    """The bounds of the wire hold before anybody decides."""
    with visit_unix(flat.paths.api_socket) as visitor:
        assert visitor.ask("PUT", PATH, {"patch": patch}).status == 400
        assert visitor.ask("PUT", PATH).status == 400
    assert flat.broker.seen(SetPolicy) == []


def test_a_refused_policy_is_a_problem_with_a_hint(flat: Flat) -> None:
    """The dashboard shows the same three parts as the command."""

    def refuse(_request: SetPolicy) -> PolicyView:
        raise PolicyRefusedError("beyond", hint="certmesh ca rollover start")

    flat.broker.answers[SetPolicy] = refuse
    with visit_unix(flat.paths.api_socket) as visitor:
        said = visitor.ask("PUT", PATH, {"patch": {}})
    assert said.status == 400
    assert (said.json["code"], said.json["hint"]) == (
        "policy_refused",
        "certmesh ca rollover start",
    )


def test_the_two_steps_of_a_rotation_reach_the_broker(flat: Flat) -> None:
    """The operator is who the kernel says, the code is only passed on."""
    shown = TOTPRotationView("otpauth://totp/x", "ABCD", 600)
    flat.broker.answers[StartTOTPRotation] = lambda _request: shown
    flat.broker.answers[FinishTOTPRotation] = lambda _request: EnrollmentView(True, False)
    with visit_unix(flat.paths.api_socket) as visitor:
        said = visitor.ask("POST", "/v1/enrollment/totp/rotate")
        assert said.json["totp_key"] == "ABCD"
        confirm = "/v1/enrollment/totp/confirm"
        assert visitor.ask("POST", confirm, {"code": "123456"}).json["open"] is True
        assert visitor.ask("POST", confirm, {"code": "1"}).status == 400
        assert visitor.ask("POST", confirm).status == 400
    assert flat.broker.seen(StartTOTPRotation) == [StartTOTPRotation(user_name())]
    assert flat.broker.seen(FinishTOTPRotation) == [FinishTOTPRotation("123456", user_name())]
