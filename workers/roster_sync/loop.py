"""One round: fetch what is newer than ours from the primary, hand the octets to the broker.

The broker verifies against the pin and moves forward only; this worker trusts nothing, and each
kind of failure is logged in its own words before the loop goes on.
"""

from collections.abc import Callable
from functools import partial

from broker.errors import BundleRejectedError, MalformedMessageError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.base import Event
from broker.wire.events import BundleMoved, CertificateMoved, RoleMoved
from broker.wire.ids import Service
from broker.wire.node import Endpoint, Membership, NodeView
from broker.wire.roster import BundleInstalled, InstallBundle
from workers.fanout import Fanout, Session
from workers.process import Desk, Outcome
from workers.repeats import Repeats
from workers.roster_sync.logic import FOLLOWERS, bundle_path, check_format, in_own_words, sources

DEADLINE_MS = 5_000


class RosterSyncLoop:
    """The loop; sessions are injected."""

    service = Service.ROSTER_SYNC
    wakes: tuple[type[Event], ...] = (BundleMoved, RoleMoved, CertificateMoved)

    def __init__(
        self, settings: Settings, open_session: Callable[[Paths, Membership], Session]
    ) -> None:
        self.period_ms = settings.sync.every.ms
        self._fanout: Fanout[str] = Fanout(open_session)
        self._repeats = Repeats()

    def round(self, desk: Desk) -> Outcome:
        """Sync from the primary, or from another key holder when the primary fails."""
        node = desk.node()
        if node.mesh is None:
            return Outcome(state="no mesh")
        if node.role not in FOLLOWERS:
            return Outcome(state=f"idle: {node.role} syncs from nobody")
        found = sources(node)
        if not found:
            return self._failed("primary", "no endpoint: the primary's address is not known")
        self._fanout.keep({source.host for source in found})
        return self._sync(desk, node, found)

    def _sync(self, desk: Desk, node: NodeView, found: tuple[Endpoint, ...]) -> Outcome:
        outcome = Outcome()
        for source in found:
            trouble = self._sync_from(desk, node, source)
            if desk.stopping():
                return Outcome()
            if not trouble:
                # The primary's failure stays visible even when another key holder stood in.
                return Outcome(error=outcome.error, state=f"synced from {source.host}")
            failed = self._failed(source.host, trouble)
            outcome = outcome if outcome.error else failed
        return outcome

    def _sync_from(self, desk: Desk, node: NodeView, source: Endpoint) -> str:
        """Return what went wrong, or an empty string."""
        path = bundle_path(node)
        errands = {source.host: partial(_fetch, source, path)}
        octets = self._fanout.ask(errands, desk, DEADLINE_MS)[source.host]
        if isinstance(octets, Exception):
            return in_own_words(octets)
        try:
            if octets:
                check_format(octets)
                self._install(desk, source, octets)
        except (MalformedMessageError, BundleRejectedError) as error:
            return in_own_words(error)
        if self._repeats.forget(source.host):
            log(EventName.ROSTER_SYNCED, source=source.host, detail="well again")
        return ""

    def _install(self, desk: Desk, source: Endpoint, octets: bytes) -> None:
        request = InstallBundle(bundle=octets, source=source.host)
        installed = desk.ask(request, BundleInstalled)
        if installed.changed:
            log(
                EventName.ROSTER_SYNCED,
                term=installed.term,
                source=source.host,
                bundle_sequence=installed.bundle_sequence,
            )

    def _failed(self, source: str, reason: str) -> Outcome:
        if self._repeats.is_news(source, reason):
            log(EventName.ROSTER_REJECTED, source=source, reason=reason)
        return Outcome(error=f"{source}: {reason}", state="not in sync")


def _fetch(source: Endpoint, path: str, session: Session) -> bytes:
    return session.fetch(source, path)
