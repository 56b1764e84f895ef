"""Replacing the CA with overlap: the phases, who holds a step back, and which root may be pinned.

    none --start--> trusting --finish--> switched --retire--> none
    trusting --abort--> none

`next` is trusted before it signs, and the retired CA is trusted until nobody shows a certificate of
it. Trust moves to younger roots only: during the overlap the old CA still speaks for the mesh, but
whoever stole its key cannot lead a node that has moved on back to it.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from broker.core.adoption import Orphan
from broker.errors import ConflictError
from broker.units import UnixSeconds
from broker.wire.facts import MergeConflict, RolloverFinished, RolloverStarted
from broker.wire.ids import Host
from broker.wire.rollover import Phase

LIVE_S_MIN = 60
"""A member that said nothing for this long is away, however often it is to say something."""
BEATS_MISSED = 3
LISTED_MAX = 200
NAMED_MAX = 10
"""Hosts that a refusal names; the status lists all of them."""


class Step(StrEnum):
    """What moves a rollover from one phase to the next."""

    START = "start"
    FINISH = "finish"
    ABORT = "abort"
    RETIRE = "retire"


MOVES: dict[tuple[Phase, Step], Phase] = {
    ("none", Step.START): "trusting",
    ("trusting", Step.FINISH): "switched",
    ("trusting", Step.ABORT): "none",
    ("switched", Step.RETIRE): "none",
}
"""Every legal move; any other is refused and changes nothing."""

_REFUSALS: dict[tuple[Phase, Step], tuple[str, str]] = {
    ("trusting", Step.START): (
        "a rollover is under way already",
        "certmesh ca rollover status shows how far it is; finish or abort it",
    ),
    ("switched", Step.START): (
        "the last rollover is not over: members still show certificates of the old CA",
        "certmesh ca rollover status names them; renew or revoke them first",
    ),
    ("switched", Step.FINISH): (
        "the next CA signs already",
        "the old one retires by itself: certmesh ca rollover status",
    ),
    ("switched", Step.ABORT): (
        "the next CA signs already, certificates of it are in use",
        "a further rollover replaces it: wait until this one is over",
    ),
}
_NOTHING = ("no rollover is under way", "certmesh ca rollover start")


def next_phase(phase: Phase, step: Step) -> Phase:
    """Return the phase after a step.

    Raises:
        ConflictError: The step is not possible now; the hint says what is.
    """
    found = MOVES.get((phase, step))
    if found is None:
        detail, hint = _REFUSALS.get((phase, step), _NOTHING)
        raise ConflictError(detail, hint=hint)
    return found


@dataclass(frozen=True, slots=True)
class MemberTrust:
    """What a primary knows of one member during a rollover.

    Attributes:
        host: Its name.
        heard_at: When it last said something; None for never.
        ready: It trusts the next root, in its services too; after the switch: it shows no
            certificate of the old CA.
    """

    host: Host
    heard_at: UnixSeconds | None
    ready: bool


@dataclass(frozen=True, slots=True)
class Survey:
    """All members, sorted by what they mean for the next step; names are in order."""

    ready: int
    lacking: tuple[Host, ...]
    away: tuple[Host, ...]

    @property
    def members(self) -> int:
        """How many there are."""
        return self.ready + len(self.lacking) + len(self.away)


def live_s(next_beat_ms: int) -> int:
    """Return how long a member counts as live after its last word, in seconds."""
    return max(LIVE_S_MIN, BEATS_MISSED * next_beat_ms // 1000)


def survey(members: Iterable[MemberTrust], now: UnixSeconds, live_for_s: int) -> Survey:
    """Return who is ready, who is live and is not, and who is away and is not."""
    ready, lacking, away = 0, [], []
    for member in members:
        if member.ready:
            ready += 1
        elif member.heard_at is not None and now - member.heard_at <= live_for_s:
            lacking.append(member.host)
        else:
            away.append(member.host)
    return Survey(ready, tuple(sorted(lacking)), tuple(sorted(away)))


def check_finish(found: Survey, standbys_lacking: tuple[Host, ...]) -> None:
    """Refuse a switch that would shut somebody out who is here.

    Members that are away do not hold it back: they come by the new root with the last words of the
    old CA. A standby does, away or not: it could have to lead with a key that it lacks.

    Raises:
        ConflictError: Names who lacks what.
    """
    parts = []
    if found.lacking:
        parts.append(f"{_named(found.lacking)} {_do(found.lacking)} not trust the next root yet")
    if standbys_lacking:
        lacks = "lacks" if len(standbys_lacking) == 1 else "lack"
        parts.append(f"standby {_named(standbys_lacking)} {lacks} the next key")
    if parts:
        raise ConflictError(
            "; ".join(parts),
            hint="wait and try again; what is gone for good: certmesh member revoke HOST, "
            "certmesh standby remove HOST",
        )


def _named(hosts: tuple[Host, ...]) -> str:
    more = len(hosts) - NAMED_MAX
    return ", ".join(hosts[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def _do(hosts: tuple[Host, ...]) -> str:
    return "does" if len(hosts) == 1 else "do"


@dataclass(frozen=True, slots=True)
class Anchors:
    """The roots a node trusts, DER: the pinned one and those besides it."""

    pinned: bytes
    others: tuple[bytes, ...] = ()

    @property
    def all(self) -> tuple[bytes, ...]:
        """The pinned root first."""
        return (self.pinned, *self.others)


def follow(held: Anchors, told: Anchors, is_younger: Callable[[bytes, bytes], bool]) -> Anchors:
    """Return what a node trusts after a believed bundle said what to trust.

    Args:
        held: What it trusts now.
        told: What the bundle says; its pinned root is one of those held.
        is_younger: Whether the first root begins to be valid after the second.

    A bundle under a root that this node has left says nothing about trust: it is signed by a CA
    that is on its way out, or by whoever has stolen its key.
    """
    if told.pinned != held.pinned and not is_younger(told.pinned, held.pinned):
        return held
    return told


def is_behind(chain: tuple[str, ...], trusted: tuple[str, ...], left: frozenset[str]) -> bool:
    """Return whether a certificate on disk is not what it should be under the present trust.

    Args:
        chain: Pins of the roots in its chain file, that of the certificate itself first; empty
            when nobody said.
        trusted: Pins of the roots that the node trusts.
        left: Those of them that are older than the pinned one: on their way out.
    """
    if not chain:
        return False
    return frozenset(chain) != frozenset(trusted) or chain[0] in left


def conflicts(
    orphans: Iterable[Orphan], phase_of: Callable[[str], str | None], open_pin: str
) -> Iterator[MergeConflict]:
    """Yield what a person should know of rollover steps that came home and do not fit.

    Args:
        orphans: Facts of another primary's journal that are not in this one yet.
        phase_of: Phase of the rollover to the CA of that pin, None when there is none.
        open_pin: The CA that the open rollover here leads to, empty without one.
    """
    coming = open_pin
    for orphan in orphans:
        fact = orphan.fact
        if isinstance(fact, RolloverStarted):
            if coming and coming != fact.pin:
                yield _conflict(orphan, fact.pin, "rollover", f"CA {coming[:16]} is to be next")
            coming = coming or fact.pin
        elif isinstance(fact, RolloverFinished) and fact.pin != coming:
            phase = phase_of(fact.pin) or "never started here"
            if phase not in {"switched", "retired"}:
                yield _conflict(orphan, fact.pin, "rollover", f"here: {phase}")


def _conflict(orphan: Orphan, subject: str, rule: str, kept: str) -> MergeConflict:
    origin = orphan.origin
    digest = hashlib.sha256(f"{rule}\0{subject}\0{origin.hash}".encode()).hexdigest()
    return MergeConflict(
        review_id=digest[:32],
        rule=rule,
        subject=subject,
        kept=kept,
        lost=f"by {origin.node} in term {origin.term}, row {origin.sequence}",
    )
