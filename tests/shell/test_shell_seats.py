"""Who speaks as whom at the broker's local sockets: the kernel vouches for the address."""

import secrets
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from broker.clock import boottime_ms
from broker.core.seats import Seats
from broker.errors import ErrorCode, ForbiddenError, UnregisteredError, error_classes
from broker.shell.desk import Desk, Incoming
from broker.units import Millis
from broker.wire.authority import LockAuthority
from broker.wire.base import Reply, Request
from broker.wire.codec import WIRE_VERSION, encode
from broker.wire.control import Ack, Fault
from broker.wire.ids import Service
from broker.wire.liveness import Beat, BeatAnswer, Goodbye, Ready, Welcome
from broker.wire.messages import Call
from broker.wire.node import GetNode, NodeView
from broker.wire.supervision import OverdueView, ReportProcesses
from tests.shell.office import Office

OWN, DOORS = 901, 902
R = TypeVar("R", bound=Reply)


class Sockets:
    """A broker whose callers come with addresses."""

    def __init__(self, home: Path) -> None:
        self.office = Office.create(home)
        uids = {s: DOORS if s is Service.GATEWAY else OWN for s in Service}
        self.desk = Desk(self.office.desk.state, Seats(uids))

    def say(
        self, request: Request, kind: type[R], *, uid: int, pid: int, identity: bytes = b"one"
    ) -> R:
        """Send one request from a process and return its reply; a fault is raised."""
        batch = self.desk.open_batch()
        call = Call(secrets.token_bytes(16), 5000, cast("Any", request))
        address = f"localhost:{uid}:100:{pid}"
        coming = Incoming(cast("Any", None), identity, encode(call), address=address)
        entry = self.desk.decide(batch, coming)
        assert entry is not None
        self.desk.finish(batch, [entry])
        if isinstance(entry.reply, Fault):
            raise error_classes()[ErrorCode(entry.reply.code)](entry.reply.detail)
        assert isinstance(entry.reply, kind), entry.reply
        return entry.reply

    def refusals(self) -> list[str]:
        """Return who was refused a seat, as the audit trail has it."""
        rows = self.office.ledger.audit(0, 1000)
        return [row.actor for row in rows if row.event == "action.refused"]


@pytest.fixture
def sockets(home: Path) -> Sockets:
    """Return a broker where the gateway is a user of its own."""
    return Sockets(home)


def ready(service: Service, pid: int = 10, instance: str = "") -> Ready:
    """Return an introduction."""
    return Ready(service, instance or service.value, "boot", pid, WIRE_VERSION)


def test_a_gateway_cannot_introduce_itself_as_the_console(sockets: Sockets) -> None:
    """It would unlock, approve and revoke: refused by its uid, and written down (row 41) (L6)."""
    sockets.say(ready(Service.GATEWAY), Welcome, uid=DOORS, pid=10)
    with pytest.raises(ForbiddenError, match=f"uid {DOORS} may not be console"):
        sockets.say(ready(Service.CONSOLE), Welcome, uid=DOORS, pid=10, identity=b"two")
    with pytest.raises(UnregisteredError):
        sockets.say(LockAuthority(operator="eve"), Ack, uid=DOORS, pid=10, identity=b"two")
    assert sockets.refusals() == [f"uid {DOORS}"]


def test_a_refused_seat_is_one_row_however_often_it_is_asked_for(sockets: Sockets) -> None:
    """The audit trail is no place that a taken-over process can fill (row 40)."""
    for _ in range(50):
        with pytest.raises(ForbiddenError):
            sockets.say(ready(Service.CONSOLE), Welcome, uid=DOORS, pid=10)
    assert len(sockets.refusals()) == 1


def test_a_refused_introduction_leaves_an_earlier_one_alone(sockets: Sockets) -> None:
    """Asking for another seat over one's connection does not lose the one that was granted."""
    sockets.say(ready(Service.GATEWAY), Welcome, uid=DOORS, pid=10)
    with pytest.raises(ForbiddenError):
        sockets.say(ready(Service.CONSOLE), Welcome, uid=DOORS, pid=10)
    assert sockets.say(GetNode(), NodeView, uid=DOORS, pid=10).host == "atlas"


def test_root_may_be_any_service(sockets: Sockets) -> None:
    """`python -m workers.gateway SETTINGS --once` by a person who is root (row 40)."""
    assert sockets.say(ready(Service.GATEWAY), Welcome, uid=0, pid=77).node == "atlas"


def test_who_takes_the_identity_of_a_dead_worker_is_a_stranger(sockets: Sockets) -> None:
    """An identity is free once its owner is gone; what was granted to the owner is not (row 40)."""
    sockets.say(ready(Service.CONSOLE), Welcome, uid=OWN, pid=10)
    for uid, pid in ((DOORS, 10), (DOORS, 11), (OWN, 11), (0, 11)):
        with pytest.raises(UnregisteredError):
            sockets.say(LockAuthority(operator="eve"), Ack, uid=uid, pid=pid)


def test_a_stranger_cannot_keep_a_dead_worker_alive_or_say_goodbye_for_it(
    sockets: Sockets,
) -> None:
    """The watchdog would wait for ever, or the leases of a living worker would go back (row 40)."""
    sockets.say(ready(Service.RENEWAL), Welcome, uid=OWN, pid=10)
    beat = Beat(progress=1, within_ms=1000)
    assert not sockets.say(beat, BeatAnswer, uid=DOORS, pid=11).registered
    sockets.say(Goodbye("bye"), Ack, uid=DOORS, pid=11)
    assert sockets.say(beat, BeatAnswer, uid=OWN, pid=10).registered


def test_a_worker_cannot_let_the_watchdog_kill_somebody_else(sockets: Sockets) -> None:
    """It would claim the broker's name and pid, and go silent: the pid is the kernel's (L6)."""
    sockets.say(ready(Service.GATEWAY, pid=1, instance="broker"), Welcome, uid=DOORS, pid=4711)
    sockets.say(ready(Service.WATCHDOG), Welcome, uid=OWN, pid=12, identity=b"dog")
    state = sockets.office.desk.state
    state.workers.sweep(Millis(boottime_ms() + 10_000_000))
    view = sockets.say(ReportProcesses(()), OverdueView, uid=OWN, pid=12, identity=b"dog")
    assert [(one.instance, one.pid) for one in view.overdue] == [("broker", 4711)]


def test_where_the_kernel_cannot_say_the_pid_the_workers_word_is_taken(sockets: Sockets) -> None:
    """Another PID namespace is pid 0 here; a process table of zeroes would help nobody."""
    sockets.say(ready(Service.RENEWAL, pid=33), Welcome, uid=OWN, pid=0)
    (worker,) = sockets.office.desk.state.workers.everyone()
    assert worker.pid == 33
