"""The compliance summary: what the rules look at, gathered from this key holder."""

from collections.abc import Iterator
from itertools import islice

from broker.core.compliance import Checkup, judge
from broker.core.policy import outside_of
from broker.errors import BusyError, InternalError, MeshError
from broker.ledger.rows import MemberRow, MeshRow
from broker.ledger.trail import Trail, inspect_trail
from broker.pki.slots import UNATTENDED
from broker.shell.backup import last_backup_at
from broker.shell.batch import Batch
from broker.shell.caller import DEFERRED, Caller, Deferred
from broker.shell.outlook import outage_view
from broker.shell.state import BrokerState
from broker.shell.verbs.audit import TRAIL, contradicting
from broker.shell.verbs.continuity import standby_lines
from broker.wire.audit import ComplianceView, GetCompliance
from broker.wire.codec import fault_of
from broker.wire.control import Fault

PAGE = 500
MEMBERS_MAX = 1_000
"""Members looked at one by one, 20 us each; of a larger mesh an index tells the rest."""
FOUND_MAX = 200


def get_compliance(
    state: BrokerState, _batch: Batch, caller: Caller, _request: GetCompliance
) -> Deferred:
    """Judge this mesh by the rules; the chain is recomputed off the loop first.

    Raises:
        NotPrimaryError: A member has no roster to judge.
        BusyError: The chain is being recomputed for somebody else.
    """
    state.known_mesh()
    path = state.paths.ledger

    def settle(_batch: Batch, outcome: object) -> None:
        state.resolve(caller.request_id, _view(state, caller, outcome))

    if caller.request_id not in state.waiting and not state.offloop.alone(
        TRAIL, lambda: inspect_trail(path), settle
    ):
        raise BusyError("the chain is being recomputed already", retry_after_ms=1000)
    state.wait(caller, caller.now_ms + caller.ttl_ms)
    return DEFERRED


def _view(state: BrokerState, caller: Caller, outcome: object) -> ComplianceView | Fault:
    if not isinstance(outcome, Trail):
        trouble = outcome if isinstance(outcome, MeshError) else InternalError(f"{outcome!r}")
        return fault_of(trouble)
    try:
        mesh = state.known_mesh()
    except MeshError as refusal:
        return fault_of(refusal)  # the role moved while the rows were read
    lines = judge(_checkup(state, caller, mesh, outcome), caller.now)
    return ComplianceView(mesh.name, mesh.policy.profile, lines)


def _checkup(state: BrokerState, caller: Caller, mesh: MeshRow, trail: Trail) -> Checkup:
    vault = state.keys.vault
    slots = tuple(slot.kind for slot in vault.sealed.slots) if vault is not None else ()
    standbys = [line for line in standby_lines(state, caller) if line.role == "standby"]
    expired = tuple(row.host for row, _ in state.ledger.ending(caller.now + 1, FOUND_MAX))
    return Checkup(
        policy=mesh.policy,
        enrollment_open=mesh.enrollment_open,
        slots=slots,
        unattended=tuple(kind for kind in slots if kind in UNATTENDED),
        locked=state.keys.issuer is None,
        is_primary=state.serves,
        members=state.ledger.member_count(),
        standbys=tuple(line.host for line in standbys),
        ready=tuple(line.host for line in standbys if line.state == "ready"),
        last_backup_at=last_backup_at(state),
        outage=outage_view(state, mesh, caller.now),
        expired=expired,
        outside=_outside(state, mesh),
        clock_off_s=state.clock_off_s,
        clock_limit_s=state.settings.failover.skew_refuse.s,
        reviews=state.ledger.review_count(),
        rows=trail.chain.rows,
        first_bad=trail.chain.first_bad,
        witnesses=state.witnesses.witnesses(caller.now),
        contradicted_by=contradicting(state, trail),
    )


def _outside(state: BrokerState, mesh: MeshRow) -> tuple[str, ...]:
    """Return the hosts with a name outside the policy."""
    members = _members(state)
    found = (m.host for m in members if outside_of(mesh.policy, mesh.domain, m.sans))
    return tuple(islice(found, FOUND_MAX))


def _members(state: BrokerState) -> Iterator[MemberRow]:
    after = ""
    for _ in range(MEMBERS_MAX // PAGE):
        page = state.ledger.members_page(after, PAGE)
        yield from (row for row, _ in page if row.state == "active")
        if len(page) < PAGE:
            return
        after = page[-1][0].host
