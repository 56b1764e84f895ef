"""Leases: hand out work, take results, refuse stale numbers where the write happens."""

from collections.abc import Iterable

from broker.core.delivery_state import GOOD
from broker.core.lease import Grant
from broker.core.operators import may_decide, unnamed_refusal
from broker.core.renewal import Backoff
from broker.errors import ForbiddenError, NotFoundError, UnavailableError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.grants import count_renewal
from broker.shell.happenings import hooks_ran
from broker.shell.outbox import note_sent
from broker.shell.redelivery import rest
from broker.shell.served import note_served
from broker.shell.state import BrokerState
from broker.shell.turns import OWN, begin_work, hand_back
from broker.shell.verbs.approvals import settle
from broker.shell.worklist import candidates, local_waits, next_look_ms
from broker.units import UnixSeconds
from broker.wire.approval import DecideApproval
from broker.wire.codec import fault_of
from broker.wire.control import Ack
from broker.wire.events import WorkAvailable
from broker.wire.facts import RenewalFailed
from broker.wire.ids import Service
from broker.wire.messages import AnyReply
from broker.wire.renewal import InstallAnswer, RekeyAnswer
from broker.wire.work import (
    Approve,
    CompleteWork,
    Decided,
    ExtendLease,
    Failed,
    HooksRan,
    Install,
    Installed,
    Lease,
    LeaseWork,
    Rekey,
    Rekeyed,
    ReleaseLease,
    RenewMember,
    RenewOwn,
    RunHooks,
    SendNotice,
    Sent,
    WorkAnswer,
)

LEASE_MS = 60_000
"""A worker that is alive extends; one that is not loses the item after this at the latest."""
LEASE_MS_MAX = 600_000
QUEUED_MAX = 3
"""Attempts that may be put off by a busy issuer before it is told as a failure."""


def lease_work(state: BrokerState, batch: Batch, caller: Caller, request: LeaseWork) -> WorkAnswer:
    """Grant the best item for the caller's service."""
    assert caller.service is not None
    if not request.local and caller.service is Service.RENEWAL and local_waits(state, caller):
        return WorkAnswer(None, next_in_ms=0, local_waits=True)
    for key, item in candidates(state, caller.service, caller):
        if state.leases.is_held(key):
            continue
        grant = state.leases.grant(
            key, item, caller.identity, now_ms=caller.now_ms, ttl_ms=LEASE_MS
        )
        _take_back_if_void(state, batch, grant)
        begin_work(state, batch, grant)
        return WorkAnswer(Lease(grant.lease_id, LEASE_MS, item), next_in_ms=0)
    return WorkAnswer(None, next_in_ms=next_look_ms(state, caller.service, caller))


def _take_back_if_void(state: BrokerState, batch: Batch, grant: Grant) -> None:
    batch.on_void.append(lambda: state.leases.drop(grant))


def extend_lease(state: BrokerState, _batch: Batch, caller: Caller, request: ExtendLease) -> Ack:
    """Give the holder more time; a member no more than `LEASE_MS_MAX` altogether.

    While it is held it cannot renew itself: it must not expire in the hands of a worker that hangs.
    """
    ttl_ms = min(max(request.ttl_ms, 1), LEASE_MS_MAX)
    grant = state.leases.live(request.lease_id, caller.identity, caller.now_ms)
    if isinstance(grant.item, RenewMember):
        ttl_ms = min(ttl_ms, grant.granted_ms + LEASE_MS_MAX - caller.now_ms)
    state.leases.extend(request.lease_id, caller.identity, now_ms=caller.now_ms, ttl_ms=ttl_ms)
    return Ack()


def release_lease(state: BrokerState, batch: Batch, caller: Caller, request: ReleaseLease) -> Ack:
    """Take an item back untouched."""
    grant = state.leases.end(request.lease_id, caller.identity, caller.now_ms)
    hand_back(state, grant)
    give_back(batch, (grant,))
    return Ack()


def give_back(batch: Batch, grants: Iterable[Grant]) -> None:
    """Tell the services that items are free again."""
    for grant in grants:
        batch.publish(WorkAvailable(_service_of(grant)))


def _service_of(grant: Grant) -> Service:
    match grant.item:
        case Approve():
            return Service.APPROVAL
        case SendNotice():
            return Service.NOTIFY
        case _:
            return Service.RENEWAL


def complete_work(state: BrokerState, batch: Batch, caller: Caller, request: CompleteWork) -> Ack:
    """Record the outcome of leased work; the lease ends with the commit."""
    grant = state.leases.close(request.lease_id, caller.identity, caller.now_ms)
    # The item stays taken until the outcome is durable: nobody may be given it meanwhile.
    batch.after_commit.append(lambda: state.leases.drop(grant))
    batch.on_void.append(lambda: state.leases.reopen(grant.lease_id))
    item, result = grant.item, request.result
    match item, result:
        case Rekey() | Install(), Rekeyed() | Installed() | Failed():
            _answer_waiting(state, batch, grant, result)
        case RenewMember() | RenewOwn(), Failed():
            _renewal_failed(state, batch, caller, (grant, result))
        case RenewMember() | RenewOwn(), Installed():
            _renewal_done(state, batch, caller, (grant, result))
        case Approve(), Decided():
            _decided(state, batch, caller, (item, result))
        case SendNotice(), Sent() | Failed():
            note_sent(state, batch, caller, (item, result))
        case RunHooks(), HooksRan() | Failed():
            hooks_ran(state, batch, caller, (item, result))
        case _:
            raise ForbiddenError(f"{result.__class__.__name__} is no outcome of this work")
    return Ack()


def _answer_waiting(
    state: BrokerState, batch: Batch, grant: Grant, result: Rekeyed | Installed | Failed
) -> None:
    request_id = next(
        (task.request_id for task in state.tasks.all() if ("task", task.request_id) == grant.key),
        None,
    )
    if request_id is None:
        return
    reply: AnyReply
    match result:
        case Rekeyed():
            reply = RekeyAnswer(result.csr, result.proof)
        case Installed():
            reply = InstallAnswer(result.serial, result.state, result.detail, result.hook_ms)
        case Failed(detail=detail):
            reply = fault_of(UnavailableError(detail))

    def answer() -> None:
        state.tasks.drop(request_id)
        state.resolve(request_id, reply)

    batch.after_commit.append(answer)


def _renewal_failed(
    state: BrokerState, batch: Batch, caller: Caller, what: tuple[Grant, Failed]
) -> None:
    grant, failed = what
    renewal = state.settings.renewal
    backoff = state.backoff.get(grant.key, Backoff()).after_failure(
        caller.now_ms,
        min_ms=renewal.backoff_min.ms,
        max_ms=renewal.backoff_max.ms,
        left_s=_not_after(state, grant, caller.now) - caller.now,
    )
    member_id = _member_id(state, grant)
    member = state.ledger.member(member_id) if state.serves else None
    # Waiting for one's turn is no trouble to tell anybody of, unless the turn never comes.
    is_trouble = not failed.queued or backoff.failures > QUEUED_MAX
    if member is not None and member.last_error != failed.detail and is_trouble:
        batch.append(RenewalFailed(member_id, failed.detail), "renewal")

    def keep() -> None:
        state.backoff[grant.key] = backoff
        if grant.key == OWN and is_trouble:
            # The operator asked for one attempt; the wish must not outrun the backoff.
            state.grant_wish(grant.lease_id)
            state.own_failure = failed.detail

    batch.after_commit.append(keep)


def _renewal_done(
    state: BrokerState, batch: Batch, caller: Caller, what: tuple[Grant, Installed]
) -> None:
    grant, done = what
    member_id = _member_id(state, grant)
    if member_id and state.serves:
        try:
            outcome = (done.serial, done.state, done.detail)
            note_served(state, batch, member_id, outcome, source="work")
        except NotFoundError as error:
            _renewal_failed(state, batch, caller, (grant, Failed(error.detail)))
            return
    count_renewal(state, batch, caller)

    def forget() -> None:
        state.backoff.pop(grant.key, None)
        if grant.key == OWN:
            if done.state not in GOOD:
                rest(state, caller)  # live, with nothing to go back to: its hooks are tried again
            if state.own_failure and not state.serves and done.state in GOOD:
                log(EventName.RENEWAL_RECOVERED, host=state.host, after=state.own_failure)
            state.grant_wish(grant.lease_id)
            state.own_failure = ""

    batch.after_commit.append(forget)


def _not_after(state: BrokerState, grant: Grant, now: UnixSeconds) -> UnixSeconds:
    if isinstance(grant.item, RenewMember):
        return grant.item.not_after
    return state.own.not_after or now


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
    mesh = state.mesh()
    state.full_powers(caller.now_ms)
    if said.approve and not may_decide(mesh.policy, said.operator):
        # Left to others: offered again, this worker would only say the same.
        state.deferred_by.setdefault(item.approval_id, set()).add(caller.identity)
        raise unnamed_refusal()
    row = state.ledger.approval(item.approval_id)
    if row is not None:
        decision = DecideApproval(item.approval_id, said.approve, said.operator, said.reason)
        settle(state, batch, caller.now, (row, decision))
