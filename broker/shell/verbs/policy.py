"""The policy: shown with what it means for the mesh, and changed for all of it at once."""

from collections.abc import Iterator

from broker.core.pace import attempts_advice
from broker.core.policy import (
    changed_fields,
    check_bounds,
    outside_of,
    patched,
    warnings_about,
)
from broker.errors import ConflictError, PolicyRefusedError
from broker.ledger.rows import MeshRow
from broker.pki.slots import UNATTENDED
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.bounds import bounds_of, permitted_names
from broker.shell.caller import Caller, Deferred
from broker.shell.outside import Walk, walk_members
from broker.shell.state import BrokerState
from broker.units import UnixSeconds
from broker.wire.facts import PolicyChanged
from broker.wire.messages import AnyReply
from broker.wire.policy import GetPolicy, Policy, PolicyView, SetPolicy
from broker.wire.profiles import PROFILES


def get_policy(
    state: BrokerState, batch: Batch, caller: Caller, _request: GetPolicy
) -> AnyReply | Deferred:
    """Return the policy in force and whom it leaves out."""
    mesh = state.known_mesh()

    def conclude(_batch: Batch, walk: Walk) -> AnyReply:
        return _view(state, caller.now, (mesh, walk, ()))

    walk = Walk(mesh.policy, mesh.domain)
    return walk_members(state, batch, caller, walk, conclude)


def set_policy(
    state: BrokerState, batch: Batch, caller: Caller, request: SetPolicy
) -> AnyReply | Deferred:
    """Change the policy, or tell what the change would do.

    Members that fall outside keep their certificates until those end; their renewals are refused.

    Raises:
        PolicyRefusedError: It is impossible, beyond the issuing certificate, or would leave this
            primary without a certificate of its own.
        ConflictError: Somebody else changed the policy while the members were looked at.
    """
    mesh = state.mesh()
    state.full_powers(caller.now_ms)
    wanted = patched(mesh.policy, request.patch)
    check_bounds(wanted, bounds_of(state))
    _check_own_names(state, mesh, wanted)
    changed = changed_fields(mesh.policy, wanted)

    def conclude(ending: Batch, walk: Walk) -> AnyReply:
        now = state.mesh()
        state.full_powers(caller.now_ms)
        if now.policy != mesh.policy:
            raise ConflictError(
                "somebody else changed the policy meanwhile", hint="certmesh ca policy show"
            )
        if changed and not request.dry_run:
            ending.append(PolicyChanged(wanted, changed), request.operator)
            ending.after_commit.append(
                lambda: log(
                    EventName.POLICY_CHANGED, fields=",".join(changed), operator=request.operator
                )
            )
        return _view(state, caller.now, (mesh, walk, changed))

    return walk_members(state, batch, caller, Walk(wanted, mesh.domain), conclude)


def _check_own_names(state: BrokerState, mesh: MeshRow, wanted: Policy) -> None:
    """Refuse a change that leaves this primary outside: a CA that cannot certify itself is none."""
    assert state.membership is not None
    own = state.ledger.member(state.membership.member_id)
    if own is None:
        return
    before = outside_of(mesh.policy, mesh.domain, own.sans)
    lost = [name for name in outside_of(wanted, mesh.domain, own.sans) if name not in before]
    if lost:
        raise PolicyRefusedError(
            f"{state.host} itself would fall outside with {', '.join(lost[:8])}: "
            "the primary could not renew its own certificate",
            hint="keep these names and networks in the policy",
        )


def _view(
    state: BrokerState, now: UnixSeconds, what: tuple[MeshRow, Walk, tuple[str, ...]]
) -> PolicyView:
    mesh, walk, changed = what
    bounds = bounds_of(state)
    attempts = attempts_advice(walk.policy, state.settings.renewal.attempt_every.ms)
    found = (
        *warnings_about(walk.policy, bounds, now),
        *([attempts] if attempts else []),
        *_warnings(state, mesh, walk.policy),
    )
    return PolicyView(
        policy=walk.policy,
        permitted_names=permitted_names(bounds),
        permitted_networks=bounds.networks,
        term=state.term,
        changed=changed,
        outside=walk.lines,
        outside_total=walk.total,
        warnings=tuple(text[:1024] for text in found),
    )


def _warnings(state: BrokerState, mesh: MeshRow, policy: Policy) -> Iterator[str]:
    """Yield where the policy and this node do not fit together, in full sentences."""
    vault = state.keys.vault
    if vault is not None and not policy.unattended:
        slots = [slot for slot in vault.sealed.slots if slot.kind in UNATTENDED]
        for slot in slots:
            yield (
                f"{state.host} still opens the CA without a person, by a {slot.kind} slot: "
                f"certmesh ca slot remove {slot.slot_id}"
            )
    if policy.approval and state.settings.approval.decider == "deny":
        yield (
            f"joins by code wait for a person, and {state.host} answers each with no: write "
            '[approval] decider = "queue" into its settings and restart it'
        )
    if policy.approval != mesh.approval and not policy.approval and mesh.enrollment_open:
        yield "enrollment is open and nobody will be asked: a TOTP code alone admits a host"
    row = PROFILES[policy.profile]
    if policy.profile != mesh.policy.profile and row.enrollment_open != mesh.enrollment_open:
        verb = "open" if row.enrollment_open else "close"
        yield f"profile {policy.profile} has enrollment {verb}: certmesh enrollment {verb}"
    for holder in state.ledger.key_holders():
        if outside_of(policy, mesh.domain, holder.sans):
            yield f"{holder.host} holds the CA key and would not be renewed under this policy"
