"""What strangers cost: the broker's time per refused join, and status while they keep knocking."""

import multiprocessing
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.lone_broker import RawClient, lone_home, make_csr, running_broker
from bench.report import Result, result
from broker.errors import ErrorCode
from broker.runtime.paths import Paths
from broker.wire.control import Fault
from broker.wire.enrollment import Join
from broker.wire.ids import Service
from broker.wire.node import GetStatus, StatusView

ROUNDS = 5
REFUSALS = 2000
IN_FLIGHT = 16
ATTACK_PER_S = 1000
STATUS_CALLS = 400
STATUS_EVERY_S = 0.01
MEMBERS = 50
TICKS_PER_S = 100
"""USER_HZ of Linux: the unit of times in /proc/PID/stat."""
SHARE = 0.99


@dataclass
class Stranger:
    """Bad attempts from ever new addresses: half by code, half by invite.

    Every attempt gets as far as its credential, which is the expensive way to be refused; a source
    that is locked already costs less.
    """

    client: RawClient
    csr: bytes = field(default_factory=lambda: make_csr("nas"))
    sent: int = 0

    def knock(self) -> None:
        """Send one bad join."""
        number = self.sent
        self.sent += 1
        by_code = number % 2 == 0
        self.client.send(
            Join(
                host=f"h{number}",
                csr=self.csr,
                sans=(),
                invite_secret="" if by_code else f"no such invite {number}",
                totp_code=f"{number % 1_000_000:06}" if by_code else "",
                ticket_hash="ab" * 32,
                nonce="cd" * 16,
                addresses=("10.0.0.7",),
                mesh_port=7643,
                enroll_port=7642,
                source=f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
            )
        )

    def hear(self) -> None:
        """Take one answer, which has to be a refusal of the credential."""
        reply = self.client.receive()
        refusals = {ErrorCode.BAD_CREDENTIAL, ErrorCode.THROTTLED}
        if not isinstance(reply, Fault) or ErrorCode(reply.code) not in refusals:
            raise TypeError(f"not a refusal: {reply}")


def measure() -> list[Result]:
    """Return the cost of a refusal, and the 99th percentile of status under attack."""
    with lone_home(MEMBERS) as paths, running_broker(paths) as process:
        costs = [_cost_ms(paths, process.pid) for _ in range(ROUNDS)]
        calm = _status_ms(paths)
        busy = [_under_attack(paths) for _ in range(ROUNDS)]
    rates = [rate for _, rate in busy]
    return [
        result(
            "refused_join_ms",
            costs,
            unit="ms",
            better="lower",
            target=1.0,
            note="the broker's processor time, credential checked",
        ),
        result(
            "status_p99_under_attack_ms",
            [p99 for p99, _ in busy],
            unit="ms",
            better="lower",
            target=50.0,
            note=f"{statistics.median(rates):.0f} bad attempts/s, calm p99 {calm:.1f} ms",
        ),
    ]


def _cost_ms(paths: Paths, pid: int) -> float:
    """Return processor time of the broker per refused join, everything it does included."""
    client = RawClient(paths, Service.GATEWAY)
    stranger = Stranger(client)
    before = _processor_s(pid)
    for _ in range(IN_FLIGHT):
        stranger.knock()
    for _ in range(REFUSALS - IN_FLIGHT):
        stranger.hear()
        stranger.knock()
    for _ in range(IN_FLIGHT):
        stranger.hear()
    spent_s = _processor_s(pid) - before
    client.close()
    return spent_s * 1000 / REFUSALS


def _under_attack(paths: Paths) -> tuple[float, float]:
    """Return the 99th percentile of status in ms, and the attempts per second meanwhile."""
    context = multiprocessing.get_context("fork")
    ready, over = context.Barrier(2), context.Event()
    queue: multiprocessing.Queue[float] = context.Queue()
    attacker = context.Process(target=_attack, args=(paths, ready, over, queue))
    attacker.start()
    ready.wait(60)
    p99_ms = _status_ms(paths)
    over.set()
    rate = queue.get(timeout=60)
    attacker.join(30)
    return p99_ms, rate


def _attack(paths: Paths, ready: object, over: object, queue: object) -> None:
    """Knock at a steady rate until told to stop, whatever the answers take."""
    client = RawClient(paths, Service.GATEWAY)
    stranger = Stranger(client)
    ready.wait(60)  # type: ignore[attr-defined]  # a Barrier of the chosen context
    started, heard = time.perf_counter(), 0
    while not over.is_set():  # type: ignore[attr-defined]  # an Event of the chosen context
        wanted = int((time.perf_counter() - started) * ATTACK_PER_S)
        while stranger.sent < wanted:
            stranger.knock()
        while heard < stranger.sent and client.socket.poll(1):
            stranger.hear()
            heard += 1
    queue.put(heard / (time.perf_counter() - started))  # type: ignore[attr-defined]  # a Queue
    client.close()


def _status_ms(paths: Paths) -> float:
    """Return the 99th percentile of a status call, asked a hundred times a second."""
    client = RawClient(paths, Service.CONSOLE)
    times = []
    for _ in range(STATUS_CALLS):
        started = time.perf_counter()
        reply = client.ask(GetStatus(limit=MEMBERS))
        took_s = time.perf_counter() - started
        if not isinstance(reply, StatusView):
            raise TypeError(f"no status: {reply}")
        times.append(took_s * 1000)
        client.socket.poll(max(0, int((STATUS_EVERY_S - took_s) * 1000)))
    client.close()
    return sorted(times)[int(len(times) * SHARE)]


def _processor_s(pid: int) -> float:
    """Return user and system time of a process (proc(5), fields 14 and 15 of stat)."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / TICKS_PER_S
