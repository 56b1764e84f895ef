"""One round: ask the broker what to say, tell every key holder at once, report their answers."""

from collections.abc import Callable, Mapping
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
from workers.process import Desk, Outcome
from workers.repeats import Repeats

DEADLINE_MS_MAX = 5_000
DEADLINE_MS_MIN = 1_000
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
        answers = self._beat(desk, targets, body(plan, self._wall()))
        if desk.stopping():
            return Outcome()
        outcome = self._note(desk, answers)
        spent_ms = boottime_ms() - started_ms
        heard = [answer for answer in answers.values() if isinstance(answer, HeartbeatAnswer)]
        next_ms = next_beat_ms(heard, self.period_ms) - spent_ms
        return Outcome(next_in_ms=max(0, next_ms), error=outcome.error, state=outcome.state)

    def _beat(
        self, desk: Desk, targets: tuple[Endpoint, ...], beat: HeartbeatBody
    ) -> Mapping[str, HeartbeatAnswer | Exception]:
        self._fanout.keep({target.host for target in targets})
        errands = {target.host: partial(_post, target, beat) for target in targets}
        return self._fanout.ask(errands, desk, deadline_ms(self.period_ms))

    def _note(self, desk: Desk, answers: Mapping[str, HeartbeatAnswer | Exception]) -> Outcome:
        """Report and log each answer; the round failed if one mismatched or nobody answered."""
        troubles: list[str] = []
        mismatched = False
        for host, answer in answers.items():
            if isinstance(answer, Exception):
                trouble = _reason(answer)
            else:
                trouble = _report(desk, host, answer)
                mismatched = mismatched or not answer.valid
            if trouble:
                troubles.append(f"{host}: {trouble}")
                self._say(EventName.HEARTBEAT_FAILED, host, trouble)
            elif isinstance(answer, HeartbeatAnswer):
                self._log_answer(host, answer)
        heard = len(answers) - len(troubles)
        error = MISMATCH if mismatched else "" if heard else "; ".join(troubles)
        return Outcome(error=error, state=f"{heard} of {len(answers)} key holders answered")

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
