"""Who sent a request, and the verdicts a verb may give instead of a reply."""

from typing import NamedTuple

import zmq

from broker.units import Millis, UnixSeconds
from broker.wire.ids import Service


class Caller(NamedTuple):
    """One request's origin and moment; `service` is None until READY.

    One is made per request: a tuple costs a third of a frozen dataclass.
    """

    identity: bytes
    socket: "zmq.Socket[bytes]"
    service: Service | None
    request_id: bytes
    ttl_ms: int
    now_ms: Millis
    now: UnixSeconds


class Deferred:
    """A verb's verdict: the reply comes later, through `BrokerState.resolve`."""


DEFERRED = Deferred()
