"""What tests of slots do: changes driven to their end, and the worker that carries halves."""

import secrets
from pathlib import Path
from typing import TypeVar

from broker.errors import MeshError, PeerUnreachableError, error_classes
from broker.shell.desk import Outgoing
from broker.wire.authority import AuthorityView, GetAuthority, SlotView
from broker.wire.base import Reply, Request
from broker.wire.control import Ack, Fault
from broker.wire.ids import Service
from broker.wire.node import Endpoint
from broker.wire.slot import (
    AddSlot,
    GiveHalf,
    HalfAnswer,
    KeepHalf,
    NoteHalf,
    PlanUnlock,
    RemoveSlot,
    SlotAnswer,
    SlotKind,
    UnlockPlan,
)
from tests.shell.mesh_room import Node, Room
from tests.shell.office import PASSPHRASE, Office
from tests.support import eventually

R = TypeVar("R", bound=Reply)
SECOND = "barman banknote islamic"


def adding(
    kind: SlotKind, *, passphrase: str = PASSPHRASE, new: str = "", peer: str = ""
) -> AddSlot:
    """Return the request for a new slot."""
    return AddSlot(kind, passphrase.encode(), "ann", new.encode(), peer)


def removing(slot_id: str, passphrase: str = PASSPHRASE) -> RemoveSlot:
    """Return the request to remove one."""
    return RemoveSlot(slot_id, passphrase.encode(), "ann")


def begin(office: Office, request: Request, request_id: bytes | None = None) -> list[Outgoing]:
    """Hand a request in; what is answered at once comes back."""
    identity = office.introduce(Service.CONSOLE)
    return office.turn([(identity, request, request_id or secrets.token_bytes(16))])


def finish(office: Office) -> list[Outgoing]:
    """Wait for what the thread computes, and do the drain that takes it."""
    found = eventually(office.desk.state.offloop.finished)
    batch = office.desk.open_batch()
    outgoing: list[Outgoing] = []
    for then, outcome in found:
        then(batch, outcome)
    office.events.extend(office.desk.finish(batch, outgoing))
    return outgoing


def answer(outgoing: list[Outgoing], kind: type[R]) -> R:
    """Return the one reply; a Fault is raised as the error it stands for."""
    (entry,) = outgoing
    if isinstance(entry.reply, Fault):
        by_code = {code.value: kind for code, kind in error_classes().items()}
        fault = entry.reply
        raise by_code[fault.code](fault.detail, hint=fault.hint)
    assert isinstance(entry.reply, kind), entry.reply
    return entry.reply


def change(office: Office, request: Request) -> SlotAnswer:
    """Change the slots, all the way."""
    return answer(begin(office, request) or finish(office), SlotAnswer)


def slots(office: Office) -> tuple[SlotView, ...]:
    """Return the slots as people see them."""
    return office.ask(Service.CONSOLE, GetAuthority(), AuthorityView).slots


def kinds(office: Office) -> list[str]:
    """Return the kinds of the slots, oldest first."""
    return [slot.kind for slot in slots(office)]


def slot_of(office: Office, kind: str) -> str:
    """Return the id of the newest slot of a kind."""
    return [slot.slot_id for slot in slots(office) if slot.kind == kind][-1]


def credentials(office: Office) -> set[str]:
    """Return the names of the secret files beside the vault."""
    directory = office.paths.credential.parent
    return {path.name for path in directory.iterdir()} if directory.exists() else set()


def mode_of(path: Path) -> int:
    """Return the permission bits."""
    return path.stat().st_mode & 0o777


def carry(room: Room, node: Node) -> tuple[UnlockPlan, list[Outgoing]]:
    """Play the part of the roster-sync worker that carries halves.

    Returns:
        The last plan, and the replies that others had waited for.
    """
    late: list[Outgoing] = []
    for _ in range(20):
        ours, *others = _listen(node, PlanUnlock())
        late += others
        plan = answer([ours], UnlockPlan)
        if plan.errand == "none" or plan.peer is None:
            return plan, late
        ours, *others = _listen(node, _errand(room, node, plan, plan.peer))
        late += others
        answer([ours], Ack)
    raise AssertionError("the broker never stops planning")


def _listen(node: Node, request: Request) -> list[Outgoing]:
    identity = node.office.introduce(Service.ROSTER_SYNC)
    return node.office.turn([(identity, request, secrets.token_bytes(16))])


def _errand(room: Room, node: Node, plan: UnlockPlan, peer: Endpoint) -> NoteHalf:
    half = b""
    try:
        if not room.reaches(node.host, peer.host):
            raise PeerUnreachableError("no route")
        gateway = room[peer.host]
        if plan.errand == "give":
            gateway.ask(Service.GATEWAY, KeepHalf(node.peer, plan.slot_id, plan.half), Ack)
        else:
            ask = GiveHalf(node.peer, plan.slot_id)
            half = gateway.ask(Service.GATEWAY, ask, HalfAnswer).half
    except MeshError as refusal:
        return NoteHalf(plan.slot_id, peer.host, problem=refusal.detail)
    return NoteHalf(plan.slot_id, peer.host, half)


def add_peer_slot(room: Room, owner: str, peer: str) -> str:
    """Add a peer slot at `owner`, the half carried to `peer`; return its id."""
    node = room[owner]
    assert begin(node.office, adding("peer", peer=peer)) == []
    assert finish(node.office) == []
    _, late = carry(room, node)
    return answer(late, SlotAnswer).slot_id
