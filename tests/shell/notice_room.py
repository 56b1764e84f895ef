"""A mesh whose primary has somebody to tell, and what the notify worker would do there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from broker.pki.authority import fingerprint
from broker.wire.control import Ack
from broker.wire.facts import CertificateServed, RenewalFailed
from broker.wire.ids import Service
from broker.wire.notice import ListNotices, Notice, NoticesView
from broker.wire.renewal import RenewalAnswer, RenewWithLease
from broker.wire.roster import Peer
from broker.wire.work import (
    CompleteWork,
    Installed,
    Lease,
    LeaseWork,
    ReleaseLease,
    SendNotice,
    Sent,
    WorkAnswer,
)
from tests.shell.mesh_room import Node, Room, pushed_clock
from tests.shell.office import make_csr

WEBHOOK = {"webhook": "https://hooks.example.org/certmesh"}
BOTH = {**WEBHOOK, "ntfy": "https://ntfy.example.org/ops"}
DAY_MS = 86_400_000
DUE_MS = 21 * DAY_MS
"""A certificate of thirty days is due by then, and no step before its end is reached."""


@contextmanager
def notice_room(
    home: Path, *hosts: str, notify: dict[str, Any] | None = None, **sections: Any
) -> Iterator[Room]:
    """Open a mesh in which atlas and its hosts tell by a webhook."""
    with pushed_clock() as clock:
        told = WEBHOOK if notify is None else notify
        room = Room.open(home, clock, *hosts, notify=told, **sections)
        room.run(1_000)
        yield room
        for node in room.nodes.values():
            node.office.ledger.close()


def pass_ms(room: Room, ms: int) -> None:
    """Let time pass at once, and then every node look around."""
    room.clock.push(ms)
    room.run(20_000, until=lambda: any(map(room.serves, room.nodes.values())))
    look_around(room)


def look_around(room: Room) -> None:
    """Give every node the looks of two seconds."""
    room.run(2_500)


def notices(node: Node) -> list[Notice]:
    """Return the notices of a node, oldest first."""
    view = node.ask(Service.CONSOLE, ListNotices(100), NoticesView)
    return [line.notice for line in reversed(view.notices)]


def told(node: Node) -> list[tuple[str, str]]:
    """Return (event, subject) of the notices of a node, oldest first."""
    return [(notice.event, notice.subject) for notice in notices(node)]


def fail(room: Room, host: str, detail: str) -> None:
    """Let the renewal of a member fail at the primary."""
    _append(room, RenewalFailed(_member_id(room, host), detail))


def renew(room: Room, *hosts: str) -> None:
    """Play the renewal worker of the primary until these hosts have new certificates."""
    office = room.primary().office
    worker = office.introduce(Service.RENEWAL, "renewal-9")
    left, others = set(hosts), list[int]()
    while left:
        answer = office.send(worker, LeaseWork(), WorkAnswer)
        assert answer.lease is not None, left
        lease_id, host = answer.lease.lease_id, answer.lease.item.host
        if host not in left:
            others.append(lease_id)
            continue
        request = RenewWithLease(lease_id, make_csr(host))
        issued = office.send(worker, request, RenewalAnswer).issued
        done = Installed(issued.serial, "installed", "", 0)
        office.send(worker, CompleteWork(lease_id, done), Ack)
        node = room[host]
        node.peer = Peer(issued.serial, host, fingerprint(issued.leaf), issued.not_after)
        node.note_certificate()
        left.discard(host)
    for lease_id in others:
        office.send(worker, ReleaseLease(lease_id), Ack)


def serve(room: Room, host: str, state: Any, detail: str = "") -> None:
    """Let a member say what it serves."""
    serial = room[host].peer.serial
    _append(room, CertificateServed(_member_id(room, host), serial, state, detail))


def take(node: Node, worker: bytes) -> tuple[Lease, SendNotice] | None:
    """Lease a notice as the notify worker."""
    answer = node.office.send(worker, LeaseWork(), WorkAnswer)
    if answer.lease is None:
        return None
    assert isinstance(answer.lease.item, SendNotice)
    return answer.lease, answer.lease.item


def finish(node: Node, worker: bytes, lease: Lease, *taken: str, **said: Any) -> None:
    """Complete a lease."""
    node.office.send(worker, CompleteWork(lease.lease_id, Sent(taken, **said)), Ack)


def _member_id(room: Room, host: str) -> str:
    member = room.primary().office.ledger.member_by_host(host)
    assert member is not None
    return member.member_id


def _append(room: Room, fact: Any) -> None:
    desk = room.primary().office.desk
    batch = desk.open_batch()
    batch.append(fact, "test")
    desk.finish(batch, [])
