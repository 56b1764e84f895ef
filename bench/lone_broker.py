"""A broker process with a mesh of many members in a temporary home, and raw sockets to it."""

import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import zmq
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from broker.clock import wall_s
from broker.ledger.sqlite import Ledger
from broker.runtime.paths import Paths, node_paths
from broker.runtime.settings import load_settings
from broker.runtime.sockets import dealer
from broker.units import UnixSeconds
from broker.wire.base import Request
from broker.wire.codec import WIRE_VERSION, decode_answer, encode
from broker.wire.facts import CertificateIssued, MemberJoined
from broker.wire.ids import Service
from broker.wire.liveness import Ready
from broker.wire.messages import AnyReply, Call
from broker.wire.node import Endpoint
from tests.creation import wished

SETTINGS = """
[node]
name = "atlas"
addresses = ["127.0.0.1"]
[listen]
enroll = "127.0.0.1:17642"
mesh = "127.0.0.1:17643"
[ca]
kdf_memory = 8388608
kdf_passes = 1
[discovery]
mdns = false
[log]
level = "warning"
[renewal]
attempt_every = "0s"
[broker]
worker_dead_after = "120s"
"""


class RawClient:
    """A DEALER without retries: what a closed loop or a pipeline measures."""

    def __init__(self, paths: Paths, service: Service, patience_ms: int = 10_000) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        identity = f"{service}/bench/{os.getpid()}/{secrets.token_hex(4)}".encode()
        self.socket = dealer(self._context, paths.requests_socket, identity)
        self._control = dealer(self._context, paths.control_socket, identity)
        ready = Ready(service, secrets.token_hex(4), "bench", os.getpid(), WIRE_VERSION)
        self._control.send_multipart(encode(Call(secrets.token_bytes(16), 5000, ready)))
        if not self._control.poll(patience_ms):
            self.close()
            raise RuntimeError("the broker does not answer READY")
        self._control.recv_multipart()

    def send(self, request: Request) -> None:
        """Send a request with a fresh id."""
        call = Call(secrets.token_bytes(16), 60_000, request)  # type: ignore[arg-type]  # any kind
        self.socket.send_multipart(encode(call))

    def receive(self) -> AnyReply:
        """Wait for one answer."""
        return decode_answer(self.socket.recv_multipart()).reply

    def ask(self, request: Request) -> AnyReply:
        """Send and wait."""
        self.send(request)
        return self.receive()

    def close(self) -> None:
        """Leave."""
        self._context.destroy(linger=0)


def make_csr(host: str) -> bytes:
    """Return a CSR in DER with a fresh key."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    csr = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.DER)


@contextmanager
def lone_home(members: int = 0, *, due: bool = False) -> Iterator[Paths]:
    """Create a mesh with `members` enrolled hosts and no running process."""
    home = Path(tempfile.mkdtemp(prefix="cmb-", dir="/tmp"))
    settings_file = home / "certmesh.toml"
    settings_file.write_text(SETTINGS)
    wanted = wished("home", "correct horse battery staple", settings=load_settings(settings_file))
    subprocess.run(
        [sys.executable, "-m", "broker", "create", str(settings_file)],
        input=msgspec.json.encode(wanted),
        stdout=subprocess.DEVNULL,
        check=True,
    )
    paths = node_paths(settings_file, load_settings(settings_file))
    try:
        enroll_members(paths, members, due=due)
        yield paths
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def running_broker(paths: Paths) -> Iterator[subprocess.Popen[bytes]]:
    """Run the broker alone, without supervisord."""
    command = [sys.executable, "-m", "broker", str(paths.settings), "--foreground"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def enroll_members(paths: Paths, count: int, *, due: bool) -> None:
    """Write `count` members straight into the ledger, in groups."""
    ledger = Ledger.open(paths.ledger, node="atlas")
    now = wall_s()
    for group in _grouped(range(count), 500):
        ledger.begin()
        for number in group:
            _enroll(ledger, number, now, due=due)
        ledger.commit()
    ledger.close()


def _enroll(ledger: Ledger, number: int, now: UnixSeconds, *, due: bool) -> None:
    host = f"m{number:07d}"
    member_id = hashlib.sha256(host.encode()).hexdigest()[:32]
    name = f"{host}.home.internal"
    doors = Endpoint(host, ("127.0.0.1",), 7642, 7643, name)
    joined = MemberJoined(member_id, host, (name, f"{host}.local"), "member", doors, "bench")
    ledger.append(joined, actor="bench", now=now)
    ledger.append(
        CertificateIssued(
            member_id=member_id,
            serial=f"{number + (1 << 126):x}",
            key_hash=hashlib.sha256(member_id.encode()).hexdigest(),
            not_before=now,
            not_after=UnixSeconds(now + 30 * 86_400),
            renew_at=UnixSeconds(now - 10 if due else now + 20 * 86_400),
            certificate=b"\x30\x00" + os.urandom(600),
        ),
        actor="bench",
        now=now,
    )


def _grouped(numbers: range, size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]
