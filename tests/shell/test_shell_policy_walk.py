"""A policy over a large roster: looked at in steps, while the loop serves whoever waits."""

import secrets
from pathlib import Path
from typing import Any

import pytest

from broker.clock import boottime_ms
from broker.errors import ConflictError
from broker.shell import outside
from broker.wire.base import Request
from broker.wire.control import Fault
from broker.wire.ids import Service
from broker.wire.policy import PolicyPatch, PolicyView, SetPolicy
from tests.shell.office import Office
from tests.shell.test_shell_policy import DAY_S, join, rows
from tests.support import eventually


@pytest.fixture
def office(home: Path) -> Office:
    """A mesh without approval."""
    return Office.create(home)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make four members a large mesh."""
    monkeypatch.setattr(outside, "STEP_MEMBERS", 1)
    monkeypatch.setattr(outside, "STEPS_AT_ONCE", 1)


def put(office: Office, request: Request) -> bytes:
    """Send a request whose answer comes later; return its id."""
    identity, request_id = office.introduce(Service.CONSOLE), secrets.token_bytes(16)
    assert office.turn([(identity, request, request_id)]) == []
    return request_id


def finish(office: Office, request_id: bytes) -> object:
    """Run completions, a drain each, until the answer is there."""

    def turned() -> object:
        for then, outcome in office.desk.state.offloop.finished():
            batch = office.desk.open_batch()
            then(batch, outcome)
            outgoing: list[Any] = []
            office.desk.finish(batch, outgoing)
            for entry in outgoing:
                if entry.caller.request_id == request_id:
                    return entry.reply
        return None

    return eventually(turned)


@pytest.mark.usefixtures("small_steps")
def test_a_large_mesh_is_looked_at_in_steps_and_the_loop_serves_between_them(
    office: Office,
) -> None:
    """A hundred thousand members must not freeze the CA for a second."""
    for host in ("birch", "cedar", "dune"):
        join(office, host, f"{host}.home.arpa")
    waiting = put(office, SetPolicy(PolicyPatch(names=("*.internal", "*.local")), "ann"))
    assert rows(office, "policy.changed") == 0
    join(office, "elm")  # somebody else is served meanwhile
    view = finish(office, waiting)
    assert isinstance(view, PolicyView)
    assert [line.host for line in view.outside] == ["birch", "cedar", "dune"]
    assert rows(office, "policy.changed") == 1


@pytest.mark.usefixtures("small_steps")
def test_of_two_changes_at_a_time_the_second_is_told(office: Office) -> None:
    """It was decided against a policy that is gone: silently it would undo the first."""
    join(office, "birch")
    first = put(office, SetPolicy(PolicyPatch(leaf_lifetime_s=20 * DAY_S), "ann"))
    second = put(office, SetPolicy(PolicyPatch(leaf_lifetime_s=40 * DAY_S), "bob"))
    replies: dict[bytes, object] = {}

    def both() -> bool:
        for then, outcome in office.desk.state.offloop.finished():
            batch = office.desk.open_batch()
            then(batch, outcome)
            outgoing: list[Any] = []
            office.desk.finish(batch, outgoing)
            replies.update({entry.caller.request_id: entry.reply for entry in outgoing})
        return {first, second} <= set(replies)

    eventually(both)
    assert isinstance(replies[first], PolicyView)
    late = replies[second]
    assert isinstance(late, Fault)
    assert late.code == ConflictError.code.value
    assert office.desk.state.mesh().policy.leaf_lifetime_s == 20 * DAY_S


def test_a_caller_that_left_changes_nothing(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose patience is over was told "unknown": a change minutes later would surprise."""
    monkeypatch.setattr(outside, "STEP_MEMBERS", 2)
    monkeypatch.setattr(outside, "STEPS_AT_ONCE", 1)
    join(office, "birch")
    waiting = put(office, SetPolicy(PolicyPatch(leaf_lifetime_s=20 * DAY_S), "ann"))
    del office.desk.state.waiting[waiting]

    def last_step() -> bool:
        found = office.desk.state.offloop.finished()
        for then, outcome in found:
            batch = office.desk.open_batch()
            then(batch, outcome)
            office.desk.finish(batch, [])
        return bool(found)

    eventually(last_step)
    assert rows(office, "policy.changed") == 0


def test_a_step_over_many_members_stays_below_the_loop_budget(office: Office) -> None:
    """Twenty milliseconds is what a turn may take; a step has a quarter of that on any machine."""
    steps = outside.STEP_MEMBERS
    policy, domain = office.desk.state.mesh().policy, "home.internal"
    sans = ("nas.home.internal", "nas.local", "192.168.7.7", "files.home.arpa")

    class Roster:
        def names_page(self, _after: str, limit: int) -> list[tuple[str, str, Any, bool]]:
            return [(f"{n:032x}", f"host-{n}", sans, True) for n in range(limit)]

    walk = outside.Walk(policy, domain)
    started_ms = boottime_ms()
    for _ in range(20):
        walk.step(Roster())  # type: ignore[arg-type]  # only the one read
    assert (boottime_ms() - started_ms) / 20 < 20, f"a step of {steps} members"
