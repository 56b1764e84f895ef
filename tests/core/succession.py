"""One node's election with its surroundings, for tests that play the others by hand."""

from dataclasses import replace
from typing import TypedDict, Unpack

from broker.core.election import PRIMARY, Election
from broker.core.observation import Observation, Rules, Standing, Surroundings, Timing, Version
from broker.core.phases import Effect, HandOver, Moved, Phase, Promote, Turn, Withhold
from broker.units import Millis
from broker.wire.claims import Claim, PrimaryBeat
from broker.wire.ids import Role

TIMING = Timing(tick_ms=5_000, grace_ms=30_000, stagger_ms=10_000)
RULES = Rules(TIMING)


def claim(host: str, role: Role = "standby", term: int = 1, **more: bool | int) -> Claim:
    """Return what a key holder says; a primary serves unless told otherwise."""
    serving = bool(more.get("serving", role == "primary"))
    return Claim(
        host=host,
        role=role,
        serving=serving,
        term=term,
        highest_term=int(more.get("highest_term", term)),
        version_term=1,
        sequence=1,
        hash="",
        promotable=bool(more.get("promotable", role == "standby")),
        called=bool(more.get("called", False)),
    )


def beat(host: str, number: int, term: int = 1, *, left: bool = False, to: str = "") -> PrimaryBeat:
    """Return a verified beat."""
    return PrimaryBeat("", host, term, number, left, to)


class More(TypedDict, total=False):
    """What a seat may differ in: key holders, members, settings, and how it comes up."""

    holders: str
    members: int
    rules: Rules
    standing: Standing
    away_ms: int | None


class Seat:
    """A node `host` among the key holders a, b, c and some members."""

    def __init__(
        self, host: str = "b", phase: Phase = Phase.FOLLOWING, **more: Unpack[More]
    ) -> None:
        self.now = 1_000_000
        holders = more.get("holders", "abc")
        own = 1 if phase in PRIMARY else 0
        leader = host if own else "a"
        alone = phase is Phase.CARETAKING
        stands = more.get("standing") or Standing(phase, own, 1, leader, 1, alone=alone)
        rules, away_ms = more.get("rules", RULES), more.get("away_ms", 0)
        self.election = Election(host, rules, stands, self.time, away_ms)
        others = len(holders) + more.get("members", 2) - 1
        self.around = Surroundings(tuple(holders), others, Version(1, 10))
        self.done: list[Effect] = []

    @property
    def time(self) -> Millis:
        """Boot-time clock."""
        return Millis(self.now)

    def stands(self) -> Phase:
        """Return its phase."""
        return self.election.phase

    def phase_and_term(self) -> tuple[Phase, int]:
        """Return its phase and the term it last served in."""
        return self.election.phase, self.election.term

    def obey(self, effects: tuple[Effect, ...]) -> tuple[Effect, ...]:
        """Do what a shell would do."""
        for effect in effects:
            if isinstance(effect, Promote):
                version = Version(effect.term, self.around.version.sequence + 1)
                self.around = replace(self.around, version=version)
                self.election.promoted(effect, self.time)
        self.done.extend(effects)
        return effects

    def hear(self, sender: str, *beats: PrimaryBeat, says: Claim | None = None) -> None:
        """Hear one message."""
        self.obey(self.election.hear(Observation(sender, beats, None, says), self.time))

    def head(self, term: int, sequence: int, sender: str = "m") -> None:
        """Hear of a head."""
        seen = Observation(sender, (), Version(term, sequence))
        self.obey(self.election.hear(seen, self.time))

    def tick(self) -> tuple[Effect, ...]:
        """Tick once, now."""
        return self.obey(self.election.tick(self.around, self.time))

    def wait(self, seconds: float, company: str = "") -> None:
        """Let time pass with a tick every second; every five a probe and a word of `company`."""
        for second in range(int(seconds)):
            self.now += 1_000
            if second % 5 == 0:
                self.election.fence.probed()
                if company:
                    self.hear(company)
            self.tick()

    def unready(self, why: str) -> None:
        """Lock the key, or break something else."""
        self.around = replace(self.around, unready=why)

    def promotions(self) -> list[Promote]:
        """Return every promotion so far."""
        return [effect for effect in self.done if isinstance(effect, Promote)]

    def withheld(self) -> set[str]:
        """Return every reason it held back for."""
        return {effect.reason for effect in self.done if isinstance(effect, Withhold)}

    def turns(self) -> list[Turn]:
        """Return every change of phase the election made by itself."""
        return [effect.turn for effect in self.done if isinstance(effect, Moved)]

    def handed_over(self) -> list[str]:
        """Return whom it was asked to step down for."""
        return [effect.successor for effect in self.done if isinstance(effect, HandOver)]
