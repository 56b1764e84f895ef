"""The CA: show, unlock, lock. Deriving a key from a passphrase happens off the loop."""

from broker.core.names import mesh_domain
from broker.errors import (
    BadPassphraseError,
    BusyError,
    ConflictError,
    InternalError,
    MeshError,
    NotFoundError,
    StorageError,
)
from broker.ledger.rows import MeshRow
from broker.pki.authority import pem
from broker.pki.seal import OpenedKeys, Slot, open_with_passphrase
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.bounds import bounds_of, permitted_names
from broker.shell.caller import DEFERRED, Caller, Deferred
from broker.shell.certificates import not_after_of
from broker.shell.handover import say_goodbye
from broker.shell.state import BrokerState
from broker.shell.unlocking import close_keys, take_into_use
from broker.shell.vault import Vault
from broker.units import UnixSeconds
from broker.wire.authority import (
    AuthorityView,
    GetAuthority,
    LockAuthority,
    SlotView,
    UnlockAuthority,
)
from broker.wire.codec import fault_of
from broker.wire.control import Fault
from broker.wire.events import AuthorityMoved
from broker.wire.facts import AuthorityLocked, AuthorityUnlockFailed

UNLOCK_SOURCE = "unlock"


def get_authority(
    state: BrokerState, _batch: Batch, _caller: Caller, _request: GetAuthority
) -> AuthorityView:
    """Return the CA's public description."""
    return authority_view(state)


def unlock_authority(
    state: BrokerState, _batch: Batch, caller: Caller, request: UnlockAuthority
) -> AuthorityView | Deferred:
    """Open the issuing key; wrong passphrases change nothing and have to wait after a while."""
    vault = held_vault(state)
    if state.keys.issuer is not None:
        return authority_view(state)
    state.limiter.check(UNLOCK_SOURCE, caller.now_ms)
    if caller.request_id in state.waiting:
        state.wait(caller, caller.now_ms + caller.ttl_ms)
        return DEFERRED

    def derive() -> OpenedKeys:
        return open_with_passphrase(vault.sealed, request.passphrase)

    locks = state.keys.locks

    def settle(batch: Batch, outcome: object) -> None:
        if isinstance(outcome, OpenedKeys) and state.keys.locks != locks:
            outcome = ConflictError("the CA was locked meanwhile", hint="unlock it again")
        elif isinstance(outcome, OpenedKeys) and state.keys.vault is not vault:
            # A rollover, a change of slots or a dismissal: these keys are not those of the vault.
            outcome = ConflictError("the CA's files changed meanwhile", hint="unlock it again")
        _unlocked(state, batch, (caller, request.operator), outcome)

    if not state.offloop.submit(derive, settle):
        raise BusyError("too many unlocks are being tried", retry_after_ms=1000)
    state.wait(caller, caller.now_ms + caller.ttl_ms)
    return DEFERRED


def lock_authority(
    state: BrokerState, batch: Batch, caller: Caller, request: LockAuthority
) -> AuthorityView:
    """Forget the key until somebody unlocks it; later requests of this drain find it locked."""
    held_vault(state)
    keys = state.keys
    before = (keys.issuer, keys.totp_secret, keys.opened, keys.opened_by, keys.rotation)
    keys.locks += 1
    if keys.issuer is not None:
        if state.serves:
            batch.append(AuthorityLocked(), request.operator)
            if len(state.surroundings().key_holders) > 1:
                # A locked primary serves nobody: say so with the key's last signature.
                say_goodbye(state, batch, "", caller.now_ms)
        log(EventName.CA_LOCKED, operator=request.operator)
        close_keys(state)

        def reopen() -> None:
            keys.issuer, keys.totp_secret, keys.opened, keys.opened_by, keys.rotation = before

        batch.on_void.append(reopen)
        batch.publish(AuthorityMoved("locked"))
    return authority_view(state)


def authority_view(state: BrokerState) -> AuthorityView:
    """Return the CA as people see it."""
    vault, mesh, bounds = held_vault(state), known_mesh(state), bounds_of(state)
    return AuthorityView(
        state=state.keys.state,
        mesh_name=mesh.name,
        domain=mesh_domain(mesh.name),
        pin=mesh.pin,
        term=state.term,
        root_pem=pem(vault.root),
        issuing_pem=pem(vault.issuing),
        root_not_after=not_after_of(vault.root),
        issuing_not_after=not_after_of(vault.issuing),
        permitted_names=permitted_names(bounds),
        permitted_networks=bounds.networks,
        slots=tuple(
            SlotView(slot.slot_id, slot.kind, UnixSeconds(slot.created_at), peer_name(state, slot))
            for slot in vault.sealed.slots
        ),
    )


def _unlocked(state: BrokerState, batch: Batch, who: tuple[Caller, str], outcome: object) -> None:
    caller, _ = who
    try:
        reply = _settle_unlock(state, batch, who, outcome)
    except StorageError as failure:
        state.resolve(caller.request_id, fault_of(failure))
        raise
    batch.after_commit.append(lambda: state.resolve(caller.request_id, reply))
    batch.on_void.append(
        lambda: state.resolve(caller.request_id, fault_of(StorageError("nothing was unlocked")))
    )


def _settle_unlock(
    state: BrokerState, batch: Batch, who: tuple[Caller, str], outcome: object
) -> AuthorityView | Fault:
    caller, operator = who
    if isinstance(outcome, BadPassphraseError):
        state.limiter.failed(UNLOCK_SOURCE, caller.now_ms)
        log(EventName.CA_UNLOCK_FAILED, operator=operator)
        if state.serves:
            batch.append(AuthorityUnlockFailed("passphrase"), operator)
    if isinstance(outcome, MeshError):
        return fault_of(outcome)
    if not isinstance(outcome, OpenedKeys):
        log(EventName.CA_UNLOCK_FAILED, detail=f"deriving the key failed: {outcome!r}")
        return fault_of(InternalError("deriving the key failed", hint="see log/broker.log"))
    if state.keys.issuer is None:
        take_into_use(state, batch, outcome, by=outcome.slot_id, operator=operator)
    return authority_view(state)


def peer_name(state: BrokerState, slot: Slot) -> str:
    """Return what the member whose half a slot needs is called now."""
    member = state.ledger.member(slot.peer_id) if slot.peer_id else None
    return member.host if member is not None else slot.peer


def held_vault(state: BrokerState) -> Vault:
    """Return the CA's files of this node.

    Raises:
        NotFoundError: It holds no CA key.
        NoMeshError: It belongs to no mesh.
    """
    if state.keys.vault is None:
        state.mesh()
        raise NotFoundError("this node holds no CA key")
    return state.keys.vault


def known_mesh(state: BrokerState) -> MeshRow:
    """Return the mesh as this key holder's ledger tells of it.

    Raises:
        ConflictError: The ledger knows none (yet).
    """
    mesh = state.mesh_row()
    if mesh is None and state.role == "standby":
        raise ConflictError("this standby has not fetched the roster yet", retry_after_ms=1000)
    if mesh is None:
        raise ConflictError(
            "the CA files are there, but the ledger knows no mesh",
            hint="restore the ledger from a backup",
        )
    return mesh
