"""What a takeover was: who, when, why, and on what evidence."""

import re
from dataclasses import dataclass

from broker.clock import boottime_ms
from tests.lab.mesh import GRACE_S, TICK_S, Mesh
from tests.support import eventually

NOISE_S = 4.0
"""What a machine that is busy with other tests may add to any wait."""
FOLLOW_S = 4 * TICK_S + NOISE_S
"""In this time members have heard of another primary."""
RETURN_S = 40.0
SUSPECT_S = 3 * TICK_S
_SILENT = re.compile(r"for (\d+\.\d) s")


@dataclass(frozen=True, slots=True)
class Takeover:
    """The first row of a term, and how long it took since the fault to serve in it."""

    heir: str
    term: int
    took_s: float
    cause: str
    evidence: str

    @property
    def silent_s(self) -> float:
        """For how long the heir had heard no new beat when it decided."""
        found = _SILENT.search(self.evidence)
        return float(found[1]) if found else 0.0

    @property
    def is_due(self) -> bool:
        """Whether it came for silence, not before the grace period and soon enough after it."""
        return (
            self.cause == "silence"
            and self.silent_s >= GRACE_S
            and self.took_s < GRACE_S + SUSPECT_S + NOISE_S
        )


def taken_over(mesh: Mesh, heir: str, since_ms: int, within_s: float = 20.0) -> Takeover:
    """Wait until a node serves; return how that came about."""
    eventually(lambda: mesh.phase(heir) in ("serving", "caretaking"), within_s)
    took_s = (boottime_ms() - since_ms) / 1000
    row = mesh.journal(heir, "failover.promoted")[-1]
    fields = row.fields
    found = Takeover(heir, row.term, took_s, str(fields["cause"]), str(fields["evidence"]))
    assert fields["host"] == heir
    return found


def renewed(mesh: Mesh, name: str, at: str) -> bool:
    """Renew a node's certificate; whether its primary issued it and the roster says so."""
    before = mesh.serial(name, on=at)
    mesh.host(name).certmesh("cert", "renew")
    return bool(eventually(lambda: mesh.serial(name, on=at) != before, FOLLOW_S))


def follow(mesh: Mesh, leader: str, *names: str) -> bool:
    """Whether these nodes follow a leader.

    Raises:
        AssertionError: One of them does not; it says whom each of them follows.
    """
    led_by = {name: mesh.leader(name) for name in names}
    assert set(led_by.values()) == {leader}, led_by
    return True


def agree(mesh: Mesh, *names: str) -> bool:
    """Whether all of these nodes name the same one of them as their primary.

    Raises:
        AssertionError: They do not; it says whom each of them names.
    """
    led_by = {name: mesh.leader(name) for name in names}
    assert len(set(led_by.values())) == 1, led_by
    assert set(led_by.values()) <= set(names), led_by
    return True
