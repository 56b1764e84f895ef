"""Adding and removing ways to unlock the CA of this node.

A passphrase of this CA proves the right, tried off the loop like every other. One change at a time;
what was computed counts only if the vault is still the one it was computed from.

Order rules. A new slot: the row, its file, the vault, memory, the answer; a crash leaves no slot or
a working one, and the audit trail knows every slot there is. A removal: the vault first, then the
row and the file; a slot that the audit trail calls gone is gone, and one whose row could not be
written is gone as well: its caller hears of the ledger's trouble, the log has the rest.

The reply to an addition is not remembered for a repetition: that of a code slot holds its secret,
which must not lie in the ledger. What is remembered is which request the newest slot came from, so
that a repetition after a crash adds no second one.
"""

from collections.abc import Callable
from functools import partial

from broker.errors import (
    BadPassphraseError,
    BusyError,
    ConflictError,
    ForbiddenError,
    InternalError,
    MeshError,
    NotFoundError,
    StorageError,
)
from broker.pki.seal import open_with_passphrase
from broker.pki.sealed import KDFCost, SealedKeys, Sealer, Slot
from broker.pki.slots import (
    SECRET_BYTES,
    UNATTENDED,
    PeerHalves,
    add_passphrase,
    add_secret,
    remove_slot,
)
from broker.pki.totp import SECRET_BYTES as TOTP_SECRET_BYTES
from broker.pki.totp import key_text, provisioning_uri
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.caller import DEFERRED, Caller, Deferred
from broker.shell.create import KDF_LANES
from broker.shell.nextvault import check_removal, forget_slot
from broker.shell.slotbook import Drawn, SlotChange
from broker.shell.slotfile import remove_slot_file, write_slot_secret
from broker.shell.state import BrokerState
from broker.shell.vault import Vault, install_vault
from broker.shell.verbs.authority import UNLOCK_SOURCE, held_vault, known_mesh, peer_name
from broker.wire.codec import encode, fault_of
from broker.wire.control import Fault
from broker.wire.events import AuthorityMoved, SyncWanted
from broker.wire.facts import AuthorityUnlockFailed, SlotAdded, SlotRemoved
from broker.wire.messages import Answer
from broker.wire.slot import AddSlot, RemoveSlot, SlotAnswer

LOCAL_ADDED = "slots.added"
"""Request and id of the newest slot, written with its row."""

Settle = Callable[[Batch, SlotChange, object], None]


def add_slot(
    state: BrokerState, _batch: Batch, caller: Caller, request: AddSlot
) -> SlotAnswer | Deferred:
    """Add a way to unlock; answered when it works.

    Raises:
        BadPassphraseError: The passphrase proves nothing.
        ForbiddenError: The policy allows no slot that opens without a person.
        ConflictError: There is one of this kind already, or too many.
        NotFoundError: The peer is no active member.
        PeerUnreachableError: The peer of a peer slot did not take its half.
    """
    vault = held_vault(state)
    if (again := _again(state, caller)) is not None:
        return again
    if (there := _added_before(state, vault, caller)) is not None:
        return SlotAnswer(there.slot_id, there.kind, note=_reach(state, there))
    peer = _check_kind(state, vault.sealed, request)
    cost = KDFCost(state.settings.ca.kdf_memory // 1024, state.settings.ca.kdf_passes, KDF_LANES)
    sealer = Sealer(vault.sealed.mesh_id, state.draw, caller.now)
    job = partial(_draw, vault.sealed, (request, peer), sealer, cost)
    return _submit(state, (caller, request.operator), job, partial(_drawn, state))


def remove_slot_here(
    state: BrokerState, _batch: Batch, caller: Caller, request: RemoveSlot
) -> Deferred:
    """Remove a way to unlock.

    Raises:
        NotFoundError: No such slot.
        ConflictError: The last passphrase, or the only one that opens a root key.
        BadPassphraseError: The passphrase opens nothing that stays.
    """
    vault = held_vault(state)
    if (again := _again(state, caller)) is not None:
        return again
    slot = vault.sealed.slot(request.slot_id)
    if slot is None:
        raise NotFoundError(f"no slot {request.slot_id[:64]!r}", hint="certmesh ca slot list")
    check_removal(state.paths.authority, slot.slot_id)
    job = partial(remove_slot, vault.sealed, request.passphrase, request.slot_id)
    return _submit(state, (caller, request.operator), job, partial(_removed, state, slot))


def finish_adding(state: BrokerState, batch: Batch, change: SlotChange, drawn: Drawn) -> None:
    """Write a new slot down, make it durable after the commit, and answer its caller."""
    slot = drawn.slot
    nothing = StorageError("the ledger refused; no slot was added", hint="make room on the disk")
    batch.on_void.append(partial(refuse, state, change, nothing))
    if state.serves:
        batch.append(SlotAdded(state.host, slot.slot_id, slot.kind), change.operator)
    batch.keep(LOCAL_ADDED, change.caller.request_id + slot.slot_id.encode())

    def install() -> None:
        state.keys.change = None
        state.resolve(change.caller.request_id, _installed(state, change, drawn))

    batch.after_commit.append(install)
    batch.publish(AuthorityMoved(state.keys.state))


def refuse(state: BrokerState, change: SlotChange, refusal: MeshError) -> None:
    """End a change that came to nothing."""
    if state.keys.change is change:
        state.keys.change = None
    state.resolve(change.caller.request_id, fault_of(refusal))


def pending_change(state: BrokerState, now_ms: int) -> SlotChange | None:
    """Return the change under way; one whose caller has given up is over."""
    change = state.keys.change
    if change is not None and now_ms >= change.until_ms:
        # Its job may still run; what it computed will find that its change is gone.
        change = state.keys.change = None
    return change


def _again(state: BrokerState, caller: Caller) -> Deferred | None:
    """Return the verdict on a repetition of the request under way.

    Raises:
        BusyError: Another change is under way.
    """
    change = pending_change(state, caller.now_ms)
    if change is None:
        state.limiter.check(UNLOCK_SOURCE, caller.now_ms)
        return None
    if change.caller.request_id == caller.request_id:
        change.until_ms = caller.now_ms + caller.ttl_ms
        state.wait(caller, change.until_ms)
        return DEFERRED
    raise BusyError("another change of slots is under way", retry_after_ms=1000)


def _added_before(state: BrokerState, vault: Vault, caller: Caller) -> Slot | None:
    """Return the passphrase slot that this very request added in an earlier life of the broker.

    The other kinds are there once only, or show a secret once only: a repetition is refused.
    """
    kept = state.ledger.local_get(LOCAL_ADDED) or b""
    if kept[: len(caller.request_id)] != caller.request_id:
        return None
    slot = vault.sealed.slot(kept[len(caller.request_id) :].decode())
    return slot if slot is not None and slot.kind == "passphrase" else None


def _submit(
    state: BrokerState, who: tuple[Caller, str], job: Callable[[], object], settle: Settle
) -> Deferred:
    caller, operator = who
    until_ms = caller.now_ms + caller.ttl_ms
    change = SlotChange(caller, operator, held_vault(state), until_ms)

    def then(batch: Batch, outcome: object) -> None:
        if state.keys.change is not change:
            return  # given up, and nothing of it was kept
        nothing = StorageError("the ledger refused; no slot changed", hint="make room on the disk")
        batch.on_void.append(partial(refuse, state, change, nothing))
        refusal = _refusal(state, batch, change, outcome)
        if refusal is None:
            settle(batch, change, outcome)
        else:
            _end_with(state, batch, change, refusal)

    if not state.offloop.submit(job, then):
        raise BusyError("too many passphrases are being tried", retry_after_ms=1000)
    state.keys.change = change
    state.wait(caller, until_ms)
    return DEFERRED


def _refusal(
    state: BrokerState, batch: Batch, change: SlotChange, outcome: object
) -> MeshError | None:
    """Return why a change ends here; a wrong passphrase is written down and has to wait."""
    if isinstance(outcome, BadPassphraseError):
        state.limiter.failed(UNLOCK_SOURCE, change.caller.now_ms)
        log(EventName.CA_UNLOCK_FAILED, operator=change.operator, detail="changing slots")
        if state.serves:
            batch.append(AuthorityUnlockFailed("passphrase"), change.operator)
    if isinstance(outcome, MeshError):
        return outcome
    if not isinstance(outcome, Drawn | SealedKeys):
        log(EventName.CA_UNLOCK_FAILED, detail=f"deriving the key failed: {type(outcome).__name__}")
        return InternalError("deriving the key failed", hint="see log/broker.log")
    return _overtaken() if state.keys.vault is not change.vault else None


def _check_kind(state: BrokerState, sealed: SealedKeys, request: AddSlot) -> tuple[str, str]:
    """Return name and member id of the peer of a peer slot, once the kind is allowed here."""
    kind = request.slot_kind
    if kind == "recovery":
        raise ConflictError(
            "the recovery secret is drawn once, when the mesh is made",
            hint="make a backup, and keep the printed kit: certmesh backup create",
        )
    if kind in UNATTENDED and not known_mesh(state).policy.unattended:
        raise ForbiddenError(
            f"the policy allows no slot that opens without a person, and {kind} is one",
            hint="certmesh ca policy set unattended=true",
        )
    if kind in {"credential", "totp"} and sealed.of_kind(kind):
        raise ConflictError(
            f"there is a {kind} slot already", hint="remove it first: certmesh ca slot list"
        )
    return _check_peer(state, sealed, request.peer) if kind == "peer" else ("", "")


def _check_peer(state: BrokerState, sealed: SealedKeys, peer: str) -> tuple[str, str]:
    known_mesh(state)
    if peer == state.host:
        raise ConflictError(
            "a node cannot agree to its own unlocking", hint="name another member: --peer HOST"
        )
    member = state.ledger.member_by_host(peer)
    if member is None:
        raise NotFoundError(f"no active member {peer[:64]!r}", hint="certmesh member list")
    if any(slot.peer_id == member.member_id for slot in sealed.of_kind("peer")):
        raise ConflictError(
            f"{peer} keeps a half already", hint="remove that slot first: certmesh ca slot list"
        )
    return member.host, member.member_id


def _draw(
    sealed: SealedKeys, wanted: tuple[AddSlot, tuple[str, str]], sealer: Sealer, cost: KDFCost
) -> Drawn:
    """Prove the right and draw the slot, in the thread."""
    request, peer = wanted
    if request.slot_kind == "passphrase":
        added, slot = add_passphrase(sealed, request.passphrase, request.new, cost, sealer)
        return Drawn(added, slot)
    opened = open_with_passphrase(sealed, request.passphrase)
    secret, half, guarded = sealer.entropy(SECRET_BYTES), b"", b""
    whole = secret
    if request.slot_kind == "peer":
        half = sealer.entropy(SECRET_BYTES)
        whole = PeerHalves(secret, half).secret
    elif request.slot_kind == "totp":
        guarded = sealer.entropy(TOTP_SECRET_BYTES)
    added, slot = add_secret(
        sealed, opened, request.slot_kind, whole, sealer, peer=peer, guarded=guarded
    )
    return Drawn(added, slot, secret, half, guarded)


def _drawn(state: BrokerState, batch: Batch, change: SlotChange, outcome: object) -> None:
    assert isinstance(outcome, Drawn)
    if outcome.half:
        # Nothing is kept here before the peer has its half: it lives in memory until then.
        change.drawn = outcome
        batch.publish(SyncWanted())
    else:
        finish_adding(state, batch, change, outcome)


def _installed(state: BrokerState, change: SlotChange, drawn: Drawn) -> SlotAnswer | Fault:
    slot, vault = drawn.slot, change.vault
    try:
        if state.keys.vault is not vault:
            raise _overtaken()
        path = write_slot_secret(state.paths, slot, drawn.secret)
        _exchange(state, vault, drawn.sealed)
    except MeshError as failure:
        log(EventName.STORAGE_FAILED, detail=f"slot {slot.slot_id}: {failure.detail}")
        return fault_of(failure)
    log(EventName.CA_SLOT_ADDED, slot=slot.slot_id, kind=slot.kind, operator=change.operator)
    name = f"{state.membership.mesh_name if state.membership else state.host} CA"
    guarded = drawn.guarded
    return SlotAnswer(
        slot_id=slot.slot_id,
        slot_kind=slot.kind,
        secret_path=str(path) if path is not None and slot.kind != "peer" else "",
        totp_uri=provisioning_uri(guarded, name) if guarded else "",
        totp_key=key_text(guarded) if guarded else "",
        note=_reach(state, slot),
    )


def _reach(state: BrokerState, slot: Slot) -> str:
    if slot.kind != "passphrase" or len(state.surroundings().key_holders) < 2:  # noqa: PLR2004 (us and another)
        return ""
    return (
        f"it is {state.host}'s alone: the other key holders keep the passphrases they have; add it "
        "there too"
    )


def _removed(
    state: BrokerState, slot: Slot, batch: Batch, change: SlotChange, outcome: object
) -> None:
    assert isinstance(outcome, SealedKeys)
    try:
        # Aside first: a crash in between leaves the slot where a removal can be asked for again.
        forget_slot(state.paths.authority, slot.slot_id)
        _exchange(state, change.vault, outcome)
    except MeshError as failure:
        _end_with(state, batch, change, failure)
        return
    remove_slot_file(state.paths, slot, outcome)
    log(EventName.CA_SLOT_REMOVED, slot=slot.slot_id, kind=slot.kind, operator=change.operator)
    if state.serves:
        batch.append(SlotRemoved(state.host, slot.slot_id, slot.kind), change.operator)
    answer = SlotAnswer(slot.slot_id, slot.kind, note=_remains(state, slot))
    request_id = change.caller.request_id
    batch.remember(request_id, encode(Answer(request_id, answer))[1])

    def settled() -> None:
        state.keys.change = None
        state.resolve(change.caller.request_id, answer)

    batch.after_commit.append(settled)
    batch.publish(AuthorityMoved(state.keys.state))


def _remains(state: BrokerState, slot: Slot) -> str:
    if slot.kind == "peer":
        return f"{peer_name(state, slot)} still keeps its half, which opens nothing any more"
    if slot.kind == "passphrase" and len(state.surroundings().key_holders) > 1:
        return f"it is gone on {state.host} alone: remove it on the other key holders too"
    return ""


def _exchange(state: BrokerState, vault: Vault, sealed: SealedKeys) -> None:
    """Write the vault with other slots and go on with it.

    Raises:
        StorageError: The disk refused; the old one is still there.
        LedgerDamagedError: The one on disk is not the one in memory.
    """
    install_vault(state.paths.authority, vault.root, vault.issuing, sealed, replace=True)
    state.keys.vault = Vault(vault.root, vault.issuing, sealed)


def _end_with(state: BrokerState, batch: Batch, change: SlotChange, refusal: MeshError) -> None:
    """End a change that came to nothing, together with its drain, whichever way that ends."""
    batch.after_commit.append(partial(refuse, state, change, refusal))
    batch.on_void.append(partial(refuse, state, change, refusal))


def _overtaken() -> ConflictError:
    return ConflictError("the CA's files changed meanwhile", hint="look at them and try again")
