"""One broker in this process, time that is pushed, and members that are played by hand."""

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from broker.clock import boottime_ms, wall_s
from broker.core.renewal import BACKDATE_S
from broker.shell.ticks import Ticks
from broker.units import UnixSeconds
from broker.wire.audit import AuditView, ListAudit
from broker.wire.control import Ack
from broker.wire.enrollment import CreateInvite, InviteView, Issued, JoinAnswer
from broker.wire.ids import ServedState, Service
from broker.wire.liveness import Beat, BeatAnswer
from broker.wire.renewal import (
    NoteOwnCertificate,
    RenewalAnswer,
    RenewAsPeer,
    RenewWithLease,
    ReportInstalled,
)
from broker.wire.roster import Peer, RecordHeartbeat
from broker.wire.work import CompleteWork, Failed, Installed, Lease, LeaseWork, WorkAnswer
from tests.shell.mesh_room import PushedClock, pushed_clock
from tests.shell.office import Office, issued_of, join_request, make_csr, peer_of

STEP_MS = 10_000
"""Below the failover's grace: a longer silence of the loop is a pause, after which it asks."""
FIVE_MINUTES = {"leaf_lifetime": "5m", "renew_at": 0.59}


class Paced:
    """A primary whose clock is pushed; `worker` is one renewal worker of it."""

    def __init__(self, home: Path, clock: PushedClock, **sections: Any) -> None:
        wanted = {"renewal": {"attempt_every": "1m", "jitter": 0.0}, **sections}
        self.office = Office.create(home, **wanted)
        self.clock = clock
        self.start()
        self.own_certificate()

    def start(self) -> None:
        """Introduce what a new life of the broker knows nothing of."""
        self.ticks = Ticks(self.office.desk.state)
        self.worker = self.office.introduce(Service.RENEWAL, "renewal-0")
        self.gateway = self.office.introduce(Service.GATEWAY, "gateway-9")

    def kill(self) -> None:
        """Lose everything in memory, as `kill -9` does."""
        self.office.crash()
        self.start()
        self.own_certificate()

    def own_certificate(self) -> None:
        """Say that this node's own certificate is fine for years."""
        end = UnixSeconds(wall_s() + 10**8)
        begin = UnixSeconds(wall_s() - BACKDATE_S)
        note = NoteOwnCertificate(True, "aa", begin, end, "installed", "")
        self.office.ask(Service.RENEWAL, note, Ack)

    def tick(self) -> None:
        """Do one periodic turn."""
        batch = self.office.desk.open_batch()
        self.ticks.run(batch, boottime_ms(), wall_s())
        self.office.events.extend(self.office.desk.finish(batch, []))

    def wait(self, seconds: float) -> None:
        """Let time pass, in steps short enough for a loop that lives."""
        left_ms = int(seconds * 1000)
        while left_ms > 0:
            self.clock.push(min(left_ms, STEP_MS))
            left_ms -= STEP_MS
            for worker in (self.worker, self.gateway):
                self.office.send(worker, Beat(1, 2 * STEP_MS), BeatAnswer)
            self.tick()

    def enroll(self, host: str) -> Issued:
        """Enroll a member by invite."""
        secret = secrets.token_urlsafe(8)
        digest = hashlib.sha256(secret.encode()).hexdigest()
        wanted = CreateInvite(digest, host, (), 3600, "root")
        self.office.ask(Service.CONSOLE, wanted, InviteView)
        request = join_request(host, make_csr(host), invite_secret=secret)
        return issued_of(self.office.ask(Service.GATEWAY, request, JoinAnswer))

    def ask(self) -> WorkAnswer:
        """Ask for work."""
        return self.office.send(self.worker, LeaseWork(), WorkAnswer)

    def lease(self) -> Lease | None:
        """Return the next lease, if there is one."""
        return self.ask().lease

    def granted(self) -> Lease:
        """Return the next lease; there has to be one."""
        lease = self.lease()
        assert lease is not None
        return lease

    def fail(self, lease: Lease, reason: str = "no route") -> None:
        """Report that it came to nothing."""
        self.office.send(self.worker, CompleteWork(lease.lease_id, Failed(reason)), Ack)

    def sign(self, lease: Lease, csr: bytes = b"") -> Issued:
        """Have a certificate signed under a lease."""
        request = RenewWithLease(lease.lease_id, csr or make_csr(lease.item.host))
        return self.office.send(self.worker, request, RenewalAnswer).issued

    def deliver(self, lease: Lease, state: ServedState = "served") -> Issued:
        """Renew under a lease, all the way."""
        issued = self.sign(lease)
        done = CompleteWork(lease.lease_id, Installed(issued.serial, state, ""))
        self.office.send(self.worker, done, Ack)
        return issued

    def pull(self, issued: Issued, host: str, csr: bytes = b"") -> Issued:
        """Let a member ask for itself."""
        request = RenewAsPeer(peer_of(issued, host), csr or make_csr(host))
        return self.office.send(self.gateway, request, RenewalAnswer).issued

    def report(self, issued: Issued, host: str, state: ServedState = "served") -> None:
        """Let a member say what it serves."""
        request = ReportInstalled(issued.serial, state, "", peer_of(issued, host))
        self.office.send(self.gateway, request, Ack)

    def events(self) -> list[str]:
        """Return the events of the audit trail."""
        rows = self.office.ask(Service.CONSOLE, ListAudit(after=0, limit=500), AuditView).rows
        return [row.event for row in rows]


def beat_of(peer: Peer, pin: str, serial: str = "", not_after: int = 0) -> RecordHeartbeat:
    """Return the heartbeat of a member; it may say what it likes of its certificate."""
    return RecordHeartbeat(
        peer=peer,
        pin=pin,
        served_serial=serial or peer.serial,
        served_not_after=UnixSeconds(not_after or peer.not_after),
        served="served",
        endpoint=None,
        clock=wall_s(),
        bundle_sequence=0,
        term=1,
    )


@contextmanager
def paced(home: Path, **sections: Any) -> Iterator[Paced]:
    """Open a primary with certificates of five minutes and a pushed clock."""
    with pushed_clock() as clock:
        yield Paced(home, clock, **{"policy": FIVE_MINUTES, **sections})
