"""What the roster makes of this node: admitted to the succession, or dismissed from it.

The key comes before the role and leaves with it: a node without a key never becomes a standby, and
one whose role was taken away by a verified row removes the key it was given.
"""

from broker.core.election import PRIMARY, STANDBY
from broker.core.phases import Phase
from broker.errors import MeshError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.nextvault import destroy_copies
from broker.shell.standing import store_standing, tell_moved
from broker.shell.state import BrokerState
from broker.shell.unlocking import close_keys
from broker.shell.vault import remove_vault
from broker.units import Millis
from broker.wire.events import AuthorityMoved, SyncWanted


def follow_roster_role(state: BrokerState, batch: Batch, now_ms: Millis) -> None:
    """Act on what the newest verified roster says of this node."""
    election = state.election
    if election is None or election.phase in PRIMARY or state.keys.vault is None:
        return
    if state.restored is not None and state.restored.held:
        return  # what a backup says of roles is old, and its key may be the last one
    holds = _is_key_holder(state)
    if holds and election.phase is Phase.MEMBER:
        tell_moved(state, batch, election.admit(now_ms))
        state.follow.nominated = False
        store_standing(state, batch)
    elif holds is False and election.phase in STANDBY:
        _dismiss(state, batch)
    elif holds is False and not state.follow.nominated:
        _drop_key(state, batch)  # a dismissal that a crash interrupted


def _is_key_holder(state: BrokerState) -> bool | None:
    """Return whether this node is in the succession; None while nobody said anything."""
    membership, bundle = state.membership, state.follow.bundle
    assert membership is not None
    row = state.ledger.member(membership.member_id)
    head = state.ledger.head
    if bundle is not None and (bundle.head.term, bundle.head.sequence) > (head.term, head.sequence):
        # Signed and newer than our rows. A standby that was removed may fetch no more rows.
        return any(h.member_id == membership.member_id for h in bundle.key_holders)
    if row is None:
        return None
    return row.state == "active" and row.role in {"primary", "standby"}


def _dismiss(state: BrokerState, batch: Batch) -> None:
    election = state.election
    assert election is not None
    tell_moved(state, batch, election.dismiss())
    store_standing(state, batch)
    batch.publish(SyncWanted())
    _drop_key(state, batch)


def _drop_key(state: BrokerState, batch: Batch) -> None:
    close_keys(state)
    state.keys.vault = None
    batch.publish(AuthorityMoved("absent"))
    batch.after_commit.append(lambda: _forget_key(state))


def _forget_key(state: BrokerState) -> None:
    try:
        kept = remove_vault(state.paths.authority)
        if kept is not None:
            log(EventName.STANDBY_REMOVED, detail=f"the root key was kept in {kept}")
        destroy_copies(state.paths.authority)
        state.paths.credential.unlink(missing_ok=True)
    except (MeshError, OSError) as error:
        log(EventName.STORAGE_FAILED, detail=f"the CA key was not removed: {error}")
