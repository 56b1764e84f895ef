"""What the network may cost a gateway: bounds per source, and in all.

A handshake costs a millisecond of processor time and a request about one of the broker's, so both
are rationed by source. A member alone makes a handshake in a minute and a request in five seconds:
the rates leave room for a hundred members behind one address.
"""

from broker.runtime.settings import Listen
from workers.affordable import affordable
from workers.connection import Limits

ARRIVALS_PER_S = 20.0
ARRIVALS_BURST = 128
"""All members behind one address may come back at once after a cut, at this side's cost."""
REQUESTS_PER_S = 100.0
REQUESTS_BURST = 400
DOORS = 2


def gateway_limits(listen: Listen) -> Limits:
    """Return the bounds of both doors, within what this process has descriptors for."""
    limits = Limits(
        body_bytes=listen.body_limit,
        per_source=listen.per_source,
        arrivals_per_s=ARRIVALS_PER_S,
        arrivals_burst=ARRIVALS_BURST,
        requests_per_s=REQUESTS_PER_S,
        requests_burst=REQUESTS_BURST,
    )
    return affordable(limits, DOORS)
