"""A node whose processes are different users, real ones: what a taken-over one can still do.

One node lives through `tests.faults.users_scenario` once; each test looks at a part of what was
seen.
"""

import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.users_scenario import (
    BROKER,
    DOORS,
    GROUP,
    HOOK_USER,
    NAMESPACE,
    OTHERS,
)

pytestmark = [pytest.mark.faults, pytest.mark.mesh, pytest.mark.timeout(600)]
PORT = 36_110
NONE = "0" * 16
ROOT_OF_TREE = Path(__file__).parents[2]


def why_not() -> str:
    """Return what this machine lacks for several users, empty if nothing."""
    if os.geteuid() != 0:
        return "only root starts processes as others"
    missing = [tool for tool in ("unshare", "setpriv", "mount", "ip") if shutil.which(tool) is None]
    try:
        groups = {pwd.getpwnam(name).pw_gid for name in (BROKER, DOORS, OTHERS)}
        pwd.getpwnam(HOOK_USER)
    except KeyError as error:
        return f"no such account here: {error}"
    if missing or len(groups) != 1:
        return f"no {missing}, or {BROKER}, {DOORS} and {OTHERS} are not all of {GROUP}"
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        return "no namespaces can be made here"
    place = [ROOT_OF_TREE, *ROOT_OF_TREE.parents]
    if not all(path.stat().st_mode & 0o001 for path in place):
        return f"other users cannot reach {ROOT_OF_TREE}"
    return ""


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """Return everything the scenario saw."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    done = subprocess.run(
        [*NAMESPACE, sys.executable, "-m", "tests.faults.users_scenario", str(PORT)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=ROOT_OF_TREE,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _uids(seen: dict[str, Any]) -> dict[str, int]:
    return {name: int(line["Uid"].split()[0]) for name, line in seen["processes"].items()}


def test_each_process_is_the_user_that_the_settings_name(seen: dict[str, Any]) -> None:
    """Real, effective, saved and file-system uid: there is no way back (L6)."""
    wanted = {"broker": BROKER, "gateway": DOORS, "heartbeat": OTHERS, "roster-sync": OTHERS}
    uids = _uids(seen)
    assert {name: uids[name] for name in wanted} == {
        name: pwd.getpwnam(user).pw_uid for name, user in wanted.items()
    }
    for line in seen["processes"].values():
        assert len(set(line["Uid"].split())) == 1


def test_no_process_has_a_capability_that_it_does_not_need(seen: dict[str, Any]) -> None:
    """The watchdog may end processes, renewal is root for hooks of others; nobody else (L6)."""
    needed = {"watchdog": 1 << 5}
    for name, line in seen["processes"].items():
        if not name.startswith("renewal"):
            assert int(line["CapEff"], 16) == needed.get(name, 0), name
            assert int(line["CapPrm"], 16) == needed.get(name, 0), name
            assert line["NoNewPrivs"] == "1", name
    assert seen["processes"]["console"]["CapBnd"] == NONE


def test_a_gateway_that_was_taken_over_reads_neither_ca_nor_ledger(seen: dict[str, Any]) -> None:
    """Not even sealed, and not the names of the files: only the broker maps the key (P3) (L6)."""
    tried = seen["files"]["gateway_reads"]
    assert len(tried) == 9
    assert set(tried.values()) == {"PermissionError"}, tried


def test_a_gateway_that_was_taken_over_changes_no_file_of_the_node(seen: dict[str, Any]) -> None:
    """No settings, no membership, no certificate, and no socket where the broker's is (L6)."""
    tried = seen["files"]["gateway_writes"]
    assert len(tried) >= 12
    assert set(tried.values()) == {"PermissionError"}, tried


def test_a_gateway_connects_to_the_broker_and_to_nobody_else(seen: dict[str, Any]) -> None:
    """Neither to supervisord, which starts programs as root, nor to the console (L6)."""
    ends = {Path(path).name: word for path, word in seen["files"]["gateway_connects"].items()}
    assert ends == {
        "supervisor.sock": "PermissionError",
        "api.sock": "PermissionError",
        "broker.sock": "connected",
    }


def test_another_user_of_the_machine_connects_to_nobody(seen: dict[str, Any]) -> None:
    """The directories keep out who is not of the node (row 40) (L5)."""
    assert set(seen["files"]["stranger_connects"].values()) == {"PermissionError"}


def test_another_user_is_let_in_by_no_socket_when_the_directories_are_open(
    seen: dict[str, Any],
) -> None:
    """`chmod -R a+rwX` by accident: libzmq asks the kernel who it is and hangs up (row 40) (L5)."""
    assert seen["seats"]["open directory"] == {"beat": "silence"}


def test_a_process_of_the_same_user_cannot_look_into_another(seen: dict[str, Any]) -> None:
    """A second gateway that was taken over does not get the keys out of the first (P3)."""
    assert set(seen["files"]["debugger"].values()) == {"PermissionError"}


@pytest.mark.parametrize(
    ("user", "service"), [(DOORS, "console"), (DOORS, "watchdog"), (OTHERS, "console")]
)
def test_a_process_cannot_speak_as_a_service_of_another_user(
    seen: dict[str, Any], user: str, service: str
) -> None:
    """It is refused by name, and nothing that it says counts (rows 40 and 41) (row 40) (row 41)."""
    said = seen["seats"][f"{user} as {service}"]
    assert (said["ready"], said["before"], said["after"]) == (
        "forbidden",
        "unregistered",
        "unregistered",
    )


def test_a_process_speaks_as_its_own_service_and_has_no_more_than_its_row(
    seen: dict[str, Any],
) -> None:
    """The gateway's user gets in as a gateway, and may not lock the CA (row 41) (P4)."""
    for user, service in ((DOORS, "gateway"), (OTHERS, "heartbeat")):
        said = seen["seats"][f"{user} as {service}"]
        assert (said["ready"], said["after"]) == ("welcome", "forbidden")


def test_what_was_refused_is_in_the_audit_trail(seen: dict[str, Any]) -> None:
    """By uid where no seat was given, by service where the table said no (row 41)."""
    doors, others = (pwd.getpwnam(name).pw_uid for name in (DOORS, OTHERS))
    assert set(seen["refusals"]) >= {
        f"uid {doors} console",
        f"uid {doors} watchdog",
        f"uid {others} console",
        "gateway ",
    }


def test_the_mesh_works_as_before_between_several_users(seen: dict[str, Any]) -> None:
    """Join, renew on both sides, a hook of yet another user, a restart: all of it (L6)."""
    assert seen["mesh"] == {"hook_ran_as": [HOOK_USER], "key_mode": "0o640", "members": 2}
    assert seen["restarted"]["same_certificate"]
    assert seen["restarted"]["audit"] == 0


def test_a_node_works_with_a_watchdog_as_its_only_root(seen: dict[str, Any]) -> None:
    """`renewal` and `console` named too: certificates are renewed, hooks run as renewal (L6)."""
    assert seen["restarted"]["roots"] == ["watchdog"]
    assert seen["restarted"]["hook_ran_as"] == OTHERS
