"""Where a node stands in the succession, and every way from one place to another.

The table is the whole truth: a turn that is not in it is a broken invariant, and the pictures in
docs/failover.md are drawn from it.
"""

from dataclasses import dataclass
from enum import StrEnum

from broker.wire.ids import Role


class Phase(StrEnum):
    """What a node is doing about the primary's role."""

    MEMBER = "member"
    """Holds no key; carries beats for others and follows whoever leads."""
    FOLLOWING = "following"
    """Standby; the primary lives."""
    SUSPECTING = "suspecting"
    """Standby; the primary has been silent for three ticks."""
    PENDING = "pending"
    """Primary that was away: serves nothing until it knows that nobody replaced it."""
    SERVING = "serving"
    """Primary with full powers."""
    CARETAKING = "caretaking"
    """Primary of a lone pair that cannot tell a dead peer from a cut cable: renews and revokes."""


class Turn(StrEnum):
    """Why a node changes its phase."""

    ADMITTED = "admitted"
    """The roster made it a standby."""
    DISMISSED = "dismissed"
    """The roster took the role away."""
    SILENCE = "silence"
    """Three ticks without an advancing beat."""
    LIFE = "life"
    """The primary, or a new one, was heard."""
    PROMOTED = "promoted"
    """It took over."""
    PROMOTED_ALONE = "promoted alone"
    """It took over from a peer that may only be cut off."""
    OUTRANKED = "outranked"
    """A higher term, or a better rank in the same term."""
    LOCKED = "locked"
    """Its CA key is locked, so it can serve nobody."""
    LEFT = "left"
    """It stepped down on purpose."""
    AWAY = "away"
    """It was paused, suspended or down for longer than the fence."""
    SETTLED = "settled"
    """Nobody replaced it meanwhile."""
    SETTLED_ALONE = "settled alone"
    """Nobody replaced it meanwhile, and it was a caretaker before."""
    CONFIRMED = "confirmed"
    """An operator confirmed the caretaker, or the peer was seen."""


ROLES: dict[Phase, Role] = {
    Phase.MEMBER: "member",
    Phase.FOLLOWING: "standby",
    Phase.SUSPECTING: "standby",
    Phase.PENDING: "primary",
    Phase.SERVING: "primary",
    Phase.CARETAKING: "primary",
}

TRANSITIONS: dict[Phase, dict[Turn, Phase]] = {
    Phase.MEMBER: {Turn.ADMITTED: Phase.FOLLOWING},
    Phase.FOLLOWING: {
        Turn.SILENCE: Phase.SUSPECTING,
        Turn.PROMOTED: Phase.SERVING,
        Turn.PROMOTED_ALONE: Phase.CARETAKING,
        Turn.DISMISSED: Phase.MEMBER,
    },
    Phase.SUSPECTING: {
        Turn.LIFE: Phase.FOLLOWING,
        Turn.PROMOTED: Phase.SERVING,
        Turn.PROMOTED_ALONE: Phase.CARETAKING,
        Turn.DISMISSED: Phase.MEMBER,
    },
    Phase.PENDING: {
        Turn.SETTLED: Phase.SERVING,
        Turn.SETTLED_ALONE: Phase.CARETAKING,
        Turn.PROMOTED: Phase.SERVING,
        Turn.PROMOTED_ALONE: Phase.CARETAKING,
        Turn.OUTRANKED: Phase.FOLLOWING,
        Turn.LOCKED: Phase.FOLLOWING,
        Turn.LEFT: Phase.FOLLOWING,
    },
    Phase.SERVING: {
        Turn.PROMOTED: Phase.SERVING,
        Turn.OUTRANKED: Phase.FOLLOWING,
        Turn.LOCKED: Phase.FOLLOWING,
        Turn.LEFT: Phase.FOLLOWING,
        Turn.AWAY: Phase.PENDING,
    },
    Phase.CARETAKING: {
        Turn.PROMOTED: Phase.SERVING,
        Turn.PROMOTED_ALONE: Phase.CARETAKING,
        Turn.CONFIRMED: Phase.SERVING,
        Turn.OUTRANKED: Phase.FOLLOWING,
        Turn.LOCKED: Phase.FOLLOWING,
        Turn.LEFT: Phase.FOLLOWING,
        Turn.AWAY: Phase.PENDING,
    },
}


@dataclass(frozen=True, slots=True)
class Moved:
    """The phase changed; `detail` is for people."""

    before: Phase
    turn: Turn
    after: Phase
    detail: str = ""


def turned(before: Phase, turn: Turn, detail: str = "") -> Moved:
    """Return the way from a phase; one that is not in the table is a broken invariant."""
    after = TRANSITIONS[before].get(turn)
    assert after is not None, f"no way from {before} by {turn}"
    return Moved(before, turn, after, detail)


@dataclass(frozen=True, slots=True)
class Promote:
    """Take over in this term: one transaction, then `Election.promoted`."""

    term: int
    cause: str
    evidence: str
    caretaker: bool = False


@dataclass(frozen=True, slots=True)
class Withhold:
    """It would be this node's turn, but it must not; the reason is for people."""

    reason: str


@dataclass(frozen=True, slots=True)
class HandOver:
    """An operator at a ready standby asks for the role: step down in its favour."""

    successor: str


@dataclass(frozen=True, slots=True)
class Follow:
    """Another primary leads from now on."""

    host: str
    term: int


Effect = Moved | Promote | Withhold | HandOver | Follow
"""What the shell must do; `Moved` has already happened, `Promote` and `HandOver` are its to do."""
