"""Processes of different releases meet on one node, as they do in the middle of an upgrade.

Within one wire version they work together. Between two they part with a word that says why, and
each starts again from the release on disk.
"""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.client.link import Link
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths, node_paths
from broker.runtime.settings import load_settings
from broker.shell.create import create_mesh
from broker.wire.ids import Service
from broker.wire.node import GetNode, GetStatus, NodeView, StatusView
from tests.creation import wished
from tests.faults.pool import Pool
from tests.faults.skew import trees
from tests.support import eventually

PORT = 33010
SETTINGS = """
[node]
name = "atlas"
addresses = ["127.0.0.1"]
[listen]
enroll = "127.0.0.1:33000"
mesh = "127.0.0.1:33001"
[ca]
kdf_memory = 8388608
kdf_passes = 1
[discovery]
mdns = false
[broker]
worker_dead_after = "60s"
"""
ONCE = ("renewal", "gateway")
WORDS_MS = 20_000
pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The code of every release, this one under its own name."""
    made = {"present": trees.ROOT}
    for name in trees.RELEASES:
        made[name] = trees.turn(trees.copied(tmp_path_factory.mktemp(name)), name)
    return made


@pytest.fixture
def node(home: Path) -> Paths:
    """A node with a mesh and no process."""
    (home / "certmesh.toml").write_text(SETTINGS)
    settings = load_settings(home / "certmesh.toml")
    paths = node_paths(home / "certmesh.toml", settings)
    create_mesh(
        settings, paths, wished("home", "thickness islamic barman banknote", settings=settings)
    )
    return paths


@contextlib.contextmanager
def running(node: Paths, tree: Path, module: str, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a process of the release in `tree`; its words can be read once it has ended."""
    process = subprocess.Popen(
        trees.command(module, str(node.settings), *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tree,
        env=trees.around(tree),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    words, _ = process.communicate(timeout=90)
    return process.returncode, words


@pytest.mark.parametrize("release", ["older", "newer"])
@pytest.mark.parametrize("side", ["broker", "workers"])
def test_processes_with_other_fields_work_together(
    node: Paths, releases: dict[str, Path], release: str, side: str
) -> None:
    """A field that one side lacks must cost nothing: an upgrade replaces one process at a time.

    (row 54)
    """
    broker_tree = releases[release if side == "broker" else "present"]
    worker_tree = releases[release if side == "workers" else "present"]
    with running(node, broker_tree, "broker", "--foreground") as broker:
        with Link(node, Service.CONSOLE, "console-test") as console:
            assert console.ask(GetNode(), NodeView, timeout_ms=WORDS_MS).role == "primary"
        for name in ONCE:
            with running(node, worker_tree, f"workers.{name}", "--once") as worker:
                status, words = _ended(worker)
            assert status == Exit.OK, (name, words)
        assert broker.poll() is None


def test_a_request_that_the_broker_does_not_know_is_refused_by_its_name(
    node: Paths, releases: dict[str, Path]
) -> None:
    """Not a crash of either side, and not a silence: the log says which side is to be updated.

    (row 54)
    """
    with running(node, releases["present"], "broker", "--foreground") as broker:
        with running(node, releases["newer"], "workers.failover", "--once") as worker:
            status, words = _ended(worker)
        assert status == Exit.FAILED
        assert "get-weather" in words
        assert "Traceback" not in words
        assert broker.poll() is None
        with running(node, releases["present"], "workers.failover", "--once") as worker:
            assert _ended(worker)[0] == Exit.OK


@pytest.mark.parametrize(
    ("module", "release"), [("workers.heartbeat", "next"), ("workers.gateway", "present")]
)
def test_a_process_of_another_wire_version_says_so_and_leaves_for_its_supervisor(
    node: Paths, releases: dict[str, Path], module: str, release: str
) -> None:
    """What waits for a broker of its own version would wait for ever; what is started again is new.

    (row 54)
    """
    other = "present" if release == "next" else "next"
    with running(node, releases[other], "broker", "--foreground") as broker:
        with running(node, releases[release], module, "--foreground") as worker:
            status, words = _ended(worker)
        assert status == Exit.TEMPORARY, words
        assert "the broker is of another release" in words
        assert "Traceback" not in words
        assert broker.poll() is None


def test_status_names_the_process_of_another_release_until_it_is_a_good_one(
    node: Paths, releases: dict[str, Path]
) -> None:
    """Whoever upgrades must see what did not come along (row 54)."""
    with (
        running(node, releases["present"], "broker", "--foreground"),
        Link(node, Service.CONSOLE, "console-test") as console,
    ):
        console.introduce(timeout_ms=WORDS_MS)

        def says() -> bool:
            view = console.ask(GetStatus(), StatusView, timeout_ms=WORDS_MS)
            return any("heartbeat" in text and "another release" in text for text in view.warnings)

        assert not says()
        with running(node, releases["next"], "workers.heartbeat", "--foreground") as worker:
            eventually(says, within_s=60)
            assert _ended(worker)[0] == Exit.TEMPORARY
        eventually(lambda: not says(), within_s=60)


@pytest.mark.mesh
def test_a_node_whose_release_is_replaced_process_by_process_comes_through(tmp_path: Path) -> None:
    """New code on disk and one restart of the broker: everything else follows by itself.

    (row 54)
    """
    tree = trees.copied(tmp_path)
    pool = Pool.create(PORT, environment=trees.environment(tree))
    try:
        pool.certmesh("up")
        eventually(pool.is_ok, within_s=60)
        before = pool.pids()
        trees.turn(tree, "next")
        pool.supervisorctl("restart", "broker")
        eventually(lambda: not set(before.values()) & set(pool.pids().values()), within_s=90)
        eventually(lambda: len(pool.pids()) == len(before) and pool.is_ok(), within_s=90)
        assert "FATAL" not in pool.log("watchdog")
    finally:
        pool.remove()
