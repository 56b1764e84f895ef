"""What could be leased right now, in the order it matters.

Renewal: people waiting for an answer first (rekey, install), then this node's own certificate,
then the members that are due. Approval: requests nobody was asked about yet.
"""

from collections.abc import Hashable, Iterator

import msgspec

from broker.core.approval import in_turns
from broker.core.remote import RemoteGrant
from broker.shell.caller import Caller
from broker.shell.dueness import LOOK_ON_MS, DueRow, due_members, next_sweep_ms
from broker.shell.grants import with_mandate
from broker.shell.happenings import waiting_hooks
from broker.shell.oldkey import by_old_key, needs_old_key
from broker.shell.outbox import next_notice_ms, parcels_to_send
from broker.shell.peers import primary_doors
from broker.shell.redelivery import wanted_at
from broker.shell.state import BrokerState
from broker.shell.turns import OWN, own_turn_ms
from broker.units import UnixSeconds
from broker.wire.ids import Service
from broker.wire.work import Approve, RenewMember, RenewOwn, WorkItem

LOOK_SOON_MS = 250
LOOK_AGAIN_MS_MAX = 60_000
"""Due dates are wall time and read again at least this often (laptops sleep)."""
APPROVALS_PAGE = 512
KEY_HOLDERS = frozenset({"primary", "standby"})

Candidate = tuple[Hashable, WorkItem]


def candidates(state: BrokerState, service: Service, caller: Caller) -> Iterator[Candidate]:
    """Yield the items a worker of `service` may have now, best first."""
    if service is Service.APPROVAL:
        yield from _approvals(state, caller)
    elif service is Service.NOTIFY:
        yield from parcels_to_send(state, caller)
    elif service is Service.RENEWAL:
        yield from _local(state, caller)
        yield from _due_members(state, caller)
    elif service is Service.REMOTE_RENEWAL and caller.grant is not None:
        yield from _for_remote(state, caller, caller.grant)


def local_waits(state: BrokerState, caller: Caller) -> bool:
    """Whether there is work for this node itself that nobody has taken."""
    return any(not state.leases.is_held(key) for key, _ in _local(state, caller))


def next_look_ms(state: BrokerState, service: Service, caller: Caller) -> int:
    """Return when asking again makes sense if nothing is published meanwhile.

    What is due and has to wait, for its backoff or its turn, wakes nobody before that is over.
    """
    if service is Service.NOTIFY:
        return next_notice_ms(state, caller)
    if service not in {Service.RENEWAL, Service.REMOTE_RENEWAL}:
        return LOOK_AGAIN_MS_MAX
    own_ms = _own_wait_ms(state, caller) if service is Service.RENEWAL else None
    waits = [own_ms, next_sweep_ms(state, caller)]
    soonest = min((wait for wait in waits if wait is not None), default=LOOK_AGAIN_MS_MAX)
    return soonest if soonest == LOOK_ON_MS else max(LOOK_SOON_MS, min(soonest, LOOK_AGAIN_MS_MAX))


def _own_wait_ms(state: BrokerState, caller: Caller) -> int | None:
    """Return in how many ms this node may renew itself; None when something else has to happen."""
    due = wanted_at(state, own_due_at(state))
    if due is None or state.membership is None or state.leases.is_held(OWN):
        return None
    if state.role == "primary" and (state.keys.issuer is None or not state.serves):
        return None
    turn_ms = own_turn_ms(state, caller.now_ms, caller.now) - caller.now_ms
    if state.force_renewal:
        return max(0, turn_ms)
    backoff = state.backoff.get(OWN)
    rests_ms = backoff.not_before_ms - caller.now_ms if backoff is not None else 0
    return max(0, (due - caller.now) * 1000, turn_ms, rests_ms)


def own_due_at(state: BrokerState) -> UnixSeconds | None:
    """Return when this node's own certificate is due, None while unknown."""
    pulls = state.role != "primary"
    due, for_trust = (
        state.own.due_at(fraction=renewal_fraction(state), pulls=pulls),
        state.trust.due_at,
    )
    return due if due is None or for_trust is None else min(due, for_trust)


def renewal_fraction(state: BrokerState) -> float:
    """Return after which part of its lifetime this node's certificate is due."""
    mesh = state.mesh_row()
    if mesh is not None:
        return mesh.policy.renew_at
    # A member has no roster: what the primary said last, until then its own settings.
    return state.follow.renew_at or state.settings.policy.renew_at


def _local(state: BrokerState, caller: Caller) -> Iterator[Candidate]:
    for task in state.tasks.all():
        yield ("task", task.request_id), task.item
    yield from _own(state, caller)
    yield from waiting_hooks(state, caller)


def _own(state: BrokerState, caller: Caller) -> Iterator[Candidate]:
    due = wanted_at(state, own_due_at(state))
    if due is None or state.membership is None or state.leases.is_held(OWN):
        return
    if not state.force_renewal and (due > caller.now or _backs_off(state, OWN, caller)):
        return
    if own_turn_ms(state, caller.now_ms, caller.now) > caller.now_ms:
        return
    primary = state.role == "primary"
    if primary and (state.keys.issuer is None or not state.serves):
        return
    sans: tuple[str, ...] = (state.membership.server_name,)
    if needs_old_key(state, caller.now):
        work = by_old_key(state, caller, sans)
        yield OWN, msgspec.structs.replace(work, renew_at=renewal_fraction(state))
        return
    yield (
        OWN,
        RenewOwn(
            host=state.host,
            sans=sans,
            via_broker=primary,
            primary=None if primary else primary_doors(state),
            fresh=state.force_renewal,
            renew_at=renewal_fraction(state),
        ),
    )


def _due_members(state: BrokerState, caller: Caller) -> Iterator[tuple[Hashable, RenewMember]]:
    for row in due_members(state, caller):
        yield _renewal_of(state, row)


def _renewal_of(state: BrokerState, row: DueRow) -> tuple[Hashable, RenewMember]:
    member, certificate = row
    return (
        ("member", member.member_id),
        RenewMember(
            host=member.host,
            member_id=member.member_id,
            endpoint=member.endpoint,
            serial=certificate.serial,
            not_after=UnixSeconds(certificate.not_after),
            term=state.ledger.term,
        ),
    )


def _for_remote(state: BrokerState, caller: Caller, grant: RemoteGrant) -> Iterator[Candidate]:
    """Yield members for a worker on another machine: those that hold no key of the CA.

    Whoever brings a renewal could bring a CSR of its own. A name in a certificate is all that makes
    a key holder to others, so those are renewed by processes of this machine alone. A row that is
    passed over is found again by the next look at the ledger.
    """
    for row in due_members(state, caller):
        member = row[0]
        if member.role not in KEY_HOLDERS and not member.nominated:
            key, item = _renewal_of(state, row)
            yield key, with_mandate(state, grant, item, caller.now)


def _approvals(state: BrokerState, caller: Caller) -> Iterator[Candidate]:
    """Yield pending requests; one that a worker left to a person is not offered to it again."""
    mesh = state.mesh_row()
    if not state.serves or mesh is None:
        return
    waiting = state.ledger.approvals("pending", APPROVALS_PAGE)
    for row in in_turns(waiting, lambda row: row.source):
        key = ("approval", row.approval_id)
        deferred = caller.identity in state.deferred_by.get(row.approval_id, ())
        if deferred or state.leases.is_held(key):
            continue
        yield (
            key,
            Approve(
                approval_id=row.approval_id,
                host=row.host,
                sans=row.sans,
                source=row.source,
                method=row.method,
                key_fingerprint=row.key_hash,
                words=row.words,
                note=row.note,
                mesh=mesh.name,
            ),
        )


def _backs_off(state: BrokerState, key: Hashable, caller: Caller) -> bool:
    backoff = state.backoff.get(key)
    return backoff is not None and not backoff.is_over(caller.now_ms)
