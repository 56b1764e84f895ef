"""Calls to one node at a time, during which the loop goes on beating; failures in their own words.

A node's trouble is raised as `TripError`; trouble of this node's own broker stays what it is.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

from broker.errors import PeerUnreachableError, RevokedError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.runtime.paths import Paths
from broker.wire.base import Reply, Request
from broker.wire.node import Endpoint, Membership
from workers.fanout import Fanout, Session
from workers.interruption import Interruption
from workers.process import Desk
from workers.repeats import Repeats
from workers.roster_sync.logic import REJECTIONS, in_own_words

T = TypeVar("T")
R = TypeVar("R", bound=Reply)

SHORT_MS = 5_000
"""Patience with a question that is answered at once."""

WORKING_MS = 30_000
"""Patience with one that means work: on the other side, or for the own broker."""


class TripError(Exception):
    """What was wrong with another node's answer; `is_silent`: there was none."""

    def __init__(self, source: str, reason: str, *, is_silent: bool = False) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason
        self.is_silent = is_silent


class BrokenOffError(Exception):
    """The answer was not waited for: the process stops, or another round is wanted."""


class Trips:
    """Goes to other nodes and tells what came of it.

    `called_revoked`: some node refused this one as revoked, and nobody has looked into that yet.
    """

    def __init__(self, open_session: Callable[[Paths, Membership], Session]) -> None:
        self._fanout: Fanout[str] = Fanout(open_session)
        self._repeats = Repeats()
        self.called_revoked = False

    def keep(self, sources: Iterable[Endpoint]) -> None:
        """Close the connections to all others."""
        self._fanout.keep({source.host for source in sources})

    def ask(
        self,
        desk: Desk | Interruption,
        source: Endpoint,
        run: Callable[[Session], T],
        within_ms: int = SHORT_MS,
    ) -> T:
        """Return what `run` returns; with an interruption it is broken off for another round.

        Raises:
            TripError: The node did not answer, or refused.
            BrokenOffError: It was not waited for.
        """
        answer = self._fanout.ask({source.host: run}, desk, within_ms)[source.host]
        if not isinstance(answer, Exception):
            return answer
        # Its word alone proves nothing; the signed list will say.
        self.called_revoked = self.called_revoked or isinstance(answer, RevokedError)
        if desk.stopping():
            self._fanout.abandon((source.host,))
            raise BrokenOffError
        raise TripError(
            source.host, in_own_words(answer), is_silent=isinstance(answer, PeerUnreachableError)
        )

    def complain(self, subject: str, error: TripError) -> None:
        """Log a failure, once until it changes."""
        if self._repeats.is_news(f"{subject} {error.source}", error.reason):
            log(EventName.ROSTER_REJECTED, source=error.source, reason=error.reason)

    def praise(self, subject: str, source: str) -> None:
        """Log that an earlier failure is over."""
        if self._repeats.forget(f"{subject} {source}"):
            log(EventName.ROSTER_SYNCED, source=source, detail="well again")


def hand_in(
    desk: Desk, source: Endpoint, request: Request, kind: type[R], within_ms: int = WORKING_MS
) -> R:
    """Return what the broker makes of something that came from `source`.

    Raises:
        TripError: The broker does not believe it.
        MeshError: Trouble of the broker's own.
    """
    try:
        return desk.ask(request, kind, timeout_ms=within_ms)
    except REJECTIONS as error:
        raise TripError(source.host, in_own_words(error)) from None
