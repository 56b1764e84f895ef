"""What is known of members in memory ends some time after they do.

Presence and pauses after failures are kept by member id and outlive the member: a mesh whose hosts
come and go would keep something of everybody who ever was. A few ids are looked at each time, so
that a large roster costs the loop nothing; nothing here changes what a living member is.
"""

from collections.abc import Hashable

from broker.shell.batch import Batch
from broker.shell.state import BrokerState
from broker.units import UnixSeconds

IDS_PER_LOOK = 64
"""Each costs one look-up by key: together a millisecond."""

LAST_WORD_S = 86_400
"""For so long one can still see when a revoked member was heard last."""

MEMBER = "member"
"""First part of the key under which the pauses of a member are kept."""


def forget_departed(state: BrokerState, batch: Batch, now: UnixSeconds) -> None:
    """Look at the next few ids, and forget those of members that are gone."""
    if state.mesh_row() is None or state.role not in {"primary", "standby"}:
        return  # without a roster nobody can be told from somebody who is gone
    if not state.departing:
        state.departing.extend(_ids(state))
    looked = [state.departing.popleft() for _ in range(min(IDS_PER_LOOK, len(state.departing)))]
    absent = {each: at for each in looked if (at := _gone_at(state, each)) is not None}
    gone = [each for each, at in absent.items() if now - at > LAST_WORD_S]
    if any(state.presence.of(member_id) for member_id in gone):
        batch.beside(lambda ledger: ledger.presence_forget(gone))

    def forget() -> None:
        state.presence.forget(gone)
        for member_id in absent:
            state.backoff.pop((MEMBER, member_id), None)

    # With the commit: the row that ended a member may be of this very drain.
    batch.after_commit.append(forget)


def _gone_at(state: BrokerState, member_id: str) -> int | None:
    """Return since when a member is gone, 0 when the roster does not know it; None if it lives."""
    member = state.ledger.member(member_id)
    if member is None:
        return 0
    return None if member.state == "active" else member.revoked_at or 0


def _ids(state: BrokerState) -> list[str]:
    waiting = (member_id for key in state.backoff if (member_id := _member_of(key)))
    return list(dict.fromkeys((*state.presence.ids(), *waiting)))


def _member_of(key: Hashable) -> str:
    """Return the member a pause is about, empty when it is about something else."""
    if isinstance(key, tuple) and len(key) == 2 and key[0] == MEMBER:  # noqa: PLR2004 (a pair)
        return str(key[1])
    return ""
