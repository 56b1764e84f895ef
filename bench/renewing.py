"""What a renewal takes from end to end, on two real nodes, hooks excluded."""

import threading
import time

from bench.lone_broker import RawClient
from bench.pair import PATIENCE_S, Box, expect, three_boxes
from bench.report import Result, result
from broker.client import Subscription
from broker.wire.control import Ack
from broker.wire.events import CertificateMoved
from broker.wire.renewal import ForceRenewal

RENEWALS = 12
"""Of each member: with more than sixteen valid certificates it would have to slow down."""

WARM_UP = 2
REST_S = 0.3


def measure() -> list[Result]:
    """Return how long it takes from the wish to the certificate in service and known."""
    with three_boxes() as (_atlas, birch, cedar):
        took = [*_renewals_ms(birch), *_renewals_ms(cedar)]
    return [
        result(
            "renewal_p50_ms",
            took,
            unit="ms",
            better="lower",
            target=50,
            note="a real member: key, CSR, mutual TLS, durable issue, install",
        )
    ]


def _renewals_ms(member: Box) -> list[float]:
    """Ask a member to renew, again and again; each ends when its own broker knows the outcome."""
    client: RawClient = member.client()
    with Subscription(member.paths, (CertificateMoved,)) as events:
        took = [_renewal_ms(client, events) for _ in range(WARM_UP + RENEWALS)]
    client.close()
    return took[WARM_UP:]


def _renewal_ms(client: RawClient, events: Subscription) -> float:
    threading.Event().wait(REST_S)  # the one before is told to the primary after it is in service
    while events.receive() is not None:
        pass
    began = time.perf_counter()
    expect(client.ask(ForceRenewal("bench")), Ack)
    if not events.socket.poll(int(PATIENCE_S * 1000)):
        raise TimeoutError("the certificate did not move")
    return (time.perf_counter() - began) * 1000
