"""One round: ask the broker what to say, tell every key holder at once, report their answers.

An answer is reported when it is there: it carries the newest signed beats, and a dead key holder
must not make it old. When this node's role moves, the round is cut short and a new one begins.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from broker.clock import boottime_ms, wall_s
from broker.errors import MeshError, NotAMemberError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.units import UnixSeconds
from broker.wire.base import Event
from broker.wire.control import Ack
from broker.wire.events import CertificateMoved, RoleMoved
from broker.wire.ids import Service
from broker.wire.mesh_api import HeartbeatBody
from broker.wire.node import Endpoint, Membership
from broker.wire.roster import HeartbeatAnswer, HeartbeatPlan, NoteHeartbeat, PrepareHeartbeat
from workers.fanout import Fanout, Session
from workers.heartbeat.logic import addressees, body, next_beat_ms, obstacle, skew_s
from workers.interruption import Interruption
from workers.process import Desk, Outcome
from workers.repeats import Repeats

DEADLINE_MS_MAX = 5_000
DEADLINE_MS_MIN = 1_000
PATIENCE_MS = 200
"""A living key holder answers within this, also while events want the next round."""

MISMATCH = "CA fingerprint mismatch"
BEATING_ROLES = ("member", "standby")


class HeartbeatLoop:
    """The loop; sessions and the wall clock are injected."""

    service = Service.HEARTBEAT
    wakes: tuple[type[Event], ...] = (RoleMoved, CertificateMoved)

    def __init__(
        self,
        settings: Settings,
        open_session: Callable[[Paths, Membership], Session],
        wall: Callable[[], UnixSeconds] = wall_s,
    ) -> None:
        self.period_ms = settings.heartbeat.interval.ms
        self._skew_warn_s = settings.heartbeat.skew_warn.s
        self._fanout: Fanout[str] = Fanout(open_session)
        self._wall = wall
        self._repeats = Repeats()

    def round(self, desk: Desk) -> Outcome:
        """Beat once to every key holder."""
        started_ms = boottime_ms()
        node = desk.node()
        if node.mesh is None:
            return Outcome(state="no mesh")
        plan = desk.ask(PrepareHeartbeat(), HeartbeatPlan)
        targets = addressees(plan, node.host)
        if why := obstacle(plan, targets):
            if node.role in BEATING_ROLES:
                self._say(EventName.HEARTBEAT_FAILED, node.host, why)
            return Outcome(state=why)
        vigil = Interruption(desk, PATIENCE_MS)
        tally = self._beat(desk, vigil, targets, body(plan, self._wall()))
        if desk.stopping():
            return Outcome()
        if vigil.came:
            return Outcome(next_in_ms=0, error=desk.record.last_error, state=desk.record.state)
        outcome = tally.outcome()
        next_ms = next_beat_ms(tally.heard, self.period_ms) - (boottime_ms() - started_ms)
        return Outcome(next_in_ms=max(0, next_ms), error=outcome.error, state=outcome.state)

    def _beat(
        self, desk: Desk, vigil: Interruption, targets: tuple[Endpoint, ...], beat: HeartbeatBody
    ) -> "Tally":
        """Tell everybody and note each answer when it comes."""
        tally = Tally()
        note = partial(self._note, desk, tally)
        errands = {target.host: partial(_post, target, beat) for target in targets}
        self._fanout.keep(set(errands))
        answers = self._fanout.ask(errands, vigil, deadline_ms(self.period_ms), note)
        if vigil.stopping():
            # Silence proves nothing now, and the next round must not wait for the dead.
            self._fanout.abandon(errands)
            return tally
        for host in answers.keys() - tally.hosts:
            note(host, answers[host])
        return tally

    def _note(
        self, desk: Desk, tally: "Tally", host: str, answer: HeartbeatAnswer | Exception
    ) -> None:
        """Report and log one answer."""
        if isinstance(answer, Exception):
            trouble = _reason(answer)
        else:
            trouble = _report(desk, host, answer)
            tally.heard.append(answer)
        tally.hosts[host] = trouble
        if trouble:
            self._say(EventName.HEARTBEAT_FAILED, host, trouble)
        elif isinstance(answer, HeartbeatAnswer):
            self._log_answer(host, answer)

    def _log_answer(self, host: str, answer: HeartbeatAnswer) -> None:
        if not answer.valid:
            self._say(EventName.HEARTBEAT_MISMATCHED, host, MISMATCH)
            return
        level = "info" if self._repeats.forget(host) else "debug"
        log(EventName.HEARTBEAT_ANSWERED, level=level, host=host, term=answer.term)
        ahead_s = skew_s(answer, self._wall())
        if abs(ahead_s) < self._skew_warn_s:
            self._repeats.forget(f"clock {host}")
        elif self._repeats.is_news(f"clock {host}", "skewed"):
            log(EventName.CLOCK_SKEW_DETECTED, host=host, ahead_s=ahead_s)

    def _say(self, event: EventName, host: str, reason: str) -> None:
        if self._repeats.is_news(host, reason):
            log(event, level="warning", host=host, reason=reason)


@dataclass(slots=True)
class Tally:
    """Who answered in one round, and what was wrong with it."""

    hosts: dict[str, str] = field(default_factory=dict)
    heard: list[HeartbeatAnswer] = field(default_factory=list)

    def outcome(self) -> Outcome:
        """Return what the round came to: it failed if one mismatched or nobody answered."""
        troubles = [f"{host}: {trouble}" for host, trouble in self.hosts.items() if trouble]
        well = len(self.hosts) - len(troubles)
        error = "" if well else "; ".join(troubles)
        if not all(answer.valid for answer in self.heard):
            error = MISMATCH
        return Outcome(error=error, state=f"{well} of {len(self.hosts)} key holders answered")


def deadline_ms(interval_ms: int) -> int:
    """Return the patience with key holders; a dead one must not eat the interval."""
    return min(DEADLINE_MS_MAX, max(DEADLINE_MS_MIN, interval_ms))


def _post(target: Endpoint, beat: HeartbeatBody, session: Session) -> HeartbeatAnswer:
    return session.call(target, "POST", "/v1/heartbeat", beat, HeartbeatAnswer)


def _report(desk: Desk, host: str, answer: HeartbeatAnswer) -> str:
    """Give the answer to the broker; return why it does not want it, or an empty string."""
    try:
        desk.ask(NoteHeartbeat(host=host, answer=answer), Ack)
    except NotAMemberError as error:
        return error.detail
    return ""


def _reason(error: Exception) -> str:
    return error.detail if isinstance(error, MeshError) else f"{type(error).__name__}: {error}"
