"""Who sent a request, and the verdicts a verb may give instead of a reply."""

from typing import NamedTuple

import zmq

from broker.core.remote import RemoteGrant
from broker.units import Millis, UnixSeconds
from broker.wire.ids import Service


class Caller(NamedTuple):
    """One request's origin and moment; `service` is None until READY.

    One is made per request: a tuple costs a third of a frozen dataclass. `identity` names the
    caller in the tables of this broker, `route` in its socket. They differ for a caller on another
    machine: `key` is the public key its connection proved, `grant` what that is worth now; and for
    one of this machine, whose `address` is the process that the kernel vouches for.
    """

    identity: bytes
    socket: "zmq.Socket[bytes]"
    service: Service | None
    request_id: bytes
    ttl_ms: int
    now_ms: Millis
    now: UnixSeconds
    route: bytes
    key: str = ""
    grant: RemoteGrant | None = None
    address: str = ""


class Deferred:
    """A verb's verdict: the reply comes later, through `BrokerState.resolve`."""


DEFERRED = Deferred()
