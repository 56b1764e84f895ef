"""Leases: hand out work, take results, refuse stale numbers where the write happens."""

from collections.abc import Iterable

from broker.core.lease import Grant
from broker.core.renewal import Backoff
from broker.errors import ForbiddenError, UnavailableError
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.served import note_served
from broker.shell.state import BrokerState
from broker.shell.verbs.approvals import settle
from broker.shell.worklist import OWN, candidates, next_look_ms
from broker.wire.approval import DecideApproval
from broker.wire.codec import fault_of
from broker.wire.control import Ack
from broker.wire.events import WorkAvailable
from broker.wire.facts import RenewalFailed
from broker.wire.ids import Service
from broker.wire.renewal import InstallAnswer, RekeyAnswer
from broker.wire.work import (
    Approve,
    CompleteWork,
    Decided,
    ExtendLease,
    Failed,
    Install,
    Installed,
    Lease,
    LeaseWork,
    Rekey,
    Rekeyed,
    ReleaseLease,
    RenewMember,
    RenewOwn,
    WorkAnswer,
)

LEASE_MS = 60_000
"""A worker that is alive extends; one that is not loses the item after this at the latest."""
LEASE_MS_MAX = 600_000


def lease_work(
    state: BrokerState, _batch: Batch, caller: Caller, _request: LeaseWork
) -> WorkAnswer:
    """Grant the best item for the caller's service."""
    assert caller.service is not None
    for key, item in candidates(state, caller.service, caller):
        if state.leases.is_held(key):
            continue
        grant = state.leases.grant(
            key, item, caller.identity, now_ms=caller.now_ms, ttl_ms=LEASE_MS
        )
        return WorkAnswer(Lease(grant.lease_id, LEASE_MS, item), next_in_ms=0)
    return WorkAnswer(None, next_in_ms=next_look_ms(state, caller.service, caller.now))


def extend_lease(state: BrokerState, _batch: Batch, caller: Caller, request: ExtendLease) -> Ack:
    """Give the holder more time."""
    ttl_ms = min(max(request.ttl_ms, 1), LEASE_MS_MAX)
    state.leases.extend(request.lease_id, caller.identity, now_ms=caller.now_ms, ttl_ms=ttl_ms)
    return Ack()


def release_lease(state: BrokerState, batch: Batch, caller: Caller, request: ReleaseLease) -> Ack:
    """Take an item back untouched."""
    grant = state.leases.end(request.lease_id, caller.identity, caller.now_ms)
    give_back(batch, (grant,))
    return Ack()


def give_back(batch: Batch, grants: Iterable[Grant]) -> None:
    """Tell the services that items are free again."""
    for grant in grants:
        service = Service.APPROVAL if isinstance(grant.item, Approve) else Service.RENEWAL
        batch.publish(WorkAvailable(service))


def complete_work(state: BrokerState, batch: Batch, caller: Caller, request: CompleteWork) -> Ack:
    """Record the outcome of leased work; the lease ends with the commit."""
    grant = state.leases.live(request.lease_id, caller.identity, caller.now_ms)
    item, result = grant.item, request.result
    match item, result:
        case Rekey() | Install(), Rekeyed() | Installed() | Failed():
            _answer_waiting(state, grant, result)
        case RenewMember() | RenewOwn(), Failed():
            _renewal_failed(state, batch, caller, (grant, result))
        case RenewMember() | RenewOwn(), Installed():
            _renewal_done(state, batch, grant, result)
        case Approve(), Decided():
            _decided(state, batch, caller, (item, result))
        case _:
            raise ForbiddenError(f"{result.__class__.__name__} is no outcome of this work")
    batch.after_commit.append(lambda: _end_quietly(state, request.lease_id, caller))
    return Ack()


def _end_quietly(state: BrokerState, lease_id: int, caller: Caller) -> None:
    # Judged live a moment ago in the same drain; only the clock may have moved on.
    state.leases.end(lease_id, caller.identity, caller.now_ms)


def _answer_waiting(state: BrokerState, grant: Grant, result: Rekeyed | Installed | Failed) -> None:
    request_id = next(
        (task.request_id for task in state.tasks.all() if ("task", task.request_id) == grant.key),
        None,
    )
    if request_id is None:
        return
    state.tasks.drop(request_id)
    match result:
        case Rekeyed(csr=csr):
            state.resolve(request_id, RekeyAnswer(csr))
        case Installed():
            answer = InstallAnswer(result.serial, result.state, result.detail, result.hook_ms)
            state.resolve(request_id, answer)
        case Failed(detail=detail):
            state.resolve(request_id, fault_of(UnavailableError(detail)))


def _renewal_failed(
    state: BrokerState, batch: Batch, caller: Caller, what: tuple[Grant, Failed]
) -> None:
    grant, failed = what
    if grant.key == OWN:
        # The operator asked for one attempt; without this the wish would outrun the backoff.
        state.force_renewal = False
    renewal = state.settings.renewal
    state.backoff[grant.key] = state.backoff.get(grant.key, Backoff()).after_failure(
        caller.now_ms, min_ms=renewal.backoff_min.ms, max_ms=renewal.backoff_max.ms
    )
    member_id = _member_id(state, grant)
    if member_id and state.role == "primary" and state.failures.get(member_id) != failed.detail:
        state.failures[member_id] = failed.detail
        batch.append(RenewalFailed(member_id, failed.detail), "renewal")


def _renewal_done(state: BrokerState, batch: Batch, grant: Grant, done: Installed) -> None:
    state.backoff.pop(grant.key, None)
    member_id = _member_id(state, grant)
    state.failures.pop(member_id, None)
    if grant.key == OWN:
        state.force_renewal = False
    if member_id and state.role == "primary":
        note_served(state, batch, member_id, (done.serial, done.state, done.detail))


def _member_id(state: BrokerState, grant: Grant) -> str:
    if isinstance(grant.item, RenewMember):
        return grant.item.member_id
    return state.membership.member_id if state.membership else ""


def _decided(
    state: BrokerState, batch: Batch, caller: Caller, what: tuple[Approve, Decided]
) -> None:
    item, said = what
    if said.approve is None:
        state.deferred_by.setdefault(item.approval_id, set()).add(caller.identity)
        return
    row = state.ledger.approval(item.approval_id)
    if row is not None:
        decision = DecideApproval(item.approval_id, said.approve, said.operator, said.reason)
        settle(state, batch, caller.now, (row, decision))
