"""A session without a certificate: what a restored node asks its members through.

Apart from `collect`, because HTTP and TLS cost a process 12 MB that an idle one should not pay.
"""

from broker.errors import PeerUnreachableError
from broker.wire.base import Body
from broker.wire.node import Endpoint, Membership
from workers.fanout import A
from workers.peer import PinnedSession, urls_of
from workers.root import roots_of
from workers.roster_sync.trips import SHORT_MS


class EnrolSession:
    """Fetches from enrol ports, each time pinned to the roots and to the name of whom it asks."""

    def __init__(self, membership: Membership) -> None:
        self._roots = roots_of(membership)

    def fetch(
        self,
        endpoint: Endpoint,
        path: str,
        body: Body | None = None,
        *,
        port: str = "enroll",
        timeout_s: float | None = None,
    ) -> bytes:
        """Return the octets at `path`; raises as `PeerSession.fetch`."""
        assert port == "enroll", "a node without a certificate has no other door to go to"
        assert body is None, "nothing is sent to a port that knows nobody"
        within_s = timeout_s or SHORT_MS / 1000
        with PinnedSession(
            *self._roots, server_name=endpoint.server_name, timeout_s=within_s
        ) as session:
            return session.fetch(urls_of(endpoint.addresses, endpoint.enroll_port, path))

    def call(  # noqa: PLR0913 (as that of a `PeerSession`)
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        body: Body | None,
        kind: type[A],
        *,
        timeout_s: float | None = None,
    ) -> A:
        """Refuse: a node without a certificate has nothing to say."""
        del method, path, body, kind, timeout_s
        raise PeerUnreachableError(f"{endpoint.host} is not called without a certificate")

    def abort(self) -> None:
        """Leave the call to its own deadline."""

    def close(self) -> None:
        """Keep nothing open between two questions."""
