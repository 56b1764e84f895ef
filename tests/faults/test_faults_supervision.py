"""Ordered stops, hung processes, and a supervisord that is stopped or killed, on a real node."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from broker.cli.api import UnixConnection
from broker.clock import boottime_ms
from broker.wire.operator import OPERATOR_HEADER
from tests.faults.supervised import Sick
from tests.support import eventually, throughout

PORT = 32120
pytestmark = [pytest.mark.faults, pytest.mark.mesh, pytest.mark.timeout(240)]
HEADERS = {"Content-Type": "application/json", OPERATOR_HEADER: "faults"}
STUBBORN = "trap '' TERM; echo begun >> {home}/hook.txt; test -e {home}/quick || sleep 60"


@pytest.fixture(scope="module")
def sick() -> Iterator[Sick]:
    """A running node shared by the tests of this module; each leaves it healthy."""
    found = Sick.create(PORT, 'broker.worker_dead_after="6s"', 'log.level="debug"')
    home = found.pool.home
    try:
        (home / "quick").touch()
        command = ["/bin/sh", "-c", STUBBORN.format(home=home)]
        entry = f'\n[[hook]]\nname = "slow"\nuser = "root"\ncommand = {json.dumps(command)}\n'
        if os.geteuid() != 0:
            entry = entry.replace('user = "root"\n', "")
        (home / "certmesh.toml").write_text((home / "certmesh.toml").read_text() + entry)
        found.pool.certmesh("up")
        found.settle()
        yield found
    finally:
        found.remove()


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


class Callers:
    """Two threads that ask the console without a pause, and what became of each request."""

    def __init__(self, home: Path) -> None:
        self._path = home / "run" / "api.sock"
        self._enough = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._read, self._write)]
        self.outcomes: dict[str, int] = {}
        self.invited: list[str] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join(30)

    def _read(self) -> None:
        while not self._enough.is_set():
            self._count(self._ask("GET", "/v1/node", None)[0])

    def _write(self) -> None:
        number = 0
        while not self._enough.is_set():
            number += 1
            name = f"host-{number}"
            outcome, answer = self._ask("POST", "/v1/invites", {"host": name, "ttl_s": 600})
            self._count(outcome)
            if outcome == "done":
                self.invited.append(str(answer["host"]))

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[str, Any]:
        connection = UnixConnection(self._path, 10)
        try:
            try:
                connection.connect()
            except OSError:
                self._enough.wait(0.02)
                return "not running", None  # nothing was asked: the door is shut
            content = json.dumps(body).encode() if body else None
            connection.request(method, path, content, HEADERS)
            answer = connection.getresponse()
            found = json.loads(answer.read())
            if answer.status < 300:
                return "done", found
            return f"refused: {found['code']}", found
        except TimeoutError:
            return "silence", None
        except (OSError, http.client.HTTPException) as error:
            return f"cut: {type(error).__name__}", None
        finally:
            connection.close()

    def _count(self, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1


def test_a_stop_under_load_answers_or_refuses_every_request(sick: Sick) -> None:
    """Doors first: what was taken in is answered, and what was acknowledged is kept (row 3, P1)."""
    with Callers(sick.pool.home) as callers:
        eventually(lambda: callers.outcomes.get("done", 0) > 300, within_s=60)
        stopped = sick.pool.certmesh("down")
    assert stopped["stopped"]
    assert stopped["took_s"] < 15  # 5 s on an idle machine
    clear = {"done", "not running", "refused: unavailable", "refused: busy"}
    assert set(callers.outcomes) <= clear, callers.outcomes
    sick.pool.certmesh("up")
    sick.settle()
    listed = {line["host"] for line in sick.pool.certmesh("invite", "list")["invites"]}
    assert len(callers.invited) > 50
    assert set(callers.invited[-50:]) <= listed  # the newest are listed first


def test_a_stop_does_not_wait_for_a_hook_and_the_next_start_runs_it_again(sick: Sick) -> None:
    """It ignores SIGTERM and would take a minute: cut short, said so, and not forgotten (row 3)."""
    home = sick.pool.home
    (home / "quick").unlink()
    begun = home / "hook.txt"
    before = begun.read_text().count("begun")
    renewing = threading.Thread(target=sick.pool.run, args=("cert", "renew"))
    renewing.start()
    eventually(lambda: begun.read_text().count("begun") > before, within_s=30)

    stopped = sick.pool.certmesh("down")

    renewing.join(60)
    assert stopped["took_s"] < 20  # 10 s on an idle machine
    assert "killing" not in sick.pool.log("supervisord")
    runs = (home / "hook-runs.ndjson").read_text().splitlines()
    assert json.loads(runs[-1])["cut_short"] is True
    (home / "quick").touch()
    sick.pool.certmesh("up")
    sick.settle()
    newest = eventually(lambda: _finished(home), within_s=20)
    assert newest is not None
    assert newest["serial"] == json.loads(runs[-1])["serial"]
    shown = sick.pool.certmesh("hook", "log")["runs"]
    assert any(run["cut_short"] for run in shown)


def _finished(home: Path) -> dict[str, Any] | None:
    run: dict[str, Any] = json.loads((home / "hook-runs.ndjson").read_text().splitlines()[-1])
    return run if run["exit"] == 0 else None


def test_a_killed_hung_process_is_explained(sick: Sick) -> None:
    """Not only that it restarted: who did that, why, and when (rows 4, 5)."""
    before = sick.pool.pids()["renewal-0"]
    os.kill(before, signal.SIGSTOP)
    eventually(lambda: sick.pool.pids().get("renewal-0", before) != before, within_s=60)
    row = eventually(lambda: (r := sick.row("renewal-0"))["last_exit"] and r, within_s=20)
    assert isinstance(row, dict)
    assert row["last_exit"].startswith("killed: silent for ")
    assert row["last_exit_at"]
    assert row["restarts"] >= 1
    sick.settle()


def test_without_a_console_ps_shows_supervisords_own_table_and_says_so(sick: Sick) -> None:
    """The moment one needs the table is the moment when nobody answers (P15)."""
    sick.infect("console", 0.05)
    os.kill(sick.pool.pids()["console"], signal.SIGKILL)
    table = eventually(
        lambda: (found := sick.table())["source"] == "supervisord" and found, within_s=30
    )
    assert isinstance(table, dict)
    assert table["status"] == 3
    assert {line["instance"] for line in table["workers"]} >= {"console", "gateway", "watchdog"}
    assert table["broker"]["state"] == "RUNNING"
    sick.heal()
    sick.pool.certmesh("up")
    sick.settle()


def test_a_frozen_supervisord_blocks_nobody_and_up_wakes_it(sick: Sick) -> None:
    """Its pipes fill up with debug lines meanwhile; every loop goes on (rows 8, 10)."""
    before = sick.pool.pids()
    supervisord = sick.pool.supervisord_pid()
    os.kill(supervisord, signal.SIGSTOP)
    try:
        with Callers(sick.pool.home) as callers:
            # Enough for the pipe of the broker and of the console to be full of debug lines.
            throughout(lambda: set(callers.outcomes) <= {"done"}, for_s=8)
        assert callers.outcomes["done"] > 400
        for line in sick.pool.certmesh("ps")["workers"]:
            assert line["liveness"] == "ready", line
    finally:
        woken = sick.pool.run("up")
        os.kill(supervisord, signal.SIGCONT)
    assert woken.returncode == 0
    assert "goes on now" in woken.stderr
    sick.settle()
    assert sick.pool.pids() == before


def test_a_frozen_supervisord_is_stopped_by_down(sick: Sick) -> None:
    """A stopped process takes no SIGTERM: it has to be woken for it (row 8)."""
    os.kill(sick.pool.supervisord_pid(), signal.SIGSTOP)
    assert sick.pool.certmesh("down")["stopped"]
    sick.pool.certmesh("up")
    sick.settle()


def test_after_supervisords_death_two_starts_at_once_make_one_pool(sick: Sick) -> None:
    """No orphan holds a port, a socket or the lock; never two brokers (rows 7, 56)."""
    children = sick.pool.pids()
    killed_ms = boottime_ms()
    os.kill(sick.pool.supervisord_pid(), signal.SIGKILL)
    starters = [threading.Thread(target=sick.pool.run, args=("up",)) for _ in range(2)]
    for starter in starters:
        starter.start()
    eventually(lambda: not any(map(is_alive, children.values())), within_s=10)
    took_ms = boottime_ms() - killed_ms
    for starter in starters:
        starter.join(120)
    assert took_ms < 5000  # 2 s on an idle machine
    sick.pool.certmesh("up")
    sick.settle()
    assert len(_brokers_of(sick.pool.home)) == 1

    second = subprocess.run(
        [sys.executable, "-m", "broker", str(sick.pool.home / "certmesh.toml"), "--foreground"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert second.returncode == 75
    assert str(sick.pool.pids()["broker"]) in second.stdout + second.stderr
    assert len(_brokers_of(sick.pool.home)) == 1


def _brokers_of(home: Path) -> list[int]:
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = command.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[1:3] == [b"-m", b"broker"] and str(home).encode() in words[3]:
            found.append(int(command.parent.name))
    return found


def test_up_recovers_from_stale_notes_and_sockets(sick: Sick) -> None:
    """A machine that lost power leaves them behind, and pids are reused (row 7)."""
    sick.pool.certmesh("down")
    run = sick.pool.home / "run"
    (run / "supervisord.pid").write_text(f"{os.getpid()}\n")
    for name in ("supervisor.sock", "broker.sock", "control.sock", "events.sock", "api.sock"):
        (run / name).unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(run / name))
    assert sick.pool.run("status").returncode == 4
    sick.pool.certmesh("up")
    sick.settle()


def test_a_reload_starts_only_those_again_whose_settings_changed(sick: Sick) -> None:
    """The door stays open, the mesh is not left, and a wrong file changes nothing (row 3)."""
    settings, before = sick.pool.home / "certmesh.toml", sick.pool.pids()
    text = settings.read_text()
    settings.write_text(text.replace("interval", "intervall"))
    assert sick.pool.run("reload").returncode == 78
    assert sick.pool.pids() == before

    settings.write_text(text.replace('interval = "500ms"', 'interval = "700ms"'))
    planned = sick.pool.certmesh("reload", "--dry-run")["restarted"]
    assert [line["program"] for line in planned] == ["heartbeat", "broker"]
    assert sick.pool.pids() == before
    done = sick.pool.certmesh("reload")
    assert [line["sections"] for line in done["restarted"]] == [["heartbeat"], ["heartbeat"]]
    sick.settle()
    after = sick.pool.pids()
    assert {name for name in before if after[name] != before[name]} == {"heartbeat", "broker"}
    assert sick.pool.certmesh("reload")["restarted"] == []
