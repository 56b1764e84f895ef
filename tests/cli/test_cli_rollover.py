"""`certmesh ca rollover` against a console."""

from pathlib import Path

import msgspec

from broker.errors import BadPassphraseError, ConflictError
from broker.runtime.exits import Exit
from broker.units import UnixSeconds
from broker.wire.rollover import FinishRolloverBody, Phase, RolloverBody, RolloverView
from tests.cli.command import Certmesh
from tests.cli.fake_console import FakeConsole

PLACE = "/v1/ca/rollover"
OLD, NEW = "0a" * 32, "0b" * 32


def view(
    phase: Phase = "trusting",
    *,
    lacking: tuple[str, ...] = (),
    away: tuple[str, ...] = (),
    standbys: tuple[str, ...] = (),
) -> RolloverView:
    """Return where a rollover of three members stands."""
    return RolloverView(
        phase=phase,
        pin=NEW if phase == "switched" else OLD,
        next_pin="" if phase == "none" else NEW,
        started_at=None if phase == "none" else UnixSeconds(1_700_000_000),
        trusting=3 - len(lacking) - len(away),
        members=3,
        lacking=lacking,
        away=away,
        standbys_lacking=standbys,
        detail="",
    )


def test_start_sends_the_passphrase_of_a_file_and_shows_the_next_fingerprint(
    certmesh: Certmesh, console: FakeConsole, tmp_path: Path
) -> None:
    """Never in argv: other users of the machine could read it there."""
    console.answer("POST", PLACE, view())
    secret = tmp_path / "passphrase"
    secret.write_text("thickness islamic barman\n")
    said = certmesh("ca", "rollover", "start", "--passphrase-file", str(secret))
    assert said.status == Exit.OK
    body = msgspec.json.decode(console.asked[0].body, type=RolloverBody)
    assert body.passphrase == "thickness islamic barman"
    assert "0b0b 0b0b" in said.out
    assert "thickness" not in said.out + said.err


def test_start_without_a_terminal_names_the_flag(certmesh: Certmesh, console: FakeConsole) -> None:
    """A script is told what to give instead of hanging."""
    said = certmesh("ca", "rollover", "start")
    assert (said.status, console.asked) == (Exit.USAGE, [])
    assert "--passphrase-file" in said.err


def test_a_wrong_passphrase_is_exit_7(
    certmesh: Certmesh, console: FakeConsole, tmp_path: Path
) -> None:
    """As for every other command that takes it."""
    console.refuse("POST", PLACE, BadPassphraseError("no slot opens"), 401)
    secret = tmp_path / "passphrase"
    secret.write_text("wrong\n")
    said = certmesh("ca", "rollover", "start", "--passphrase-file", str(secret))
    assert said.status == Exit.REFUSED


def test_the_status_names_who_holds_the_switch_back_and_asks_for_attention(
    certmesh: Certmesh, console: FakeConsole
) -> None:
    """Exit 3, so that a script can wait for 0."""
    console.answer("GET", PLACE, view(lacking=("pi",), away=("usb",), standbys=("nas",)))
    said = certmesh("ca", "rollover", "status")
    assert said.status == Exit.ATTENTION
    lines = [line.split("  ")[0] for line in said.out.splitlines()]
    assert {"waiting for", "away", "standbys"} <= set(lines)


def test_members_that_are_away_alone_need_no_attention(
    certmesh: Certmesh, console: FakeConsole
) -> None:
    """They do not hold the switch back."""
    console.answer("GET", PLACE, view(away=("usb",)))
    assert certmesh("ca", "rollover", "status").status == Exit.OK


def test_without_a_rollover_the_status_says_so(certmesh: Certmesh, console: FakeConsole) -> None:
    """And shows the pin in force."""
    console.answer("GET", PLACE, view("none"))
    said = certmesh("ca", "rollover", "status")
    assert said.status == Exit.OK
    assert "no rollover is under way" in said.out


def test_finish_asks_first_and_a_dry_run_does_not(certmesh: Certmesh, console: FakeConsole) -> None:
    """All members renew and invites end: that is worth a question."""
    console.answer("POST", f"{PLACE}/finish", view("switched"))
    assert certmesh("ca", "rollover", "finish").status == Exit.USAGE
    assert console.asked == []
    assert certmesh("ca", "rollover", "finish", "--dry-run").status == Exit.OK
    assert certmesh("ca", "rollover", "finish", "--yes").status == Exit.OK
    bodies = [msgspec.json.decode(asked.body, type=FinishRolloverBody) for asked in console.asked]
    assert [body.dry_run for body in bodies] == [True, False]


def test_a_finish_that_is_held_back_is_exit_9_with_the_names(
    certmesh: Certmesh, console: FakeConsole
) -> None:
    """The refusal is the primary's sentence."""
    refusal = ConflictError("pi does not trust the next root yet", hint="wait and try again")
    console.refuse("POST", f"{PLACE}/finish", refusal)
    said = certmesh("ca", "rollover", "finish", "--yes")
    assert said.status == Exit.CONFLICT
    assert "pi does not trust the next root yet" in said.err


def test_abort_asks_first_and_deletes(certmesh: Certmesh, console: FakeConsole) -> None:
    """The next keys are destroyed with it."""
    console.answer("DELETE", PLACE, view("none"))
    assert certmesh("ca", "rollover", "abort").status == Exit.USAGE
    assert certmesh("ca", "rollover", "abort", "--yes").status == Exit.OK
    assert [asked.method for asked in console.asked] == ["DELETE"]


def test_every_command_has_one_json_object(certmesh: Certmesh, console: FakeConsole) -> None:
    """For programs; also with `--yes` where a person would be asked."""
    console.answer("GET", PLACE, view(lacking=("pi",)))
    console.answer("DELETE", PLACE, view("none"))
    console.answer("POST", f"{PLACE}/finish", view("switched"))
    shown = certmesh("ca", "rollover", "status", "--json").body
    assert (shown["schema"], shown["lacking"]) == ("certmesh.ca-rollover/1", ["pi"])
    for words in (("finish", "--yes"), ("abort", "--yes")):
        assert certmesh("ca", "rollover", *words, "--json").body["schema"] == shown["schema"]
