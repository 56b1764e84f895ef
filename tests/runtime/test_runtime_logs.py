"""Log lines: the documented shape, hostile values, and never in the way of the work."""

import fcntl
import logging
import os
import pty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.runtime.events import ERRORS, WARNINGS, EventName
from broker.runtime.logfile import LogFile
from broker.runtime.logs import VALUE_CHARACTERS_MAX, log, log_crash, setup_logs
from broker.runtime.settings import Log, Node, Settings


class Descriptor:
    """A target for log lines that is nothing but a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor


@pytest.fixture(autouse=True)
def _logging_is_restored() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("certmesh")
    before = root.handlers[:], root.level, ours.level, logging.raiseExceptions
    yield
    root.handlers[:], root.level, ours.level, logging.raiseExceptions = before


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe like the one supervisord drains, with the smallest buffer there is."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(reader, False)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def _setup(form: str, target: int, level: str = "info") -> None:
    settings = Settings(node=Node(name="atlas"), log=Log(level=level, format=form))  # type: ignore[arg-type]  # literals
    setup_logs(settings, "hooks", stream=Descriptor(target))


def _lines(reader: int) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in os.read(reader, 1_000_000).splitlines()]


def test_a_json_line_has_the_documented_fields_in_the_documented_order(
    pipe: tuple[int, int],
) -> None:
    """Collectors and people rely on ts, level, event, node, worker, pid first."""
    _setup("json", pipe[1])

    log(EventName.HOOK_FAILED, hook="nginx", exit=1, term=3, request_id=b"\x01\xff")

    (line,) = _lines(pipe[0])
    head = ["ts", "level", "event", "node", "worker", "pid", "request_id", "term", "hook", "exit"]
    assert list(line) == head
    assert line["level"] == "warning"
    assert line["event"] == "hook.failed"
    assert (line["node"], line["worker"], line["pid"]) == ("atlas", "hooks", os.getpid())
    assert line["request_id"] == "01ff"
    assert line["ts"].endswith("Z")


def test_supervisord_names_the_worker(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two renewal processes must be told apart."""
    monkeypatch.setenv("SUPERVISOR_PROCESS_NAME", "renewal-1")
    _setup("json", pipe[1])

    log(EventName.PROCESS_READY)

    assert _lines(pipe[0])[0]["worker"] == "renewal-1"


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize(
    "hostile", ["a\nb", "a\r\x1b[2Jb", "a\u2028b", "a\u202eb", "a\x00b", "a\x9bb"]
)
def test_a_hostile_name_cannot_forge_a_line(pipe: tuple[int, int], form: str, hostile: str) -> None:
    """Newlines, escape sequences, separators and text direction marks come out escaped (row 25)."""
    _setup(form, pipe[1])

    log(EventName.JOIN_REFUSED, host=hostile)

    text = os.read(pipe[0], 65536).decode()
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    assert "\\" in text


def test_a_long_value_is_cut(pipe: tuple[int, int]) -> None:
    """A peer must not fill the disk with one name."""
    _setup("json", pipe[1])

    log(EventName.JOIN_REFUSED, host="x" * 100_000)

    assert len(_lines(pipe[0])[0]["host"]) == VALUE_CHARACTERS_MAX


def test_a_full_pipe_never_blocks_and_the_next_line_says_how_many_were_lost(
    pipe: tuple[int, int],
) -> None:
    """A stopped supervisord must not stop the certificate authority (row 8)."""
    _setup("json", pipe[1])

    for _ in range(500):
        log(EventName.MEMBER_SEEN, host="pi-4")
    arrived = len(os.read(pipe[0], 1_000_000).splitlines())
    log(EventName.MEMBER_SEEN, host="pi-4")

    assert 0 < arrived < 500
    assert _lines(pipe[0])[-1]["lost"] == 500 - arrived


def test_a_torn_line_does_not_spoil_the_next_one(pipe: tuple[int, int]) -> None:
    """A line larger than the pipe is cut off; what follows starts on a line of its own."""
    _setup("json", pipe[1])

    log_crash(RuntimeError("x" * 12_000))
    torn = os.read(pipe[0], 1_000_000)
    log(EventName.PROCESS_READY)

    assert not torn.endswith(b"\n")
    blank, whole = os.read(pipe[0], 1_000_000).splitlines()
    assert blank == b""
    assert msgspec.json.decode(whole)["event"] == "process.ready"


def test_a_full_disk_loses_lines_and_nothing_else() -> None:
    """Writing to /dev/full fails with ENOSPC; the process goes on."""
    with Path("/dev/full").open("wb") as full:
        _setup("json", full.fileno())
        log(EventName.PROCESS_READY)


def test_a_terminal_gets_the_short_form() -> None:
    """`auto` looks at the target: people get one short line."""
    master, slave = pty.openpty()
    try:
        _setup("auto", slave)
        log(EventName.HOOK_FAILED, host="pi-4", hook="nginx", exit=1, took="0.4 s")
        text = os.read(master, 65536).decode().rstrip()
    finally:
        os.close(master)
        os.close(slave)

    assert text[8:] == ' WARN  hooks     hook.failed  host=pi-4 hook=nginx exit=1 took="0.4 s"'


def test_lines_below_the_level_are_not_written(pipe: tuple[int, int]) -> None:
    """`[log] level` is obeyed, and a caller may lower a single line to debug."""
    _setup("json", pipe[1], level="info")

    log(EventName.MEMBER_SEEN, level="debug", host="pi-4")
    log(EventName.MEMBER_SEEN, host="nas")

    assert [line["host"] for line in _lines(pipe[0])] == ["nas"]


def test_a_library_that_complains_is_heard_in_the_same_form(pipe: tuple[int, int]) -> None:
    """Aiohttp and zeroconf use the logging module; their chatter below warning is dropped."""
    _setup("json", pipe[1])

    logging.getLogger("zeroconf").warning("bad\npacket %s", "x")
    logging.getLogger("zeroconf").info("chatter")

    (line,) = _lines(pipe[0])
    assert (line["event"], line["library"]) == ("library.spoke", "zeroconf")
    assert line["text"] == "bad\\npacket x"


def test_a_crash_is_logged_with_its_traceback(pipe: tuple[int, int]) -> None:
    """The last line of a process that dies of a bug says where."""
    _setup("json", pipe[1])

    log_crash(RuntimeError("boom"))

    (line,) = _lines(pipe[0])
    assert line["event"] == "process.crashed"
    assert "RuntimeError: boom" in line["traceback"]


def test_every_event_is_a_noun_and_a_past_verb() -> None:
    """One list for code, docs and tests."""
    for event in EventName:
        noun, _, verb = event.value.partition(".")
        assert noun.isalpha()
        assert verb.replace("_", "").isalpha()
    assert not ERRORS & WARNINGS


def test_a_log_file_rotates_and_keeps_one_old_generation(home: Path) -> None:
    """The watchdog's log is collected by nobody, so it bounds itself."""
    path = home / "watchdog.log"
    target = LogFile(path, bytes_max=2000)
    setup_logs(Settings(), "watchdog", stream=target)

    for _ in range(100):
        log(EventName.WORKER_RESTARTED, program="console")
    target.close()

    assert sorted(entry.name for entry in home.iterdir()) == ["watchdog.log", "watchdog.log.1"]
    assert path.stat().st_size < 2500
    assert path.stat().st_mode & 0o777 == 0o600
