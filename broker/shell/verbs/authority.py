"""The CA: show, unlock, lock. Deriving a key from a passphrase happens off the loop."""

import msgspec

from broker.core.names import mesh_domain
from broker.errors import (
    BadPassphraseError,
    BusyError,
    ConflictError,
    MeshError,
    NotFoundError,
)
from broker.ledger.rows import MeshRow
from broker.pki.authority import pem
from broker.pki.issuer import Issuer
from broker.pki.seal import OpenedKeys, open_with_passphrase
from broker.shell.batch import Batch
from broker.shell.caller import DEFERRED, Caller, Deferred
from broker.shell.certificates import not_after_of
from broker.shell.state import BrokerState
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
from broker.wire.events import AuthorityMoved, WorkAvailable
from broker.wire.facts import AuthorityLocked, AuthorityUnlocked, AuthorityUnlockFailed
from broker.wire.ids import Service

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
    vault = _vault(state)
    if state.keys.issuer is not None:
        return authority_view(state)
    state.limiter.check(UNLOCK_SOURCE, caller.now_ms)
    if caller.request_id in state.waiting:
        state.wait(caller, caller.now_ms + caller.ttl_ms)
        return DEFERRED

    def derive() -> OpenedKeys:
        return open_with_passphrase(vault.sealed, request.passphrase)

    def settle(batch: Batch, outcome: object) -> None:
        _unlocked(state, batch, (caller, request.operator), outcome)

    if not state.offloop.submit(derive, settle):
        raise BusyError("too many unlocks are being tried", retry_after_ms=1000)
    state.wait(caller, caller.now_ms + caller.ttl_ms)
    return DEFERRED


def lock_authority(
    state: BrokerState, batch: Batch, _caller: Caller, request: LockAuthority
) -> AuthorityView:
    """Forget the key until somebody unlocks it."""
    _vault(state)
    if state.keys.issuer is not None:
        batch.append(AuthorityLocked(), request.operator)
        batch.after_commit.append(lambda: close_keys(state))
        batch.publish(AuthorityMoved("locked"))
    # The key is dropped after the commit; the answer, sent later still, already says so.
    return msgspec.structs.replace(authority_view(state), state="locked")


def authority_view(state: BrokerState) -> AuthorityView:
    """Return the CA as people see it."""
    vault, mesh = _vault(state), _mesh(state)
    return AuthorityView(
        state=state.keys.state,
        mesh_name=mesh.name,
        domain=mesh_domain(mesh.name),
        pin=mesh.pin,
        term=state.ledger.term,
        root_pem=pem(vault.root),
        issuing_pem=pem(vault.issuing),
        root_not_after=not_after_of(vault.root),
        issuing_not_after=not_after_of(vault.issuing),
        permitted_names=mesh.names,
        permitted_networks=mesh.networks,
        slots=tuple(
            SlotView(slot.slot_id, slot.kind, UnixSeconds(slot.created_at))
            for slot in vault.sealed.slots
        ),
    )


def open_keys(state: BrokerState, vault: Vault, opened: OpenedKeys) -> None:
    """Make the issuing key usable in this process."""
    state.keys.issuer = Issuer.open(
        root=vault.root, issuing=vault.issuing, issuing_key=opened.issuing_key
    )
    state.keys.totp_secret = opened.totp_secret


def close_keys(state: BrokerState) -> None:
    """Drop the key; the interpreter frees the memory, the process forgets the way to it."""
    state.keys.issuer = None
    state.keys.totp_secret = b""


def _unlocked(state: BrokerState, batch: Batch, who: tuple[Caller, str], outcome: object) -> None:
    caller, operator = who
    if isinstance(outcome, BadPassphraseError):
        state.limiter.failed(UNLOCK_SOURCE, caller.now_ms)
        batch.append(AuthorityUnlockFailed("passphrase"), operator)
    if isinstance(outcome, MeshError):
        state.resolve(caller.request_id, fault_of(outcome))
        return
    if not isinstance(outcome, OpenedKeys):
        raise TypeError(f"deriving the key failed: {outcome!r}")
    if state.keys.issuer is None:
        open_keys(state, _vault(state), outcome)
        batch.append(AuthorityUnlocked(outcome.slot_id), operator)
        batch.publish(AuthorityMoved("unlocked"))
        batch.publish(WorkAvailable(Service.RENEWAL))
    state.resolve(caller.request_id, authority_view(state))


def _vault(state: BrokerState) -> Vault:
    if state.keys.vault is None:
        state.mesh()
        raise NotFoundError("this node holds no CA key")
    return state.keys.vault


def _mesh(state: BrokerState) -> MeshRow:
    mesh = state.mesh_row()
    if mesh is None:
        raise ConflictError(
            "the CA files are there, but the ledger knows no mesh",
            hint="restore the ledger from a backup",
        )
    return mesh
