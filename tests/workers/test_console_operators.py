"""Who decided: a person's account is a name, a shared one is not, and both are written down."""

import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from broker.cli.api import Api
from broker.errors import MalformedMessageError, UnavailableError
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.units import UnixSeconds
from broker.wire.authority import AuthorityView, LockAuthority
from broker.wire.ids import Service
from broker.wire.operator import (
    NAME_LENGTH_MAX,
    OPERATOR_HEADER,
    check_operator_name,
    is_named,
    operator_of,
)
from tests.stub_broker import StubBroker
from tests.workers.door_house import House, visit_unix
from workers.accounts import account_of
from workers.connection import Limits
from workers.console.service import Console
from workers.route import Caller, named

NEVER = UnixSeconds(0)
LOCKED = AuthorityView("locked", "lab", "lab.internal", "bb", 1, "", "", NEVER, NEVER, (), (), ())
SHARED = account_of(os.geteuid()).shared


@dataclass
class Flat:
    """A console that stands open."""

    paths: Paths
    broker: StubBroker

    def operators(self, *names: str) -> list[str]:
        """Return who is recorded when the command gives orders under these names."""
        silence = UnavailableError("nobody answers")
        for name in names:
            Api(self.paths.api_socket, 5000, silence, name).post("/v1/ca/lock", AuthorityView)
        return [request.operator for request in self.broker.seen(LockAuthority)]


@pytest.fixture
def flat(paths: Paths, settings: Settings) -> Iterator[Flat]:
    """The console of whoever runs this."""
    with StubBroker(paths) as broker, House(paths, Service.CONSOLE) as house:
        broker.answers[LockAuthority] = lambda _request: LOCKED
        house.round(house.furnish(lambda asker: Console(settings, paths, asker, Limits())))
        yield Flat(paths, broker)


@pytest.mark.skipif(not SHARED, reason="this account is one person's")
def test_who_uses_a_shared_account_is_recorded_with_the_account(flat: Flat) -> None:
    """`root` in the audit trail tells nobody who it was."""
    account = account_of(os.geteuid()).name

    found = flat.operators("alice", "", "José Müller")

    assert found == [
        f"alice (as {account})",
        f"unnamed (as {account})",
        f"José Müller (as {account})",
    ]


@pytest.mark.skipif(not SHARED, reason="this account is one person's")
@pytest.mark.parametrize("name", ["alice (as bob)", "unnamed", "a" * (NAME_LENGTH_MAX + 1)])
def test_a_claim_that_is_no_name_is_refused_and_nothing_is_done(flat: Flat, name: str) -> None:
    """A name must not look like two, nor like nobody's."""
    with visit_unix(flat.paths.api_socket) as visitor:
        said = visitor.ask("POST", "/v1/ca/lock", {}, {OPERATOR_HEADER: name})
    assert (said.status, said.json["code"]) == (400, "malformed")
    assert not flat.broker.seen(LockAuthority)


def test_a_persons_account_is_the_name_whatever_the_header_says() -> None:
    """The kernel vouches for it; a header is what anybody types."""
    anna = Caller(source="uid:1000", operator="anna")
    assert named(anna, "mallory") == anna
    root = Caller(source="uid:0", account="root")
    assert named(root, "anna").operator == "anna (as root)"
    assert named(root, "").operator == "unnamed (as root)"


def test_a_uid_without_an_account_is_nobodys_own() -> None:
    """Containers run under numbers."""
    unknown = max(entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid < 60_000) + 4711
    assert account_of(unknown).shared
    assert account_of(unknown).name == f"uid:{unknown}"


@pytest.mark.parametrize("name", ["alice", "DOMAIN\\alice", "_apt", "anna@example.org", "José"])
def test_what_machines_and_people_call_themselves_is_a_name(name: str) -> None:
    """Sudo hands on login names of every kind."""
    assert check_operator_name(name) == name
    assert is_named(operator_of("root", name))


@pytest.mark.parametrize(
    "name", ["", " alice", "ali\nce", "ali\x1bce", "alice)", "(alice", "unnamed", "a\u202eb"]
)
def test_what_could_forge_a_line_is_no_name(name: str) -> None:
    """Names go into the audit trail and onto screens."""
    with pytest.raises(MalformedMessageError):
        check_operator_name(name)


@pytest.mark.parametrize("operator", ["", "  ", "unnamed (as root)", "unnamed (as certmesh)"])
def test_an_account_alone_is_no_name(operator: str) -> None:
    """This is what a mesh that asks for operators refuses."""
    assert not is_named(operator)


def test_a_token_and_a_person_are_names() -> None:
    """Tokens are given out by name."""
    assert is_named("token:ci")
    assert is_named("anna")
    assert is_named("anna (by webhook)")
