"""Renewal workers on other machines: who may, with which key, and where the broker is.

The machine is a member of the mesh. A person on the CA grants it (`EnrollWorker`); the worker makes
a CURVE key there, and tells its public half over mutual TLS (`BindWorker`). A grant takes one key,
once; another key needs another grant. Source: ZeroMQ RFC 26/CurveZMQ, RFC 27/ZAP.
"""

from typing import Annotated

from msgspec import Meta

from broker.wire.base import Body, Reply, Request
from broker.wire.ids import Count, Hex, Host, Port, Text, UnixSeconds
from broker.wire.roster import Peer

CurveKey = Annotated[str, Meta(min_length=64, max_length=64, pattern=r"^[0-9a-f]*$(?!\n)")]
"""The 32 octets of a CURVE public key, in hexadecimal."""


class WorkerBody(Body, frozen=True):
    """POST /v1/worker: the public key that this machine's renewal workers use."""

    public_key: CurveKey


class EnrollWorkerBody(Body, frozen=True):
    """POST /v1/remote-workers."""

    host: Host
    dry_run: bool = False


class RevokeWorkerBody(Body, frozen=True):
    """POST /v1/remote-workers/{host}/revoke."""

    dry_run: bool = False


class EnrollWorker(Request, frozen=True, tag="enroll-worker"):
    """Let renewal workers on a member's machine work for this CA; an earlier grant ends."""

    host: Host
    operator: Text
    dry_run: bool = False


class RevokeWorker(Request, frozen=True, tag="revoke-worker"):
    """End the grant of a machine; its workers are refused at their next request."""

    host: Host
    operator: Text
    dry_run: bool = False


class ListRemoteWorkers(Request, frozen=True, tag="list-remote-workers"):
    """Ask for the `RemoteWorkersView`."""


class RemoteWorkerView(Reply, frozen=True, tag="remote-worker-view"):
    """One grant; `state` is `enrolled` (no key yet), `bound` or `revoked`.

    `connected` counts the workers of that machine that this broker hears, `renewals` what they
    brought home since it started.
    """

    grant_id: Hex
    host: Host
    member_id: Hex
    state: Text
    public_key: Hex
    enrolled_at: UnixSeconds
    enrolled_by: Text
    connected: Count = 0
    renewals: Count = 0


class RemoteWorkersView(Reply, frozen=True, tag="remote-workers-view"):
    """The grants, newest first, and where remote workers reach this broker, empty when nowhere."""

    workers: tuple[RemoteWorkerView, ...]
    listen: Text = ""


class BindWorker(Request, frozen=True, tag="bind-worker"):
    """A member tells, over mutual TLS, the CURVE key of its renewal workers."""

    peer: Peer
    public_key: CurveKey


class WorkerDoor(Reply, frozen=True, tag="worker-door"):
    """Where the broker listens for this worker, and the CURVE key it proves itself by."""

    port: Port
    server_key: CurveKey
    grant_id: Hex
