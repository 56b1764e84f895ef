"""Two elections and a member between them, driven step by step by Hypothesis.

Smaller than a mesh and more spiteful: any order of messages, pauses, restarts, locks and silence.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.beats import BEATS_MAX
from broker.core.election import PRIMARY, STANDBY, Election
from broker.core.observation import Observation, Rules, Standing, Surroundings, Timing, Version
from broker.core.phases import Effect, Moved, Phase, Promote, Turn
from broker.units import Millis
from broker.wire.claims import Claim, PrimaryBeat

RULES = Rules(Timing(5_000, 30_000, 10_000))
HOSTS = ("a", "b", "c")


class Succession(RuleBasedStateMachine):
    """Three key holders without a network: every word is carried by a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000
        self.rows = dict.fromkeys(HOSTS, Version(1, 1))
        self.locked: set[str] = set()
        self.promoted = {1: {"a"}}
        self.beats: list[PrimaryBeat] = []
        self.numbers = 0
        self.told = dict.fromkeys(HOSTS, 1)
        self.spoken = dict.fromkeys(HOSTS, -1)
        self.elections = {
            host: self.start(Standing(phase, int(host == "a"), 1, "a", 1), host, 0)
            for host, phase in zip(
                HOSTS, (Phase.SERVING, Phase.FOLLOWING, Phase.FOLLOWING), strict=True
            )
        }

    def start(self, standing: Standing, host: str, away_ms: int | None) -> Election:
        """Start a node."""
        return Election(host, RULES, standing, Millis(self.now), away_ms)

    def around(self, host: str) -> Surroundings:
        """Return a node's surroundings."""
        return Surroundings(HOSTS, 3, self.rows[host], "locked" if host in self.locked else "")

    def obey(self, host: str, effects: tuple[Effect, ...]) -> None:
        """Do what a shell does, and check what is done."""
        election = self.elections[host]
        for effect in effects:
            if isinstance(effect, Promote):
                assert effect.term > self.told[host]
                assert host not in self.locked
                if election.phase in STANDBY:
                    assert self.now - self.spoken[host] <= RULES.timing.grace_ms
                self.promoted.setdefault(effect.term, set()).add(host)
                self.rows[host] = Version(effect.term, self.rows[host].sequence + 1)
                election.promoted(effect, Millis(self.now))
                self.told[host] = effect.term
            elif isinstance(effect, Moved) and effect.turn is Turn.OUTRANKED:
                own = election.term
                rivals = self.promoted.get(own, set()) - {host}
                assert max(self.promoted) > own or rivals

    def say(self, host: str, seen: Observation) -> None:
        """Tell a node something."""
        self.spoken[host] = self.now
        terms = [beat.term for beat in seen.beats]
        if seen.claim is not None:
            terms += [seen.claim.term, seen.claim.highest_term]
        self.told[host] = max(self.told[host], *terms, 0)
        self.obey(host, self.elections[host].hear(seen, Millis(self.now)))

    @rule(seconds=st.integers(1, 14))
    def time_passes(self, seconds: int) -> None:
        """Everybody ticks."""
        self.now += seconds * 1_000
        for host in HOSTS:
            self.obey(host, self.elections[host].tick(self.around(host), Millis(self.now)))

    @rule(host=st.sampled_from(HOSTS), seconds=st.integers(16, 600))
    def everybody_but_one_sleeps(self, host: str, seconds: int) -> None:
        """A long gap for all the others; one goes on ticking."""
        for _ in range(seconds // 10):
            self.now += 10_000
            self.obey(host, self.elections[host].tick(self.around(host), Millis(self.now)))

    @rule(source=st.sampled_from(HOSTS), listener=st.sampled_from(HOSTS))
    def one_probes_another(self, source: str, listener: str) -> None:
        """A claim over mutual TLS, with all beats."""
        if source != listener:
            election = self.elections[source]
            promotable = not election.promotable(self.around(source))
            claim = Claim(
                source,
                election.role,
                election.serving and source not in self.locked,
                election.term,
                election.highest_term,
                self.rows[source].term,
                self.rows[source].sequence,
                "",
                promotable,
            )
            beats = tuple(election.beats.values())
            self.say(listener, Observation(source, beats, None, claim))

    @rule(host=st.sampled_from(HOSTS))
    def a_primary_beats(self, host: str) -> None:
        """If it may."""
        election = self.elections[host]
        if not election.halted(self.around(host), Millis(self.now)) and host not in self.locked:
            assert election.term >= self.told[host]
            self.numbers += 1
            beat = PrimaryBeat("", host, election.term, self.numbers)
            election.beat(beat)
            self.beats.append(beat)

    @precondition(lambda self: self.beats)
    @rule(host=st.sampled_from(HOSTS), which=st.integers(0, 1_000))
    def a_member_brings_any_beat_there_ever_was(self, host: str, which: int) -> None:
        """Old or new, in any order."""
        before = self.elections[host]
        known = before.beats.get(self.beats[which % len(self.beats)].primary)
        silent_ms = before.silent_ms(Millis(self.now))
        beat = self.beats[which % len(self.beats)]
        self.say(host, Observation("m", (beat,)))
        if known is not None and (beat.term, beat.number) <= (known.term, known.number):
            assert before.silent_ms(Millis(self.now)) >= silent_ms

    @rule(host=st.sampled_from(HOSTS))
    def a_member_says_nothing_new(self, host: str) -> None:
        """But the node is not alone."""
        self.say(host, Observation("m"))

    @rule(host=st.sampled_from(HOSTS), locked=st.booleans())
    def a_key_is_locked_or_unlocked(self, host: str, locked: bool) -> None:  # noqa: FBT001 (drawn)
        """The shell tells the election at once."""
        (self.locked.add if locked else self.locked.discard)(host)
        self.obey(host, self.elections[host].tick(self.around(host), Millis(self.now)))

    @rule(host=st.sampled_from(HOSTS), away_ms=st.sampled_from([None, 0, 20_000]))
    def a_node_restarts(self, host: str, away_ms: int | None) -> None:
        """With what is durable, and nothing else."""
        before = self.elections[host]
        after = self.start(before.standing, host, away_ms)
        self.elections[host] = after
        assert after.highest_term >= self.told[host]
        assert after.serving <= before.serving

    @rule(source=st.sampled_from(HOSTS), listener=st.sampled_from(HOSTS))
    def rows_are_shipped(self, source: str, listener: str) -> None:
        """A standby takes a newer journal over."""
        if self.elections[listener].phase in STANDBY and self.rows[source] > self.rows[listener]:
            self.rows[listener] = self.rows[source]

    @invariant()
    def nobody_serves_in_a_term_it_knows_to_be_outranked(self) -> None:
        """The term is asked before anything else."""
        for host, election in self.elections.items():
            assert not election.serving or election.term >= self.told[host]

    @invariant()
    def only_who_was_promoted_serves(self) -> None:
        """And in that term."""
        for host, election in self.elections.items():
            assert not election.serving or host in self.promoted[election.term]

    @invariant()
    def the_locked_serve_nothing(self) -> None:
        """They stepped down when the key was locked."""
        for host in self.locked:
            assert self.elections[host].phase not in PRIMARY

    @invariant()
    def everything_is_bounded(self) -> None:
        """No word of others makes a node grow."""
        for election in self.elections.values():
            assert len(election.beats) <= BEATS_MAX


Succession.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestSuccession = Succession.TestCase
