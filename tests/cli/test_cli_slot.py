"""`certmesh ca slot` and `ca unlock --code` against a console."""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from broker.errors import BadPassphraseError, ConflictError
from broker.runtime.exits import Exit
from broker.wire.authority import SlotView
from broker.wire.slot import SlotAnswer
from tests.cli.command import Certmesh
from tests.cli.fake_console import FakeConsole
from tests.cli.views import NOW, authority, node

SLOTS = "/v1/ca/slots"
PASSPHRASE, PEER = "ab" * 8, "cd" * 8
VIEW = replace(
    authority(),
    slots=(SlotView(PASSPHRASE, "passphrase", NOW), SlotView(PEER, "peer", NOW, "nas")),
)


@pytest.fixture
def proof(tmp_path: Path) -> str:
    """A file with the proving passphrase."""
    path = tmp_path / "proof"
    path.write_text("the old passphrase\n")
    return str(path)


@pytest.fixture
def fresh(tmp_path: Path) -> str:
    """A file with a new passphrase."""
    path = tmp_path / "fresh"
    path.write_text("a new passphrase\n")
    return str(path)


def sent(console: FakeConsole) -> dict[str, object]:
    """Return the last body."""
    found = json.loads(console.asked[-1].body)
    assert isinstance(found, dict)
    return found


def test_slots_are_listed_with_what_opens_them(console: FakeConsole, certmesh: Certmesh) -> None:
    """Who has to be there for an unlock."""
    console.answer("GET", SLOTS, VIEW)
    said = certmesh("ca", "slot", "list")
    assert PEER in said.out
    assert "nas agrees" in said.out
    shown = certmesh("--json", "ca", "slot", "list").body
    assert [slot["kind"] for slot in shown["slots"]] == ["passphrase", "peer"]
    assert shown["slots"][1]["peer"] == "nas"


def test_the_ca_shows_whose_consent_it_needs(console: FakeConsole, certmesh: Certmesh) -> None:
    """Next to the passphrase."""
    console.answer("GET", "/v1/ca", VIEW)
    console.answer("GET", "/v1/node", node())
    assert "peer nas (since" in certmesh("ca", "show").out


def test_a_new_passphrase_goes_with_the_proof_and_the_note_is_told(
    console: FakeConsole, certmesh: Certmesh, proof: str, fresh: str
) -> None:
    """The old one proves, the new one is added; what it does not reach is said."""
    answer = SlotAnswer("ef" * 8, "passphrase", note="the other key holders keep theirs")
    console.answer("POST", SLOTS, answer)
    words = ("ca", "slot", "add", "passphrase", "--passphrase-file", proof)
    said = certmesh(*words, "--new-passphrase-file", fresh)
    assert said.status == Exit.OK
    assert "ef" * 8 in said.out
    assert "the other key holders keep theirs" in said.err
    assert sent(console)["passphrase"] == "the old passphrase"
    assert sent(console)["new"] == "a new passphrase"
    shown = certmesh("--json", *words, "--new-passphrase-file", fresh).body
    assert shown["note"] == "the other key holders keep theirs"


def test_defect_37_no_passphrase_is_taken_from_the_command_line(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Everybody on the machine can read the arguments of a process."""
    for option in ("--passphrase", "--new-passphrase", "--code"):
        said = certmesh("ca", "slot", "add", "passphrase", option, "secret")
        assert said.status == Exit.USAGE
    assert certmesh("ca", "slot", "add", "totp").status == Exit.USAGE, "nobody to ask, no file"
    assert console.asked == []


def test_an_authenticator_entry_is_shown_once_with_what_it_is_worth(
    console: FakeConsole, certmesh: Certmesh, proof: str
) -> None:
    """An honest word about stolen disks belongs where the slot is made."""
    answer = SlotAnswer("ef" * 8, "totp", "/x/totp-ef", "otpauth://totp/certmesh", "ABCD EFGH")
    console.answer("POST", SLOTS, answer)
    said = certmesh("ca", "slot", "add", "totp", "--passphrase-file", proof)
    for part in ("otpauth://totp/certmesh", "ABCD EFGH", "no stolen disk", "ca unlock --code"):
        assert part in said.out


def test_the_command_for_systemd_is_ready_to_be_copied(
    console: FakeConsole, certmesh: Certmesh, proof: str
) -> None:
    """The secret lies in the clear until it was run."""
    console.answer("POST", SLOTS, SlotAnswer("ef" * 8, "systemd", "/x/systemd-ef"))
    said = certmesh("ca", "slot", "add", "systemd", "--passphrase-file", proof)
    assert "systemd-creds encrypt --name=certmesh-ca /x/systemd-ef " in said.out
    assert "shred -u /x/systemd-ef" in said.out
    assert "LoadCredentialEncrypted=certmesh-ca:" in said.out


def test_a_peer_belongs_to_a_peer_slot(
    console: FakeConsole, certmesh: Certmesh, proof: str
) -> None:
    """Neither forgotten nor given for nothing."""
    end = ("--passphrase-file", proof)
    assert certmesh("ca", "slot", "add", "peer", *end).status == Exit.USAGE
    assert certmesh("ca", "slot", "add", "totp", "--peer", "nas", *end).status == Exit.USAGE
    console.answer("POST", SLOTS, SlotAnswer(PEER, "peer"))
    said = certmesh("ca", "slot", "add", "peer", "--peer", "nas", *end)
    assert (said.status, "nas agrees" in said.out) == (Exit.OK, True)
    assert sent(console)["peer"] == "nas"


def test_removing_asks_and_needs_a_yes_also_under_json(
    console: FakeConsole, certmesh: Certmesh, proof: str
) -> None:
    """Defect 37 skipped the question when the output was for a script."""
    console.answer("GET", SLOTS, VIEW)
    console.answer("DELETE", f"{SLOTS}/{PEER}", SlotAnswer(PEER, "peer"))
    words = ("ca", "slot", "remove", PEER[:8], "--passphrase-file", proof)
    for before in ((), ("--json",)):
        assert certmesh(*before, *words).status == Exit.USAGE
    assert {asked.method for asked in console.asked} == {"GET"}
    assert certmesh("--yes", *words).status == Exit.OK
    assert (console.asked[-1].method, sent(console)) == (
        "DELETE",
        {"passphrase": "the old passphrase"},
    )
    assert certmesh("--yes", "--json", *words).body["slot_id"] == PEER


def test_a_slot_is_never_guessed(console: FakeConsole, certmesh: Certmesh, proof: str) -> None:
    """Removing the wrong one locks somebody out."""
    console.answer("GET", SLOTS, VIEW)
    words = ("--yes", "ca", "slot", "remove")
    assert certmesh(*words, "0123", "--passphrase-file", proof).status == Exit.FAILED
    assert {asked.method for asked in console.asked} == {"GET"}


def test_refusals_have_their_exit_statuses(
    console: FakeConsole, certmesh: Certmesh, proof: str
) -> None:
    """7 refused, 9 conflict."""
    words = ("ca", "slot", "add", "credential", "--passphrase-file", proof)
    console.refuse("POST", SLOTS, BadPassphraseError("no"), 403)
    assert certmesh(*words).status == Exit.REFUSED
    console.refuse("POST", SLOTS, ConflictError("there is one already"), 409)
    assert certmesh(*words).status == Exit.CONFLICT


def test_a_code_unlocks(console: FakeConsole, certmesh: Certmesh, tmp_path: Path) -> None:
    """As typed, with the gap that authenticators show."""
    console.answer("POST", "/v1/ca/unlock-code", VIEW)
    path = tmp_path / "code"
    path.write_text("123 456\n")
    assert "CA unlocked" in certmesh("ca", "unlock", "--code-file", str(path)).out
    assert sent(console) == {"code": "123456"}
    assert certmesh("ca", "unlock", "--code", typed="123456\n").status == Exit.USAGE
    both = ("--code-file", str(path), "--passphrase-file", str(path))
    assert certmesh("ca", "unlock", *both).status == Exit.USAGE
