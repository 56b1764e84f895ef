"""The command as a process: what it imports, signals, pipes, terminals, and a real supervisord."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from broker.cli.supervisor import Supervisor
from broker.cli.tree import COMMANDS, root
from broker.errors import InternalError
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.wire.node import WorkersView
from tests.cli.command import COMMAND, Certmesh, on_terminal
from tests.cli.fake_console import FakeConsole
from tests.cli.views import authority, node
from tests.support import eventually

HEAVY = ("msgspec", "rich", "cryptography", "zmq", "http.client", "requests", "segno", "supervisor")
FACTORY = "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface"
PROGRAMS = {
    "broker": "import signal; signal.pause()",
    "console": "import signal; signal.pause()",
}


def test_help_imports_nothing_heavy() -> None:
    """The budget of 100 ms is kept by not importing; a shared machine's clock proves less."""
    script = (
        "import sys\n"
        "from broker.cli.tree import root\n"
        "try:\n    root.main(['--help'])\n"
        "finally:\n    print(*sys.modules, sep='\\n', file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "Commands:" in done.stdout
    assert not set(done.stderr.split()) & set(HEAVY)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_the_static_help_line_is_the_commands_own(name: str, certmesh: Certmesh) -> None:
    """Two texts that differ are one lie; and every command can be loaded."""
    said = certmesh(name, "--help")
    assert said.status == Exit.OK
    assert COMMANDS[name][1].partition(":")[0] in " ".join(said.out.split())


def test_no_noun_has_more_than_nine_verbs() -> None:
    """More than nine is a list nobody reads."""
    context = click.Context(root)
    for name in COMMANDS:
        found = root.get_command(context, name)
        assert found is not None
        assert len(getattr(found, "commands", ())) <= 9


def test_an_unknown_command_is_wrong_usage(certmesh: Certmesh) -> None:
    """Two, also as JSON."""
    assert certmesh("statsu").status == Exit.USAGE
    said = certmesh("--json", "statsu")
    assert (said.status, said.body["code"]) == (Exit.USAGE, "usage")


def test_versions_of_everything_are_told(certmesh: Certmesh) -> None:
    """What a bug report needs."""
    body = certmesh("version", "--json").body
    assert {"version", "commit", "python", "openssl", "libzmq", "sqlite", "wire"} <= set(body)


@pytest.fixture
def silent(member_home: Paths) -> Iterator[socket.socket]:
    """Listen on the console's socket and never answer."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(member_home.api_socket))
        listener.listen()
        listener.settimeout(10)
        yield listener


def test_an_interrupt_is_status_130_without_traceback(
    member_home: Paths, silent: socket.socket
) -> None:
    """Ctrl-C is a decision, not an error."""
    words = (*COMMAND, "--home", str(member_home.home), "--timeout", "30s", "status")
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as child:
        caller, _ = silent.accept()
        with caller:
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=10)
    assert child.returncode == Exit.INTERRUPTED
    assert said.strip() == "interrupted"


def test_a_reader_that_closes_is_no_error() -> None:
    """`certmesh ... | head` prints no complaint."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "config", "schema"], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert done.stderr == b""


def test_the_passphrase_is_typed_without_echo(console: FakeConsole, member_home: Paths) -> None:
    """Whoever looks over the shoulder sees nothing."""
    console.answer("POST", "/v1/ca/unlock", authority())
    words = ("--home", str(member_home.home), "ca", "unlock")
    status, shown = on_terminal(words, b"six words of mine\n")
    assert status == Exit.OK
    assert b"six words" not in shown
    assert b"six words of mine" in console.asked[-1].body


def test_a_revocation_is_confirmed_on_a_terminal(console: FakeConsole, member_home: Paths) -> None:
    """Just pressing return is a no."""
    words = ("--home", str(member_home.home), "member", "revoke", "nas")
    status, shown = on_terminal(words, b"\n")
    assert status == Exit.FAILED
    assert b"nothing was revoked" in shown
    assert console.asked == []


def table(paths: Paths, programs: dict[str, str]) -> None:
    """Write a process table of small programs for a real supervisord."""
    lines = [
        "[unix_http_server]\nfile=%(here)s/run/supervisor.sock\n",
        "[supervisord]\npidfile=%(here)s/run/supervisord.pid\nlogfile=%(here)s/log/s.log\n",
        f"[rpcinterface:supervisor]\n{FACTORY}\n",
    ]
    for name, script in programs.items():
        (paths.home / f"{name}.py").write_text(script)
        lines.append(
            f"[program:{name}]\ncommand={sys.executable} %(here)s/{name}.py\nstartsecs=1\n"
            f"startretries=0\nredirect_stderr=true\nstdout_logfile=%(here)s/log/{name}.log\n"
        )
    paths.supervisord.write_text("".join(lines))


@pytest.fixture
def small_node(console: FakeConsole, member_home: Paths) -> Iterator[Paths]:
    """A node of small programs under a real supervisord; nothing of it survives the test."""
    console.answer("GET", "/v1/node", node(mesh=False))
    workers = WorkersView(workers=(), broker_pid=1, broker_uptime_ms=1)
    console.answer("GET", "/v1/workers", workers)
    table(member_home, PROGRAMS)
    yield member_home
    grip = Supervisor(member_home).grip()
    if grip is not None:
        os.kill(grip.pid, signal.SIGKILL)
        grip.release()
        pytest.fail("the test left its supervisord running")


@pytest.mark.faults
def test_a_node_is_started_once_and_stopped(small_node: Paths, certmesh: Certmesh) -> None:
    """Up waits for every program; up again changes nothing; down waits for the end."""
    started = certmesh("--json", "up")
    assert started.status == Exit.OK, started.err
    assert (started.body["started"], started.body["programs"]) == (True, 2)
    assert "waiting for" in started.err
    grip = Supervisor(small_node).grip()
    assert grip is not None
    grip.release()
    assert certmesh("--json", "up").body["started"] is False
    assert certmesh("--json", "down").body["stopped"] is True
    eventually(lambda: not Path(f"/proc/{grip.pid}/cmdline").exists() or is_zombie(grip.pid))
    again = certmesh("down")
    assert (again.status, "was not running" in again.out) == (Exit.OK, True)


def is_zombie(pid: int) -> bool:
    """Return whether only the process's entry is left."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


@pytest.mark.faults
def test_a_changed_table_is_taken_over_program_by_program(
    small_node: Paths, certmesh: Certmesh
) -> None:
    """What did not change keeps running: a SIGHUP would restart the broker for a second worker."""
    assert certmesh("up").status == Exit.OK
    supervisor = Supervisor(small_node)
    before = {line.name: line.pid for line in supervisor.programs() or ()}
    changed = PROGRAMS | {"renewal": PROGRAMS["console"]}
    table(small_node, changed)
    text = small_node.supervisord.read_text()
    scaled = "[program:console]\nnumprocs=2\nprocess_name=console-%(process_num)d"
    small_node.supervisord.write_text(text.replace("[program:console]", scaled))
    assert supervisor.take_over() == ("console", "renewal")

    def names() -> set[str]:
        lines = supervisor.programs() or ()
        return {line.name for line in lines if line.state == "RUNNING"}

    eventually(lambda: names() == {"broker", "console-0", "console-1", "renewal"}, within_s=20)
    after = {line.name: line.pid for line in supervisor.programs() or ()}
    assert after["broker"] == before["broker"]
    table(small_node, PROGRAMS)
    assert supervisor.take_over() == ("console", "renewal")
    eventually(lambda: names() == {"broker", "console"}, within_s=20)
    assert certmesh("down").status == Exit.OK


@pytest.mark.faults
def test_a_table_that_supervisord_refuses_changes_nothing(
    small_node: Paths, certmesh: Certmesh
) -> None:
    """A typing error must not stop a pool that runs."""
    assert certmesh("up").status == Exit.OK
    supervisor = Supervisor(small_node)
    text = small_node.supervisord.read_text()
    small_node.supervisord.write_text(text.replace("startsecs=1", "startsecs=soon"))
    with pytest.raises(InternalError):
        supervisor.take_over()
    assert {line.state for line in supervisor.programs() or ()} == {"RUNNING"}
    assert certmesh("down").status == Exit.OK


@pytest.mark.faults
def test_a_program_that_fails_is_named_with_its_last_words(
    small_node: Paths, certmesh: Certmesh
) -> None:
    """Waiting longer would not help, so up does not; mending it and up again does."""
    table(small_node, PROGRAMS | {"broker": "raise SystemExit('the disk is upside down')"})
    said = certmesh("up")
    assert said.status == Exit.FAILED
    assert "broker has stopped" in said.err
    assert "the disk is upside down" in said.err
    (small_node.home / "broker.py").write_text(PROGRAMS["broker"])
    assert certmesh("up").status == Exit.OK
    assert certmesh("down").status == Exit.OK


@pytest.mark.faults
def test_waiting_ends_and_says_for_what(
    small_node: Paths, console: FakeConsole, certmesh: Certmesh
) -> None:
    """A node that never gets ready is told as such, with the log to read."""
    console.answers.clear()
    said = certmesh("up", "--timeout", "3s")
    assert said.status == Exit.FAILED
    assert "still waiting for broker and console" in said.err
    assert str(small_node.log / "broker.log") in said.err
    assert certmesh("down").status == Exit.OK


@pytest.mark.faults
def test_a_mesh_node_is_up_only_when_its_door_is_open(
    small_node: Paths, console: FakeConsole, certmesh: Certmesh
) -> None:
    """Running programs are not yet a node that others can reach."""
    table(small_node, PROGRAMS | {"gateway": PROGRAMS["console"]})
    console.answer("GET", "/v1/node", node())
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = door.getsockname()[1]
        text = small_node.settings.read_text().replace(
            'mesh = "127.0.0.1:0"', f'mesh = "127.0.0.1:{port}"'
        )
        small_node.settings.write_text(text)
        said = certmesh("up", "--timeout", "3s")
        assert said.status == Exit.FAILED
        assert f"still waiting for the mesh port 127.0.0.1:{port}" in said.err
        door.listen()
        assert certmesh("up", "--timeout", "10s").status == Exit.OK
    console.answer("GET", "/v1/node", node(ca="locked"))
    locked = certmesh("up")
    assert locked.status == Exit.OK
    assert "ca unlock" in locked.err
    assert certmesh("down").status == Exit.OK


def test_a_broken_process_table_is_told_in_supervisords_words(
    small_node: Paths, certmesh: Certmesh
) -> None:
    """It refuses before it goes to the background."""
    small_node.supervisord.write_text("[supervisord]\nminfds=many\n")
    said = certmesh("up")
    assert said.status == Exit.FAILED
    assert "invalid literal for int() with base 10: 'many'" in said.err


def test_down_does_not_signal_whoever_has_the_old_pid(
    member_home: Paths, certmesh: Certmesh
) -> None:
    """Pids are reused: a stale pid file must not end a stranger."""
    table(member_home, PROGRAMS)
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as stranger:
        (member_home.run / "supervisord.pid").write_text(f"{stranger.pid}\n")
        said = certmesh("down")
        assert (said.status, "was not running" in said.out) == (Exit.OK, True)
        assert stranger.poll() is None
        stranger.kill()


def test_down_does_not_signal_the_supervisord_of_another_node(
    member_home: Paths, certmesh: Certmesh, tmp_path: Path
) -> None:
    """Two nodes on one box: the configuration on the command line is what tells them apart."""
    table(member_home, PROGRAMS)
    script = tmp_path / "supervisord"
    script.write_text("import signal; signal.pause()")
    other = tmp_path / "supervisord.conf"
    with subprocess.Popen([sys.executable, str(script), "-c", str(other)]) as neighbour:
        (member_home.run / "supervisord.pid").write_text(f"{neighbour.pid}\n")
        assert "was not running" in certmesh("down").out
        assert neighbour.poll() is None
        neighbour.kill()
