"""A pool whose processes can be made to die by bugs, and what `certmesh ps` says of them."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.pool import Pool
from tests.support import eventually

INJECTED = Path(__file__).parent / "dying"


@dataclass(frozen=True)
class Sick:
    """A node, and the directory that says who dies."""

    pool: Pool
    directory: Path

    @classmethod
    def create(cls, port: int, *more: str) -> "Sick":
        """Create a node that is healthy at first."""
        directory = Path(tempfile.mkdtemp(prefix="cmf-dying-", dir="/tmp"))
        environment = {"PYTHONPATH": str(INJECTED), "DYING_DIRECTORY": str(directory)}
        return cls(Pool.create(port, *more, environment=environment), directory)

    def infect(self, program: str, life_s: float) -> None:
        """Let each process of this program live that long, from its next start."""
        (self.directory / program).write_text(str(life_s))

    def starve(self, program: str, address_space_mib: int) -> None:
        """Let the next process of this program run out of memory, once."""
        (self.directory / f"{program}.hog").write_text(str(address_space_mib))

    def heal(self) -> None:
        """Let everybody live."""
        for path in self.directory.iterdir():
            path.unlink()

    def row(self, program: str) -> dict[str, Any]:
        """Return what `certmesh ps` says of one process."""
        table = self.table()
        if program == "broker":
            return dict(table["broker"] or {})
        return next(line for line in table["workers"] if line["instance"] == program)

    def table(self) -> dict[str, Any]:
        """Return what `certmesh ps` says, whatever its exit status."""
        done = self.pool.run("ps")
        found: dict[str, Any] = json.loads(done.stdout)
        assert "workers" in found, (done.stdout, done.stderr)
        return {**found, "status": done.returncode}

    def starts(self, program: str) -> int:
        """Return how often supervisord has started a program."""
        return self.pool.log("supervisord").count(f"spawned: '{program}'")

    def settle(self) -> None:
        """Wait until the node is content."""
        eventually(self.pool.is_ok, within_s=60)

    def remove(self) -> None:
        """Leave nothing."""
        self.heal()
        self.pool.remove()
        self.directory.rmdir()
