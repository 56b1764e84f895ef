"""`init` with the broker's own program; `join` with a scripted enrolment program.

The scripted one has the real interface: JSON on stdin, JSON lines on stdout, a status.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from broker.runtime.exits import Exit
from broker.wire.invite import encode_invite
from broker.wire.mesh_api import InviteTicket
from tests.cli.command import Certmesh, on_terminal
from tests.cli.views import NOW, PIN

REPOSITORY = Path(__file__).parents[2]
FAST = ("--setting", "ca.kdf_memory=8388608", "--setting", "ca.kdf_passes=1")
LOCAL = ("--listen", "127.0.0.1", "--node-name", "atlas", *FAST)

PROGRAM = """\
import json, os, sys
given = json.load(sys.stdin)
assert sys.argv[1].endswith("certmesh.toml"), sys.argv
with open(os.environ["ENROL_GIVEN"], "a") as file:
    file.write(json.dumps(given) + "\\n")
name = "ENROL_PROBE" if given.get("probe") else "ENROL_SAYS"
for saying in json.loads(os.environ[name]):
    print(json.dumps(saying), flush=True)
sys.exit(int(os.environ.get("ENROL_STATUS", "0")))
"""


class Enrolment:
    """What the scripted program says next, and what it was given."""

    def __init__(self, given: Path, patch: pytest.MonkeyPatch) -> None:
        self._given = given
        self._patch = patch

    def says(self, *sayings: dict[str, Any], status: int = 0) -> None:
        """Script the next run."""
        self._patch.setenv("ENROL_SAYS", json.dumps(sayings))
        self._patch.setenv("ENROL_STATUS", str(status))

    @property
    def given(self) -> list[dict[str, Any]]:
        """What each run read from its standard input."""
        if not self._given.exists():
            return []
        return [json.loads(line) for line in self._given.read_text().splitlines()]


@pytest.fixture
def enrolment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Enrolment:
    """Put the scripted `workers.enroll` in front of the real one."""
    package = tmp_path / "programs" / "workers"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "enroll.py").write_text(PROGRAM)
    monkeypatch.chdir(package.parent)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("ENROL_GIVEN", str(tmp_path / "given"))
    return Enrolment(tmp_path / "given", monkeypatch)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


def invite(host: str = "nas") -> str:
    """Return an invite for a host."""
    ticket = InviteTicket(
        addresses=("127.0.0.1",),
        enroll_port=7642,
        pin=PIN,
        host=host,
        expires_at=NOW,
        secret="of its own",
    )
    return encode_invite(ticket)


def joined(**changed: object) -> dict[str, Any]:
    """Return the last word of a join that worked."""
    fields = {"host": "nas", "serial": "4c11", "not_after": NOW, "member_id": "cd", "mesh": "home"}
    return {"kind": "joined", **fields, "pin": PIN, **changed}


def contents(home: Path) -> dict[str, bytes]:
    """Return every file below `home` with its octets."""
    return {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def test_init_makes_a_private_home_and_shows_the_words_once(home: Path, certmesh: Certmesh) -> None:
    """Six words, the fingerprint, what to run next; no file keeps the words."""
    said = certmesh("init", "demo", "--profile", "team", *LOCAL)
    assert said.status == Exit.OK, said.err
    (words,) = [line for line in said.out.splitlines() if line.startswith("passphrase")]
    drawn = words.removeprefix("passphrase").strip()
    assert len(drawn.split()) == 6
    assert f"certmesh --home {home} up" in said.out
    assert not any(drawn.encode() in content for content in contents(home).values())
    for path in [home, *home.rglob("*")]:
        forbidden = 0o077 if path.is_dir() or path.suffix != ".pem" else 0o033
        assert path.stat().st_mode & forbidden == 0, path


def test_init_writes_only_what_differs(home: Path, certmesh: Certmesh) -> None:
    """A file of forty defaults is a file nobody reads."""
    assert certmesh("init", *LOCAL, "--mesh-port", "18743").status == Exit.OK
    assert tomllib.loads((home / "certmesh.toml").read_text()) == {
        "node": {"name": "atlas", "addresses": ["127.0.0.1"]},
        "listen": {"enroll": "127.0.0.1:7642", "mesh": "127.0.0.1:18743"},
        "ca": {"kdf_memory": 8388608, "kdf_passes": 1},
        "approval": {"decider": "queue"},
    }


def test_the_process_table_names_this_interpreter(home: Path, certmesh: Certmesh) -> None:
    """Supervisord must not find another python on PATH."""
    certmesh("init", *LOCAL)
    table = (home / "supervisord.conf").read_text()
    lines = [line for line in table.splitlines() if line.startswith("command=")]
    assert lines
    assert all(line.startswith("command=/") for line in lines)


def test_init_in_json_is_one_object(certmesh: Certmesh) -> None:
    """With everything a script has to keep."""
    body = certmesh("--json", "init", "demo", *LOCAL).body
    assert body["schema"] == "certmesh.init/1"
    assert len(body["pin"]) == 64
    assert len(body["passphrase"].split()) == 6
    assert body["totp_uri"].startswith("otpauth://totp/")
    assert body["next"]


def test_a_given_passphrase_is_never_repeated(tmp_path: Path, certmesh: Certmesh) -> None:
    """Who has it needs no copy on a screen or in a log of a pipeline."""
    secret = tmp_path / "secret"
    secret.write_text("correct horse battery\n")
    said = certmesh("--json", "init", *LOCAL, "--passphrase-file", str(secret))
    assert said.status == Exit.OK
    assert "correct horse" not in said.out + said.err
    assert "passphrase" not in said.body


def test_a_second_init_is_refused_and_changes_nothing(home: Path, certmesh: Certmesh) -> None:
    """Nine, and every octet as before: a mesh cannot be overwritten by a slip."""
    certmesh("init", *LOCAL)
    before = contents(home)
    said = certmesh("init", "other", *LOCAL, "--setting", "log.level=debug")
    assert said.status == Exit.CONFLICT
    assert contents(home) == before


def test_a_failed_init_does_not_stand_in_the_way_of_the_next(
    home: Path, certmesh: Certmesh
) -> None:
    """The second try may even want other settings."""
    failed = certmesh("init", "no.dots", *LOCAL, "--mesh-port", "1")
    assert failed.status == Exit.REFUSED, failed.err
    assert not (home / "certmesh.toml").exists()
    assert certmesh("init", *LOCAL, "--mesh-port", "2").status == Exit.OK


def test_an_unknown_setting_is_refused_before_anything_is_made(
    home: Path, certmesh: Certmesh
) -> None:
    """Seventy-eight, with the name of the key."""
    said = certmesh("init", "--setting", "log.colour=red")
    assert said.status == Exit.SETTINGS
    assert "colour" in said.err
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("line", ["log", "log.level", "=x", "a.b.c=1", ".x=1"])
def test_a_setting_of_another_form_is_wrong_usage(line: str, certmesh: Certmesh) -> None:
    """Two, and the form that is wanted."""
    said = certmesh("init", "--setting", line)
    assert said.status == Exit.USAGE
    assert "section.key=value" in said.err


def test_a_directory_of_something_else_is_left_alone(home: Path, certmesh: Certmesh) -> None:
    """Its permissions would be closed otherwise: `--home /srv` must not lock a machine out."""
    (home / "photos").mkdir()
    home.chmod(0o755)
    assert certmesh("init", *LOCAL).status == Exit.CONFLICT
    assert home.stat().st_mode & 0o777 == 0o755


def test_a_path_too_long_for_sockets_is_told_before_anything_is_made(
    tmp_path: Path, certmesh: Certmesh
) -> None:
    """Sockets deep down would fail much later and say less."""
    deep = tmp_path / ("d" * 100)
    said = certmesh("--home", str(deep), "init", *LOCAL)
    assert said.status == Exit.SETTINGS
    assert "too long" in said.err
    assert not deep.exists()


def test_an_existing_settings_file_is_kept(home: Path, certmesh: Certmesh) -> None:
    """Its comments too; options may add to it, never contradict it."""
    file = home / "certmesh.toml"
    file.write_text('# mine\nnode.name = "rock"\n')
    contrary = certmesh("init", "--node-name", "atlas", *FAST)
    assert contrary.status == Exit.USAGE
    assert file.read_text() == '# mine\nnode.name = "rock"\n'
    body = certmesh("--json", "init", *FAST).body
    assert body["host"] == "rock"
    assert "# mine" in file.read_text()


def test_joining_by_invite_takes_the_name_the_invite_binds(
    home: Path, enrolment: Enrolment, certmesh: Certmesh
) -> None:
    """One string is all a new host needs."""
    enrolment.says({"kind": "fingerprint", "pin": PIN}, joined())
    said = certmesh("join", invite(), "--listen", "127.0.0.2")
    assert said.status == Exit.OK, said.err
    assert "joined home as nas" in said.out
    assert "9f3a 41c2" in said.err
    (given,) = enrolment.given
    assert (given["invite"], given["host"], given["wait_s"]) == (invite(), "nas", 0)
    settings = tomllib.loads((home / "certmesh.toml").read_text())
    assert settings["node"] == {"name": "nas", "addresses": ["127.0.0.2"]}
    assert (home / "supervisord.conf").exists()


def test_an_invite_from_stdin_is_not_in_argv(enrolment: Enrolment, certmesh: Certmesh) -> None:
    """Longer than a line buffer of other secrets, and still whole."""
    enrolment.says(joined())
    said = certmesh("--json", "join", "-", typed=f"{invite()}\n")
    assert said.body["state"] == "joined"
    assert said.body["not_after"] == "2026-11-23T13:20:00Z"
    assert enrolment.given[0]["invite"] == invite()


@pytest.mark.parametrize("text", ["cm1:", "cm1:!!!", "hello", "cm1:e30", "cm2:abc"])
def test_a_damaged_invite_is_wrong_usage(
    text: str, home: Path, enrolment: Enrolment, certmesh: Certmesh
) -> None:
    """Nothing is dialled and nothing is left behind."""
    assert certmesh("join", text).status == Exit.USAGE
    assert enrolment.given == []
    assert list(home.iterdir()) == []


def test_an_invite_for_another_host_is_not_tried(enrolment: Enrolment, certmesh: Certmesh) -> None:
    """The secret would be burnt for nothing."""
    said = certmesh("join", invite("nas"), "--node-name", "pi")
    assert said.status == Exit.REFUSED
    assert enrolment.given == []


def test_a_pin_that_differs_from_the_invite_stops_everything(
    enrolment: Enrolment, certmesh: Certmesh
) -> None:
    """Two sources that disagree are one too many."""
    assert certmesh("join", invite(), "--pin", "0" * 64).status == Exit.REFUSED
    assert enrolment.given == []
    enrolment.says(joined())
    assert certmesh("join", invite(), "--pin", f"SHA256:{PIN.upper()}").status == Exit.OK


def test_a_refused_join_does_not_stand_in_the_way_of_the_next(
    home: Path, enrolment: Enrolment, certmesh: Certmesh
) -> None:
    """The refusal keeps its own code; the home is as before."""
    enrolment.says({"kind": "fault", "code": "pin_mismatch", "detail": "no", "hint": ""}, status=7)
    said = certmesh("--json", "join", invite())
    assert (said.status, said.body["code"]) == (Exit.REFUSED, "pin_mismatch")
    assert not (home / "certmesh.toml").exists()
    enrolment.says(joined())
    assert certmesh("join", invite(), "--mesh-port", "18743").status == Exit.OK


def test_a_pending_join_is_status_eight_and_can_go_on(
    home: Path, enrolment: Enrolment, certmesh: Certmesh
) -> None:
    """The words stand on this screen too; the same command again goes on waiting."""
    words = ["copper", "lantern", "orbit", "seven"]
    pending = {"kind": "pending", "ticket_id": "ab", "words": words, "retry_after_ms": 500}
    enrolment.says(pending, {"kind": "waiting", "host": "nas", "ticket_id": "ab"}, status=8)
    code = ("join", "--url", "https://127.0.0.1:7642", "--pin", PIN, "--totp", "-")
    said = certmesh(*code, "--wait", "90s", typed="123456\n")
    assert said.status == Exit.WAITING
    assert "copper  lantern  orbit  seven" in said.err
    assert (home / "certmesh.toml").exists()
    assert (enrolment.given[0]["totp"], enrolment.given[0]["wait_s"]) == ("123456", 90)
    assert certmesh("--json", *code, typed="123456\n").body["words"] == words
    enrolment.says(joined())
    assert certmesh(*code, typed="123456\n").status == Exit.OK


def test_without_pin_and_terminal_no_code_is_sent(enrolment: Enrolment, certmesh: Certmesh) -> None:
    """A code given to whoever answers first is a code given away."""
    said = certmesh("join", "--url", "https://127.0.0.1:7642", "--totp", "-", typed="123456\n")
    assert said.status == Exit.USAGE
    assert "--pin" in said.err
    assert enrolment.given == []


def test_yes_does_not_replace_the_pin(enrolment: Enrolment, certmesh: Certmesh) -> None:
    """`--yes` agrees to what a person would see; here nobody sees anything."""
    code = ("--totp", "-")
    said = certmesh("--yes", "join", "--url", "https://127.0.0.1:7642", *code, typed="123456\n")
    assert said.status == Exit.USAGE
    assert enrolment.given == []


def test_a_fingerprint_is_shown_once_to_be_compared(
    home: Path, enrolment: Enrolment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen twice it looks like two different ones that both want comparing."""
    code = tmp_path / "code"
    code.write_text("123456\n")
    enrolment.says({"kind": "fingerprint", "pin": PIN}, joined())
    monkeypatch.setenv("ENROL_PROBE", json.dumps([{"kind": "fingerprint", "pin": PIN}]))
    url = ("--url", "https://127.0.0.1:7642", "--node-name", "nas", "--totp-file", str(code))
    status, shown = on_terminal(("--home", str(home), "join", *url), b"y\n")
    assert status == Exit.OK, shown
    assert shown.count(b"CA  sha256") == 1


@pytest.mark.parametrize("pin", ["", "9f3a", "z" * 64, PIN + "00"])
def test_a_pin_must_be_a_whole_fingerprint(pin: str, certmesh: Certmesh) -> None:
    """Half a fingerprint is none."""
    said = certmesh("join", "--url", "https://127.0.0.1:7642", "--pin", pin, "--totp", "-")
    assert said.status == Exit.USAGE
    assert "--pin" in said.err


def test_a_code_as_argument_is_refused_and_the_safe_ways_are_named(
    home: Path, enrolment: Enrolment, certmesh: Certmesh
) -> None:
    """Everybody on the machine can read argv."""
    url = ("--url", "https://127.0.0.1:7642", "--pin", PIN)
    said = certmesh("join", *url, "--totp", "123456")
    assert said.status == Exit.USAGE
    assert "--totp -" in said.err
    assert "--totp-file" in said.err
    assert "123456" not in said.err
    assert enrolment.given == []
    assert not home.joinpath("certmesh.toml").exists()


def test_a_code_can_come_from_a_file(
    enrolment: Enrolment, certmesh: Certmesh, tmp_path: Path
) -> None:
    """As every other secret."""
    code = tmp_path / "code"
    code.write_text("123456\n")
    enrolment.says(joined())
    url = ("--url", "https://127.0.0.1:7642", "--pin", PIN)
    assert certmesh("join", *url, "--totp-file", str(code)).status == Exit.OK
    assert enrolment.given[0]["totp"] == "123456"


def test_a_dry_run_leaves_nothing(home: Path, enrolment: Enrolment, certmesh: Certmesh) -> None:
    """And tells the program so."""
    enrolment.says({"kind": "fingerprint", "pin": PIN}, {"kind": "checked", "host": "nas"})
    assert certmesh("join", invite(), "--dry-run").status == Exit.OK
    assert enrolment.given[0]["dry_run"] is True
    assert not (home / "certmesh.toml").exists()


def test_a_second_join_is_refused(home: Path, certmesh: Certmesh, enrolment: Enrolment) -> None:
    """A node belongs to one mesh."""
    certmesh("init", *LOCAL)
    before = contents(home)
    assert certmesh("join", invite()).status == Exit.CONFLICT
    assert contents(home) == before
    assert enrolment.given == []


@pytest.mark.parametrize("says", ["nothing", "[1]", "crash"])
def test_a_program_that_dies_is_a_clean_failure(
    says: str, enrolment: Enrolment, certmesh: Certmesh, tmp_path: Path
) -> None:
    """With the place of its log."""
    program = tmp_path / "programs" / "workers" / "enroll.py"
    texts = {"nothing": "", "[1]": "print([1])", "crash": "raise SystemExit(77)"}
    program.write_text(texts[says])
    said = certmesh("join", invite())
    assert said.status == Exit.FAILED
    assert "enroll-by-hand.log" in said.err
    assert "Traceback" not in said.err
    assert enrolment.given == []


def test_secrets_reach_the_programs_by_stdin_only(
    enrolment: Enrolment, certmesh: Certmesh, tmp_path: Path
) -> None:
    """Neither argv nor environment of a child shows them to other users."""
    seen = tmp_path / "seen"
    program = tmp_path / "programs" / "workers" / "enroll.py"
    spy = f'open({str(seen)!r}, "w").write(repr(sys.argv) + repr(dict(os.environ)))\n'
    program.write_text(PROGRAM.replace("given =", f"{spy}given =", 1))
    enrolment.says(joined())
    certmesh("join", invite())
    assert seen.exists()
    assert invite()[4:] not in seen.read_text()
    assert "ENROL_SAYS" in seen.read_text()


def test_a_join_that_dies_after_its_commit_point_keeps_its_settings(
    home: Path, enrolment: Enrolment, certmesh: Certmesh, tmp_path: Path
) -> None:
    """A member without settings could neither start nor join again."""
    program = tmp_path / "programs" / "workers" / "enroll.py"
    program.write_text(
        "import pathlib, sys\n"
        "pathlib.Path(sys.argv[1]).with_name('membership.json').write_text('{}')\n"
        "sys.exit(99)\n"
    )
    assert certmesh("join", invite()).status == Exit.FAILED
    assert (home / "certmesh.toml").exists()
    assert enrolment.given == []
