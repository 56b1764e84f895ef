"""What a restored node asks the members: their newest signed bundle, all at once.

It has no certificate yet, so it asks at the enrol port, where nobody has to show one; the other
side proves its name under the root. What comes back is believed by the broker, or not at all.
"""

from collections.abc import Mapping
from functools import partial

from broker.errors import MeshError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.runtime.paths import Paths
from broker.wire.backup import CollectPlan, CollectSource, NoteCollected, PlanCollect
from broker.wire.control import Ack
from broker.wire.node import Endpoint, Membership
from workers.fanout import Fanout, Session
from workers.process import Desk, Outcome
from workers.repeats import Repeats
from workers.roster_sync.logic import BUNDLE_BYTES_MAX, REJECTIONS, in_own_words
from workers.roster_sync.trips import SHORT_MS

BUNDLE_PATH = "/v1/bundle"
AGAIN_MS = 1_000


class CollectErrand:
    """Asks whom the broker names, in parallel and with one deadline."""

    def __init__(self) -> None:
        self._fanout: Fanout[str] = Fanout(_open)
        self._repeats = Repeats()

    def run(self, desk: Desk) -> Outcome:
        """Ask one round and hand in every answer as soon as it is there."""
        plan = desk.ask(PlanCollect(), CollectPlan)
        sources = {source.host: source for source in plan.sources}
        if not sources:
            return Outcome(next_in_ms=AGAIN_MS, state="restored: waits")
        errands = {host: partial(_fetch, source) for host, source in sources.items()}
        answers: Mapping[str, bytes | Exception] = self._fanout.ask(errands, desk, SHORT_MS)
        answered = 0
        for host, answer in answers.items():
            if desk.stopping():
                break
            answered += self._hand_in(desk, host, answer)
        state = f"restored: {answered} of {len(sources)} members answered"
        return Outcome(next_in_ms=AGAIN_MS, state=state)

    def _hand_in(self, desk: Desk, host: str, answer: bytes | Exception) -> bool:
        """Tell the broker what one member had; a failure is no answer."""
        if isinstance(answer, Exception):
            self._complain(host, answer)
            answer = b""
        try:
            desk.ask(NoteCollected(host, answer[:BUNDLE_BYTES_MAX]), Ack)
        except REJECTIONS as error:
            self._complain(host, error)
            return False
        return bool(answer)

    def _complain(self, host: str, error: Exception) -> None:
        reason = in_own_words(error) if isinstance(error, MeshError) else f"crashed: {error}"
        if self._repeats.is_news(host, reason):
            log(EventName.ROSTER_REJECTED, source=host, reason=reason)


def _open(_paths: Paths, membership: Membership) -> Session:
    from workers.roster_sync.enrolment import EnrolSession  # noqa: PLC0415 (12 MB, see there)

    return EnrolSession(membership)


def _fetch(source: CollectSource, session: Session) -> bytes:
    doors = Endpoint(
        host=source.host,
        addresses=source.addresses,
        enroll_port=source.enroll_port,
        mesh_port=0,
        server_name=source.server_name,
    )
    return session.fetch(doors, BUNDLE_PATH)
