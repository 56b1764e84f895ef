"""`certmesh worker` against a console: what is sent, what is shown, what needs a yes."""

import json

from broker.errors import NotFoundError, PolicyRefusedError
from broker.runtime.exits import Exit
from broker.wire.remote import RemoteWorkersView, RemoteWorkerView
from tests.cli.command import Certmesh
from tests.cli.fake_console import FakeConsole
from tests.cli.views import NOW
from tests.stub_broker import idle_node

KEY = "ab" * 32
ENROLLED = RemoteWorkerView("c1", "nas", "a1", "enrolled", "", NOW, "ann")
BOUND = RemoteWorkerView("c1", "nas", "a1", "bound", KEY, NOW, "ann", connected=2, renewals=31)
OVER = RemoteWorkerView("c0", "nas", "a1", "revoked", KEY, NOW, "bob")


def ready(console: FakeConsole, listen: str = "0.0.0.0:7645", host: str = "atlas") -> None:
    """Let the console answer everything that enrolling asks."""
    console.answer("POST", "/v1/remote-workers", ENROLLED)
    console.answer("GET", "/v1/remote-workers", RemoteWorkersView((ENROLLED,), listen))
    console.answer("GET", "/v1/node", idle_node(host))


def test_a_machine_is_let_in_after_a_yes(console: FakeConsole, certmesh: Certmesh) -> None:
    """And the operator hears what to do on that machine."""
    ready(console)
    said = certmesh("worker", "enroll", "nas", "--no-input")
    assert (said.status, "--yes" in said.err) == (Exit.USAGE, True)
    assert not console.asked
    said = certmesh("worker", "enroll", "nas", "--yes")
    assert (said.status, "nas is let in" in said.out) == (Exit.OK, True)
    assert "remote_renewal" in said.err
    assert "[listen]" not in said.err
    assert json.loads(console.asked[0].body) == {"host": "nas", "dry_run": False}


def test_a_grant_that_leads_nowhere_says_so(console: FakeConsole, certmesh: Certmesh) -> None:
    """The port is closed by default; and the primary needs no remote workers of its own."""
    ready(console, listen="", host="nas")
    said = certmesh("worker", "enroll", "nas", "--yes")
    assert "[listen]" in said.err
    assert "nas leads now" in said.err


def test_a_dry_run_needs_no_yes(console: FakeConsole, certmesh: Certmesh) -> None:
    """And is sent as one."""
    ready(console)
    said = certmesh("worker", "enroll", "nas", "--dry-run", "--no-input")
    assert (said.status, "would be let in" in said.out) == (Exit.OK, True)
    assert json.loads(console.asked[0].body)["dry_run"] is True
    console.answer("POST", "/v1/remote-workers/nas/revoke", OVER)
    said = certmesh("worker", "revoke", "nas", "--dry-run", "--no-input")
    assert (said.status, "would be over" in said.out) == (Exit.OK, True)
    assert json.loads(console.asked[-1].body) == {"dry_run": True}


def test_a_revocation_needs_a_yes(console: FakeConsole, certmesh: Certmesh) -> None:
    """What that machine was doing goes to others."""
    console.answer("POST", "/v1/remote-workers/nas/revoke", OVER)
    said = certmesh("worker", "revoke", "nas", "--no-input")
    assert (said.status, "--yes" in said.err) == (Exit.USAGE, True)
    said = certmesh("worker", "revoke", "nas", "--yes", "--json")
    assert (said.status, said.body["state"]) == (Exit.OK, "revoked")
    assert said.body["schema"] == "certmesh.worker-revoke/1"


def test_refusals_end_in_their_exit_status(console: FakeConsole, certmesh: Certmesh) -> None:
    """As every other command."""
    error = PolicyRefusedError("no decision without a name", hint="--operator NAME")
    console.refuse("POST", "/v1/remote-workers", error, 422)
    assert certmesh("worker", "enroll", "nas", "--yes").status == Exit.REFUSED
    console.refuse("POST", "/v1/remote-workers/no/revoke", NotFoundError("none"), 404)
    assert certmesh("worker", "revoke", "no", "--yes").status == Exit.FAILED


def test_the_list_shows_what_became_of_each_grant(console: FakeConsole, certmesh: Certmesh) -> None:
    """Newest first, with what the machine is worth; the key is shortened for people only."""
    view = RemoteWorkersView((BOUND, OVER), "0.0.0.0:7645")
    console.answer("GET", "/v1/remote-workers", view)
    said = certmesh("worker", "list")
    assert [line.split()[:4] for line in said.out.splitlines()[1:]] == [
        ["nas", "bound", "2", "31"],
        ["nas", "revoked", "-", "0"],
    ]
    assert KEY not in said.out
    assert "0.0.0.0:7645" in said.err
    body = certmesh("worker", "list", "--json").body
    assert (body["schema"], body["workers"][0]["public_key"]) == ("certmesh.worker-list/1", KEY)
    console.answer("GET", "/v1/remote-workers", RemoteWorkersView(()))
    assert "listens for no remote workers" in certmesh("worker", "list").err
