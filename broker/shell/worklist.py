"""What could be leased right now, in the order it matters.

Renewal: people waiting for an answer first (rekey, install), then this node's own certificate,
then the members that are due. Approval: requests nobody was asked about yet.
"""

from collections.abc import Hashable, Iterator

from broker.core.approval import in_turns
from broker.ledger.rows import CertificateRow, MemberRow
from broker.shell.caller import Caller
from broker.shell.peers import primary_doors
from broker.shell.state import BrokerState
from broker.units import UnixSeconds
from broker.wire.ids import Service
from broker.wire.work import Approve, RenewMember, RenewOwn, WorkItem

OWN = ("own",)
LOOK_AGAIN_MS_MAX = 60_000
"""Due dates are wall time and read again at least this often (laptops sleep)."""
DUE_PAGE = 128
BEFORE_ALL = (-1, "")
PAGES_PER_LOOK = 8
"""Bounds one look at about ten milliseconds."""
SCAN_EVERY_MS = 500
"""After a page without a ready member: how long the ledger is left alone."""
APPROVALS_PAGE = 512

Candidate = tuple[Hashable, WorkItem]


def candidates(state: BrokerState, service: Service, caller: Caller) -> Iterator[Candidate]:
    """Yield the items a worker of `service` may have now, best first."""
    if service is Service.APPROVAL:
        yield from _approvals(state, caller)
    elif service is Service.RENEWAL:
        for task in state.tasks.all():
            yield ("task", task.request_id), task.item
        yield from _own(state, caller)
        yield from _due_members(state, caller)


def next_look_ms(state: BrokerState, service: Service, now: UnixSeconds) -> int:
    """Return when asking again makes sense if nothing is published meanwhile."""
    if service is not Service.RENEWAL:
        return LOOK_AGAIN_MS_MAX
    moments: list[int | None] = [own_due_at(state)]
    if state.keys.issuer is not None and state.serves:
        moments.append(state.ledger.next_renew_at())
    waits = [max(0, at - now) * 1000 for at in moments if at is not None]
    backoffs = [entry.not_before_ms for entry in state.backoff.values()]
    soonest = min([*waits, LOOK_AGAIN_MS_MAX])
    # Something that is due but backing off must not make the workers spin.
    floor = 1000 if backoffs or state.leases else 250
    return max(floor, min(soonest, LOOK_AGAIN_MS_MAX))


def own_due_at(state: BrokerState) -> UnixSeconds | None:
    """Return when this node's own certificate is due, None while unknown."""
    pulls = state.role != "primary"
    mesh = state.mesh_row()
    # A member has no roster: its own settings stand in, and the primary's sweep has the last word.
    fraction = mesh.policy.renew_at if mesh is not None else state.settings.policy.renew_at
    due, for_trust = state.own.due_at(fraction=fraction, pulls=pulls), state.trust.due_at
    return due if due is None or for_trust is None else min(due, for_trust)


def _own(state: BrokerState, caller: Caller) -> Iterator[Candidate]:
    due = own_due_at(state)
    if due is None or state.membership is None or state.leases.is_held(OWN):
        return
    if not state.force_renewal and (due > caller.now or _backs_off(state, OWN, caller)):
        return
    primary = state.role == "primary"
    if primary and (state.keys.issuer is None or not state.serves):
        return
    sans: tuple[str, ...] = (state.membership.server_name,)
    yield (
        OWN,
        RenewOwn(
            host=state.host,
            sans=sans,
            via_broker=primary,
            primary=None if primary else primary_doors(state),
        ),
    )


def _due_members(state: BrokerState, caller: Caller) -> Iterator[Candidate]:
    """Yield due members, oldest due date first.

    The rows of one look at the ledger are handed out before the next look, so that a sweep of
    many members costs each of them once; a row may have aged meanwhile and is checked again.
    """
    if not state.serves or state.keys.issuer is None:
        return
    for _ in range(PAGES_PER_LOOK):
        if not state.due and not _scan_due(state, caller):
            return
        while state.due:
            member, certificate = state.due.popleft()
            fresh = state.ledger.member(member.member_id)
            if fresh is None or not _is_still_due(state, fresh, certificate, caller):
                continue
            yield (
                ("member", fresh.member_id),
                RenewMember(
                    host=fresh.host,
                    member_id=fresh.member_id,
                    endpoint=fresh.endpoint,
                    serial=certificate.serial,
                    not_after=UnixSeconds(certificate.not_after),
                    term=state.ledger.term,
                ),
            )


def _scan_due(state: BrokerState, caller: Caller) -> bool:
    """Look at the next page of due rows; return whether looking further may find something.

    After the last page the next look begins again, a moment later. Paging keeps a look short
    however many members back off, and lets none of them hide another.
    """
    if caller.now_ms < state.due_not_before_ms:
        return False
    rows = state.ledger.due(caller.now, DUE_PAGE, state.due_after)
    for member, certificate in rows:
        own = member.host == state.host
        expired = certificate.not_after <= caller.now
        if not own and not expired and _is_ready(state, ("member", member.member_id), caller):
            state.due.append((member, certificate))
    if len(rows) < DUE_PAGE:
        state.due_after = BEFORE_ALL
        state.due_not_before_ms = 0 if state.due else caller.now_ms + SCAN_EVERY_MS
    else:
        last_member, last_certificate = rows[-1]
        state.due_after = (last_certificate.renew_at, last_member.member_id)
    return bool(state.due) or len(rows) == DUE_PAGE


def _is_ready(state: BrokerState, key: Hashable, caller: Caller) -> bool:
    return not state.leases.is_held(key) and not _backs_off(state, key, caller)


def _is_still_due(
    state: BrokerState, member: MemberRow, certificate: CertificateRow, caller: Caller
) -> bool:
    """Whether a row read earlier still describes a member to renew now."""
    return (
        member.state == "active"
        and member.current_serial == certificate.serial
        and certificate.not_after > caller.now
        and _is_ready(state, ("member", member.member_id), caller)
    )


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
