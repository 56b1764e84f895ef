"""What the election is told: settings, surroundings, and authenticated observations.

Nothing unsigned and nothing from mDNS is in here: the shell verifies signatures and peers first.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from broker.units import Millis
from broker.wire.base import Body
from broker.wire.claims import Claim, PrimaryBeat
from broker.wire.ids import Count, Sequence, Term, Text

SUSPECT_TICKS = 3


class Version(NamedTuple):
    """Where a roster stands; ordered by term, then by sequence."""

    term: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Timing:
    """Intervals on the boot-time clock.

    Args:
        tick_ms: Between two probes of one node.
        grace_ms: Silence after which the first standby takes over.
        stagger_ms: More for each standby with a better rank that might still do it.
    """

    tick_ms: int
    grace_ms: int
    stagger_ms: int

    @property
    def suspect_ms(self) -> int:
        """Silence that is worth showing."""
        return SUSPECT_TICKS * self.tick_ms

    @property
    def fence_ms(self) -> int:
        """A pause of this node after which it may have been replaced: half the grace.

        Nobody takes over before the whole grace, so a shorter pause needs no questions.
        """
        return self.grace_ms // 2

    @property
    def settle_ms(self) -> int:
        """How long a primary that was away asks around before it serves again."""
        return self.grace_ms * 2 // 5


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator chose."""

    timing: Timing
    mode: Literal["automatic", "witnessed", "manual"] = "automatic"
    witnesses: int = 1
    lone_pair: Literal["caretaker", "wait", "take-over"] = "caretaker"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """This node's own state at a tick.

    Args:
        key_holders: Hosts the roster lists as primary or standby, this one included.
        others: Active nodes of the roster besides this one, members included.
        version: The end of this node's own journal.
        unready: Why this node could not issue now (`locked`, a clock, a ledger), or empty.
        held: Why this node must not lead whoever is silent (it was restored from a backup), or
            empty.
    """

    key_holders: tuple[str, ...]
    others: int
    version: Version
    unready: str = ""
    held: str = ""

    def rivals(self, host: str) -> set[str]:
        """Return the key holders besides `host`."""
        return set(self.key_holders) - {host}


@dataclass(frozen=True, slots=True)
class Observation:
    """One authenticated message: who sent it over mutual TLS, and what of it was verified.

    Args:
        sender: Host of the certificate, an active node of the roster.
        beats: Beats whose signature of the issuing key was verified.
        head: The version of a verified head.
        claim: What the sender says of itself; only of key holders.
    """

    sender: str
    beats: tuple[PrimaryBeat, ...] = ()
    head: Version | None = None
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class Leader:
    """The primary of the highest term a node knows of."""

    host: str
    term: int


@dataclass(frozen=True, slots=True)
class Silence:
    """Since when nobody proved that a primary lives, and what its last word was.

    `left` is set by a signed last beat: the primary went on purpose, nobody needs to wait. It
    speaks for its own term alone.
    """

    last_alive_ms: Millis
    left: bool = False
    successor: str = ""

    def patience_ms(self, host: str, timing: Timing, ahead: int) -> int:
        """Return how much of this silence `host` waits out, with `ahead` standbys before it.

        A dead standby costs those behind it one stagger; one that excused itself costs nothing.
        """
        steps_ms = ahead * timing.stagger_ms
        if not self.left:
            return timing.grace_ms + steps_ms
        if self.successor == host:
            return 0
        return steps_ms + (timing.stagger_ms if self.successor else 0)


class Standing(Body, frozen=True):
    """What of an election survives a restart.

    `beat_number` is the newest beat of the leader that a standby knows: without it every old beat
    would look new after a restart. `contested` says that rows under this node's next numbers may
    exist elsewhere (it was restored from a backup, or shared its term): it serves again in a new
    term only. `vouched`: an operator said that the nodes it does not hear are down.
    """

    phase: Text
    term: Term
    highest_term: Term
    leader: Text = ""
    leader_term: Term = 0
    head_term: Term = 0
    head_sequence: Sequence = 0
    alone: bool = False
    beat_number: Count = 0
    contested: bool = False
    vouched: bool = False
