"""What a process can afford: as many connections as it may have descriptors.

A door that takes the last descriptor leaves none for the link to the broker, the log or a new
certificate. So its bound follows the limit of the process, and the refusal comes from the door.
"""

import resource
from dataclasses import replace

from workers.connection import Limits

RESERVE = 128
"""For listeners, the link to the broker, the event loop and files that are read (25 in practice),
and for connections that have lost their place and are not closed yet."""
CONNECTIONS_MIN = 8


def affordable(limits: Limits, doors: int) -> Limits:
    """Return `limits` with no more connections per door than this process has descriptors for."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limits
    room = max(CONNECTIONS_MIN, (soft - RESERVE) // doors)
    return replace(limits, connections=min(limits.connections, room))
