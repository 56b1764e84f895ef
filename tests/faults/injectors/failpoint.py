"""The broker, killed at a named point of its loop, its commit or its files.

The nodes must have been created with `environment(directory)` for their processes; every node needs
a directory of its own.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from random import Random

from tests.faults.harness.injector import Harm, Injector
from tests.faults.inside.failpoints import BROKER, VARIABLE
from tests.faults.pool import Pool

ROOT = Path(__file__).parents[3]
INSIDE = ROOT / "tests" / "faults" / "inside"
NTH_MAX = 15
POINTS = tuple(
    f"{name}.{moment}" for name, _module, _path in BROKER for moment in ("before", "after")
)
"""Every named point of a broker."""


def inside_environment(control: Path) -> dict[str, str]:
    """Return what a process needs to obey the control file."""
    return {"PYTHONPATH": f"{INSIDE}{os.pathsep}{ROOT}", VARIABLE: str(control)}


def environment(directory: Path) -> dict[str, str]:
    """Return what the processes of one node need; `directory` outlives them."""
    return inside_environment(directory / "failpoint")


def arm(control: Path, point: str, nth: int = 1) -> None:
    """Let the process die at the nth time it comes by `point`, counted from now."""
    staged = control.with_suffix(".new")
    staged.write_text(f"{point} {nth}")
    staged.replace(control)


class BrokerDiesAtAPoint:
    """Arms a random point of one broker; it dies there once, as often as it likes to start."""

    name = "failpoint"
    weight = 3
    settles_s = 30.0

    def fits(self, nodes: Sequence[Pool]) -> bool:
        """Return whether some node was created with failpoints inside."""
        return any(VARIABLE in node.environment for node in nodes)

    def harm(self, nodes: Sequence[Pool], chance: Random) -> Harm:
        """Arm one broker; it may not come by the point before it is healed."""
        node = chance.choice([node for node in nodes if VARIABLE in node.environment])
        control = Path(node.environment[VARIABLE])
        point, nth = chance.choice(POINTS), chance.randint(1, NTH_MAX)
        arm(control, point, nth)

        def heal() -> None:
            control.unlink(missing_ok=True)

        return Harm(f"broker of {node.name} dies at the {nth}. {point}", heal)


INJECTORS: tuple[Injector, ...] = (BrokerDiesAtAPoint(),)
