"""Opens sessions to other nodes, and imports what they are made of only then.

HTTP and X.509 cost a process 12 MB. On a node that calls nobody, a primary for one, most loops
never need them.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from broker.runtime.paths import Paths
from broker.wire.node import Membership

if TYPE_CHECKING:
    from workers.peer import Credentials, PeerSession

Open = Callable[[Paths, Membership], "PeerSession"]


def opener(timeout_s: float) -> Open:
    """Return what opens sessions whose calls take `timeout_s` at most.

    The sessions of one membership share their TLS context.
    """
    shared: dict[Membership, Credentials] = {}

    def open_session(paths: Paths, membership: Membership) -> "PeerSession":
        from workers.peer import Credentials, PeerSession  # noqa: PLC0415 (12 MB, see above)

        if membership not in shared:
            shared.clear()
            shared[membership] = Credentials(paths, membership)
        own = shared[membership]
        return PeerSession(paths, membership, timeout_s=timeout_s, credentials=own)

    return open_session
