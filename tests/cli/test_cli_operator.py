"""`--operator`: who gives the orders, where the account does not say."""

import os

import pytest

from broker.cli.session import Session
from broker.errors import ForbiddenError
from broker.wire.approval import ApprovalsView
from tests.cli.command import Certmesh
from tests.cli.fake_console import FakeConsole

LIST = ("approval", "list")


@pytest.fixture
def asking(console: FakeConsole) -> FakeConsole:
    """A console with nothing to decide."""
    console.answer("GET", "/v1/approvals?state=pending", ApprovalsView(()))
    return console


def said_to(console: FakeConsole) -> str:
    """Return the name that came with the newest request."""
    return console.asked[-1].operator


def test_the_option_goes_before_the_environment_and_that_before_sudo(
    certmesh: Certmesh, asking: FakeConsole, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is typed wins; under sudo nothing has to be typed."""
    assert certmesh(*LIST).status == 0
    assert said_to(asking) == ""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_USER", "carol")
    certmesh(*LIST)
    assert said_to(asking) == "carol"
    monkeypatch.setenv("CERTMESH_OPERATOR", "bob")
    certmesh(*LIST)
    assert said_to(asking) == "bob"
    certmesh(*LIST, "--operator", "José Müller")
    assert said_to(asking) == "José Müller"
    certmesh("--operator", "alice", *LIST)
    assert said_to(asking) == "alice"


@pytest.mark.parametrize(("uid", "caller"), [(0, "root"), (1000, "carol")])
def test_sudo_is_believed_only_where_it_says_something(
    monkeypatch: pytest.MonkeyPatch, uid: int, caller: str
) -> None:
    """Root calling sudo is still root; and a user's environment is not sudo's word."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setenv("SUDO_USER", caller)
    assert Session().operator == ""


def test_a_name_that_is_none_is_refused_before_anything_is_asked(
    certmesh: Certmesh, asking: FakeConsole
) -> None:
    """The console would refuse it too."""
    done = certmesh(*LIST, "--operator", "alice (as root)", "--json")
    assert done.status != 0
    assert "no name of an operator" in done.out + done.err
    assert asking.asked == []


def test_a_refusal_for_want_of_a_name_says_what_to_type_and_exits_7(
    certmesh: Certmesh, console: FakeConsole
) -> None:
    """The sentence a person at a root prompt sees first."""
    hint = "say who you are: --operator NAME"
    console.refuse(
        "GET", "/v1/approvals?state=pending", ForbiddenError("no name", hint=hint), status=403
    )
    done = certmesh(*LIST)
    assert done.status == 7
    assert "--operator NAME" in done.err
