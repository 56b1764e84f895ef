"""The whole demo, as a person runs it: three nodes under supervisord, every claim proved."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.mesh
@pytest.mark.timeout(300)
def test_the_demo_proves_every_claim_it_makes(home: Path) -> None:
    """`make demo` cannot rot: the same module is run here, black box and all."""
    words = (sys.executable, "-m", "broker.cli", "demo", "--json", "--home", str(home / "d"))
    done = subprocess.run(words, capture_output=True, text=True, timeout=280, check=False)
    shown = json.loads(done.stdout) if done.stdout else {}
    assert done.returncode == 0, f"{done.stderr}\n{json.dumps(shown, indent=1)}"
    assert shown["schema"] == "certmesh.demo/1"
    assert [step["n"] for step in shown["steps"]] == list(range(1, 14))
    assert all(step["ok"] for step in shown["steps"])
    assert (shown["passed"], shown["failed"]) == (13, 0)
