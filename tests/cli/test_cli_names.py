"""Names on the command line: reinstate, rename, and an invite that replaces."""

import json

import pytest

from broker.errors import ConflictError
from broker.runtime.exits import Exit
from broker.wire.console_api import InviteCreated
from broker.wire.control import Ack
from broker.wire.roster import MemberView
from tests.cli.command import Certmesh
from tests.cli.fake_console import FakeConsole
from tests.cli.views import MESH_ID, NOW, PIN, member

RENAME = "/v1/members/nas/rename"
REINSTATE = "/v1/members/nas/reinstate"


def renamed() -> MemberView:
    """Return nas as it is called afterwards."""
    return MemberView(member("files", sans=("files.home.internal",)), ())


def test_renaming_says_the_names_and_what_happens_next(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Callers have to be told the new name; the machine finds out by itself."""
    console.answer("POST", RENAME, renamed())
    said = certmesh("--yes", "member", "rename", "nas", "files")
    assert said.status == Exit.OK
    assert "nas is now files: files.home.internal" in said.out
    assert "heartbeat" in said.err
    asked = json.loads(console.asked[-1].body)
    assert (asked["new_host"], asked.get("dry_run", False)) == ("files", False)


def test_a_dry_run_of_a_renaming_needs_no_yes(console: FakeConsole, certmesh: Certmesh) -> None:
    """It changes nothing, so nothing has to be confirmed."""
    console.answer("POST", RENAME, renamed())
    body = certmesh("--json", "member", "rename", "nas", "files", "--dry-run").body
    assert (body["before"], body["host"], body["dry_run"]) == ("nas", "files", True)
    assert body["names"] == ["files.home.internal"]
    assert json.loads(console.asked[-1].body)["dry_run"] is True


@pytest.mark.parametrize("words", [("reinstate", "nas"), ("rename", "nas", "files")])
def test_without_a_terminal_a_name_is_not_touched_unasked(
    console: FakeConsole, certmesh: Certmesh, words: tuple[str, ...]
) -> None:
    """Both decide what other machines may be called."""
    assert certmesh("member", *words).status == Exit.USAGE
    assert not console.asked


def test_reinstating_frees_the_name_and_says_what_stays(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Nobody should believe that the stolen key works again."""
    console.answer("POST", REINSTATE, Ack())
    said = certmesh("--yes", "member", "reinstate", "nas")
    assert said.status == Exit.OK
    assert "stays revoked" in said.out
    assert certmesh("--yes", "--json", "member", "reinstate", "nas").body["state"] == "free"


def test_a_name_that_is_not_barred_is_a_conflict(console: FakeConsole, certmesh: Certmesh) -> None:
    """Exit status 9, with the reason."""
    console.refuse("POST", REINSTATE, ConflictError("the name nas is free already"))
    said = certmesh("--yes", "member", "reinstate", "nas")
    assert said.status == Exit.CONFLICT
    assert "free already" in said.err


def test_an_invite_that_replaces_says_so_to_the_broker_and_to_the_person(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """The word is given by a flag, never by accident."""
    made = InviteCreated("cm1:abc", "ab" * 32, "nas", (), NOW, "open", PIN, MESH_ID)
    console.answer("POST", "/v1/invites", made)
    said = certmesh("invite", "create", "nas", "--rejoin")
    assert "replaces the member" in said.err
    assert json.loads(console.asked[-1].body)["rejoin"] is True
    assert "replaces" not in certmesh("invite", "create", "nas").err
    assert not json.loads(console.asked[-1].body).get("rejoin", False)
