"""Peer slots: a half here, a half at a member that has to agree to each unlocking.

The owner's side plans what its roster-sync worker brings and fetches; the peer's side keeps halves
in its ledger's local table and gives one back only to the member it keeps it for, while nothing
says that this member was revoked, a few times an hour, and not without a trace.

What this is worth: a stolen box alone stays locked, and one whose owner revoked it gets nothing
from a peer that has heard of it. A thief with the owner *and* the peer has both halves; and a peer
that is cut off goes by the newest bundle it has.
"""

import re
from typing import Annotated

from msgspec import Meta
from typing_extensions import override

from broker.errors import (
    BusyError,
    ConflictError,
    LedgerDamagedError,
    MeshError,
    NotAMemberError,
    NotFoundError,
    PeerUnreachableError,
    ThrottledError,
)
from broker.pki.seal import open_with_secret
from broker.pki.sealed import Slot
from broker.pki.slots import PeerHalves
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.peers import authorize_key_holder
from broker.shell.slotbook import SlotChange
from broker.shell.slotfile import read_slot_secret
from broker.shell.state import BrokerState
from broker.shell.unlocking import take_into_use
from broker.shell.verbs.authority import peer_name
from broker.shell.verbs.slots import finish_adding, pending_change, refuse
from broker.wire.base import Body
from broker.wire.codec import decode_body, encode_body
from broker.wire.control import Ack
from broker.wire.facts import AuthorityUnlockFailed, HalfGiven
from broker.wire.ids import Hex, Host, Text, UnixSeconds
from broker.wire.node import Endpoint
from broker.wire.slot import GiveHalf, Half, HalfAnswer, KeepHalf, NoteHalf, PlanUnlock, UnlockPlan

LOCAL_HALVES = "unlock.halves"
HALVES_OF_ONE = 4
"""Of one owner; the newest stay. An owner has one half per peer, and a few from failed attempts."""
HALVES_MAX = 64
GIVEN_MAX = 6
GIVEN_WINDOW_S = 3600
"""So often an hour is a half given to its owner: enough for a bad day of reboots."""
_SLOT_ID = re.compile(r"[0-9a-f]{16}")


class KeptHalf(Body, frozen=True):
    """A half that this node keeps: for whom, and when it was given back lately."""

    slot_id: Text
    member_id: Hex
    host: Host
    half: Half
    given: Annotated[tuple[UnixSeconds, ...], Meta(max_length=64)] = ()

    @override
    def __repr__(self) -> str:
        return f"KeptHalf(slot_id={self.slot_id!r}, host={self.host!r})"


class KeptHalves(Body, frozen=True):
    """All of them, oldest first."""

    halves: tuple[KeptHalf, ...] = ()


def plan_unlock(
    state: BrokerState, _batch: Batch, caller: Caller, _request: PlanUnlock
) -> UnlockPlan:
    """Return whether a half is to be brought to a peer, or to be fetched from one.

    A CA that somebody locked on purpose stays locked: only a boot asks.
    """
    change = pending_change(state, caller.now_ms)
    if change is not None and change.drawn is not None and change.drawn.half:
        slot = change.drawn.slot
        doors = _doors(state, slot)
        if doors is not None:
            return UnlockPlan("give", slot.slot_id, doors, change.drawn.half)
        refuse(state, change, NotFoundError(f"{slot.peer} is no active member any more"))
    keys = state.keys
    if keys.vault is None or keys.issuer is not None or keys.locks:
        return UnlockPlan("none")
    slots = keys.vault.sealed.of_kind("peer")
    if not slots:
        return UnlockPlan("none")
    slot = min(slots, key=lambda each: keys.asks.next_ms(each.slot_id))
    wait_ms = keys.asks.next_ms(slot.slot_id) - caller.now_ms
    if wait_ms > 0:
        return UnlockPlan("none", retry_in_ms=wait_ms)
    doors = _doors(state, slot)
    if doors is None or not _has_own_half(state, slot):
        keys.asks.failed(slot.slot_id, caller.now_ms)
        return UnlockPlan("none", retry_in_ms=1)
    return UnlockPlan("ask", slot.slot_id, doors)


def note_half(state: BrokerState, batch: Batch, caller: Caller, request: NoteHalf) -> Ack:
    """Take note of what the worker brought or fetched: a slot is complete, or the CA opens."""
    change = pending_change(state, caller.now_ms)
    if _is_of(state, change, request):
        assert change is not None
        _note_brought(state, batch, change, request)
        return Ack()
    vault = state.keys.vault
    slot = vault.sealed.slot(request.slot_id) if vault is not None else None
    if slot is None or slot.kind != "peer" or peer_name(state, slot) != request.host:
        return Ack()
    if state.keys.issuer is None and not state.keys.locks:
        _note_fetched(state, batch, caller, slot, request)
    return Ack()


def keep_half(state: BrokerState, batch: Batch, caller: Caller, request: KeepHalf) -> Ack:
    """Keep a half for a key holder of this mesh.

    Raises:
        NotAMemberError, RevokedError: The caller is no key holder (any more).
        ConflictError: The id is of somebody else's slot, or no id.
        BusyError: This node keeps as many as it will.
    """
    holder = authorize_key_holder(state, batch, caller, request.peer)
    member_id = _member_id(state, holder.host)
    kept = _kept(state)
    if _SLOT_ID.fullmatch(request.slot_id) is None or any(
        half.slot_id == request.slot_id and half.member_id != member_id for half in kept
    ):
        raise ConflictError("this slot id cannot be kept here")
    others = [half for half in kept if half.slot_id != request.slot_id]
    own = [half for half in others if half.member_id == member_id]
    excess = own[: max(0, len(own) - HALVES_OF_ONE + 1)]
    others = [half for half in others if half not in excess]
    if len(others) >= HALVES_MAX:
        raise BusyError(f"{state.host} keeps {len(others)} halves already")
    new = KeptHalf(request.slot_id, member_id, holder.host, request.half)
    batch.keep(LOCAL_HALVES, encode_body(KeptHalves((*others, new))))
    log(EventName.CA_HALF_KEPT, host=holder.host, slot=request.slot_id)
    return Ack()


def give_half(state: BrokerState, batch: Batch, caller: Caller, request: GiveHalf) -> HalfAnswer:
    """Give a half back to its owner: this node agrees to one unlocking.

    Raises:
        NotAMemberError, RevokedError: The caller is no key holder (any more), or another than the
            one it was kept for.
        NotFoundError: There is none of that id.
        ThrottledError: It was given too often within the hour.
    """
    holder = authorize_key_holder(state, batch, caller, request.peer)
    kept = _kept(state)
    found = next((half for half in kept if half.slot_id == request.slot_id), None)
    if found is None:
        raise NotFoundError(
            f"{state.host} keeps no half of slot {request.slot_id[:64]!r}",
            hint="unlock with the passphrase, then remove the slot and add it anew",
        )
    if found.member_id != _member_id(state, holder.host):
        raise NotAMemberError(
            f"the half was kept for another member than {holder.host} is now",
            hint="unlock with the passphrase, then add the slot anew",
        )
    given = _booked(state, found, caller.now)
    after = KeptHalf(found.slot_id, found.member_id, holder.host, found.half, given)
    halves = tuple(after if half is found else half for half in kept)
    batch.keep(LOCAL_HALVES, encode_body(KeptHalves(halves)))
    if state.serves:
        batch.append(HalfGiven(holder.host, found.slot_id), holder.host)
    log(EventName.CA_HALF_GIVEN, host=holder.host, slot=found.slot_id)
    return HalfAnswer(found.half, found.slot_id)


def _booked(state: BrokerState, found: KeptHalf, now: UnixSeconds) -> tuple[UnixSeconds, ...]:
    """Return the moments of the last hour with this one; wall time, so that a restart counts.

    Raises:
        ThrottledError: It would be one too many.
    """
    # A moment in the future is of a clock that went wrong: it must not bar the owner for long.
    recent = tuple(at for at in found.given if abs(now - at) < GIVEN_WINDOW_S)
    if len(recent) >= GIVEN_MAX:
        wait_s = max(1, GIVEN_WINDOW_S - abs(now - recent[0]))
        raise ThrottledError(
            f"{state.host} gave this half {len(recent)} times within the hour",
            hint=f"wait {wait_s} s, or unlock with the passphrase: certmesh ca unlock",
            retry_after_ms=wait_s * 1000,
        )
    return (*recent, now)


def _note_brought(state: BrokerState, batch: Batch, change: SlotChange, request: NoteHalf) -> None:
    if request.problem:
        why = f"{request.host} did not take its half: {request.problem}"
        refuse(state, change, PeerUnreachableError(why, hint="no slot was added; try again"))
    else:
        assert change.drawn is not None
        finish_adding(state, batch, change, change.drawn)


def _note_fetched(
    state: BrokerState, batch: Batch, caller: Caller, slot: Slot, request: NoteHalf
) -> None:
    vault, by = state.keys.vault, f"peer:{request.host}"
    assert vault is not None
    problem = request.problem
    if not problem:
        try:
            halves = PeerHalves(read_slot_secret(state.paths, slot), request.half)
            opened = open_with_secret(vault.sealed, "peer", halves.secret, slot.slot_id)
        except (MeshError, ValueError) as error:
            problem = error.detail if isinstance(error, MeshError) else str(error)
            if state.serves:
                batch.append(AuthorityUnlockFailed(by), "broker")
        else:
            take_into_use(state, batch, opened, by=by, operator="broker")
            return
    state.keys.asks.failed(slot.slot_id, caller.now_ms)
    log(EventName.CA_UNLOCK_FAILED, slot=by, detail=problem)


def _is_of(state: BrokerState, change: SlotChange | None, request: NoteHalf) -> bool:
    drawn = change.drawn if change is not None else None
    if drawn is None or request.half:
        return False
    return (drawn.slot.slot_id, peer_name(state, drawn.slot)) == (request.slot_id, request.host)


def _has_own_half(state: BrokerState, slot: Slot) -> bool:
    try:
        read_slot_secret(state.paths, slot)
    except LedgerDamagedError as error:
        log(EventName.CA_UNLOCK_FAILED, slot=slot.slot_id, detail=error.detail, hint=error.hint)
        return False
    return True


def _doors(state: BrokerState, slot: Slot) -> Endpoint | None:
    member = state.ledger.member(slot.peer_id) if state.mesh_row() is not None else None
    return member.endpoint if member is not None and member.state == "active" else None


def _member_id(state: BrokerState, host: str) -> str:
    """Return the identity behind a key holder's name: a name may pass to another machine.

    Raises:
        ConflictError: Neither the roster nor a bundle is here yet.
    """
    own = state.mesh_row() is not None and state.role in {"primary", "standby"}
    member = state.ledger.member_by_host(host) if own else None
    if member is not None:
        return member.member_id
    bundle = state.follow.bundle
    for holder in bundle.key_holders if bundle is not None else ():
        if holder.endpoint.host == host:
            return holder.member_id
    raise ConflictError(
        f"{state.host} does not know the roster yet", hint="try again soon", retry_after_ms=5000
    )


def _kept(state: BrokerState) -> tuple[KeptHalf, ...]:
    raw = state.ledger.local_get(LOCAL_HALVES)
    return decode_body(raw, KeptHalves).halves if raw else ()
