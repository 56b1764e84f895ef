"""What a standby fetches from the primary and brings to it: rows, the key, orphans.

Everything is handed on as it came. Only the broker can tell whether a page continues its journal,
whether a key fits, and when orphans are home.
"""

from functools import partial

from broker.clock import boottime_ms
from broker.errors import MalformedMessageError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.wire.control import Ack
from broker.wire.node import Endpoint, NodeView
from broker.wire.replica import (
    AcceptBody,
    AdoptAnswer,
    AdoptBody,
    InstallKey,
    InstallPage,
    KeyPackage,
    NoteAdopted,
    PageInstalled,
    ReplicaBody,
    SyncPlan,
)
from workers.fanout import Session
from workers.interruption import Interruption
from workers.process import Desk, Outcome
from workers.roster_sync.bundle import SUBJECT, BundleErrand
from workers.roster_sync.logic import EARLY_MS, Pace, check_page, in_own_words, state_of
from workers.roster_sync.trips import SHORT_MS, WORKING_MS, TripError, Trips, hand_in


class StandbyErrands:
    """Does one errand of a standby, or of a node that is to become one."""

    def __init__(self, trips: Trips, bundle: BundleErrand) -> None:
        self._trips = trips
        self._bundle = bundle
        self._pace = Pace()

    def run(self, desk: Desk, node: NodeView, plan: SyncPlan, source: Endpoint) -> Outcome:
        """Do what the plan says, with nobody but its source.

        Raises:
            TripError: The source did not answer, refused, or sent what the broker rejects.
            BrokenOffError: Another round is wanted, or the process stops.
        """
        self._trips.keep((source,))
        match plan.errand:
            case "accept":
                return self._accept(desk, node, plan, source)
            case "return":
                return self._bring_back(desk, plan, source)
            case _:
                return self._follow(desk, node, plan, source)

    def forget(self) -> None:
        """Begin anew after a failure: with a short question, and the bundle before it."""
        self._pace = Pace()

    def _follow(self, desk: Desk, node: NodeView, plan: SyncPlan, source: Endpoint) -> Outcome:
        """Take the rows after ours, waiting for some when there are none."""
        started_ms = boottime_ms()
        trouble = self._look_for_bundle(desk, node, source) if self._pace.asks_bundle else ""
        body = ReplicaBody(plan.locator, self._pace.wait_ms)
        within_ms = self._pace.wait_ms + SHORT_MS
        run = partial(_fetch_page, source, body, within_ms / 1000)
        page = self._trips.ask(Interruption(desk), source, run, within_ms)
        try:
            check_page(page)
        except MalformedMessageError as error:
            raise TripError(source.host, in_own_words(error)) from None
        install = InstallPage(source.host, page, plan.locator[0].hash)
        installed = hand_in(desk, source, install, PageInstalled)
        _tell_page(source, installed)
        self._pace, next_ms = self._pace.after(installed, boottime_ms() - started_ms)
        return Outcome(next_in_ms=next_ms, error=trouble, state=state_of(source.host, installed))

    def _look_for_bundle(self, desk: Desk, node: NodeView, source: Endpoint) -> str:
        """Return what was wrong with the bundle: rows are fetched all the same.

        Raises:
            TripError: Nobody is there to be asked for rows either.
        """
        try:
            self._bundle.fetch_from(desk, node, source)
        except TripError as error:
            if error.is_silent:
                raise
            self._trips.complain(SUBJECT, error)
            return str(error)
        return ""

    def _accept(self, desk: Desk, node: NodeView, plan: SyncPlan, source: Endpoint) -> Outcome:
        """Fetch the key; say that it is here only when the broker has checked and kept it.

        The bundle comes first: until this node is a standby it is a member like any other.
        """
        self._look_for_bundle(desk, node, source)
        run = partial(_fetch_key, source, AcceptBody(plan.public_key))
        package = self._trips.ask(desk, source, run)
        hand_in(desk, source, InstallKey(source.host, package), Ack)
        log(EventName.STANDBY_KEY_RECEIVED, source=source.host, term=package.term)
        self._trips.ask(desk, source, partial(_say_ready, source))
        log(EventName.STANDBY_READY, source=source.host)
        # The roster says so in a moment, and that wakes the loop; asking at once would be too soon.
        return Outcome(next_in_ms=EARLY_MS, state=f"has the key of {source.host}")

    def _bring_back(self, desk: Desk, plan: SyncPlan, source: Endpoint) -> Outcome:
        """Bring rows that the primary does not have; the broker knows when none are left."""
        run = partial(_adopt, source, AdoptBody(plan.orphans))
        answer = self._trips.ask(desk, source, run, WORKING_MS)
        desk.ask(NoteAdopted(plan.orphans), Ack, timeout_ms=WORKING_MS)
        log(
            EventName.MERGE_ADOPTED,
            level="warning" if answer.conflicts else "info",
            source=source.host,
            adopted=answer.adopted,
            known=answer.known,
            conflicts=answer.conflicts,
        )
        return Outcome(next_in_ms=0, state=f"brought rows to {source.host}")


def _tell_page(source: Endpoint, installed: PageInstalled) -> None:
    if installed.orphaned:
        log(
            EventName.ROSTER_FORKED,
            level="warning",
            source=source.host,
            orphaned=installed.orphaned,
            sequence=installed.sequence,
        )
    elif installed.rows:
        log(
            EventName.ROSTER_SYNCED,
            level="debug",
            source=source.host,
            sequence=installed.sequence,
            rows=installed.rows,
            behind=installed.behind,
        )


def _fetch_page(source: Endpoint, body: ReplicaBody, timeout_s: float, session: Session) -> bytes:
    return session.fetch(source, "/v1/replica/events", body, timeout_s=timeout_s)


def _fetch_key(source: Endpoint, body: AcceptBody, session: Session) -> KeyPackage:
    return session.call(source, "POST", "/v1/standby/accept", body, KeyPackage)


def _say_ready(source: Endpoint, session: Session) -> Ack:
    return session.call(source, "POST", "/v1/standby/ready", None, Ack)


def _adopt(source: Endpoint, body: AdoptBody, session: Session) -> AdoptAnswer:
    return session.call(
        source, "POST", "/v1/replica/adopt", body, AdoptAnswer, timeout_s=WORKING_MS / 1000
    )
