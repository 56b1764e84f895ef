"""What renewal decides, on plain values.

A certificate counts as renewed when its hooks succeeded and the probed ports serve it. Anything
less goes back to the last good pair, if there is one and the settings allow it, and is reported as
what it is until it is mended.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import msgspec

from broker.errors import NotPrimaryError
from broker.wire.console_api import HookRun
from broker.wire.ids import Hex, ServedState, Text, UnixSeconds
from broker.wire.node import Endpoint
from broker.wire.work import Install, Rekey, RenewOwn, RunHooks

HookEvent = Literal["issued", "renewed"]
"""What brings a certificate into service; `RunHooks` knows more."""

ROUND_MS_MAX = 5000
"""A restarted broker knows of this node's certificate only what the next round tells it."""

AFTER_FAILURE_MS = 1000
"""Own renewals that fail are never tried faster than this, whatever the broker hands out."""

PENDING_REUSE_S = 600
"""A waiting key younger than this serves a retry, so that the CA can repeat its answer."""

OUTPUT_BYTES_KEPT = 4096
RUNS_KEPT = 500
DETAIL_LENGTH_MAX = 1024
LINE_LENGTH_MAX = 200


class DeliveryRecord(msgspec.Struct, frozen=True):
    """How the last delivery ended; kept beside the versions so that it survives the process."""

    serial: Hex
    state: ServedState
    detail: Text = ""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a port served: `found` is its serial, empty when nothing answered.

    `stranger` tells whose certificate it was when it is not one for this node.
    """

    target: str
    found: str
    wanted: str
    stranger: str = ""

    @property
    def served(self) -> bool:
        """Whether the port serves the wanted certificate."""
        return self.found == self.wanted


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a certificate, and whether to go back to the one before."""

    state: ServedState
    detail: str
    roll_back: bool


def judge(
    failures: Sequence[HookRun], probes: Sequence[ProbeResult], *, may_roll_back: bool
) -> Verdict:
    """Return the verdict on a certificate after its hooks and probes.

    Args:
        failures: Hooks that failed, retries included.
        probes: Results of all configured probes; empty when none is configured.
        may_roll_back: There is a good earlier pair, and the settings allow going back.
    """
    if failures:
        return Verdict("failed", "; ".join(map(failure_text, failures)), may_roll_back)
    missed = [probe for probe in probes if not probe.served]
    if missed:
        return Verdict("stale", "; ".join(map(stale_text, missed)), may_roll_back)
    return Verdict("served" if probes else "installed", "", roll_back=False)


def failure_text(run: HookRun) -> str:
    """Return one line about a failed hook."""
    reason = "timed out" if run.timed_out else f"exit {run.exit}"
    lines = [line for line in run.output.splitlines() if line.strip()]
    last = f': "{printable(lines[-1].strip()[:LINE_LENGTH_MAX])}"' if lines else ""
    return f"hook {run.hook} {reason}{last}"


def printable(text: str) -> str:
    """Return foreign text without what could move a cursor or forge a line."""
    return "".join(c if c.isprintable() else "?" for c in text)


def stale_text(probe: ProbeResult) -> str:
    """Return one line about a port that does not serve what it should."""
    if not probe.found:
        return f"{probe.target} does not answer"
    if probe.stranger:
        return f"{probe.target} serves another certificate: {probe.stranger}"
    return f"{probe.target} still serves {probe.found[:16]}"


def event_of(before: object | None) -> HookEvent:
    """Return the event of an installation: the first certificate is issued, later ones renewed."""
    return "issued" if before is None else "renewed"


def next_round_ms(answered_ms: int, check_every_ms: int) -> int:
    """Return when to look again: as the broker says, within the settings and five seconds."""
    return max(0, min(answered_ms, check_every_ms, ROUND_MS_MAX))


MORE_DOORS = 2
"""With the old key: one door that another one names, and a mesh door after all."""


def lease_ms(item: RenewOwn | Rekey | Install | RunHooks, delivery_ms: int, call_ms: int) -> int:
    """Return how long the lease of `item` must last from the start of the work.

    Args:
        item: The work.
        delivery_ms: Longest time that hooks and probes of this node take.
        call_ms: Longest time of one call to another node.
    """
    match item:
        case RenewOwn():
            doors = len(item.doors) + MORE_DOORS if item.by_old_key else 0
            return (2 + doors) * call_ms + delivery_ms
        case Install():
            return call_ms + delivery_ms
        case RunHooks():
            return delivery_ms
        case Rekey():
            return call_ms


def issuer_of(item: RenewOwn) -> Endpoint | None:
    """Return whom to ask for this node's own certificate; None means the local broker.

    Raises:
        NotPrimaryError: It is not known who the primary is.
    """
    if item.via_broker:
        return None
    if item.primary is None:
        raise NotPrimaryError(
            "the primary of the mesh is not known", hint="see `certmesh peers` on this node"
        )
    return item.primary


def own_detail(verdict: Verdict, rolled_back_to: str, trouble: str) -> str:
    """Return the sentence that operators read about a delivery."""
    parts = [verdict.detail]
    if rolled_back_to:
        parts.append(f"rolled back to {rolled_back_to[:16]}")
    parts.append(trouble)
    return "; ".join(part for part in parts if part)[:DETAIL_LENGTH_MAX]


def end_of(output: bytes) -> str:
    """Return the last part of a hook's output as text."""
    return output[-OUTPUT_BYTES_KEPT:].decode(errors="replace")


def newest_runs(lines: Sequence[bytes], added: bytes) -> list[bytes]:
    """Return the lines of the run log with one more, the oldest ones dropped."""
    return [*lines, added][-RUNS_KEPT:]


def rfc3339(moment: UnixSeconds) -> str:
    """Return wall time as text, in UTC."""
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
