"""What a hook tries in order to outlive its time limit, to hold the worker, or to gain rights."""

import os
import pwd
import signal
import stat
import sys
from pathlib import Path

import pytest

from broker.clock import boottime_ms
from tests.support import eventually
from tests.workers.test_hook import is_alive, program
from workers.renewal.hook import Ended, HookOrder, PlainPause, full_environment, run_program
from workers.renewal.logic import OUTPUT_BYTES_KEPT
from workers.renewal.strays import Strays

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
OWN = pwd.getpwuid(os.geteuid()).pw_name
DAEMON = """
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
for number in range(3):
    os.close(number)
os.environ.clear()
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(60)
"""
"""As daemons do it: twice forked, a session of its own, no descriptor and no variable left."""


def run(*argv: str, timeout_ms: int = 5000, strays: Strays | None = None) -> Ended:
    """Run one program the ordinary way."""
    return run_program(HookOrder("test", argv, timeout_ms), {}, PlainPause(), strays)


def script_that_daemonizes(directory: Path, ending: str) -> tuple[str, Path]:
    """Return a hook that starts two daemons, and the file with their pids."""
    pids, code = directory / "pids", directory / "daemon.py"
    code.write_text(DAEMON)
    pids.touch()
    start = f"{sys.executable} {code} {pids}\n"
    wait = f"until test $(wc -l < {pids}) -eq 2; do sleep 0.05; done\n"
    return program(directory, start + start + wait + ending), pids


def test_a_hook_that_times_out_takes_daemons_with_it_that_left_its_group_and_session(
    tmp_path: Path,
) -> None:
    """Reference defect 15: a time limit that a double fork escapes is none."""
    script, pids = script_that_daemonizes(tmp_path, "sleep 60")
    ended = run(script, timeout_ms=1500)
    assert ended.timed_out
    family = [int(line) for line in pids.read_text().split()]
    assert len(family) == 2
    assert not any(map(is_alive, family))


def test_a_daemon_of_a_hook_that_ended_in_time_lives_on_and_is_reaped_when_it_ends(
    tmp_path: Path,
) -> None:
    """Restarting a service is what hooks are for; its remains must not pile up in our table."""
    strays = Strays()
    script, pids = script_that_daemonizes(tmp_path, "exit 0")
    assert run(script, strays=strays).exit == 0
    family = [int(line) for line in pids.read_text().split()]
    assert all(map(is_alive, family))
    for pid in family:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, family)))
    run("/bin/true", strays=strays)
    assert not any(Path(f"/proc/{pid}").exists() for pid in family)


def test_daemons_of_an_earlier_hook_are_none_of_a_later_ones_business(tmp_path: Path) -> None:
    """The time limit of one hook must not end the service that another one restarted."""
    strays = Strays()
    script, pids = script_that_daemonizes(tmp_path, "exit 0")
    run(script, strays=strays)
    family = [int(line) for line in pids.read_text().split()]
    try:
        assert run("/bin/sleep", "60", timeout_ms=200, strays=strays).timed_out
        assert all(map(is_alive, family))
    finally:
        for pid in family:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_a_process_that_only_left_the_session_dies_with_a_hook_that_times_out(
    tmp_path: Path,
) -> None:
    """The usual way out, `setsid`, with the parent still there."""
    pid_file = tmp_path / "pid"
    script = program(tmp_path, f"setsid sh -c 'echo $$ > {pid_file}; exec sleep 60'")
    assert run(script, timeout_ms=700).timed_out
    assert not is_alive(int(pid_file.read_text()))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("head -c 100 /dev/zero; printf '\\377\\376'", "\0" * 100 + "\ufffd\ufffd"),
        ("printf 'no newline'", "no newline"),
        ("printf '\\360\\237'", "\ufffd"),
        ("exec >&- 2>&-; sleep 0.3", ""),
    ],
    ids=["garbage", "no newline", "half a character", "closed"],
)
def test_whatever_a_hook_writes_is_text_in_the_end(tmp_path: Path, text: str, shown: str) -> None:
    """It goes into a JSON line, to the CA, and on a screen."""
    ended = run(program(tmp_path, text))
    assert (ended.exit, ended.output) == (0, shown)


def test_output_without_end_is_bounded_and_ends_with_the_time_limit() -> None:
    """`yes` writes gigabytes in a minute."""
    ended = run("/usr/bin/yes", timeout_ms=500)
    assert ended.timed_out
    assert len(ended.output) == OUTPUT_BYTES_KEPT


def test_a_child_that_goes_on_writing_after_the_end_does_not_hold_the_worker(
    tmp_path: Path,
) -> None:
    """The hook has ended; what comes after it is nobody's output."""
    pid_file = tmp_path / "pid"
    strays = Strays()
    began_ms = boottime_ms()
    ended = run(program(tmp_path, f"yes & echo $! > {pid_file}\nexit 3"), strays=strays)
    writer = int(pid_file.read_text())
    assert ended.exit == 3
    assert boottime_ms() - began_ms < 3000
    eventually(lambda: not is_alive(writer))  # its pipe is gone
    run("/bin/true", strays=strays)


def test_a_hook_starts_with_nothing_of_ours_open(tmp_path: Path) -> None:
    """A listener or a key file that leaks into a hook is open to whoever the hook runs as."""
    with (tmp_path / "key.pem").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        listed = run("/bin/ls", "/proc/self/fd").output.split()
    assert set(listed) <= {"0", "1", "2", "3"}  # the last is ls's own


def test_files_a_hook_makes_are_private_and_it_leaves_no_core(tmp_path: Path) -> None:
    """It copies keys; a core dump of it may hold one."""
    made = tmp_path / "copy"
    ended = run(program(tmp_path, f"touch {made}; pwd; ulimit -c; ulimit -H -c"))
    assert ended.output.split() == ["/", "0", "0"]
    assert stat.S_IMODE(made.stat().st_mode) == 0o600


def test_a_hook_for_an_unknown_user_says_so(tmp_path: Path) -> None:
    """The operator reads this in `hook log`, and not a Python exception."""
    order = HookOrder("x", (program(tmp_path, "true"),), 5000, user="no-such-user-here")
    ended = run_program(order, {}, PlainPause())
    assert ended.exit == 127
    assert "as user no-such-user-here: there is no user 'no-such-user-here'" in ended.output


@AS_ROOT
def test_another_user_gets_its_own_home_and_nothing_of_roots_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Root's bus and directories are not for it."""
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/user/0/bus")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/0")
    order = HookOrder("x", ("/usr/bin/env",), 5000, user="nobody")
    seen = dict(
        line.split("=", 1) for line in run_program(order, {}, PlainPause()).output.splitlines()
    )
    assert seen["HOME"] == pwd.getpwnam("nobody").pw_dir
    assert (seen["USER"], seen["LOGNAME"]) == ("nobody", "nobody")
    assert not {"DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR"} & set(seen)
    assert seen == full_environment(order, {})


@AS_ROOT
def test_a_confined_hook_can_gain_no_rights() -> None:
    """A setuid program must not undo what the change of the user was for."""
    status = ("/bin/grep", "NoNewPrivs", "/proc/self/status")
    confined = HookOrder("x", status, 5000, user="nobody", confined=True)
    assert run_program(confined, {}, PlainPause()).output.split() == ["NoNewPrivs:", "1"]
    named = HookOrder("x", status, 5000, user="nobody")
    assert run_program(named, {}, PlainPause()).output.split() == ["NoNewPrivs:", "0"]


@AS_ROOT
def test_a_hook_of_another_user_that_times_out_dies_too() -> None:
    """Root may; the time limit holds for whoever the hook runs as."""
    order = HookOrder("x", ("/bin/sleep", "60"), 200, user="nobody")
    ended = run_program(order, {}, PlainPause())
    assert (ended.timed_out, ended.exit) == (True, -signal.SIGTERM)


def test_a_path_is_there_though_this_process_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Supervisors may start us without one; `systemctl` must be found all the same."""
    monkeypatch.delenv("PATH")
    assert "/usr/bin" in full_environment(HookOrder("x", ("a",), 1), {})["PATH"].split(":")
