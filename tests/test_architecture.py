"""The house rules that a machine can check: they hold because a test says so."""

import ast
import configparser
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from broker.core.capability import CAPABILITIES
from broker.wire.ids import Service
from broker.wire.messages import AnyRequest

ROOT = Path(__file__).parents[1]
ONE_SHOT = {"enroll"}
"""Folders of `workers` that are no loop: `certmesh join` runs them by hand, once."""

MODULE_LINES_MAX = 400
MAIN_LINES_MAX = 40
BANNED_WORDS = {
    *("manager", "helper", "util", "utils", "misc", "data", "info"),
    *("handle", "handler", "handlers", "master", "slave"),
}
FIELD_WORDS = {
    "data": "the data directory, as in XDG and systemd",
    "data_dir": "the setting of that name",
    "data_received": "asyncio.Protocol's name",
    "connection_data": "asyncio's name",
    "handle_error": "socketserver's name",
    "exception_handler": "asyncio's name",
    "log_data": "python-json-logger's name",
    "info": "HKDF's input of that name (RFC 5869), zeroconf's ServiceInfo",
    "_info": "as above",
    "master": "the master key, as every standard on key wrapping calls it",
}
"""Identifiers that are the field's own word although a part of them is banned."""

SOURCES = sorted(path for room in ("broker", "workers") for path in (ROOT / room).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _process_table() -> configparser.RawConfigParser:
    table = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    table.read_string((ROOT / "supervisord.conf").read_text(encoding="utf-8"))
    return table


def _project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _contracts() -> list[dict[str, object]]:
    tool = _project()["tool"]
    assert isinstance(tool, dict)
    contracts: list[dict[str, object]] = tool["importlinter"]["contracts"]
    return contracts


def _loops() -> set[str]:
    folders = {path.parent.name for path in (ROOT / "workers").glob("*/__main__.py")}
    return {name.replace("_", "-") for name in folders - ONE_SHOT}


def test_the_import_contracts_are_kept() -> None:
    """Who may know whom: the folder names are the contract."""
    done = subprocess.run(
        (str(Path(sys.executable).with_name("lint-imports")), "--no-logo"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_every_worker_folder_is_in_the_independence_contract() -> None:
    """A new loop that is not listed could import another one unseen."""
    listed = next(rule["modules"] for rule in _contracts() if rule["type"] == "independence")
    assert isinstance(listed, list)
    folders = {
        path.name for path in (ROOT / "workers").iterdir() if (path / "__init__.py").exists()
    }
    assert {f"workers.{name}" for name in folders} == set(listed)


def test_every_loop_is_a_program_and_every_program_a_loop() -> None:
    """A new loop = a folder, a `[program:x]`, a row in the capability table; nothing else."""
    sections = _process_table().sections()
    programs = {name.split(":")[1] for name in sections if name.startswith(("program:", "event"))}
    assert programs == _loops() | {"broker"}


def test_every_loop_has_a_row_in_the_capability_table() -> None:
    """What is not listed there may ask nothing."""
    assert set(CAPABILITIES) == set(Service)
    assert {service.value for service in Service} == _loops()


def test_every_request_may_be_sent_by_somebody() -> None:
    """A request that nobody may send is dead, or its row was forgotten."""
    granted = frozenset[object]().union(*CAPABILITIES.values())
    assert {kind.__name__ for kind in get_args(AnyRequest) if kind not in granted} == set()


def test_every_program_runs_the_package_it_is_named_after() -> None:
    """`[program:roster-sync]` runs `python -m workers.roster_sync HOME/certmesh.toml`."""
    table = _process_table()
    for section in table.sections():
        kind, _, name = section.partition(":")
        if kind in ("program", "eventlistener"):
            package = "broker" if name == "broker" else f"workers.{name.replace('-', '_')}"
            expected = f"python -m {package} %(here)s/certmesh.toml"
            assert table.get(section, "command") == expected


def test_the_broker_stops_after_all_who_need_it() -> None:
    """Doors close first, then the loops, then the broker; no group, or all stop at once."""
    table = _process_table()
    priority = {
        section.partition(":")[2]: table.getint(section, "priority")
        for section in table.sections()
        if section.startswith("program:")
    }
    broker = priority.pop("broker")
    doors = {priority.pop("gateway"), priority.pop("console")}
    assert all(broker < loop < min(doors) for loop in priority.values())
    assert not [name for name in table.sections() if name.startswith("group:")]


def test_no_process_of_ours_outlives_a_stop_by_forking() -> None:
    """A forked grandchild would be orphaned without these two."""
    table = _process_table()
    for section in table.sections():
        if section.startswith(("program:", "eventlistener:")):
            assert table.get(section, "stopasgroup") == "true", section
            assert table.get(section, "killasgroup") == "true", section


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_module_fits_in_a_head(path: Path) -> None:
    """Trouble sits in the one file nobody split."""
    lines = path.read_text(encoding="utf-8").count("\n")
    limit = MAIN_LINES_MAX if path.name == "__main__.py" else MODULE_LINES_MAX
    assert lines <= limit


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    """Also every public class and function in it."""
    tree = _tree(path)
    assert ast.get_docstring(tree) or not tree.body, path
    silent = [node.name for node in _public(tree) if not ast.get_docstring(node)]
    assert silent == []


def _public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Yield what a reader from outside may use: top-level names and methods of public classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name.startswith("_"):
                continue
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (
                    part
                    for part in node.body
                    if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
                    and not part.name.startswith("_")
                )


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_names_say_what_things_are(path: Path) -> None:
    """Words that fit everything name nothing."""
    bad = {
        name
        for name in _identifiers(_tree(path))
        if name not in FIELD_WORDS and BANNED_WORDS & _words(name)
    }
    assert bad == set()


def _identifiers(tree: ast.Module) -> Iterator[str]:
    """Yield every name this module introduces."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def _words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=_name)
def test_nobody_sleeps(path: Path) -> None:
    """Processes wait on the poller, tests wait for something to become true."""
    calls = [ast.unparse(node.func) for node in ast.walk(_tree(path)) if isinstance(node, ast.Call)]
    assert not {"time.sleep", "sleep"} & set(calls)


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_only_the_clock_reads_clocks(path: Path) -> None:
    """Everything else takes `now` as an argument or asks `broker.clock`."""
    reading = {"time.time", "time.monotonic", "time.clock_gettime", "time.clock_gettime_ns"}
    reading |= {"time.time_ns", "time.monotonic_ns", "datetime.now", "datetime.datetime.now"}
    calls = {ast.unparse(node.func) for node in ast.walk(_tree(path)) if isinstance(node, ast.Call)}
    assert path.name == "clock.py" or not calls & reading


@pytest.mark.parametrize("path", [path for path in SOURCES if "cli" not in path.parts], ids=_name)
def test_only_the_command_prints(path: Path) -> None:
    """Processes log; a stray print would also wedge the event listener's protocol."""
    calls = [ast.unparse(node.func) for node in ast.walk(_tree(path)) if isinstance(node, ast.Call)]
    assert "print" not in calls


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_nothing_happens_on_import(path: Path) -> None:
    """No thread, socket, file or process before somebody asks: imports are free and repeatable."""
    started = {
        ast.unparse(node.value.func)
        for node in _tree(path).body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    }
    assert started == set()


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_decisions_touch_nothing(path: Path) -> None:
    """Direct imports of decision code; the contracts watch the same rule from outside."""
    room = _name(path)
    deciding = room.startswith(("broker/core/", "broker/wire/", "broker/pki/"))
    if not (deciding or path.name == "logic.py"):
        return
    banned = {"zmq", "requests", "zeroconf", "socket", "subprocess", "threading", "time", "os"}
    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {
        (node.module or "").partition(".")[0]
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ImportFrom)
    }
    assert not imported & (banned | {"random"})


def test_a_crash_is_caught_once_per_process() -> None:
    """`except Exception` lives in the outermost frames, with a traceback in the log."""
    catching = {
        _name(path)
        for path in SOURCES
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ExceptHandler)
        and node.type is not None
        and ast.unparse(node.type) in ("Exception", "BaseException")
        and not _raises_again(node)
    }
    assert catching <= OUTERMOST.keys()


OUTERMOST = {
    "broker/runtime/main.py": "every process",
    "broker/cli/tree.py": "the command",
    "broker/shell/offloop.py": "a thread: the outcome travels to the loop",
    "workers/renewal/patience.py": "a thread: the error is raised again where it is waited for",
    "workers/fanout.py": "a thread: the outcome travels to the loop",
    "workers/calls.py": "a thread: the outcome travels to the loop",
    "workers/outcall.py": "a thread: the error is raised again where it is waited for",
    "workers/notify/loop.py": "whatever an answer did to a library is the trouble of one target",
    "workers/failover/radio.py": "a thread, and what hostile mDNS records make zeroconf raise",
    "workers/approval/loop.py": "a decider that crashes has said no",
    "workers/approval/post.py": "whatever an answer did to a library, it was no decision",
}
"""Where a crash may be caught, and why the process goes on."""


def _raises_again(node: ast.ExceptHandler) -> bool:
    return any(isinstance(part, ast.Raise) and part.exc is None for part in ast.walk(node))
