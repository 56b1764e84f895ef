"""The order of succession and the conflicts of merges, as people see them."""

from broker.errors import NotFoundError
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.state import BrokerState
from broker.units import Millis, UnixSeconds
from broker.wire.claims import Claim
from broker.wire.control import Ack
from broker.wire.facts import MergeReviewed
from broker.wire.standby import (
    CloseReview,
    ListReviews,
    ListStandbys,
    ReviewLine,
    ReviewsView,
    StandbyLine,
    StandbysView,
)

REVIEWS_MAX = 500


def list_standbys(
    state: BrokerState, _batch: Batch, caller: Caller, _request: ListStandbys
) -> StandbysView:
    """Return who leads, who would take over, and why not."""
    state.known_mesh()
    election = state.election
    assert election is not None
    leader = election.leader.host if election.leader else ""
    return StandbysView(
        host=state.host,
        phase=election.phase,
        mode=election.rules.mode,
        term=state.term,
        primary=leader,
        lines=standby_lines(state, caller),
        powers=election.powers(state.surroundings(), caller.now_ms),
        withheld=election.withheld,
        silent_ms=election.silent_ms(caller.now_ms),
        reviews=state.ledger.review_count(),
    )


def standby_lines(state: BrokerState, caller: Caller) -> tuple[StandbyLine, ...]:
    """Return one line for each key holder and each nominated member, the primary first."""
    rows = [*state.ledger.key_holders(), *state.ledger.nominated()]
    election = state.election
    leader = election.leader.host if election and election.leader else ""
    ranks = sorted(row.host for row in rows if row.host != leader and row.role != "member")
    lines = [
        _line(state, caller, (row.host, row.member_id, row.role), _rank(ranks, row.host))
        for row in rows
    ]
    return tuple(sorted(lines, key=lambda line: (line.role != "primary", line.rank, line.host)))


def list_reviews(
    state: BrokerState, _batch: Batch, _caller: Caller, request: ListReviews
) -> ReviewsView:
    """Return what the merge decided and nobody has looked at."""
    state.known_mesh()
    rows = state.ledger.reviews(max(1, min(request.limit, REVIEWS_MAX)))
    lines = (
        ReviewLine(r.review_id, r.rule, r.subject, r.kept, r.lost, r.at, r.sequence) for r in rows
    )
    return ReviewsView(tuple(lines), state.ledger.review_count())


def close_review(state: BrokerState, batch: Batch, _caller: Caller, request: CloseReview) -> Ack:
    """Take a conflict off the list; an id may be shortened while it is unambiguous.

    Raises:
        NotFoundError: No open review of that id.
    """
    state.mesh()
    found = [
        review.review_id
        for review in state.ledger.reviews(REVIEWS_MAX)
        if request.review_id and review.review_id.startswith(request.review_id)
    ]
    if len(found) != 1:
        raise NotFoundError("no such review", hint="certmesh review list")
    batch.append(MergeReviewed(found[0]), request.operator)
    return Ack()


def _rank(ranks: list[str], host: str) -> int:
    return ranks.index(host) if host in ranks else 0


def _line(state: BrokerState, caller: Caller, who: tuple[str, str, str], rank: int) -> StandbyLine:
    host, member_id, roster_role = who
    election = state.election
    assert election is not None
    leads = election.leader is not None and election.leader.host == host
    if host == state.host:
        return _own_line(state, who, rank)
    claim, heard_ms = state.claims.get(host), election.company.heard_ms(host)
    line_state, reason = _state_of(state, claim, heard_ms, caller.now_ms)
    if roster_role == "member":
        line_state, reason = "nominated", "has not fetched the key yet"
    lag = _lag(state, host, claim)
    return StandbyLine(
        host=host,
        member_id=member_id,
        role="primary" if leads else "standby" if roster_role != "member" else "member",
        state="primary" if leads and line_state != "away" else line_state,
        ca="locked" if reason == "locked" else "unlocked" if claim else None,
        lag=lag,
        sequence=claim.sequence if claim else 0,
        term=claim.term if claim else 0,
        rank=rank,
        last_heard_at=_at(caller, heard_ms),
        reason=reason,
    )


def _own_line(state: BrokerState, who: tuple[str, str, str], rank: int) -> StandbyLine:
    election = state.election
    assert election is not None
    reason = election.promotable(state.surroundings()) if state.role == "standby" else ""
    return StandbyLine(
        host=who[0],
        member_id=who[1],
        role=state.role,
        state="primary" if state.role == "primary" else _word(reason),
        ca=state.keys.state,
        lag=0 if state.role == "primary" else state.replication.behind,
        sequence=state.ledger.head.sequence,
        term=state.term,
        rank=rank,
        last_heard_at=None,
        reason=reason,
    )


def _state_of(
    state: BrokerState, claim: Claim | None, heard_ms: Millis | None, now_ms: Millis
) -> tuple[str, str]:
    grace_ms = state.settings.failover.grace.ms
    if claim is None or heard_ms is None or now_ms - heard_ms > grace_ms:
        return "away", "not heard for a grace period"
    if claim.role == "primary":
        return "primary", ""
    followers = state.replication.followers
    if claim.promotable and followers is not None and not followers.sequence_of(claim.host):
        return "unready", "has not asked for rows of this reign yet"
    return _word("" if claim.promotable else claim.reason or "unready"), claim.reason


def _word(reason: str) -> str:
    if not reason:
        return "ready"
    return next((word for word in ("locked", "lagging") if reason.startswith(word)), "unready")


def _lag(state: BrokerState, host: str, claim: Claim | None) -> int | None:
    followers = state.replication.followers
    if followers is not None and (has := followers.sequence_of(host)):
        return max(0, state.ledger.head.sequence - has)
    return max(0, state.ledger.head.sequence - claim.sequence) if claim else None


def _at(caller: Caller, heard_ms: Millis | None) -> UnixSeconds | None:
    if heard_ms is None:
        return None
    return UnixSeconds(caller.now - (caller.now_ms - heard_ms) // 1000)
