"""The drill against real files of a mesh and a fake console: verdict, exit status, no remains."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.clock import wall_s
from broker.errors import NotPrimaryError
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.units import UnixSeconds
from tests.cli.command import COMMAND, Certmesh
from tests.cli.fake_console import FakeConsole, console_on
from tests.cli.views import leader, standby, standbys
from tests.conftest import child_pids
from tests.shell.rehearsal_mesh import DrillMesh
from tests.support import eventually

LIST = ("GET", "/v1/standbys")

SCREEN = """\
ok    copies          ledger of N KiB and 3 files of the CA
ok    journal         N rows, hash chain and tables verified
ok    roster          standby nas
ok    keys            the credential file opens the key; it fits certificate and pin
ok    takeover        term 1 to 2, in the copy
ok    certificate     one for nas, trusted under the pin, thrown away
ok    standby nas     ready; lag 0, CA unlocked, heard 5 min ago
ok    succession      nas is next
ok    takeover time   at most 45 s: grace 30s + 3 ticks of 5s
ok    without any CA  every member survives until DAY (N d)
this mesh survives the loss of its primary: nas within 45 s
"""


@pytest.fixture
def drilled(home: Path, monkeypatch: pytest.MonkeyPatch) -> DrillMesh:
    """A primary with a standby and a member, whose temporary files go to a place of their own."""
    (home / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(home / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)  # this process has looked at TMPDIR before
    mesh = DrillMesh.whole(home)
    mesh.extend_lifetimes()
    return mesh


@pytest.fixture
def node(drilled: DrillMesh) -> Iterator[FakeConsole]:
    """The running node of that mesh, healthy."""
    with console_on(drilled.paths.api_socket) as fake:
        heard = UnixSeconds(wall_s() - 330)
        fake.answer(*LIST, standbys(leader(), standby("nas", last_heard_at=heard)))
        yield fake


def remains(paths: Paths) -> list[Path]:
    """Return what is left of the copies."""
    return list((paths.home / "tmp").iterdir())


@pytest.mark.faults
def test_a_mesh_that_would_survive_passes_the_drill(
    node: FakeConsole, drilled: DrillMesh, certmesh: Certmesh
) -> None:
    """Every question with its answer, the sentence last; exit 0 for a monitor."""
    said = certmesh("drill", "primary-loss")
    out = re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z", "DAY", said.out)
    out = re.sub(r"\d+ (KiB|rows)|\d+ d\b", lambda found: f"N {found[0].split()[1]}", out)
    assert out == SCREEN
    assert (said.status, said.err) == (Exit.OK, "rehearsing on copies; nothing live is touched\n")
    assert {asked.method for asked in node.asked} == {"GET"}
    assert remains(drilled.paths) == []


@pytest.mark.faults
def test_the_drill_as_json_has_verdict_heir_and_times(
    node: FakeConsole, drilled: DrillMesh, certmesh: Certmesh
) -> None:
    """What a monitor keeps; also exit 3 when something deserves attention."""
    locked = standby("pi", "locked", ca="locked", rank=1)
    node.answer(*LIST, standbys(leader(), standby("nas"), locked))
    said = certmesh("drill", "primary-loss", "--json")
    body = said.body
    assert said.status == Exit.ATTENTION
    assert body["schema"] == "certmesh.drill-primary-loss/1"
    assert (body["verdict"], body["heir"], body["takeover_s"]) == ("warn", "nas", 45.0)
    assert (body["host"], body["primary"], body["standbys"]) == ("atlas", "atlas", ["nas"])
    assert body["survives_until"].endswith("Z")
    steps = {step["name"]: step for step in body["steps"]}
    assert steps["standby pi"]["state"] == "warn"
    assert steps["standby pi"]["hint"] == "certmesh ca unlock, on pi"
    assert steps["keys"]["took_s"] >= 0
    assert remains(drilled.paths) == []


@pytest.mark.faults
def test_a_mesh_that_would_not_survive_fails_the_drill(
    node: FakeConsole, drilled: DrillMesh, certmesh: Certmesh
) -> None:
    """One locked standby is none; what to do stands below the line that says so."""
    node.answer(*LIST, standbys(leader(), standby("nas", "locked", ca="locked")))
    said = certmesh("drill", "primary-loss")
    assert said.status == Exit.FAILED
    lines = said.out.splitlines()
    failed = lines.index("fail  succession      no standby is ready to take over")
    assert lines[failed + 1].strip().startswith("do: certmesh standby nominate")
    assert lines[-1] == (
        "this mesh would not survive the loss of its primary: 1 failure, 1 warning"
    )
    assert remains(drilled.paths) == []


@pytest.mark.faults
def test_a_node_that_does_not_run_fails_and_still_shows_the_copies(
    drilled: DrillMesh, certmesh: Certmesh
) -> None:
    """The files may be fine, but nobody knows who else is awake."""
    said = certmesh("drill", "primary-loss")
    assert said.status == Exit.FAILED
    assert "ok    certificate" in said.out
    assert re.search("^fail  succession +the node in .* is not running", said.out, re.MULTILINE)
    assert remains(drilled.paths) == []


@pytest.mark.faults
def test_a_refusal_of_the_node_fails_the_drill_in_its_words(
    node: FakeConsole, certmesh: Certmesh
) -> None:
    """A member cannot answer, and says who can."""
    node.refuse(*LIST, NotPrimaryError("this node holds no key", hint="ask atlas"), 503)
    said = certmesh("drill", "primary-loss", "--json")
    assert (said.status, said.body["verdict"], said.body["heir"]) == (Exit.FAILED, "fail", None)
    assert said.body["steps"][-1]["hint"] == "ask atlas"


def test_a_home_without_mesh_is_status_six(paths: Paths, certmesh: Certmesh) -> None:
    """There is nothing to lose yet."""
    assert paths.settings.exists()
    said = certmesh("drill", "primary-loss")
    assert said.status == Exit.NO_MESH
    assert "init NAME" in said.err


@pytest.mark.faults
def test_copies_are_gone_even_when_the_rehearsal_is_killed(drilled: DrillMesh) -> None:
    """Nothing can clean up after its own SIGKILL, so whoever started it does."""
    drilled.paths.membership.unlink()
    os.mkfifo(drilled.paths.membership)  # reading it waits for a writer: the copies stand still
    words = (*COMMAND, "--home", str(drilled.paths.home), "drill", "primary-loss")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
        try:
            eventually(lambda: list((drilled.paths.home / "tmp").glob("*/*")), 20)
        finally:
            for rehearsal in children_of(command.pid):
                os.kill(rehearsal, signal.SIGKILL)
        out, err = command.communicate(timeout=20)
    assert (command.returncode, out) == (Exit.FAILED, b"")
    assert b"ended with status -9 and no answer" in err
    assert remains(drilled.paths) == []


def children_of(pid: int) -> set[int]:
    """Return the pids of a process's children."""
    assert pid in child_pids()
    return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
