"""Rules taken out, one at a time: some seed must object to each, or the simulation proves nothing.

A mutant patches production classes, or the shell around them, for as long as it is worn. A rule
whose absence is not unsafe but costs time with two primaries is `measured` instead.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace as with_other
from typing import Any

import msgspec

import broker.core.election as election_module
from broker.core import settle
from broker.core.beats import Heard, take
from broker.core.company import Company
from broker.core.election import Election
from broker.core.fence import Fence
from broker.core.followers import Followers
from broker.core.observation import Leader, Observation, Silence, Standing, Surroundings, Version
from broker.core.phases import Effect, HandOver, Turn
from broker.wire.claims import Claim, PrimaryBeat
from tests.sim.book import Book, Row
from tests.sim.chaos import EVERYTHING, Focus
from tests.sim.keyholder import Node
from tests.sim.world import World

Patch = Callable[[type | Any, str, Any], None]


@dataclass(frozen=True)
class Mutant:
    """One rule that is missing.

    Args:
        name: On the command line.
        rule: What the mesh would lose.
        wear: Takes the rule out with the given patch function.
        focus: Under which faults it shows soonest; a `measuring` one is judged by the time with
            two primaries, not by an objection.
        first: A seed shortly before one that objects, for rules that few schedules need.
    """

    name: str
    rule: str
    wear: Callable[[Patch], None]
    focus: Focus = EVERYTHING
    first: int = 0


@contextmanager
def worn(mutant: Mutant | None) -> Iterator[None]:
    """Take the mutant's rule out of this process for a while."""
    kept: list[tuple[Any, str, Any]] = []

    def patch(owner: Any, name: str, value: Any) -> None:
        kept.append((owner, name, vars(owner)[name]))
        setattr(owner, name, value)

    try:
        if mutant is not None:
            mutant.wear(patch)
        yield
    finally:
        for owner, name, value in reversed(kept):
            setattr(owner, name, value)


def _no_term_rule(patch: Patch) -> None:
    meet = Election._meet

    def kept(me: Election, *args: Any) -> None:
        highest, me.highest_term = me.highest_term, me.term
        meet(me, *args)
        me.highest_term = max(highest, me.highest_term)

    patch(Election, "_meet", kept)


def _replays_are_life(patch: Patch) -> None:
    def all_live(
        beats: dict[str, PrimaryBeat], heard: tuple[PrimaryBeat, ...], host: str, highest: int
    ) -> list[Heard]:
        take(beats, heard, host, highest)
        return [Heard(beat, life=True) for beat in heard if beat.primary != host]

    patch(election_module, "take", all_live)


def _no_readiness(patch: Patch) -> None:
    why_not = Election.why_not

    def unlocked(me: Election, around: Surroundings, now_ms: Any) -> str:
        return why_not(me, with_other(around, unready=""), now_ms)

    patch(Election, "why_not", unlocked)


def _no_lag(patch: Patch) -> None:
    patch(election_module, "lag", lambda _shown, _around: "")


def _no_isolation(patch: Patch) -> None:
    patch(election_module, "doubt", lambda *_args: "")


def _isolated_enrolls(patch: Patch) -> None:
    patch(Election, "powers", lambda me, around, now: me.halted(around, now) or "full")


def _no_stagger(patch: Patch) -> None:
    patch(Company, "before", lambda *_args: 0)


def _no_fence(patch: Patch) -> None:
    patch(Fence, "was_away", lambda _me, _now: False)


def _no_boot_wait(patch: Patch) -> None:
    start = Election.__init__

    def awake(me: Election, host: str, rules: Any, standing: Standing, *rest: Any) -> None:
        start(me, host, rules, standing, rest[0], 0)

    patch(Election, "__init__", awake)


def _both_demote(patch: Patch) -> None:
    meet = Election._meet

    def polite(me: Election, rivals: dict[str, bool], now_ms: Any, effects: list[Effect]) -> None:
        if rivals and me.highest_term <= me.term:
            effects.append(me.step_down(Turn.OUTRANKED, now_ms, "another one is there"))
        else:
            meet(me, rivals, now_ms, effects)

    patch(Election, "_meet", polite)


def _members_claim(patch: Patch) -> None:
    def believed(me: World, sender: int) -> Claim | None:
        if me.hostile is None or me.hostile.node.index != sender:
            return None
        host = me.hostile.node.host
        return Claim(host, "primary", True, 1_000, 1_000, 0, 0, "0", promotable=False)

    patch(World, "hostile_claim", believed)


def _old_beats_depose(patch: Patch) -> None:
    hear = Election.hear
    said: list[PrimaryBeat] = []

    def remembering(me: Election, seen: Observation, now_ms: Any) -> tuple[Effect, ...]:
        said[:] = (beat for beat in seen.beats if beat.primary != me.host)
        return hear(me, seen, now_ms)

    def any_rival(term: int, *_rest: Any) -> dict[str, bool]:
        return {beat.primary: True for beat in said if beat.term == term}

    patch(Election, "hear", remembering)
    patch(election_module, "rivals_in", any_rival)


def _lower_heads(patch: Patch) -> None:
    hear = Election.hear

    def forgetful(me: Election, seen: Observation, now_ms: Any) -> tuple[Effect, ...]:
        effects = hear(me, seen, now_ms)
        me.highest_head = seen.head or me.highest_head
        return effects

    patch(Election, "hear", forgetful)


def _unreplicated_heads(patch: Patch) -> None:
    patch(Followers, "shown", lambda _me, own, _now, **_kind: own)


def _terms_not_durable(patch: Patch) -> None:
    whole = vars(Election)["standing"].fget

    def partial(me: Election) -> Standing:
        kept: Standing = whole(me)
        return msgspec.structs.replace(kept, highest_term=kept.term)

    patch(Election, "standing", property(partial))


def _beats_not_durable(patch: Patch) -> None:
    patch(election_module, "remembered", lambda _standing: {})


def _left_for_ever(patch: Patch) -> None:
    def hear_term(me: Election, term: int) -> None:
        me.highest_term = max(me.highest_term, term)

    def alive(me: Election, host: str, term: int, now_ms: Any, effects: list[Effect]) -> None:
        me._lead(Leader(host, term), now_ms, effects)
        me._silence = Silence(now_ms, me._silence.left, me._silence.successor)

    patch(Election, "_hear_term", hear_term)
    patch(Election, "_alive", alive)


def _same_term_goes_on(patch: Patch) -> None:
    patch(Election, "contest", lambda _me, _detail: ())


def _restored_goes_on(patch: Patch) -> None:
    restore = World.restore

    def unmarked(me: World, node: Node, backup: Any) -> None:
        restore(me, node, backup)
        node.disk.standing = msgspec.structs.replace(node.disk.standing, contested=False)

    patch(World, "restore", unmarked)


def _numbers_used_again(patch: Patch) -> None:
    tick = Election.tick

    def blind(me: Election, around: Surroundings, now_ms: Any) -> tuple[Effect, ...]:
        shown = me.highest_head
        if me.phase in election_module.PRIMARY:
            me.highest_head = Version(0, 0)
        effects = tick(me, around, now_ms)
        me.highest_head = max(shown, me.highest_head)
        return effects

    patch(Election, "tick", blind)
    patch(Election, "halted", lambda me, _around, _now: "" if me.serving else "another leads")


def _outranked_life_counts(patch: Patch) -> None:
    follow = Election._follow

    def any_term(
        me: Election, newer: list[Heard], claim: Claim | None, now_ms: Any, effects: list[Effect]
    ) -> None:
        highest, me.highest_term = me.highest_term, 0
        follow(me, newer, claim, now_ms, effects)
        me.highest_term = highest

    patch(Election, "_follow", any_term)


def _no_caretaker(patch: Patch) -> None:
    promotion = Election._promotion

    def full(me: Election, cause: str, proof: str, **_kind: bool) -> Any:
        return promotion(me, cause, proof, caretaker=False)

    patch(Election, "_promotion", full)
    _isolated_enrolls(patch)


def _anybody_takes_over(patch: Patch) -> None:
    def answer(me: Election, claim: Claim, effects: list[Effect]) -> None:
        if claim.role != "primary" and me.serving and claim.called:
            effects.append(HandOver(claim.host))

    patch(Election, "_answer", answer)


def _revocation_fades(patch: Patch) -> None:
    page = Node.on_page

    def forgetting(me: Node, *args: Any) -> None:
        page(me, *args)
        me.disk.revoked = set(me.disk.book.revoked)
        me.world.oracle.installed(me)

    patch(Node, "on_page", forgetting)


def _newest_redeemer_wins(patch: Patch) -> None:
    first = settle._against_the_first

    def last(rule: str, subject: str, sides: Sequence[settle.Side]) -> Iterator[settle.Verdict]:
        yield from first(rule, subject, sides[::-1] if rule == "invite" else sides)

    patch(settle, "_against_the_first", last)


def _adoption_on_trust(patch: Patch) -> None:
    orphans = Book.orphans

    def once(me: Book) -> list[Row]:
        found = orphans(me)
        me.archive.clear()
        return found

    patch(Book, "orphans", once)


def _own_orphans_stay(patch: Patch) -> None:
    patch(Node, "_adopt_own", lambda _me: None)


HOSTILE = Focus(hostile=True)
PARTED = Focus(("partition", "isolate", "crash"))
OUTLIVED = Focus(("partition", "crash", "destroy"))
LOST = Focus(("partition", "isolate", "restore", "destroy"))
STORMY = Focus(("isolate", "weather", "step_down"))
STRANDED = Focus(("isolate", "weather", "crash", "lock"))
RELAYED = Focus(("chain", "crash", "lock"))
RENEWED = Focus(("step_down", "call", "pause"))
DYING = Focus(("crash",), measuring=True)
APART = Focus(("chain", "lock"), measuring=True)
PAUSING = Focus(("pause", "isolate"), measuring=True)
CUT = Focus(("isolate", "partition"), measuring=True)

SAFETY = (
    Mutant("no-term-rule", "a primary gives way to a higher term", _no_term_rule),
    Mutant("replays-are-life", "only an advancing beat proves life", _replays_are_life, HOSTILE),
    Mutant("no-readiness", "a locked standby does not take over", _no_readiness),
    Mutant("no-lag-gate", "a lagging standby does not take over", _no_lag),
    Mutant("no-isolation-gate", "an isolated standby does not take over", _no_isolation),
    Mutant("isolated-enrolls", "an isolated primary enrolls nobody", _isolated_enrolls),
    Mutant("no-caretaker", "half of a pair does not enroll", _no_caretaker),
    Mutant("both-demote", "of two primaries exactly one gives way", _both_demote, PARTED),
    Mutant("members-claim", "a member's unsigned word is nothing", _members_claim, HOSTILE),
    Mutant("old-beats-depose", "old beats depose nobody", _old_beats_depose, OUTLIVED, 140),
    Mutant("lower-heads", "the highest head never goes back", _lower_heads),
    Mutant("unreplicated-heads", "a head is shown once a standby has it", _unreplicated_heads),
    Mutant("left-for-ever", "a last beat speaks for its own term", _left_for_ever, RENEWED),
    Mutant("same-term-goes-on", "who stays after a duel takes a new term", _same_term_goes_on),
    Mutant("restored-goes-on", "a restored node writes in a new term", _restored_goes_on, LOST),
    Mutant("revocation-fades", "revocation absorbs, also over a fork", _revocation_fades, PARTED),
    Mutant("newest-redeemer", "an invite is its oldest redeemer's", _newest_redeemer_wins, PARTED),
    Mutant("adoption-on-trust", "a row is home when it comes back", _adoption_on_trust, STORMY),
    Mutant("own-orphans-stay", "a primary adopts its orphans", _own_orphans_stay, STRANDED, 240),
)
"""Some seed must object."""

MEASURED = (
    Mutant("no-stagger", "standbys take over one after the other", _no_stagger, APART),
    Mutant("isolated-promotes", "an isolated standby waits", _no_isolation, CUT),
    Mutant("no-fence", "who was paused asks first", _no_fence, PAUSING),
    Mutant("no-boot-wait", "who was down asks first", _no_boot_wait, DYING),
)
"""The time with two primaries must grow."""

SECOND_LINES = (
    Mutant("terms-not-durable", "known terms survive a restart", _terms_not_durable, RELAYED),
    Mutant("beats-not-durable", "known beats survive a restart", _beats_not_durable, HOSTILE),
    Mutant("numbers-used-again", "a shown head is not written below", _numbers_used_again, LOST),
    Mutant("anybody-takes-over", "only who is ready is handed the role", _anybody_takes_over),
    Mutant("outranked-life", "an outranked primary's life is no life", _outranked_life_counts),
)
"""Another rule stands before each, so no schedule tells them apart; unit tests do."""

MUTANTS = {mutant.name: mutant for mutant in (*SAFETY, *MEASURED, *SECOND_LINES)}
