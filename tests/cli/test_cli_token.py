"""`certmesh token` against a console: what is sent, what is shown, what needs a yes."""

import json

from broker.errors import ConflictError, NotFoundError
from broker.runtime.exits import Exit
from broker.units import UnixSeconds
from broker.wire.control import Ack
from broker.wire.token import TokenCreated, TokensView, TokenView
from tests.cli.command import Certmesh
from tests.cli.fake_console import FakeConsole
from tests.cli.views import NOW

SECRET = "cmt_" + "S" * 43
ENDS = UnixSeconds(NOW + 3600)
MADE = TokenCreated(SECRET, "ab" * 32, "grafana", ("read", "audit"), ENDS)


def line(name: str, state: str) -> TokenView:
    """Return one token."""
    return TokenView("ab" * 32, name, ("read",), ENDS, NOW, "ann", state)


def test_the_token_alone_goes_to_stdout(console: FakeConsole, certmesh: Certmesh) -> None:
    """`certmesh token create grafana > file` keeps exactly the token."""
    console.answer("POST", "/v1/tokens", MADE)
    words = ("token", "create", "grafana", "--scope", "read", "--scope", "audit", "--ttl", "1h")
    said = certmesh(*words)
    assert (said.status, said.out) == (Exit.OK, SECRET + "\n")
    assert SECRET not in said.err
    wish = {"name": "grafana", "scopes": ["read", "audit"], "ttl_s": 3600}
    assert json.loads(console.asked[-1].body) == wish
    shown = certmesh(*words, "--json").body
    assert (shown["schema"], shown["token"]) == ("certmesh.token-create/1", SECRET)


def test_who_names_no_scope_gets_the_least(console: FakeConsole, certmesh: Certmesh) -> None:
    """Reading, for thirty days; more has to be said."""
    console.answer("POST", "/v1/tokens", MADE)
    certmesh("token", "create", "grafana")
    assert json.loads(console.asked[-1].body) == {"name": "grafana", "scopes": ["read"], "ttl_s": 0}
    assert certmesh("token", "create", "x", "--scope", "root").status == Exit.USAGE


def test_a_name_in_use_is_a_conflict(console: FakeConsole, certmesh: Certmesh) -> None:
    """Exit 9, with what to do."""
    error = ConflictError("a token named grafana is in use", hint="revoke it first")
    console.refuse("POST", "/v1/tokens", error)
    said = certmesh("token", "create", "grafana")
    assert (said.status, "revoke it first" in said.err) == (Exit.CONFLICT, True)


def test_the_list_shows_names_and_states_and_no_secret(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Those of the past too: who had access, and until when."""
    console.answer("GET", "/v1/tokens", TokensView((line("ci", "active"), line("old", "revoked"))))
    out = certmesh("token", "list").out
    assert "ci" in out
    assert "revoked" in out
    assert certmesh("token", "list", "--json").body["tokens"][1]["state"] == "revoked"


def test_a_revocation_needs_a_yes(console: FakeConsole, certmesh: Certmesh) -> None:
    """A program stops working; without a terminal the missing flag is named."""
    console.answer("DELETE", "/v1/tokens/ci", Ack())
    said = certmesh("token", "revoke", "ci", "--no-input")
    assert (said.status, "--yes" in said.err) == (Exit.USAGE, True)
    assert not console.asked
    said = certmesh("token", "revoke", "ci", "--yes", "--json")
    assert (said.status, said.body["state"]) == (Exit.OK, "revoked")
    console.refuse("DELETE", "/v1/tokens/no", NotFoundError("no token"), 404)
    assert certmesh("token", "revoke", "no", "--yes").status == Exit.FAILED
