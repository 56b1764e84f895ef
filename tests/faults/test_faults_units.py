"""The systemd units: valid, strict, and the software lives under what they forbid."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.users_scenario import NAMESPACE

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]
TREE = Path(__file__).parents[2]
UNITS = TREE / "contrib" / "systemd"
EXPOSURE_MAX = {"certmesh.service": 20, "certmesh-users.service": 35}
"""In tenths: 10 is a service without any protection."""


def _analyze(*words: str) -> "subprocess.CompletedProcess[str]":
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    line = ["systemd-analyze", *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("unit", sorted(EXPOSURE_MAX))
def test_a_unit_is_one_that_systemd_takes(unit: str, tmp_path: Path) -> None:
    """Nothing misspelt: systemd ignores what it does not know, protection included."""
    text = (UNITS / unit).read_text()
    # The program is not installed here; whether it is executable is not what is asked.
    runnable = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE)
    (tmp_path / unit).write_text(runnable)
    done = _analyze("verify", "--man=no", str(tmp_path / unit))
    ours = [line for line in done.stderr.splitlines() if unit in line]
    assert not ours, ours


@pytest.mark.parametrize("unit", sorted(EXPOSURE_MAX))
def test_a_unit_leaves_little_open(unit: str) -> None:
    """Systemd's own measure, so that nobody takes a line out unseen (L6)."""
    limit = f"--threshold={EXPOSURE_MAX[unit]}"
    done = _analyze("security", "--offline=true", limit, str(UNITS / unit))
    assert done.returncode == 0, done.stdout[-300:]


def test_a_node_works_under_what_the_units_forbid() -> None:
    """No capabilities, no executable memory, no setuid: it renews, runs hooks, stops (L6)."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv")
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces can be made here")
    scenario = f"{sys.executable} -m tests.faults.restricted_scenario 36120"
    less = "setpriv --no-new-privs --bounding-set=-all --inh-caps=-all"
    done = subprocess.run(
        [*NAMESPACE, "sh", "-c", f"ip link set lo up && exec {less} {scenario}"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        cwd=TREE,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    if not found.pop("memory"):
        pytest.skip("this kernel cannot forbid executable memory")
    assert found == {
        "uid": 0,
        "programs": 10,
        "effective": "0" * 16,
        "hooks": [0],
        "down": 0,
    }
