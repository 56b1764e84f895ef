"""Hooks: argv, no shell, a time limit nothing escapes, and a record of each run."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from broker.clock import boottime_ms
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.units import UnixSeconds
from broker.wire.console_api import HookRun
from tests.support import eventually
from workers.certstore import CertificateStore
from workers.renewal.hook import Ended, HookOrder, PlainPause, run_program
from workers.renewal.hookset import HookSet, environment_of
from workers.renewal.logic import OUTPUT_BYTES_KEPT, RUNS_KEPT
from workers.renewal.runlog import RunLog

REPOSITORY = Path(__file__).parents[2]
RUN_ONE = """
import sys
from workers.renewal.hook import HookOrder, PlainPause, run_program
run_program(HookOrder("x", (sys.argv[1],), 60000), {}, PlainPause())
"""


def program(directory: Path, text: str, name: str = "hook.sh") -> str:
    """Write an executable shell script and return its path."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o700)
    return str(path)


def run(*argv: str, timeout_ms: int = 5000, user: str = "", **environment: str) -> Ended:
    """Run one program the ordinary way."""
    order = HookOrder("test", argv, timeout_ms, user)
    return run_program(order, environment, PlainPause())


def is_alive(pid: int) -> bool:
    """Return whether a process runs; a zombie that nobody reaps counts as dead."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}


def test_defect_14_a_hook_gets_its_arguments_as_they_are_and_no_shell(tmp_path: Path) -> None:
    """Reference defect 14: hooks were shell text, and the documented form was refused (row 46)."""
    ended = run("/bin/echo", "$HOME; rm -rf /", "`id`")
    assert (ended.exit, ended.output) == (0, "$HOME; rm -rf / `id`\n")
    assert not list(tmp_path.iterdir())


def test_a_hook_sees_only_the_environment_made_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's own environment may hold secrets and a virtual environment."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/secret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    ended = run("/usr/bin/env", CERTMESH_SERIAL="ab")
    names = {line.partition("=")[0] for line in ended.output.splitlines()}
    assert "CERTMESH_SERIAL" in names
    assert not names & {"CREDENTIALS_DIRECTORY", "PYTHONPATH"}


def test_both_streams_and_the_exit_status_are_kept(tmp_path: Path) -> None:
    """What failed is in the output, mostly on standard error."""
    ended = run(program(tmp_path, "echo out; echo err >&2; exit 3"))
    assert (ended.exit, ended.timed_out) == (3, False)
    assert "out" in ended.output
    assert "err" in ended.output


def test_defect_15_a_hook_that_times_out_dies_with_all_its_children(tmp_path: Path) -> None:
    """Reference defect 15: hooks had no timeout and ran under the core's locks (row 46)."""
    pids = tmp_path / "pids"
    script = program(
        tmp_path,
        f"trap '' TERM\nsh -c 'trap \"\" TERM; sleep 60' & echo $! >> {pids}\n"
        f"sleep 60 & echo $! >> {pids}\necho $$ >> {pids}\nwait\nwait\nsleep 60",
    )
    began_ms = boottime_ms()
    ended = run(script, timeout_ms=400)
    assert ended.timed_out
    assert ended.exit == -signal.SIGKILL
    assert boottime_ms() - began_ms < 3000
    family = [int(line) for line in pids.read_text().split()]
    assert len(family) == 3
    eventually(lambda: not any(map(is_alive, family)), within_s=2)


def test_a_hook_that_obeys_the_request_to_end_is_not_killed_harder(tmp_path: Path) -> None:
    """It may have something to put back."""
    ended = run(program(tmp_path, "trap 'echo tidy; exit 4' TERM\nsleep 60 & wait"), timeout_ms=300)
    assert ended.timed_out
    assert (ended.exit, ended.output) == (4, "tidy\n")


def test_endless_output_neither_blocks_the_hook_nor_fills_our_memory(tmp_path: Path) -> None:
    """A pipe that nobody drains stops the writer for ever (row 46)."""
    script = program(tmp_path, "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo the end")
    ended = run(script)
    assert ended.exit == 0
    assert len(ended.output) == OUTPUT_BYTES_KEPT
    assert ended.output.endswith("the end\n")


def test_a_hook_that_starts_a_daemon_does_not_hold_the_worker(tmp_path: Path) -> None:
    """The daemon keeps the output open; waiting for its end would be waiting for ever."""
    pid_file = tmp_path / "pid"
    script = program(tmp_path, f"sleep 60 & echo $! > {pid_file}\necho started")
    began_ms = boottime_ms()
    ended = run(script)
    daemon = int(pid_file.read_text())
    assert is_alive(daemon)
    os.kill(daemon, signal.SIGKILL)
    os.waitpid(daemon, 0)  # it is a child of ours by now
    assert (ended.exit, ended.output) == (0, "started\n")
    assert boottime_ms() - began_ms < 3000


@pytest.mark.parametrize("argv", [("/no/such/program",), ("relative-name-of-nothing",), ("/",), ()])
def test_a_hook_that_cannot_be_started_is_a_failed_hook(argv: tuple[str, ...]) -> None:
    """A typing error in the settings must not end the worker."""
    ended = run(*argv)
    assert ended.exit == 127
    assert "cannot start" in ended.output


def test_a_hook_for_a_user_that_does_not_exist_is_a_failed_hook() -> None:
    """The same for the user's name."""
    assert run("/bin/true", user="no-such-user-here").exit == 127


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_a_hook_runs_as_the_user_it_is_for() -> None:
    """Least privilege, and no group of root left over (row 46)."""
    ended = run("/usr/bin/id", user="nobody")
    assert "uid=65534" in ended.output
    assert "(root)" not in ended.output


def test_a_hook_leads_a_session_of_its_own_and_reads_nothing(tmp_path: Path) -> None:
    """Signals to the worker's group must not reach it, nor may it eat the worker's input."""
    ended = run(program(tmp_path, "cat; ps -o sid= -p $$; echo $$"))
    session, own = ended.output.split()
    assert session == own


@pytest.mark.faults
def test_a_hook_dies_with_a_worker_that_is_killed_hard(tmp_path: Path) -> None:
    """Otherwise the next worker's hook runs beside the old one."""
    pid_file = tmp_path / "pid"
    script = program(tmp_path, f"echo $$ > {pid_file}\nexec sleep 60")
    worker = subprocess.Popen(
        [
            sys.executable,
            "-c",
            RUN_ONE,
            script,
        ],
        cwd=REPOSITORY,
    )
    hook = int(eventually(lambda: pid_file.exists() and pid_file.read_text().strip()))
    worker.kill()
    worker.wait()
    eventually(lambda: not is_alive(hook), within_s=3)


@pytest.fixture
def hooks(paths: Paths, settings: Settings) -> HookSet:
    """The hooks of a node without any."""
    return HookSet(paths, settings, PlainPause())


def environment(paths: Paths) -> dict[str, str]:
    """Return what hooks learn on a node without a certificate."""
    return environment_of(CertificateStore(paths.certificates, "nas"), None)


def configure(paths: Paths, *hooks: dict[str, object]) -> None:
    """Append `[[hook]]` entries to the settings file."""
    with paths.settings.open("a") as file:
        for hook in hooks:
            file.write("[[hook]]\n")
            for name, value in hook.items():
                file.write(f"{name} = {json.dumps(value)}\n")


def test_hooks_added_to_the_settings_count_at_the_next_use(hooks: HookSet, paths: Paths) -> None:
    """Nobody should have to restart anything."""
    assert hooks.run("deploy", "renewed", environment(paths)) == []
    configure(paths, {"name": "web", "command": ["/bin/echo", "hi"]})
    runs = hooks.run("deploy", "renewed", environment(paths))
    assert [(run.hook, run.exit, run.output) for run in runs] == [("web", 0, "hi\n")]


def test_a_hook_runs_only_at_its_events(hooks: HookSet, paths: Paths) -> None:
    """A first certificate may need other steps than a renewal."""
    configure(
        paths,
        {"name": "first", "command": ["/bin/true"], "event": ["issued"]},
        {"name": "later", "command": ["/bin/true"], "event": ["renewed"]},
    )
    runs = hooks.run("deploy", "issued", environment(paths))
    assert [run.hook for run in runs] == ["first"]


def test_executables_in_hooks_d_run_in_order_of_their_names(hooks: HookSet, paths: Paths) -> None:
    """The shape certbot's users know."""
    directory = paths.home / "hooks.d" / "deploy"
    program(directory, "echo two", "20-two")
    program(directory, "echo one", "10-one")
    program(directory, "echo backup", "10-one.bak")
    (directory / "README").write_text("no program")
    runs = hooks.run("deploy", "renewed", environment(paths))
    assert [run.hook for run in runs] == ["deploy/10-one", "deploy/20-two"]
    assert [run.output for run in runs] == ["one\n", "two\n"]


def test_an_executable_that_others_can_write_is_not_run(hooks: HookSet, paths: Paths) -> None:
    """Whoever writes it would run with the worker's rights, which may be root's (row 46)."""
    file = Path(program(paths.home / "hooks.d" / "deploy", "echo evil", "evil"))
    file.chmod(file.stat().st_mode | stat.S_IWOTH)
    (run,) = hooks.run("deploy", "renewed", environment(paths))
    assert run.failed
    assert "written by others" in run.output


def test_a_failed_hook_is_tried_again_as_often_as_it_says(
    hooks: HookSet, paths: Paths, tmp_path: Path
) -> None:
    """A service may be busy for a moment."""
    counter = tmp_path / "count"
    script = program(tmp_path, f"echo x >> {counter}; test $(wc -l < {counter}) -ge 2")
    configure(paths, {"name": "web", "command": [script], "retries": 3})
    (run,) = hooks.run("deploy", "renewed", environment(paths))
    assert run.exit == 0
    assert counter.read_text() == "x\nx\n"


def test_every_run_is_recorded_with_what_it_said(hooks: HookSet, paths: Paths) -> None:
    """`certmesh hook log` reads this."""
    configure(paths, {"name": "web", "command": ["/bin/sh", "-c", "echo oops; exit 2"]})
    hooks.run("deploy", "renewed", {**environment(paths), "CERTMESH_SERIAL": "ab12"})
    path = paths.data / "hook-runs.ndjson"
    (line,) = path.read_text().splitlines()
    record = json.loads(line)
    assert set(record) == {
        "at",
        "hook",
        "event",
        "exit",
        "took_s",
        "cut_short",
        "timed_out",
        "output",
        "serial",
    }
    assert (record["hook"], record["exit"], record["output"]) == ("web", 2, "oops\n")
    assert (record["event"], record["serial"]) == ("renewed", "ab12")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_run_log_keeps_the_newest_runs_and_survives_damage(paths: Paths) -> None:
    """It must not grow for ever, and half a line must not end renewals."""
    log = RunLog(paths)
    (paths.data / "hook-runs.ndjson").write_bytes(b"{half a line\n" * (RUNS_KEPT + 10))
    for number in range(3):
        log.add(
            HookRun(
                UnixSeconds(0),
                f"h{number}",
                "renewed",
                0,
                0.0,
                timed_out=False,
                output="",
                serial="",
            )
        )
    assert [run.hook for run in log.runs()] == ["h0", "h1", "h2"]
    assert len((paths.data / "hook-runs.ndjson").read_bytes().splitlines()) == RUNS_KEPT


def test_settings_damaged_after_the_start_leave_the_known_hooks_in_force(
    paths: Paths, settings: Settings
) -> None:
    """A half-edited file must not mean a renewal without reload."""
    configure(paths, {"name": "web", "command": ["/bin/true"]})
    from broker.runtime.settings import load_settings  # noqa: PLC0415 (after the file is written)

    hooks = HookSet(paths, load_settings(paths.settings), PlainPause())
    paths.settings.write_text("[[hook]\n")
    assert [run.hook for run in hooks.run("deploy", "renewed", environment(paths))] == ["web"]
    assert settings.hook == ()


def try_hook(paths: Paths, name: str) -> "subprocess.CompletedProcess[str]":
    """Run the real command."""
    return subprocess.run(
        [sys.executable, "-m", "workers.renewal", paths.settings, "--test-hook", name],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_hook_can_be_tried_with_dry_run_set(paths: Paths) -> None:
    """`certmesh hook test` starts this program."""
    configure(
        paths,
        {"name": "web", "command": ["/bin/sh", "-c", "echo dry=$CERTMESH_DRY_RUN"]},
        {"name": "bad", "command": ["/bin/false"]},
    )
    done = try_hook(paths, "web")
    assert (done.returncode, json.loads(done.stdout)["output"]) == (0, "dry=1\n")
    assert try_hook(paths, "bad").returncode == 1
    unknown = try_hook(paths, "nothing")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "no hook" in unknown.stderr
