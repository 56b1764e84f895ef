"""A stop while a hook runs: it gets a moment, is ended, and is run again at the next start."""

import threading
from pathlib import Path

import pytest
from typing_extensions import override

from broker.clock import boottime_ms
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from tests.support import eventually
from tests.workers.small_ca import SmallCA
from tests.workers.test_hook import is_alive, program
from tests.workers.test_redelivery import delivery, hook, install, live
from workers.renewal.delivery import Delivery
from workers.renewal.hook import STOP_MS, HookOrder, PlainPause, run_program
from workers.renewal.hookset import HookSet
from workers.renewal.patience import StoppedError
from workers.renewal.probe import Prober, Seen
from workers.renewal.runlog import RunLog

STUBBORN = "trap '' TERM; echo $$ > {pid}; echo begun; while :; do sleep 1; done"


class StopPause(PlainPause):
    """Waits a little at a time; a stop comes once `when` is there."""

    def __init__(self, when: Path) -> None:
        self._when = when

    @override
    def wait(self, wait_ms: int, *descriptors: int) -> None:
        """Wait at most a moment, so that a stop is seen."""
        super().wait(min(wait_ms, 20), *descriptors)

    @override
    def stopping(self) -> bool:
        """Return whether the file is there."""
        return self._when.exists()


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """One CA is enough for all tests here."""
    return SmallCA()


def stopped_by(paths: Paths, settings: Settings, when: Path) -> Delivery:
    """Return what delivers for `nas` until the file `when` asks it to stop."""
    found, pause = delivery(paths, settings), StopPause(when)
    found.hooks = HookSet(paths, settings, pause)
    found.prober = Prober(pause, look=lambda *_: Seen("other"))
    return found


def test_a_hook_that_ignores_the_stop_is_ended_soon_and_that_is_no_timeout(tmp_path: Path) -> None:
    """Whoever stops a node waits for seconds, not for what a service takes to restart (row 3)."""
    pid = tmp_path / "pid"
    order = HookOrder("slow", (program(tmp_path, STUBBORN.format(pid=pid)),), 60_000)
    began_ms = boottime_ms()
    ended = run_program(order, {}, StopPause(pid))
    assert (ended.cut_short, ended.timed_out, ended.exit) == (True, False, -9)
    assert STOP_MS <= boottime_ms() - began_ms < STOP_MS + 20_000
    assert ended.output == "begun\n"
    eventually(lambda: not is_alive(int(pid.read_text())))


def test_a_hook_that_ends_in_time_is_not_cut_short(tmp_path: Path) -> None:
    """The moment it gets is there to be used."""
    pid = tmp_path / "pid"
    order = HookOrder("quick", (program(tmp_path, f"touch {pid}; sleep 0.3; echo done"),), 60_000)
    ended = run_program(order, {}, StopPause(pid))
    assert (ended.cut_short, ended.exit, ended.output) == (False, 0, "done\n")


def test_its_own_limit_still_counts_during_a_stop(tmp_path: Path) -> None:
    """A stop never gives a hook more time than it had."""
    pid = tmp_path / "pid"
    order = HookOrder("slow", (program(tmp_path, STUBBORN.format(pid=pid)),), 200)
    ended = run_program(order, {}, StopPause(pid))
    assert (ended.cut_short, ended.timed_out) == (False, True)
    assert ended.took_ms < STOP_MS


def test_a_delivery_that_a_stop_cut_short_is_no_failure_and_is_finished_by_the_next_worker(
    paths: Paths, settings: Settings, ca: SmallCA
) -> None:
    """No rollback for a service that was only slow: its hooks run again (row 3)."""
    install(delivery(paths, settings), ca)
    began = paths.home / "began"
    hook(paths, "trap '' TERM; touch began; test -e mended || while :; do sleep 1; done")
    with pytest.raises(StoppedError):
        install(stopped_by(paths, settings, began), ca)
    assert RunLog(paths).runs()[-1].cut_short
    next_one = delivery(paths, settings)
    assert live(next_one) == "v0002"
    earlier = next_one.store.version("v0001")
    assert earlier is not None
    assert next_one.report().serial == earlier.serial

    (paths.home / "mended").touch()
    next_one.settle()
    assert not RunLog(paths).runs()[-1].failed
    assert live(next_one) == "v0002"
    now_live = next_one.store.live()
    assert now_live is not None
    assert (next_one.report().serial, next_one.report().state) == (now_live.serial, "installed")


def test_no_hook_is_begun_once_a_stop_was_asked(
    paths: Paths, settings: Settings, ca: SmallCA
) -> None:
    """A row of hooks would else take the row's time; each is run at the next start."""
    asked = paths.home / "asked"
    asked.touch()
    hook(paths, "touch began")
    with pytest.raises(StoppedError):
        install(stopped_by(paths, settings, asked), ca)
    assert not (paths.home / "began").exists()
    delivery(paths, settings).settle()
    assert (paths.home / "began").exists()


def test_a_stop_in_the_hooks_of_a_rollback_runs_them_again_at_the_next_start(
    paths: Paths, settings: Settings, ca: SmallCA
) -> None:
    """The service may have taken the certificate that is live no more."""
    install(delivery(paths, settings), ca)
    again = paths.home / "again"
    hook(
        paths,
        "test -e mended && touch settled && exit 0; "
        f"test $(readlink $CERTMESH_LIVE_DIR) = v0001 || exit 1; touch {again}; sleep 60",
    )
    with pytest.raises(StoppedError):
        install(stopped_by(paths, settings, again), ca)
    next_one = delivery(paths, settings)
    assert live(next_one) == "v0001"
    (paths.home / "mended").touch()
    next_one.settle()
    assert (paths.home / "settled").exists()


def test_a_stop_ends_the_wait_for_a_port_that_serves_an_old_certificate(tmp_path: Path) -> None:
    """A reload may take ten seconds; a stop does not wait for it."""
    asked = tmp_path / "asked"
    prober = Prober(StopPause(asked), look=lambda *_: Seen("other"))
    timer = threading.Timer(0.2, asked.touch)
    timer.start()
    with pytest.raises(StoppedError):
        prober.probe(("127.0.0.1:1",), "1", "nas.mesh.internal")
    timer.join()
