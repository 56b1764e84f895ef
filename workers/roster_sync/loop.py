"""One round: ask the broker what this node has to fetch or to bring, and do that errand.

The broker verifies against the pin and moves forward only; this worker trusts nothing, and each
kind of failure is logged in its own words before the loop goes on.
"""

from collections.abc import Callable

from broker.errors import MeshError
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.base import Event
from broker.wire.events import BundleMoved, CertificateMoved, RoleMoved, SyncWanted
from broker.wire.ids import Service
from broker.wire.node import Membership, NodeView
from broker.wire.replica import PlanSync, SyncPlan
from workers.fanout import Session
from workers.process import Desk, Outcome
from workers.roster_sync.bundle import BundleErrand
from workers.roster_sync.collect import CollectErrand
from workers.roster_sync.crl import ListErrand
from workers.roster_sync.logic import backoff_ms, is_askable
from workers.roster_sync.standby import StandbyErrands
from workers.roster_sync.trips import BrokenOffError, TripError, Trips
from workers.roster_sync.unlock import UnlockErrand

NOT_IN_SYNC = "not in sync"


class RosterSyncLoop:
    """The loop; sessions are injected."""

    service = Service.ROSTER_SYNC
    wakes: tuple[type[Event], ...] = (BundleMoved, RoleMoved, CertificateMoved, SyncWanted)

    def __init__(
        self, settings: Settings, open_session: Callable[[Paths, Membership], Session]
    ) -> None:
        self.period_ms = settings.sync.every.ms
        self._trips = Trips(open_session)
        self._bundle = BundleErrand(self._trips)
        self._standby = StandbyErrands(self._trips, self._bundle)
        self._lists = ListErrand(self._trips)
        self._unlock = UnlockErrand(self._trips)
        self._collect = CollectErrand()
        self._failures = 0

    def round(self, desk: Desk) -> Outcome:
        """Do the errand of the broker's plan, then look at the revocation lists."""
        outcome = self._plan(desk)
        self._lists.run(desk)
        return self._unlock.sooner(outcome)

    def _plan(self, desk: Desk) -> Outcome:
        """Do the errand of the broker's plan."""
        node = desk.node()
        if node.mesh is None:
            return Outcome(state="no mesh")
        self._unlock.run(desk, node)
        plan = desk.ask(PlanSync(), SyncPlan)
        try:
            return self._run(desk, node, plan)
        except TripError as error:
            self._trips.complain(plan.errand, error)
            return self._failed(str(error), None if plan.errand == "bundle" else self._pause_ms())
        except BrokenOffError:
            return Outcome(next_in_ms=0, error=desk.record.last_error, state=desk.record.state)

    def _run(self, desk: Desk, node: NodeView, plan: SyncPlan) -> Outcome:
        if plan.errand == "none":
            return Outcome(state=f"idle: {plan.reason}" if plan.reason else "idle")
        if plan.errand == "collect":
            return self._collect.run(desk)
        if plan.errand == "bundle":
            return self._bundle.run(desk, node, plan.source)
        return self._serve(desk, node, plan)

    def _serve(self, desk: Desk, node: NodeView, plan: SyncPlan) -> Outcome:
        """Do an errand of a standby: what fails is tried again soon, whoever is to blame."""
        if plan.source is None or not is_askable(plan.source, node.host):
            raise TripError("primary", "no endpoint: the primary's address is not known")
        try:
            outcome = self._standby.run(desk, node, plan, plan.source)
        except MeshError as error:
            if desk.stopping():
                raise
            return self._failed(error.detail, max(self._pause_ms(), error.retry_after_ms))
        self._trips.praise(plan.errand, plan.source.host)
        self._failures = 0
        return outcome

    def _pause_ms(self) -> int:
        """Return when to try again what a standby failed to do."""
        self._failures += 1
        self._standby.forget()
        return backoff_ms(self._failures)

    def _failed(self, detail: str, in_ms: int | None) -> Outcome:
        """Return a failed round; a member waits for its period or an event."""
        return Outcome(next_in_ms=in_ms, error=detail, state=NOT_IN_SYNC)
