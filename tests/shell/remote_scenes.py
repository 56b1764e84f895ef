"""Callers at the remote port, from bare sockets up, and looks behind it."""

import secrets
from typing import Any, cast

import zmq

from broker.runtime.curve import CurvePair
from broker.runtime.sockets import connect_tcp, remote_dealer
from broker.shell.state import BrokerState
from broker.units import Millis
from broker.wire.base import Request
from broker.wire.codec import WIRE_VERSION, decode_answer, encode
from broker.wire.ids import Service
from broker.wire.liveness import Ready
from broker.wire.messages import Call
from broker.wire.work import Rekey
from tests.shell.remote_office import HERE, RemoteOffice
from tests.support import eventually

PLAIN = zmq.Context["zmq.Socket[bytes]"]


def curve_socket(
    office: RemoteOffice, context: PLAIN, pair: CurvePair, identity: bytes
) -> "zmq.Socket[bytes]":
    """Return a bare DEALER with this key, connecting."""
    port, server_key = office.open_port()
    dealer = remote_dealer(context, pair, server_key, identity)
    connect_tcp(dealer, HERE, port)
    return dealer


def say(dealer: "zmq.Socket[bytes]", request: Request) -> bytes:
    """Send a request when connected and return its id."""
    eventually(lambda: dealer.poll(0, zmq.POLLOUT))
    request_id = secrets.token_bytes(16)
    dealer.send_multipart(encode(Call(request_id, 5000, cast("Any", request))))
    return request_id


def reply_to(dealer: "zmq.Socket[bytes]", request: Request) -> object:
    """Return the reply to a request."""
    request_id = say(dealer, request)
    assert dealer.poll(3000), "no answer"
    answer = decode_answer(dealer.recv_multipart())
    assert answer.request_id == request_id
    return answer.reply


def ready(service: Service = Service.REMOTE_RENEWAL, instance: str = "remote-renewal-0") -> Ready:
    """Return a READY."""
    return Ready(service, instance, "boot", 1, WIRE_VERSION)


def lease_to(office: RemoteOffice, identity: bytes, key: object = "item") -> int:
    """Grant some work to a worker, as the work list would."""

    def grant(state: BrokerState) -> int:
        now_ms = Millis(max(w.seen_ms for w in state.workers.everyone()))
        lease = state.leases.grant(key, Rekey("nas"), identity, now_ms=now_ms, ttl_ms=60_000)
        return lease.lease_id

    return office.visit(grant)


def only_worker(office: RemoteOffice) -> bytes:
    """Return how the tables call the one worker there is."""
    (identity,) = office.visit(lambda state: [w.identity for w in state.workers.everyone()])
    return identity


def leases(office: RemoteOffice) -> int:
    """Return how many leases live."""
    return office.visit(lambda state: len(state.leases))
