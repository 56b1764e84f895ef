"""One broker without supervisord, started and killed many times, and callers that speak raw frames.

A caller knows its request ids: what was answered is a promise, what was not is asked again with the
same id in the broker's next life.
"""

import contextlib
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import zmq

from broker.clock import boottime_ms
from broker.ledger.sqlite import Ledger
from broker.runtime.paths import Paths, node_paths
from broker.runtime.settings import load_settings
from broker.runtime.sockets import dealer
from broker.shell.create import create_mesh
from broker.wire.base import Request
from broker.wire.codec import WIRE_VERSION, decode_answer, encode
from broker.wire.ids import Service
from broker.wire.liveness import Ready
from broker.wire.messages import Answer, Call
from tests.creation import wished
from tests.faults.injectors.failpoint import arm, inside_environment
from tests.faults.shim.build import merged

ROOT = Path(__file__).parents[2]
PASSPHRASE = "thickness islamic barman banknote"
SETTINGS = """
[node]
name = "atlas"
addresses = ["127.0.0.1"]
[listen]
enroll = "127.0.0.1:31642"
mesh = "127.0.0.1:31643"
workers = "127.0.0.1:31645"
[ca]
kdf_memory = 8388608
kdf_passes = 1
[discovery]
mdns = false
[backup]
every = "0s"
[renewal]
attempt_every = "0s"
[broker]
worker_dead_after = "120s"
"""
PATIENCE_S = 60.0
"""For anything that takes well under a second on an idle machine."""


class BrokerDiedError(Exception):
    """The broker went away while it was spoken to."""


@dataclass
class Home:
    """A node's directory with a mesh in it, and no process."""

    paths: Paths

    @classmethod
    def create(cls, below: Path | None = None) -> "Home":
        """Create a mesh in a short temporary directory."""
        parent = below or Path(tempfile.gettempdir())
        place = Path(tempfile.mkdtemp(prefix="cmc-", dir=parent))
        home = cls.at(place)
        settings = load_settings(home.paths.settings)
        create_mesh(settings, home.paths, wished("home", PASSPHRASE, settings=settings))
        return home

    @classmethod
    def at(cls, place: Path) -> "Home":
        """Write the settings of a node into `place`."""
        settings_file = place / "certmesh.toml"
        if not settings_file.exists():
            settings_file.write_text(SETTINGS)
        return cls(node_paths(settings_file, load_settings(settings_file)))

    def copied(self) -> "Home":
        """Return a copy with paths of its own."""
        place = Path(tempfile.mkdtemp(prefix="cmc-", dir=self.paths.home.parent))
        sockets = shutil.ignore_patterns("*.sock", "cmc-*")
        shutil.copytree(self.paths.home, place, dirs_exist_ok=True, symlinks=True, ignore=sockets)
        return self.at(place)

    @contextlib.contextmanager
    def ledger_copy(self) -> Iterator[Ledger]:
        """Yield the ledger as it lies on the disk; the broker's own recovery stays ahead of it."""
        with tempfile.TemporaryDirectory(dir="/tmp", prefix="cml-") as place:
            for name in ("ledger.db", "ledger.db-wal"):
                source = self.paths.data / name
                if source.exists():
                    shutil.copy(source, Path(place) / name)
            ledger = Ledger.open(Path(place) / "ledger.db", node="atlas")
            try:
                yield ledger
            finally:
                ledger.close()

    def log(self) -> str:
        """Return what the broker wrote."""
        path = self.paths.home.with_suffix(".log")
        return path.read_text(errors="replace") if path.exists() else ""

    def remove(self) -> None:
        """Remove everything."""
        self.paths.home.with_suffix(".log").unlink(missing_ok=True)
        shutil.rmtree(self.paths.home, ignore_errors=True)


class Nursery:
    """Forks brokers, one at a time; see `tests.faults.inside.nursery`."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="cmn-", dir="/tmp")
        self._failpoint = Path(self._place.name) / "failpoint"
        whole = merged(inside_environment(self._failpoint), environment or {})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.inside.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=ROOT,
            env={**os.environ, **whole},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders, self._words = self._process.stdin, self._process.stdout
        self._pid = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_trouble: object) -> None:
        self.end()

    @property
    def descriptor(self) -> int:
        """Readable when the broker has ended."""
        return self._words.fileno()

    @property
    def pid(self) -> int:
        """The broker's, 0 without one."""
        return self._pid

    def start(self, home: Home) -> None:
        """Start a broker on `home`."""
        assert self._pid == 0, "one at a time"
        self._orders.write(f"{home.paths.settings}\n")
        self._pid = int(self._words.readline())

    def arm(self, point: str, nth: int = 1) -> None:
        """Let the broker die at the nth time it comes by `point`, counted from now."""
        arm(self._failpoint, point, nth)

    def disarm(self) -> None:
        """Let it live."""
        self._failpoint.unlink(missing_ok=True)

    def is_over(self) -> bool:
        """Whether the broker has ended, not yet taken note of by `wait`."""
        return bool(self._pid) and bool(select.select([self.descriptor], [], [], 0)[0])

    def wait(self, within_s: float = PATIENCE_S) -> int:
        """Return how the broker ended: -9 when it was killed."""
        if not select.select([self.descriptor], [], [], within_s)[0]:
            raise AssertionError(f"broker {self._pid} still runs after {within_s} s")
        self._pid = 0
        return int(self._words.readline())

    def kill(self) -> int:
        """Kill the broker and return how it ended, which may have been before."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        return self.wait()

    def stop(self) -> int:
        """Ask the broker to stop and return its exit status."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGTERM)
        return self.wait()

    def end(self) -> None:
        """Kill the broker, if there is one, and the nursery."""
        if self._pid:
            self.kill()
        self._orders.close()
        self._process.wait(10)
        self._words.close()
        self._place.cleanup()


class Caller:
    """A worker of one service, during one life of the broker."""

    def __init__(self, home: Home, nursery: Nursery, service: Service) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._nursery = nursery
        identity = f"{service}/{service}/{secrets.token_hex(4)}".encode()
        self._requests = dealer(self._context, home.paths.requests_socket, identity)
        self._control = dealer(self._context, home.paths.control_socket, identity)
        ready = Ready(service, service.value, secrets.token_hex(4), os.getpid(), WIRE_VERSION)
        try:
            self._introduce(ready)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_trouble: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave without a word."""
        self._context.destroy(linger=0)

    def post(self, request_id: bytes, request: Request) -> None:
        """Send a request; raises `BrokerDiedError` when nobody is there."""
        call = Call(request_id, 30_000, request)  # type: ignore[arg-type]  # any kind
        self._wait(self._requests, zmq.POLLOUT, PATIENCE_S)
        try:
            self._requests.send_multipart(encode(call), zmq.NOBLOCK)
        except zmq.Again:
            raise BrokerDiedError from None

    def collect(self, wait_ms: int = 0) -> list[Answer]:
        """Return the answers that are here, or come within `wait_ms`."""
        answers: list[Answer] = []
        while self._requests.poll(0 if answers else wait_ms):
            answers.append(decode_answer(self._requests.recv_multipart(zmq.NOBLOCK)))
        return answers

    def ask(self, request_id: bytes, request: Request, within_s: float = PATIENCE_S) -> Answer:
        """Send a request and wait for its answer.

        Raises:
            BrokerDiedError: The broker died and left no answer.
            AssertionError: It lives and does not answer.
        """
        self.post(request_id, request)
        deadline_ms = boottime_ms() + within_s * 1000
        while boottime_ms() < deadline_ms:
            self._wait(self._requests)
            for answer in self.collect():
                if answer.request_id == request_id:
                    return answer
            if self._nursery.is_over():
                raise BrokerDiedError
        raise AssertionError(f"no answer to {type(request).__name__}")

    def _introduce(self, ready: Ready) -> None:
        deadline_ms = boottime_ms() + PATIENCE_S * 1000
        self._wait(self._control, zmq.POLLOUT, PATIENCE_S)
        if self._nursery.is_over():
            raise BrokerDiedError
        call = Call(secrets.token_bytes(16), 30_000, ready)
        self._control.send_multipart(encode(call), zmq.NOBLOCK)
        while boottime_ms() < deadline_ms:
            self._wait(self._control)
            if self._control.poll(0):
                self._control.recv_multipart()
                return
            if self._nursery.is_over():
                raise BrokerDiedError
        raise AssertionError("no answer to READY")

    def _wait(
        self, socket: "zmq.Socket[bytes]", flag: int = zmq.POLLIN, within_s: float = 1.0
    ) -> None:
        """Wait for the socket, or for the end of the broker."""
        poller = zmq.Poller()
        poller.register(socket, flag)
        poller.register(self._nursery.descriptor, zmq.POLLIN)
        poller.poll(int(within_s * 1000))
