"""A room in which members renew and say what they serve, and how the primary shows it."""

from typing import Any

from broker.clock import wall_s
from broker.units import UnixSeconds
from broker.wire.control import Ack
from broker.wire.enrollment import Issued
from broker.wire.ids import ServedState, Service
from broker.wire.node import GetStatus, MemberLine, OutageView, StatusView
from broker.wire.policy import PolicyPatch, PolicyView, SetPolicy
from broker.wire.renewal import NoteOwnCertificate, RenewalAnswer, RenewAsPeer, ReportInstalled
from tests.shell.mesh_room import Room
from tests.shell.office import make_csr, peer_of
from tests.shell.settled import settled

DAY_S = 86_400
STORY_MS = 2_250
"""A member may change its story every two seconds."""
RENEWING_AT_ONCE: dict[str, Any] = {"renewal": {"attempt_every": "0s", "jitter": 0.0}}


def status(room: Room, host: str = "atlas") -> StatusView:
    """Return the one-screen status of a node."""
    return room[host].ask(Service.CONSOLE, GetStatus(), StatusView)


def line(room: Room, host: str, at: str = "atlas") -> MemberLine:
    """Return how a node shows a member."""
    return next(found for found in status(room, at).members if found.host == host)


def outage(room: Room, at: str = "atlas") -> OutageView:
    """Return how a node sees the budget."""
    found = status(room, at).outage
    assert found is not None
    return found


def warned(room: Room, *words: str) -> bool:
    """Whether one warning of the primary has all these words."""
    return any(all(word in text for word in words) for text in status(room).warnings)


def sign(room: Room, host: str) -> Issued:
    """Let a member have its next certificate signed; nothing is installed."""
    node = room[host]
    request = RenewAsPeer(node.peer, make_csr(host))
    return room.primary().ask(Service.GATEWAY, request, RenewalAnswer).issued


def report(room: Room, host: str, issued: Issued, state: ServedState, detail: str = "") -> None:
    """Let a member say how a delivery ended: this is live on its disk, and shown from now on."""
    room[host].peer = peer_of(issued, host)
    claim(room, host, issued, state, detail)


def claim(room: Room, host: str, issued: Issued, state: ServedState, detail: str = "") -> None:
    """Let a member say this of a certificate, true or not: at home, and to the primary."""
    room.run(STORY_MS)
    node = room[host]
    note = NoteOwnCertificate(True, issued.serial, wall_s(), issued.not_after, state, detail)
    node.ask(Service.RENEWAL, note, Ack)
    said = ReportInstalled(issued.serial, state, detail, node.peer)
    room.primary().ask(Service.GATEWAY, said, Ack)


def renew(room: Room, host: str) -> Issued:
    """Let a member renew, all the way into service."""
    issued = sign(room, host)
    report(room, host, issued, "served")
    return issued


def certificate_of(room: Room, host: str) -> Issued:
    """Return what a member holds now, as it was issued."""
    found = room["atlas"].office.ledger.certificate(room[host].peer.serial)
    assert found is not None
    row = found[1]
    return Issued(
        serial=row.serial,
        leaf=row.certificate,
        issuing=b"",
        root=b"",
        not_before=UnixSeconds(row.not_before),
        not_after=UnixSeconds(row.not_after),
        renew_at=UnixSeconds(row.renew_at),
    )


def pass_days(room: Room, days: float) -> None:
    """Let days pass and everybody be heard again."""
    room.clock.push(int(days * DAY_S * 1000))
    room.run(1_500)


def set_policy(room: Room, patch: PolicyPatch) -> PolicyView:
    """Change the policy."""
    return settled(room["atlas"].office, SetPolicy(patch, "ann"), PolicyView)
