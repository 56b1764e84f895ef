"""Seeds one after the other on meshes of one lane; a lane is a process with ports of its own."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from broker.clock import boottime_ms
from tests.faults.harness.injector import Injector
from tests.faults.harness.mesh import Mesh
from tests.faults.harness.report import failure_of, line_of
from tests.faults.harness.run import Life, Seed, Verdict
from tests.faults.harness.schedule import BLOCK, Choice, Plan, draw
from tests.faults.injectors.catalogue import all_injectors, environment

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Lane:
    """Where and how seeds are played.

    Attributes:
        port: Enrol port of its meshes; the next one is used too.
        ends_ms: On the boot clock; no seed begins later. 0 for no end.
        keep: Whether the homes of failed seeds stay, stopped.
        patience: Factor on every bound.
        nodes: Nodes of every mesh, 0 for what the seed says.
        only: Names of injectors, all when empty.
    """

    port: int
    ends_ms: int = 0
    keep: bool = False
    patience: float = 1.0
    nodes: int = 0
    only: tuple[str, ...] = ()

    def play(self, seeds: Sequence[int], say: Say) -> Iterator[Verdict]:
        """Play seeds and yield what became of each; after a failed one comes a fresh mesh."""
        injectors = {found.name: found for found in all_injectors() if self._wants(found.name)}
        choices = [Choice(found.name, found.weight) for found in injectors.values()]
        plans = (draw(seed, choices, self.nodes) for seed in seeds)
        stage = Stage(self.port)
        try:
            for plan in plans:
                if self.ends_ms and boottime_ms() > self.ends_ms:
                    return
                yield self.play_plan(plan, stage, injectors, say)
        finally:
            stage.clear()

    def play_plan(
        self, plan: Plan, stage: "Stage", injectors: Mapping[str, Injector], say: Say
    ) -> Verdict:
        """Play one plan on a stage and say what became of it."""
        try:
            life = stage.life_for(plan.size)
        except Exception as error:  # noqa: BLE001 (the next seed may have more luck)
            verdict = Verdict(plan, wrong=[f"no mesh could be founded: {error}"])
            for line in (line_of(verdict), f"  WRONG    {verdict.wrong[0]}"):
                say(line)
            return verdict
        before = len(life.record.all())
        verdict = Seed(plan, life, injectors, self.patience).play()
        say(line_of(verdict))
        if verdict.wrong:
            for line in failure_of(verdict, life.record.since(before), life.mesh.nodes):
                say(line)
            if self.keep:
                stage.leave(say)
            stage.clear()
        return verdict

    def _wants(self, name: str) -> bool:
        return not self.only or name in self.only


class Stage:
    """The mesh of a lane, made anew when it is worn."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._life: Life | None = None
        self._inside: TemporaryDirectory[str] | None = None

    def life_for(self, size: int) -> Life:
        """Return a content mesh of this size, with what was promised in it so far."""
        life = self._life
        if life is not None and (life.seeds >= BLOCK or len(life.mesh.nodes) != size):
            self.clear()
        if self._life is None:
            self._inside = TemporaryDirectory(prefix="cmi-", dir="/tmp")
            self._life = Life(Mesh.found(size, self._port, inside=self._environment))
        return self._life

    def clear(self) -> None:
        """Remove the mesh and what its injectors kept."""
        if self._life is not None:
            self._life.mesh.remove()
        if self._inside is not None:
            self._inside.cleanup()
        self._life = self._inside = None

    def leave(self, say: Say) -> None:
        """Stop the mesh and forget it: its homes stay for whoever looks."""
        assert self._life is not None
        for node in self._life.mesh.nodes:
            say(f"  kept     {node.home} (stopped)")
            with contextlib.suppress(AssertionError):
                node.cut_power()
            for wire in node.wires:
                wire.close()
        self._life = None

    def _environment(self, name: str) -> dict[str, str]:
        assert self._inside is not None
        directory = Path(self._inside.name) / name
        directory.mkdir()
        return environment(directory)


def play_all(lane: Lane, seeds: Sequence[int]) -> list[Verdict]:
    """Play seeds in a process of their own; return what became of them."""
    leave_in_order()
    return list(lane.play(seeds, say))


def leave_in_order() -> None:
    """Let SIGTERM end this process as Ctrl-C does: no mesh is left running."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def say(line: str) -> None:
    """Print a line at once: lanes share the terminal."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
