"""What several tests of grants to other machines do with a broker's desk."""

import secrets
from typing import Any, TypeVar, cast

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from broker.errors import MeshError, error_classes
from broker.shell.desk import Incoming
from broker.wire.base import Reply, Request
from broker.wire.claims import KeyProof
from broker.wire.codec import WIRE_VERSION, encode
from broker.wire.control import Fault
from broker.wire.expired import rekey_statement
from broker.wire.ids import Service
from broker.wire.liveness import Ready, Welcome
from broker.wire.messages import Call
from broker.wire.remote import (
    BindWorker,
    EnrollWorker,
    RemoteWorkerView,
    RevokeWorker,
    WorkerDoor,
)
from broker.wire.renewal import RenewWithLease
from broker.wire.work import Lease, LeaseWork, RenewMember, WorkAnswer
from tests.shell.mesh_room import Node, Room
from tests.shell.office import Office, make_csr

R = TypeVar("R", bound=Reply)
KEY, OTHER = "aa" * 32, "bb" * 32
SERVER = "cc" * 32
PORT = 7644
DUE = {
    "policy": {"leaf_lifetime": "1h", "renew_at": 0.00001},
    "renewal": {"jitter": 0.0, "backoff_min": "1h", "backoff_max": "2h"},
}
"""Sections of a mesh whose certificates are due as soon as they are issued."""


def open_port(office: Office) -> None:
    """Let the broker know of an open port, as its listener would say."""
    port = office.desk.state.remote_port
    port.listen, port.port, port.server_key = f"127.0.0.1:{PORT}", PORT, SERVER


def over_curve(office: Office, key: str, request: Request, kind: type[R], route: bytes = b"r") -> R:
    """Ask as whoever proved `key` on a CURVE connection; a Fault is raised as its error."""
    frames = encode(Call(secrets.token_bytes(16), 5000, cast("Any", request)))
    batch = office.desk.open_batch()
    entry = office.desk.decide(batch, Incoming(cast("Any", None), route, frames, key))
    assert entry is not None
    office.events.extend(office.desk.finish(batch, [entry]))
    if isinstance(entry.reply, Fault):
        raise _error(entry.reply)
    assert isinstance(entry.reply, kind), entry.reply
    return entry.reply


def introduce(office: Office, key: str = KEY, instance: str = "remote-renewal-0") -> bytes:
    """Register a remote worker; return its routing identity."""
    route = secrets.token_hex(4).encode()
    ready = Ready(Service.REMOTE_RENEWAL, instance, "boot", 1, WIRE_VERSION)
    over_curve(office, key, ready, Welcome, route)
    return route


def enroll(node: Node, host: str, operator: str = "ann") -> RemoteWorkerView:
    """Grant at a node's console."""
    return node.ask(Service.CONSOLE, EnrollWorker(host, operator), RemoteWorkerView)


def revoke(node: Node, host: str, operator: str = "ann") -> RemoteWorkerView:
    """End a grant at a node's console."""
    return node.ask(Service.CONSOLE, RevokeWorker(host, operator), RemoteWorkerView)


def bind(room: Room, host: str, key: str = KEY, at: str = "atlas") -> WorkerDoor:
    """Tell a key over a host's mutual TLS."""
    return room[at].ask(Service.GATEWAY, BindWorker(room[host].peer, key), WorkerDoor)


def lease_remotely(office: Office, route: bytes, key: str = KEY) -> tuple[Lease, RenewMember]:
    """Ask for a member and return its lease."""
    lease = over_curve(office, key, LeaseWork(local=False), WorkAnswer, route).lease
    assert lease is not None
    assert isinstance(lease.item, RenewMember)
    return lease, lease.item


def proven(room: Room, lease: Lease, item: RenewMember, by: str = "") -> RenewWithLease:
    """Return a member's CSR with its proof, or one that somebody else proved to be its."""
    csr, atlas = make_csr(item.host), room["atlas"].office
    found = atlas.ledger.certificate(item.serial)
    assert found is not None
    leaf, key = found[1].certificate, room.keys[by or item.host]
    membership = atlas.desk.state.membership
    assert membership is not None
    statement = rekey_statement(membership.mesh_id, leaf, csr)
    proof = KeyProof(leaf, key.sign(statement, ec.ECDSA(hashes.SHA256())))
    return RenewWithLease(lease.lease_id, csr, proof)


def _error(fault: Fault) -> MeshError:
    by_code = {code.value: kind for code, kind in error_classes().items()}
    return by_code[fault.code](fault.detail, hint=fault.hint, retry_after_ms=fault.retry_after_ms)
