"""Who is primary: terms, beats, patience, and the reasons to hold back. Pure: no clock, no I/O.

Invariants: only a node with a key becomes primary; it becomes so in a term above every term it
has heard of; nobody steps down for anything but a verified claim that outranks it; nobody counts
a primary dead because it was itself asleep or cut off.

A beat proves life only if it is newer than one already known: whoever carries it, a replay proves
nothing. A claim that a primary makes itself over mutual TLS proves life too.

Time is the boot-time clock, pushed in; effects come out. The shell makes `Promote` durable before
it calls `promoted`; a step down has happened when it is returned, because serving on while a disk
is asked would be the unsafe order.
"""

from dataclasses import replace

from broker.core.beats import Heard, remembered, rivals_in, take
from broker.core.company import Company
from broker.core.fence import Fence
from broker.core.observation import (
    Leader,
    Observation,
    Rules,
    Silence,
    Standing,
    Surroundings,
    Version,
)
from broker.core.phases import (
    ROLES,
    Effect,
    Follow,
    HandOver,
    Moved,
    Phase,
    Promote,
    Turn,
    Withhold,
    turned,
)
from broker.core.readiness import doubt, evidence, lag
from broker.units import Millis
from broker.wire.claims import Claim, PrimaryBeat
from broker.wire.ids import Role

PRIMARY = (Phase.PENDING, Phase.SERVING, Phase.CARETAKING)
STANDBY = (Phase.FOLLOWING, Phase.SUSPECTING)
OPERATOR = "operator"
NUMBERS_USED = "rows under its next numbers may exist elsewhere"


class Election:
    """One node's view of the succession.

    Args:
        host: This node.
        rules: Settings.
        standing: From the last lifetime of the broker.
        now_ms: Boot-time clock.
        away_ms: Since this node last ticked; None after a reboot or when unknown.
    """

    def __init__(
        self, host: str, rules: Rules, standing: Standing, now_ms: Millis, away_ms: int | None
    ) -> None:
        self.host = host
        self.rules = rules
        self.phase = Phase(standing.phase)
        self.term = standing.term
        self.highest_term = max(standing.highest_term, standing.term)
        self.leader = Leader(standing.leader, standing.leader_term) if standing.leader else None
        self.highest_head = Version(standing.head_term, standing.head_sequence)
        self.beats = remembered(standing)
        self.withheld = ""
        self.company = Company(rules.timing.grace_ms)
        self._alone, self._vouched = standing.alone, standing.vouched
        self._contested = standing.contested
        self.fence = Fence(rules.timing, now_ms, restored=standing.contested)
        self._silence = Silence(now_ms)
        self._led_ms = self._level_ms = now_ms
        self._called_ms, self._forced = Millis(-rules.timing.grace_ms), False
        away = away_ms is None or away_ms > rules.timing.fence_ms or standing.contested
        if self.phase in PRIMARY and away:
            self.phase = Phase.PENDING

    @property
    def role(self) -> Role:
        """The role of the present phase."""
        return ROLES[self.phase]

    @property
    def serving(self) -> bool:
        """Whether this node may issue at all."""
        return self.phase in (Phase.SERVING, Phase.CARETAKING)

    @property
    def standing(self) -> Standing:
        """What must be durable before anybody learns of it."""
        leader = self.leader or Leader("", 0)
        newest = self.beats.get(leader.host) if self.phase in STANDBY else None
        return Standing(
            phase=self.phase,
            term=self.term,
            highest_term=self.highest_term,
            leader=leader.host,
            leader_term=leader.term,
            head_term=self.highest_head.term,
            head_sequence=self.highest_head.sequence,
            alone=self._alone,
            beat_number=newest.number if newest and newest.term == leader.term else 0,
            contested=self._contested,
            vouched=self._vouched,
        )

    def called(self, now_ms: Millis) -> bool:
        """Whether an operator here wants this node to be the primary."""
        return now_ms - self._called_ms < self.rules.timing.grace_ms

    def silent_ms(self, now_ms: Millis) -> int:
        """How long nobody has proved that a primary lives; 0 on a primary."""
        return 0 if self.phase in PRIMARY else max(0, now_ms - self._silence.last_alive_ms)

    def call(self, now_ms: Millis, *, force: bool = False) -> None:
        """An operator wants this node to be the primary; `force` overrides all but a locked key."""
        self._called_ms, self._forced = now_ms, force

    def promoted(self, promotion: Promote, now_ms: Millis) -> Moved:
        """Serve in the new term; the transaction that says so is durable."""
        assert promotion.term > self.term
        self.term = self.highest_term = promotion.term
        self.leader = Leader(self.host, promotion.term)
        self._alone, self._vouched = promotion.caretaker, promotion.cause == OPERATOR
        self._contested = False
        self.fence.trust()
        self._silence, self._level_ms = Silence(now_ms), now_ms
        self._called_ms, self.withheld = Millis(-self.rules.timing.grace_ms), ""
        turn = Turn.PROMOTED_ALONE if promotion.caretaker else Turn.PROMOTED
        return self._move(turn, promotion.cause)

    def step_down(self, turn: Turn, now_ms: Millis, detail: str = "") -> Moved:
        """Stop being primary, at once."""
        self._alone = self._contested = self._vouched = False
        self.fence.trust()
        self._silence = Silence(now_ms)
        return self._move(turn, detail)

    def left(self, beat: PrimaryBeat, now_ms: Millis) -> Moved:
        """Step down on purpose, after the last beat was signed."""
        self.beats[self.host] = beat
        moved = self.step_down(Turn.LEFT, now_ms, f"handed over to {beat.successor or 'nobody'}")
        self._silence = Silence(now_ms, left=True, successor=beat.successor)
        return moved

    def contest(self, detail: str) -> tuple[Effect, ...]:
        """Go on in a new term: somebody has rows of this one that are not in this journal."""
        if self.phase is Phase.PENDING:
            self._contested = True
        return (self._promotion(detail, "", caretaker=self._alone),) if self.serving else ()

    def admit(self, now_ms: Millis) -> Moved:
        """Become a standby: the roster says so and the key is here."""
        self._silence = Silence(now_ms)
        return self._move(Turn.ADMITTED)

    def dismiss(self) -> Moved:
        """Become a member: the roster took the role away."""
        return self._move(Turn.DISMISSED)

    def confirm(self, detail: str) -> Moved:
        """Give a caretaker its full powers, also while it hears nobody: somebody vouched for it."""
        self._alone, self._vouched = False, True
        return self._move(Turn.CONFIRMED, detail)

    def beat(self, beat: PrimaryBeat) -> None:
        """Note a beat this node has signed itself."""
        self.beats[self.host] = beat

    def hear(self, seen: Observation, now_ms: Millis) -> tuple[Effect, ...]:
        """Take in one authenticated message."""
        self.company.note(seen.sender, now_ms)
        self._vouched = False
        effects: list[Effect] = []
        if self.phase in PRIMARY and self.fence.was_away(now_ms):
            self._ask_around(now_ms, effects)
        newer = take(self.beats, seen.beats, self.host, self.highest_term)
        self._hear_term(max((beat.term for beat in seen.beats), default=0))
        if seen.head is not None:
            self._hear_term(seen.head.term)
            self.highest_head = max(self.highest_head, seen.head)
        if seen.claim is not None:
            self._hear_term(max(seen.claim.term, seen.claim.highest_term))
            self.company.note_claim(seen.claim, now_ms)
        if self.phase in PRIMARY:
            self._meet(rivals_in(self.term, self.host, newer, seen.claim), now_ms, effects)
        if self.phase not in PRIMARY:
            self._follow(newer, seen.claim, now_ms, effects)
        elif seen.claim is not None and not effects:
            self._answer(seen.claim, effects)
        return tuple(effects)

    def _meet(self, rivals: dict[str, bool], now_ms: Millis, effects: list[Effect]) -> None:
        """Give way to what outranks this primary; take a new term from what does not.

        In one term the better rank wins, except that one which serves does not wait for one which
        only asks around: its new term settles it. Both may have written rows under the same
        numbers, so whoever stays goes on in a new term.
        """
        pending = self.phase is Phase.PENDING
        better = [host for host in rivals if host < self.host and (pending or rivals[host])]
        if self.highest_term > self.term:
            detail = f"term {self.highest_term} is above {self.term}"
            effects.append(self.step_down(Turn.OUTRANKED, now_ms, detail))
        elif better:
            detail = f"{min(better)} has the better rank in term {self.term}"
            effects.append(self.step_down(Turn.OUTRANKED, now_ms, detail))
        elif rivals:
            effects.extend(self.contest(f"{min(rivals)} is primary in the same term"))

    def _follow(
        self, newer: list[Heard], claim: Claim | None, now_ms: Millis, effects: list[Effect]
    ) -> None:
        """Start the absence over for a primary of the highest term that proved its life."""
        for beat, life in newer:
            if beat.term < self.highest_term:
                continue
            if life:
                self._alive(beat.primary, beat.term, now_ms, effects)
            if beat.left:
                self._silence = replace(self._silence, left=True, successor=beat.successor)
        if claim is None or not claim.serving or claim.term < self.highest_term:
            return
        last = self.beats.get(claim.host)
        if last is None or not last.left or last.term < claim.term:
            # Otherwise the claim is old: its own last beat has overtaken it.
            self._alive(claim.host, claim.term, now_ms, effects)

    def _answer(self, claim: Claim, effects: list[Effect]) -> None:
        """Do what a standby's claim asks for, if this node still serves."""
        if claim.role == "primary" or not self.serving:
            return
        if self.phase is Phase.CARETAKING:
            effects.append(self.confirm(f"{claim.host} was seen and is no primary"))
            self._vouched = False
        if claim.called and claim.promotable:
            effects.append(HandOver(claim.host))

    def _hear_term(self, term: int) -> None:
        if term > self.highest_term:
            self.highest_term = term
            # A last beat speaks for its own term: whoever leads now has not left.
            self._silence = Silence(self._silence.last_alive_ms)

    def _alive(self, host: str, term: int, now_ms: Millis, effects: list[Effect]) -> None:
        """Note that `host` lived as a primary of the highest term a moment ago."""
        self._lead(Leader(host, term), now_ms, effects)
        self._silence, self.withheld = Silence(now_ms), ""
        if self.phase is Phase.SUSPECTING:
            effects.append(self._move(Turn.LIFE))

    def _lead(self, seen: Leader, now_ms: Millis, effects: list[Effect]) -> None:
        """Follow `seen`; of two in one term the better rank, while it lives."""
        led = self.leader
        if led is not None and led.term == seen.term and led.host < seen.host:
            silent_ms = now_ms - self._led_ms
            if led.host != self.host and silent_ms < self.rules.timing.suspect_ms:
                return
        self._led_ms = now_ms
        if led != seen:
            self.leader = seen
            effects.append(Follow(seen.host, seen.term))

    def tick(self, around: Surroundings, now_ms: Millis) -> tuple[Effect, ...]:
        """Let time pass; call it every second or so."""
        effects: list[Effect] = []
        self._hear_term(around.version.term)  # rows of a later primary may come before its beat
        self._wake(around, now_ms, effects)
        locked = around.unready == "locked" and not around.held and around.rivals(self.host)
        if locked and self.phase in PRIMARY:
            effects.append(self.step_down(Turn.LOCKED, now_ms, "the CA key is locked"))
        elif self.phase is Phase.PENDING:
            self._settle(around, now_ms, effects)
        elif self.phase in PRIMARY:
            self._check_serving(around, now_ms, effects)
        elif self.phase in STANDBY:
            self._stand_by(around, now_ms, effects)
        return tuple(effects)

    def _wake(self, around: Surroundings, now_ms: Millis, effects: list[Effect]) -> None:
        """After an absence of its own a standby waits half a grace again, a primary asks."""
        if self.fence.was_away(now_ms):
            rested_ms = Millis(now_ms - self.rules.timing.grace_ms // 2)
            self._silence = Silence(max(self._silence.last_alive_ms, rested_ms))
            if self.phase in PRIMARY and around.rivals(self.host):
                self._ask_around(now_ms, effects)
        self.fence.tick(now_ms)

    def _ask_around(self, now_ms: Millis, effects: list[Effect]) -> None:
        """Serve nothing until it is known that nobody took over meanwhile."""
        self.fence.ask(now_ms)
        if self.serving:
            detail = f"no tick for {self.fence.gap_ms(now_ms) / 1000:.0f} s"
            effects.append(self._move(Turn.AWAY, detail))

    def _settle(self, around: Surroundings, now_ms: Millis, effects: list[Effect]) -> None:
        """Serve again once nobody claimed to have taken over."""
        rivals = around.rivals(self.host)
        if around.held or not self.fence.has_asked(rivals, around.others, self.company, now_ms):
            return
        self._level_ms = now_ms
        if self._contested or self.highest_head > around.version:
            effects.append(self._promotion(NUMBERS_USED, "", caretaker=self._alone))
        else:
            turn = Turn.SETTLED_ALONE if self._alone else Turn.SETTLED
            effects.append(self._move(turn, "" if rivals else "no other key holder"))

    def _check_serving(self, around: Surroundings, now_ms: Millis, effects: list[Effect]) -> None:
        if self.highest_head <= around.version:
            self._level_ms = now_ms
        elif now_ms - self._level_ms >= self.rules.timing.grace_ms:
            # Not at once: while a duel is settled by beats, numbers that run would prolong it.
            effects.extend(self.contest(NUMBERS_USED))

    def _stand_by(self, around: Surroundings, now_ms: Millis, effects: list[Effect]) -> None:
        silent_ms = self.silent_ms(now_ms)
        if self.phase is Phase.FOLLOWING and silent_ms >= self.rules.timing.suspect_ms:
            effects.append(self._move(Turn.SILENCE, f"silent for {silent_ms / 1000:.1f} s"))
        if silent_ms < self._patience_ms(around, now_ms):
            self.withheld = ""
            return
        self.withheld = why = self.why_not(around, now_ms)
        effects.append(Withhold(why) if why else self._candidacy(around, now_ms))

    def _patience_ms(self, around: Surroundings, now_ms: Millis) -> int:
        """Return how long the primary may be silent before it is this node's turn."""
        timing = self.rules.timing
        gone = {self.leader.host} if self.leader else set()
        ahead = self.company.before(self.host, around.rivals(self.host) - gone, now_ms)
        patience_ms = self._silence.patience_ms(self.host, timing, ahead)
        if self.called(now_ms):
            # A living primary is asked to hand over; only a silent one is replaced.
            return 0 if self._forced else min(patience_ms, timing.suspect_ms)
        return patience_ms

    def why_not(self, around: Surroundings, now_ms: Millis) -> str:
        """Return why this standby must not take over now, or an empty string."""
        halt = around.held or around.unready
        if halt or ((called := self.called(now_ms)) and self._forced):
            return halt
        if behind := lag(self.highest_head, around):
            return behind
        if called or (self._silence.left and self._silence.successor == self.host):
            return ""
        if self.rules.mode == "manual":
            return "failover.mode is manual"
        return doubt(self.rules, around, self.company, self._silence, now_ms)

    def _candidacy(self, around: Surroundings, now_ms: Millis) -> Promote:
        gone = self.leader.host if self.leader else "the primary"
        proof = evidence(gone, self.silent_ms(now_ms), self.company.present(now_ms))
        if self.called(now_ms):
            return self._promotion(OPERATOR, proof)
        if self._silence.left:
            return self._promotion("handover", f"{gone} left")
        alone = around.others <= 1 and self.rules.lone_pair == "caretaker"
        return self._promotion("silence", proof, caretaker=alone)

    def _promotion(self, cause: str, evidence: str, *, caretaker: bool = False) -> Promote:
        return Promote(self.highest_term + 1, cause, evidence, caretaker)

    def halted(self, around: Surroundings, now_ms: Millis) -> str:
        """Return why nothing at all may be written or signed here now, or an empty string.

        To be asked at every write: after a pause the write may come before the first tick.
        """
        if not self.serving:
            return f"{self.phase}: another node leads, or may lead"
        if self.fence.was_away(now_ms):
            return "pending: it was away and has not asked the other key holders yet"
        return f"pending: {NUMBERS_USED}" if self.highest_head > around.version else ""

    def powers(self, around: Surroundings, now_ms: Millis) -> str:
        """Return `full`, or why enrollment, policy and roles have to wait here."""
        if reason := self.halted(around, now_ms):
            return reason
        if self.phase is Phase.CARETAKING:
            return "caretaker: the other half of the pair may only be cut off"
        if around.rivals(self.host) and not (self._vouched or self.company.present(now_ms)):
            return "isolated: heard no node of the mesh for a whole grace period"
        return "full"

    def promotable(self, around: Surroundings) -> str:
        """Return why this standby could not take over, or an empty string."""
        if self.phase not in STANDBY:
            return f"it is {self.phase}"
        return around.held or around.unready or lag(self.highest_head, around)

    def _move(self, turn: Turn, detail: str = "") -> Moved:
        moved = turned(self.phase, turn, detail)
        self.phase = moved.after
        return moved
