"""How fast a CA brings its members new certificates: real TLS, real keys, stand-in members.

All members of the mesh are due; each figure is the rate inside windows of a sweep that goes on.
The stand-in, the broker and the workers share the cores of this machine.
"""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from bench.lone_broker import lone_home, running_broker
from bench.report import Result, result
from broker.clock import wall_s
from broker.runtime.paths import Paths
from broker.wire.node import Membership
from tests.workers.standin import GOOD, HUNG, Manner, StandIn

MEMBERS = 10_000
WINDOWS = 5
WINDOW_S = 2.0
SETTLED = 20
"""Renewals before the first window: all processes have started by then."""

HUNG_SETTLED_S = 12.0
"""Longer than a call to a hung member takes: their share of the places has levelled out."""

STARTED_S = 60.0
POLL_S = 0.01
LATENCY = Manner(latency_ms=50)
IN_FLIGHT = 8
SECTION = "[renewal]\n"


@dataclass
class Manners:
    """How members behave in the run under way."""

    usual: Manner = GOOD
    hung_every: int = 0

    def __call__(self, host: str) -> Manner:
        """Return the manner of one member."""
        is_hung = self.hung_every and int(host[1:]) % self.hung_every == 0
        return HUNG if is_hung else self.usual


@dataclass
class Mesh:
    """A CA without its pool, and its members."""

    paths: Paths
    plain: str
    members: StandIn
    manners: Manners

    def rates(
        self, workers: int, *, in_flight: int = IN_FLIGHT, settle_s: float = 0.0
    ) -> list[float]:
        """Return renewals per second in each window of a sweep with that many workers."""
        self._settle(in_flight)
        self._make_due()
        with running_broker(self.paths), _running_workers(self.paths, workers):
            began, before = time.perf_counter(), self._renewed()
            while self._renewed() < before + SETTLED * workers:
                if time.perf_counter() - began > STARTED_S:
                    raise TimeoutError("the sweep does not begin")
                _pause(POLL_S)
            _pause(settle_s)
            return [self._window() for _ in range(WINDOWS)]

    def whole_sweep_s(self, workers: int) -> float:
        """Return how long renewing every member takes, starting of the processes included."""
        self._settle(IN_FLIGHT)
        self._make_due()
        wanted = self._renewed() + len(self.members.members)
        began = time.perf_counter()
        with running_broker(self.paths), _running_workers(self.paths, workers):
            while self._renewed() < wanted:
                if time.perf_counter() - began > 10 * STARTED_S:
                    raise TimeoutError("the sweep does not end")
                _pause(POLL_S)
            return time.perf_counter() - began

    def _window(self) -> float:
        began, before = time.perf_counter(), self._renewed()
        _pause(WINDOW_S)
        return (self._renewed() - before) / (time.perf_counter() - began)

    def _renewed(self) -> int:
        return sum(len(member.installed) for member in self.members.members.values())

    def _settle(self, in_flight: int) -> None:
        assert self.plain.count(SECTION) == 1
        wanted = f'{SECTION}check_every = "1s"\nin_flight = {in_flight}\n'
        self.paths.settings.write_text(self.plain.replace(SECTION, wanted))

    def _make_due(self) -> None:
        """Make every member due: the due dates in the projections, nothing else."""
        with contextlib.closing(sqlite3.connect(self.paths.ledger)) as ledger:
            members = "SELECT current_serial FROM members WHERE host GLOB 'm[0-9]*'"
            due = {"due": wall_s() - 1}
            ledger.execute("UPDATE members SET renew_at = :due WHERE host GLOB 'm[0-9]*'", due)
            ledger.execute(
                f"UPDATE certificates SET renew_at = :due WHERE serial IN ({members})",  # noqa: S608 (our own text)
                due,
            )
            ledger.commit()


def measure() -> list[Result]:
    """Return the rates with one, two and four workers, with slow and with hung members."""
    manners = Manners()
    with lone_home() as paths:
        membership = msgspec.json.decode(paths.membership.read_bytes(), type=Membership)
        root = x509.load_pem_x509_certificate(membership.root_pem.encode())
        plain = paths.settings.read_text()
        with StandIn(root.public_bytes(Encoding.DER), manners) as members:
            with running_broker(paths):
                # The first round of a worker gets the CA's own certificate, to call members with.
                subprocess.run([*_worker(paths), "--once"], stdout=subprocess.DEVNULL, check=True)
                members.join(paths, [f"m{number:05d}" for number in range(MEMBERS)])
            mesh = Mesh(paths, plain, members, manners)
            return [*_scaling(mesh), *_slow(mesh), *_hung(mesh), _whole(mesh)]


def _scaling(mesh: Mesh) -> list[Result]:
    rates = {count: mesh.rates(count) for count in (1, 2, 4)}
    return [
        result(
            f"sweep_{count}_workers_per_s",
            found,
            unit="1/s",
            better="higher",
            note=f"{os.cpu_count()} cores for members, broker and workers together",
        )
        for count, found in rates.items()
    ]


def _slow(mesh: Mesh) -> list[Result]:
    """One member at a time in each worker, so that workers are all that is scaled."""
    mesh.manners.usual = LATENCY
    one, four = mesh.rates(1, in_flight=1), mesh.rates(4, in_flight=1)
    many = mesh.rates(1)
    mesh.manners.usual = GOOD
    ratios = [more / less for less, more in zip(one, four, strict=True)]
    return [
        result(
            "sweep_latency_4_vs_1",
            ratios,
            unit="x",
            better="higher",
            target=3.5,
            note=f"50 ms before each answer, one in flight: {_mean(one):.1f} -> {_mean(four):.1f}",
        ),
        result(
            "sweep_latency_in_flight_8_vs_1",
            [more / less for less, more in zip(one, many, strict=True)],
            unit="x",
            better="higher",
            note="one worker, eight members in flight",
        ),
    ]


def _hung(mesh: Mesh) -> list[Result]:
    healthy = mesh.rates(4, settle_s=HUNG_SETTLED_S)
    mesh.manners.hung_every = 100
    hung = mesh.rates(4, settle_s=HUNG_SETTLED_S)
    mesh.manners.hung_every = 0
    return [
        result(
            "sweep_1_percent_hung",
            [less / more for less, more in zip(hung, healthy, strict=True)],
            unit="x",
            better="higher",
            target=0.9,
            note=f"four workers: {_mean(healthy):.0f} -> {_mean(hung):.0f} members a second",
        )
    ]


def _whole(mesh: Mesh) -> Result:
    took = mesh.whole_sweep_s(4)
    return result("sweep_10k_s", [took], unit="s", better="lower", note="four workers, to the last")


@contextlib.contextmanager
def _running_workers(paths: Paths, count: int) -> Iterator[None]:
    """Run renewal workers alone, without supervisord."""
    processes = [
        subprocess.Popen(
            _worker(paths),
            stdout=subprocess.DEVNULL,
            env={**os.environ, "SUPERVISOR_PROCESS_NAME": f"renewal-{number}"},
        )
        for number in range(count)
    ]
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(20)


def _worker(paths: Paths) -> list[str]:
    return [sys.executable, "-m", "workers.renewal", str(paths.settings), "--foreground"]


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
