"""One node, every process broken in turn; `certmesh status` must be content again."""

import base64
import http.client
import json
import os
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.pool import Pool
from tests.support import eventually

PROGRAMS = (
    "approval",
    "broker",
    "console",
    "failover",
    "gateway",
    "heartbeat",
    "renewal-0",
    "renewal-1",
    "roster-sync",
    "watchdog",
)
PORT = 17742
pytestmark = [pytest.mark.faults, pytest.mark.mesh, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """A running node shared by the tests of this module; each leaves it healthy."""
    found = Pool.create(PORT)
    try:
        found.certmesh("up")
        eventually(found.is_ok, within_s=30)
        yield found
    finally:
        found.remove()


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_every_program_of_the_table_runs(pool: Pool) -> None:
    """As `supervisorctl status` says it."""
    assert sorted(pool.pids()) == list(PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_killed_process_is_back_and_nothing_else_restarts(pool: Pool, program: str) -> None:
    """Kill -9 of any one process is an event of seconds, not an outage (rows 1, 5)."""
    before = pool.pids()
    os.kill(before[program], signal.SIGKILL)

    def recovered() -> bool:
        now = pool.pids()
        return len(now) == len(PROGRAMS) and now[program] != before[program]

    eventually(recovered, within_s=20)
    eventually(pool.is_ok, within_s=30)
    after = pool.pids()
    changed = {name for name in PROGRAMS if after[name] != before[name]}
    assert changed == {program}


@pytest.mark.parametrize("program", ["heartbeat", "renewal-0", "gateway", "broker"])
def test_a_frozen_process_is_replaced_by_the_watchdog(pool: Pool, program: str) -> None:
    """Supervisord never notices a hang; a missed promise does (rows 4, 5)."""
    before = pool.pids()[program]
    os.kill(before, signal.SIGSTOP)
    eventually(lambda: pool.pids().get(program, before) != before, within_s=40)
    eventually(pool.is_ok, within_s=30)
    assert not is_alive(before)


def test_a_locked_ca_says_so_at_every_door_and_opens_again(pool: Pool) -> None:
    """Exit 5 for the operator, 503 `ca_locked` for a joiner, and nothing else stops."""
    pool.certmesh("ca", "lock")
    assert pool.run("cert", "renew").returncode == 5
    assert pool.run("status").returncode == 3
    status, problem = post_join(PORT)
    assert (status, problem["code"]) == (503, "ca_locked")
    assert "unlock" in problem["hint"]
    wrong = pool.run("ca", "unlock", "--passphrase-file", "-", text="not this one at all")
    assert wrong.returncode == 7
    assert json.loads(wrong.stdout)["code"] == "bad_passphrase"
    right = pool.run("ca", "unlock", "--passphrase-file", "-", text=pool.passphrase)
    assert right.returncode == 0
    assert pool.certmesh("cert", "renew")
    eventually(pool.is_ok, within_s=30)


def post_join(port: int) -> tuple[int, dict[str, Any]]:
    """Ask to join as a stranger who has nothing to hide, so the server is not verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    body = {
        "host": "nas",
        "csr": base64.b64encode(b"x").decode(),
        "ticket_hash": "00" * 32,
        "nonce": "00" * 16,
        "invite": "x" * 22,
    }
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
    try:
        connection.request("POST", "/v1/join", json.dumps(body))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_nothing_outlives_supervisord(pool: Pool) -> None:
    """SIGKILL of supervisord takes its children along; `up` starts a clean pool again (row 7)."""
    children = pool.pids()
    os.kill(pool.supervisord_pid(), signal.SIGKILL)
    eventually(lambda: not any(is_alive(pid) for pid in children.values()), within_s=5)
    assert pool.run("status").returncode == 4
    pool.certmesh("up")
    eventually(pool.is_ok, within_s=30)


def test_a_stop_is_ordered_doors_then_workers_then_the_broker(pool: Pool) -> None:
    """The log of supervisord shows the order; every process ends with status 0 (row 3)."""
    pool.certmesh("down")
    lines = [line for line in pool.log("supervisord").splitlines() if " stopped: " in line][
        -len(PROGRAMS) :
    ]
    order = [line.split(" stopped: ")[1].split()[0] for line in lines]
    assert set(order) == set(PROGRAMS)
    assert set(order[:2]) == {"gateway", "console"}
    assert order.index("broker") == len(PROGRAMS) - 2
    assert order[-1] == "watchdog"
    assert all("exit status 0" in line for line in lines), lines
    pool.certmesh("up")
    eventually(pool.is_ok, within_s=30)


def test_status_without_a_pool_says_how_to_start_it(pool: Pool) -> None:
    """Exit 4 and the command."""
    pool.certmesh("down")
    done = pool.run("status")
    assert done.returncode == 4
    assert "certmesh" in done.stdout
    assert " up" in done.stdout
    pool.certmesh("up")
    eventually(pool.is_ok, within_s=30)
