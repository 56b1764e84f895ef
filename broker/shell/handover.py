"""A planned end of a primary: finish, let the successor have the last row, say goodbye.

From the moment it begins nothing more is written here. The last beat, signed and marked `left`, is
the word that spares the others the grace period; it names who is asked to take over.
"""

from broker.core.phases import Turn
from broker.errors import ConflictError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.books import Leaving
from broker.shell.gossip import sign_next_beat
from broker.shell.standing import store_standing, tell_moved
from broker.shell.state import BrokerState
from broker.units import Millis
from broker.wire.facts import FailoverDemoted

PATIENCE_MS = 2_000
"""A successor that does not fetch the last row in this time gets it when it merges."""


def ready_successors(state: BrokerState, now_ms: Millis) -> list[str]:
    """Return the standbys that follow and are promotable, in the order of succession."""
    followers, election = state.replication.followers, state.election
    if followers is None or election is None:
        return []
    since_ms = Millis(now_ms - state.settings.failover.grace.ms)
    return sorted(
        host
        for host, claim in state.claims.items()
        if claim.promotable
        and followers.sequence_of(host)
        and election.company.heard_since(host, since_ms)
    )


def choose_successor(state: BrokerState, wanted: str, now_ms: Millis) -> str:
    """Return who shall take over.

    Raises:
        ConflictError: Nobody is ready, or not the one that is wanted.
    """
    ready = ready_successors(state, now_ms)
    if wanted and wanted not in ready:
        raise ConflictError(
            f"{wanted} is not ready to take over",
            hint="certmesh standby list shows who is and why not",
        )
    if not ready:
        raise ConflictError(
            "no standby is ready to take over",
            hint="certmesh standby list; certmesh standby nominate HOST makes one",
        )
    return wanted or ready[0]


def begin_leaving(
    state: BrokerState, batch: Batch, successor: str, cause: str, now_ms: Millis
) -> None:
    """Write the last row of this term and wait for the successor to have it."""
    if not state.serves:
        return
    row = batch.append(FailoverDemoted(state.host, cause, successor), "failover")
    state.leaving = Leaving(successor, row.sequence, now_ms + PATIENCE_MS)
    batch.on_void.append(lambda: setattr(state, "leaving", None))
    log(EventName.FAILOVER_STARTED, successor=successor, cause=cause)


def finish_leaving(state: BrokerState, batch: Batch, now_ms: Millis) -> None:
    """Sign the last beat when the successor has everything, or when it took too long."""
    leaving = state.leaving
    if leaving is None or state.election is None:
        return
    followers = state.replication.followers
    has_all = followers is not None and (
        followers.sequence_of(leaving.successor) >= leaving.sequence
    )
    if has_all or now_ms >= leaving.until_ms:
        say_goodbye(state, batch, leaving.successor, now_ms)


def say_goodbye(state: BrokerState, batch: Batch, successor: str, now_ms: Millis) -> None:
    """Step down with a signed last beat; without a usable key, without one."""
    election = state.election
    assert election is not None
    if state.keys.issuer is None:
        moved = election.step_down(Turn.LOCKED, now_ms, "the CA key is locked")
    else:
        beat = sign_next_beat(state, left=True, successor=successor)
        moved = election.left(beat, now_ms)
    tell_moved(state, batch, moved)
    store_standing(state, batch)
