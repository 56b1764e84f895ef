"""Where this node stands in the succession: loaded, stored, and told to those who wait for it."""

import msgspec

from broker.clock import boottime_ms
from broker.core.election import Election
from broker.core.observation import Rules, Standing, Timing
from broker.core.phases import Moved, Phase, Turn
from broker.errors import LedgerDamagedError, MeshError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.awake import away_ms
from broker.shell.batch import Batch
from broker.shell.bundling import LOCAL_PRIMARY, KnownPrimary
from broker.shell.replication import begin_reign, refuse_polls
from broker.shell.state import BrokerState
from broker.units import Millis
from broker.wire.codec import decode_body, encode_body
from broker.wire.events import RoleMoved, SyncWanted
from broker.wire.work import Approve, RenewMember

LOCAL_ELECTION = "election"

EVENTS: dict[Turn, EventName] = {
    Turn.ADMITTED: EventName.STANDBY_READY,
    Turn.DISMISSED: EventName.STANDBY_REMOVED,
    Turn.SILENCE: EventName.FAILOVER_SUSPECTED,
    Turn.LIFE: EventName.FAILOVER_CALMED,
    Turn.PROMOTED: EventName.FAILOVER_PROMOTED,
    Turn.PROMOTED_ALONE: EventName.FAILOVER_PROMOTED,
    Turn.OUTRANKED: EventName.FAILOVER_DEMOTED,
    Turn.LOCKED: EventName.FAILOVER_DEMOTED,
    Turn.LEFT: EventName.FAILOVER_DEMOTED,
    Turn.AWAY: EventName.FAILOVER_PENDING,
    Turn.SETTLED: EventName.FAILOVER_SETTLED,
    Turn.SETTLED_ALONE: EventName.FAILOVER_SETTLED,
    Turn.CONFIRMED: EventName.FAILOVER_CONFIRMED,
}
"""What a change of phase is called in the log."""


def open_election(state: BrokerState, now_ms: Millis) -> None:
    """Take up the election where the last lifetime left it, once this node has a mesh.

    Raises:
        LedgerDamagedError: What was stored cannot be read; a role is never guessed.
    """
    if state.membership is None:
        return
    failover = state.settings.failover
    rules = Rules(
        timing=Timing(failover.tick.ms, failover.grace.ms, failover.stagger.ms),
        mode=failover.mode,
        witnesses=failover.witnesses,
        lone_pair=failover.lone_pair,
    )
    away = away_ms(state.paths.broker_run, now_ms)
    state.election = Election(state.host, rules, _stored(state), now_ms, away)
    if state.election.serving:
        begin_reign(state, now_ms)


def store_standing(state: BrokerState, batch: Batch) -> None:
    """Keep role, terms and leader with this drain, if they changed."""
    election = state.election
    if election is None:
        return
    now_stands = msgspec.structs.replace(election.standing, beat_number=0)
    if now_stands == state.stands:
        return
    earlier, state.stands = state.stands, now_stands
    batch.on_void.append(lambda: setattr(state, "stands", earlier))
    batch.keep(LOCAL_ELECTION, encode_body(election.standing))


def refresh_standing(state: BrokerState, batch: Batch) -> None:
    """Keep what moves all the time, the newest beat and head heard of, now and then."""
    election = state.election
    if election is None:
        return
    raw = encode_body(election.standing)
    if state.ledger.local_get(LOCAL_ELECTION) != raw:
        batch.keep(LOCAL_ELECTION, raw)


def tell_moved(state: BrokerState, batch: Batch, moved: Moved) -> None:
    """Log a change of phase and wake whoever acts on roles."""
    assert state.election is not None
    log(
        EVENTS[moved.turn],
        before=moved.before,
        after=moved.after,
        term=state.election.term,
        cause=moved.turn,
        detail=moved.detail,
    )
    if moved.after in (Phase.SERVING, Phase.CARETAKING):
        if moved.turn is not Turn.CONFIRMED:
            begin_reign(state, boottime_ms())
    elif moved.after is not Phase.PENDING:
        refuse_polls(state)
        state.replication.followers = None
        state.due.clear()
        state.due_away.clear()
        state.leaving = None
        # What was leased for the mesh belongs to whoever leads now; a late result is refused.
        state.leases.withdraw((RenewMember, Approve))
    batch.publish(RoleMoved(state.role, state.term))
    batch.publish(SyncWanted())


def tell_leader(state: BrokerState, batch: Batch, host: str, term: int) -> None:
    """Point at another primary, and remember its doors."""
    doors = state.key_holder_doors().get(host)
    if doors is not None and host != state.host:
        batch.keep(LOCAL_PRIMARY, encode_body(KnownPrimary(term, doors)))
        batch.after_commit.append(lambda: setattr(state.follow, "primary", doors))
    state.follow.term = max(state.follow.term, term)
    batch.publish(RoleMoved(state.role, state.term))
    batch.publish(SyncWanted())


def _stored(state: BrokerState) -> Standing:
    raw = state.ledger.local_get(LOCAL_ELECTION)
    if raw is not None:
        try:
            return decode_body(raw, Standing)
        except MeshError as error:
            raise LedgerDamagedError(f"the stored role cannot be read: {error.detail}") from None
    term = state.ledger.term
    if state.keys.vault is not None and state.mesh_row() is not None:
        return Standing(Phase.SERVING, term, term, state.host, term)
    return Standing(Phase.MEMBER, 0, state.follow.term)
