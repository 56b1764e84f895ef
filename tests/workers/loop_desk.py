"""A real desk for loops under test: real link to the stub broker, a stop signal set by the test."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from broker.client import Link, Subscription
from broker.runtime.events import EventName
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.base import Event
from broker.wire.claims import Claim, Gossip, SignedBeat, SignedHead
from broker.wire.ids import Service
from broker.wire.node import Endpoint, Membership, MeshView, NodeView
from tests.workers.small_ca import DOMAIN, SmallCA
from workers.certstore import CertificateStore
from workers.peer import PeerSession
from workers.process import Desk

PIN = "ab" * 32
GOSSIP = Gossip(
    beats=(SignedBeat(body=b"a beat", signature=b"signed"),),
    head=SignedHead(body=b"a head", signature=b"signed"),
)
"""What the worker only carries: whether it is true is for brokers to find out."""
REPOSITORY = Path(__file__).parents[2]


class StopByHand:
    """Stands for the stop signal."""

    def __init__(self) -> None:
        self._asked = False
        self._reader, self._writer = socket.socketpair()

    def ask(self) -> None:
        """Ask the process to stop."""
        self._asked = True
        self._writer.send(b"\0")

    def fileno(self) -> int:
        """Return the descriptor for the poller."""
        return self._reader.fileno()

    def requested(self) -> bool:
        """Return whether a stop was asked."""
        return self._asked

    def close(self) -> None:
        """Close both ends."""
        self._reader.close()
        self._writer.close()


@contextmanager
def desk_at(
    paths: Paths,
    settings: Settings,
    service: Service,
    stop: StopByHand | None = None,
    wakes: tuple[type[Event], ...] = (),
) -> Iterator[Desk]:
    """Give a desk that is registered with the broker at `paths` and hears of `wakes`."""
    stop = stop or StopByHand()
    try:
        with (
            Link(paths, service, service.value, stopping=stop.requested) as link,
            Subscription(paths, wakes) as events,
        ):
            link.introduce()
            yield Desk(link, paths, settings, stop, events)  # type: ignore[arg-type]  # set by hand
    finally:
        stop.close()


def enrol(paths: Paths, ca: SmallCA, host: str = "node-b") -> Membership:
    """Give this node a certificate of `ca` and a membership in its mesh."""
    store = CertificateStore(paths.certificates, host)
    store.install(ca.sign(store.prepare(), host), ca.issuing, ca.root)
    return write_membership(paths, host, pin=ca.pin, root_pem=ca.root_pem)


def write_membership(
    paths: Paths, host: str = "node-b", *, pin: str = PIN, root_pem: str = ""
) -> Membership:
    """Write the membership of `host`."""
    membership = Membership(
        mesh_id="01" * 16,
        mesh_name="home",
        pin=pin,
        root_pem=root_pem,
        host=host,
        member_id="02" * 16,
        server_name=f"{host}.{DOMAIN}",
        primary=endpoint("node-a"),
    )
    paths.membership.write_bytes(msgspec.json.encode(membership))
    return membership


def peer_session(paths: Paths, membership: Membership) -> PeerSession:
    """Open a real session with little patience."""
    return PeerSession(paths, membership, timeout_s=1.0)


def run_module(module: str, paths: Paths, *flags: str) -> "subprocess.Popen[str]":
    """Start a worker as a process of its own; the caller waits for it."""
    argv = [sys.executable, "-m", module, str(paths.settings), *flags]
    return subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY
    )


def endpoint(host: str, port: int = 7643, address: str = "127.0.0.1") -> Endpoint:
    """Return the doors of a node."""
    return Endpoint(
        host=host,
        addresses=(address,),
        enroll_port=7642,
        mesh_port=port,
        server_name=f"{host}.{DOMAIN}",
    )


def claim_of(host: str = "node-a", **changes: Any) -> Claim:
    """Return what the primary of term 3 says of itself; `changes` replace fields."""
    claim = Claim(
        host=host,
        role="primary",
        serving=True,
        term=3,
        highest_term=3,
        version_term=3,
        sequence=9,
        hash="cd" * 32,
        promotable=True,
    )
    return msgspec.structs.replace(claim, **changes)


def node_in_mesh(host: str = "node-b", **changes: Any) -> NodeView:
    """Return a member of a mesh whose primary is node-a; `changes` replace fields."""
    mesh = MeshView(
        mesh_id="01" * 16,
        name="home",
        domain=DOMAIN,
        pin=PIN,
        term=3,
        primary=endpoint("node-a"),
    )
    node = NodeView(
        host=host,
        role="member",
        ca="absent",
        term=3,
        sequence=40,
        bundle_sequence=7,
        bundle_term=3,
        mesh=mesh,
        member_id="02" * 16,
    )
    return msgspec.structs.replace(node, **changes)


def logged(caplog: Any, event: EventName) -> list[dict[str, Any]]:
    """Return the fields of the captured lines with this event."""
    lines = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    return [line for line in lines if line["event"] == event.value]
