"""When `certmesh up` is content: with the processes of this machine, and only those."""

from pathlib import Path
from typing import Any, cast

from broker.cli.readiness import look
from broker.cli.supervisor import Program
from broker.runtime.settings import Settings
from broker.wire.node import NodeView, WorkersView, WorkerView

RENEWAL = Program("renewal-0", "renewal", "RUNNING", 7, 0, "", Path("renewal-0.log"))


class Table:
    """A supervisor with one running program."""

    def programs(self) -> tuple[Program, ...]:
        """Return its table."""
        return (RENEWAL,)

    def waits_ms(self, program: Program) -> int:
        """Return for how long a program is held back: not at all."""
        del program
        return 0


class Answers:
    """A console that knows this node and some workers."""

    def __init__(self, *workers: WorkerView) -> None:
        self._workers = workers

    def get(self, path: str, _kind: type) -> object:
        """Return what the console says at `path`."""
        if path == "/v1/node":
            return NodeView("atlas", "none", "absent", 0, 0, 0, None)
        return WorkersView(self._workers, 1, 1)


def worker(instance: str, liveness: str) -> WorkerView:
    """Return a line of the process table."""
    return WorkerView(instance, "renewal", 7, liveness, "RUNNING", 0, "", None, "", None, 0)


def missing(*workers: WorkerView) -> str:
    """Return what a look finds missing."""
    found = look(cast("Any", Table()), cast("Any", Answers(*workers)), Settings())
    return found.missing


def test_a_process_of_this_machine_has_to_greet_the_broker() -> None:
    """Started is not ready."""
    assert missing(worker("renewal-0", "ready")) == ""
    assert "renewal-0" in missing(worker("renewal-0", "dead"))


def test_a_worker_of_another_machine_is_not_waited_for() -> None:
    """It may be asleep, and `certmesh up` here would never end."""
    assert missing(worker("renewal-0", "ready"), worker("nas/remote-renewal-0", "dead")) == ""
