"""Texts that others chose, wherever a person or a program reads them (row 25).

No control character, no forged line and no escape sequence gets through a log, a screen, a mail, a
header or a problem document; every one is driven through the thing that really writes it.
"""

import json
import logging
import unicodedata
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.policy import SMTP
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from msgspec import inspect
from typing_extensions import override

from broker.cli.tree import root
from broker.errors import ConflictError
from broker.runtime.events import EventName
from broker.runtime.logfile import LogFile
from broker.runtime.logs import log, setup_logs
from broker.runtime.paths import Paths
from broker.runtime.settings import Log, Notify, Settings
from broker.units import UnixSeconds
from broker.wire.base import Message
from broker.wire.failover import Hint
from broker.wire.node import Membership
from broker.wire.notice import Notice
from broker.wire.work import Approve
from tests.cli.command import Said
from tests.cli.fake_console import FakeConsole, console_on
from tests.support import eventually
from tests.wire.samples import _fixed, sample
from tests.workers.test_failover_radio import ANNOUNCEMENT, FakeAir, Studio
from workers.approval.logic import invitation, question
from workers.console.service import console_routes
from workers.failover.radio import Radio
from workers.notify.logic import header_text, lines_of, ntfy_headers, short_text, webhook_body
from workers.notify.mail import message_of
from workers.problem import problem_of, refusal_of
from workers.route import Route

FORGED = "FORGED-LINE"
HOSTILE = (
    f"nas\x1b[2J\x1b]0;owned\x07\r\nBcc: x@y.z\r\n\r\n{FORGED}\n{FORGED}"
    "\u202eevil\u2028\u2029\x85\x9b31m\x00\x7f\ufeff[red]"
)
HARMLESS_CONTROLS = frozenset("\n")
_STEERING = frozenset({"Cc", "Cf", "Zl", "Zp"})
SHOWN = HOSTILE.replace("\x00", "")
"""What answers of the console hold: it names files of this machine, and no file has a NUL."""
SHOWN_LENGTH = 300


def steering(text: str) -> set[str]:
    """Return the characters that steer a terminal, apart from the ends of lines."""
    return {c for c in text if unicodedata.category(c) in _STEERING} - HARMLESS_CONTROLS


def lines_forged(text: str) -> list[str]:
    """Return the lines that begin as only a hostile text would let them begin."""
    return [line for line in text.splitlines() if line.lstrip().startswith((FORGED, "Bcc:"))]


@pytest.fixture
def logs(home: Path) -> Iterator[Callable[[str], Callable[[], str]]]:
    """Open a log in one of the formats; returns what reads it."""
    ours, base = logging.getLogger("certmesh"), logging.getLogger()
    before = base.handlers[:], base.level, ours.level, logging.raiseExceptions
    targets: list[LogFile] = []

    def opened(form: str) -> Callable[[], str]:
        path = home / f"{form}.log"
        targets.append(LogFile(path))
        settings = Settings(log=Log(level="debug", format=form))  # type: ignore[arg-type]  # one of them
        setup_logs(settings, "test", stream=targets[-1])
        return lambda: path.read_text(encoding="utf-8")

    yield opened
    base.handlers[:], base.level, ours.level, logging.raiseExceptions = before
    for target in targets:
        target.close()


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_field_of_a_log_line_makes_a_second_line(
    logs: Callable[[str], Callable[[], str]], form: str
) -> None:
    """Names, reasons, libraries and tracebacks: one event is one line (P8)."""
    read = logs(form)
    log(EventName.PEER_DISCOVERED, level="info", instance=HOSTILE, names=[HOSTILE], raw=b"\x1b[2J")
    log(EventName.PEER_DISCOVERED, level="info", reason=HOSTILE)
    logging.getLogger("zeroconf").warning("said %s", HOSTILE)
    try:
        int(HOSTILE)
    except ValueError:
        logging.getLogger("zeroconf").exception("broke on %s", HOSTILE)
    said = read()
    assert len(said.splitlines()) == 4
    assert steering(said) == set()
    assert lines_forged(said) == []


@pytest.mark.parametrize("form", ["json", "console"])
def test_hostile_mdns_names_reach_the_log_as_text(
    logs: Callable[[str], Callable[[], str]], form: str
) -> None:
    """Anybody on the LAN chooses them, and every node writes them down (row 25)."""
    read, studio = logs(form), Studio()
    studio.changes = [("rubbish" + HOSTILE, True), (HOSTILE, True), (HOSTILE, False)]

    class Loud(FakeAir):
        """Resolves a record to a hint that repeats the name."""

        @override
        def resolve(self, name: str) -> Hint | None:
            """Answer as the fake does, in the record's own words."""
            super().resolve(name)
            return Hint(name, ("127.0.0.9",), 7642, "primary", name, name)

    with Radio(lambda _ring: Loud(studio), lease_ms=5000) as radio:
        radio.want(ANNOUNCEMENT, "ab")
        eventually(lambda: not studio.changes and "discovered" in read())
    said = read()
    assert "rubbish" in said
    assert steering(said) == set()
    assert lines_forged(said) == []


def hostile(kind: inspect.Type, name: str) -> Any:
    """Return a value of an annotation in which every free text is hostile."""
    if isinstance(kind, inspect.StrType) and not kind.pattern:
        return SHOWN[: kind.max_length or SHOWN_LENGTH]
    if isinstance(kind, inspect.StructType):
        fields = {field.name: hostile(field.type, field.name) for field in kind.fields}
        return kind.cls(**fields)
    if isinstance(kind, inspect.VarTupleType):
        return (hostile(kind.item_type, name),)
    if isinstance(kind, inspect.DictType):
        return {SHOWN: hostile(kind.value_type, name)}
    if isinstance(kind, inspect.UnionType):
        parts = [part for part in kind.types if not isinstance(part, inspect.NoneType)]
        return hostile(parts[0], name)
    return _fixed(kind, name)


def reply_of(route: Route) -> bytes:
    """Return the JSON of an answer to this route, hostile wherever it can be."""
    kind: type[Message | Any] = route.reply
    return msgspec.json.encode(hostile(inspect.type_info(kind), ""))


@pytest.fixture
def console(paths: Paths) -> Iterator[FakeConsole]:
    """Return a console whose every answer holds hostile texts."""
    made = msgspec.structs.replace(sample(Membership), host="atlas")
    paths.membership.write_bytes(msgspec.json.encode(made))
    with console_on(paths.api_socket) as fake:
        for route in console_routes(Settings(), paths):
            parts = route.path.split("/")
            path = "/".join("nas" if part.startswith("{") else part for part in parts)
            for query in ("", "?*"):
                fake.say(route.method, path + query, reply_of(route))
        yield fake


COMMANDS = (
    "status",
    "ps",
    "peers",
    "ca show",
    "ca policy show",
    "ca slot list",
    "ca rollover status",
    "invite list",
    "enrollment show",
    "approval list",
    "approval show nas",
    "member list",
    "member show nas",
    "standby list",
    "review list",
    "cert show",
    "hook list",
    "hook log",
    "notify list",
    "audit show",
    "audit verify",
    "backup list",
    "token list",
    "worker list",
    "config show",
)


@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize("form", ["", "--json"])
def test_no_command_shows_what_would_steer_a_terminal(
    console: FakeConsole, home: Path, words: str, form: str
) -> None:
    """A member's name must not clear the screen of whoever lists the members (row 25)."""
    said = run(home, *words.split(), *filter(None, [form]))
    assert said.out + said.err, words
    assert "Traceback" not in said.err
    assert "internal" not in said.err, said.err
    assert steering(said.out + said.err) == set()
    assert lines_forged(said.out + said.err) == []
    if form and said.out:
        assert isinstance(json.loads(said.out.splitlines()[0]), dict)
    assert console.asked or words in {"config show", "hook list"}


@pytest.mark.parametrize("form", ["", "--json"])
def test_a_refusal_in_another_nodes_words_is_shown_as_text(
    console: FakeConsole, home: Path, form: str
) -> None:
    """Details and hints come from peers, too."""
    console.answers.clear()
    console.refuse("GET", "/v1/ca", ConflictError(HOSTILE, hint=HOSTILE))
    said = run(home, "ca", "show", *filter(None, [form]))
    assert said.status
    assert steering(said.out + said.err) == set()
    # A reason may have several lines (the tail of a log); each stands indented below `why`.
    assert all(line.startswith(" ") for line in lines_forged(said.out + said.err))


def test_what_was_typed_is_quoted_as_text(home: Path) -> None:
    """It was pasted from a mail, perhaps."""
    for words in (("hook", "test", HOSTILE), ("init", "--setting", HOSTILE), (HOSTILE,)):
        said = run(home, *words)
        assert said.status
        assert steering(said.out + said.err) == set(), words


def run(home: Path, *words: str) -> Said:
    """Run the command on this home."""
    done = CliRunner().invoke(root, ["--home", str(home), "--no-input", *words])
    return Said(done.exit_code, done.stdout, done.stderr)


NOTICE = Notice(
    notice_id="0a",
    event="hook.failed",
    severity="error",
    at=UnixSeconds(1_780_000_000),
    mesh=HOSTILE,
    node=HOSTILE,
    subject=HOSTILE,
    summary=HOSTILE,
    detail=HOSTILE,
    hint=HOSTILE,
    key=HOSTILE,
)
MAIL = Notify(smtp="smtp://127.0.0.1:25", smtp_from="a@b.example", smtp_to=("c@d.example",))


def test_no_header_of_a_mail_is_forged() -> None:
    """A host name with a line feed would be a second recipient."""
    sent = message_of(NOTICE, MAIL).as_bytes(policy=SMTP)
    read = message_from_bytes(sent)
    assert read["Bcc"] is None
    assert read["To"] == "c@d.example"
    assert [name for name, _ in read.items()].count("Subject") == 1
    assert lines_forged(read.get_payload(decode=True).decode()) == []  # type: ignore[union-attr]  # one part
    assert steering("\n".join(lines_of(NOTICE))) == set()


def test_no_header_of_a_push_message_is_forged() -> None:
    """HTTP headers end where a line does."""
    for name, value in ntfy_headers(NOTICE).items():
        assert value.isascii(), name
        assert value.isprintable(), name
    assert lines_forged(short_text(NOTICE)) == []
    assert steering(short_text(NOTICE)) == set()
    assert header_text(HOSTILE).isprintable()
    assert not set(webhook_body(NOTICE)) & set(range(0x20))


def test_a_problem_document_has_no_raw_control_characters() -> None:
    """It is JSON, and is read by curl on a terminal."""
    problem = problem_of(refusal_of(ConflictError(HOSTILE, hint=HOSTILE)), "0a")
    raw = msgspec.json.encode(problem).decode()
    assert not {ord(c) for c in raw} & set(range(0x20))


def test_a_person_who_approves_sees_names_and_not_what_they_would_do() -> None:
    """The question at the terminal is the last check of a join."""
    item = hostile(inspect.type_info(Approve), "")
    shown = question(item) + invitation(item.host, 60)
    assert steering(shown) == set()
    assert lines_forged(shown) == []
