"""What the broker does by itself, a few times a second: ends of leases, silence, deadlines."""

import msgspec

from broker.clock import boottime_ms
from broker.errors import DeadlineError, MeshError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.admission import follow_roster_role
from broker.shell.attempts import flush_attempts
from broker.shell.awake import note_awake
from broker.shell.backup import tick_backups
from broker.shell.batch import Batch
from broker.shell.clockcare import watch_clock
from broker.shell.departed import forget_departed
from broker.shell.lookout import look
from broker.shell.membership import read_membership
from broker.shell.orphans import adopt_own
from broker.shell.outbox import tell
from broker.shell.replication import end_polls
from broker.shell.restored import go_on_if_all_answered
from broker.shell.standing import open_election, refresh_standing
from broker.shell.state import BrokerState
from broker.shell.succession import pass_time
from broker.shell.trust import follow_and_tell
from broker.shell.turns import flush_turns
from broker.shell.verbs.approvals import expire_approvals
from broker.shell.verbs.rollover import retire_when_over
from broker.shell.verbs.work import give_back
from broker.shell.witness import settle_doubts
from broker.units import Millis, UnixSeconds
from broker.wire.codec import fault_of
from broker.wire.events import RoleMoved

PRESENCE_EVERY_MS = 5_000
SLOW_EVERY_MS = 1_000
FORGET_EVERY_MS = 600_000
REMEMBER_S = 86_400
"""How long the reply of a request is kept for a retry."""

_presence = msgspec.msgpack.Encoder()


class Ticks:
    """Runs the periodic duties; each has its own next moment."""

    def __init__(self, state: BrokerState) -> None:
        self._state = state
        now_ms = boottime_ms()
        self._slow_ms = self._presence_ms = now_ms
        self._forget_ms = Millis(now_ms + FORGET_EVERY_MS)
        self._said = ""

    def run(self, batch: Batch, now_ms: Millis, now: UnixSeconds) -> None:
        """Do what is due."""
        state = self._state
        pass_time(state, batch, now_ms)
        for worker in state.workers.sweep(now_ms):
            log(EventName.WORKER_LOST, instance=worker.instance, liveness=worker.liveness)
            if worker.liveness == "dead":
                give_back(batch, state.leases.lost_with(worker.identity))
        give_back(batch, state.leases.expired(now_ms))
        self._end_waiting(now_ms)
        end_polls(state, now_ms, now)
        batch.after_commit.append(lambda: follow_and_tell(state, batch, now_ms, now))
        if now_ms >= self._slow_ms:
            self._slow_ms = Millis(now_ms + SLOW_EVERY_MS)
            note_awake(state.paths.broker_run, now_ms)
            state.clock_off_s = state.presence.clock_off_s(now)
            watch_clock(state, now, now_ms)
            expire_approvals(state, batch, now)
            follow_roster_role(state, batch, now_ms)
            adopt_own(state, batch, now_ms)
            go_on_if_all_answered(state, batch, now_ms)
            tick_backups(state, now_ms, now)
            retire_when_over(state, batch, now_ms, now)
            settle_doubts(state, batch, now_ms)
            look(state, batch, now)
            forget_departed(state, batch, now)
            tell(state, batch, now_ms, now)
            self._look_for_membership(batch, now_ms)
        if now_ms >= self._presence_ms:
            self._presence_ms = Millis(now_ms + PRESENCE_EVERY_MS)
            flush_presence(state, batch)
            flush_attempts(state, batch, now)
            flush_turns(state, batch, now)
            refresh_standing(state, batch)
        if now_ms >= self._forget_ms:
            self._forget_ms = Millis(now_ms + FORGET_EVERY_MS)
            batch.forget_before(UnixSeconds(now - REMEMBER_S))

    def _end_waiting(self, now_ms: Millis) -> None:
        state = self._state
        over = [key for key, waiting in state.waiting.items() if now_ms >= waiting.deadline_ms]
        for request_id in over:
            state.tasks.drop(request_id)
            refusal = DeadlineError("no worker of this node answered in time", retry_after_ms=1000)
            state.resolve(request_id, fault_of(refusal))

    def _look_for_membership(self, batch: Batch, now_ms: Millis) -> None:
        """Notice a join that happened while the pool was already running."""
        state = self._state
        if state.membership is not None:
            return
        try:
            state.membership = read_membership(state.paths)
        except MeshError as error:
            if error.detail != self._said:
                log(EventName.CONFIG_REJECTED, detail=error.detail, hint=error.hint)
            self._said = error.detail
            return
        if state.membership is not None:
            state.host = state.membership.host
            state.follow.term = state.membership.term
            open_election(state, now_ms)
            batch.publish(RoleMoved(state.role, state.term))


def flush_presence(state: BrokerState, batch: Batch) -> None:
    """Write the presence rows that changed, all in one go."""
    rows = state.presence.take_dirty()
    if rows:
        batch.on_void.append(lambda: state.presence.mark_dirty(rows))
        batch.save_presence({key: _presence.encode(row) for key, row in rows.items()})
