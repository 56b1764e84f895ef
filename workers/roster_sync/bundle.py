"""The signed trust bundle: from the primary, or from another key holder when that one is silent."""

from functools import partial

from broker.errors import MalformedMessageError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.wire.node import Endpoint, NodeView
from broker.wire.roster import BundleInstalled, InstallBundle
from workers.fanout import Session
from workers.process import Desk, Outcome
from workers.roster_sync.logic import (
    bundle_path,
    check_bundle,
    in_own_words,
    is_stranger,
    sources,
)
from workers.roster_sync.trips import SHORT_MS, TripError, Trips, hand_in

SUBJECT = "bundle"


class BundleErrand:
    """Brings a newer bundle to the broker."""

    def __init__(self, trips: Trips) -> None:
        self._trips = trips

    def run(self, desk: Desk, node: NodeView, first: Endpoint | None) -> Outcome:
        """Ask the primary, then the other key holders until one answers.

        Raises:
            TripError: Nobody has an address.
            BrokenOffError: The process stops.
        """
        found = sources(node, first)
        if not found:
            raise TripError("primary", "no endpoint: the primary's address is not known")
        self._trips.keep(found)
        trouble = ""
        for source in found:
            try:
                self.fetch_from(desk, node, source)
            except TripError as error:
                self._trips.complain(SUBJECT, error)
                trouble = trouble or str(error)
            else:
                # The primary's failure stays visible even when another key holder stood in.
                return Outcome(error=trouble, state=f"synced from {source.host}")
        return Outcome(error=trouble, state="not in sync")

    def fetch_from(self, desk: Desk, node: NodeView, source: Endpoint) -> None:
        """Install the bundle of `source` if it is newer.

        Raises:
            TripError: No answer, or none that the broker believes.
            BrokenOffError: The process stops.
        """
        try:
            octets = self._trips.ask(desk, source, partial(_fetch, source, bundle_path(node)))
        except TripError as error:
            if not is_stranger(error.reason):
                raise
            # It cannot prove itself to this node: has the CA been replaced meanwhile?
            octets = self._trips.ask(desk, source, partial(_fetch_handover, source))
            if not octets:
                raise
        if octets:
            try:
                check_bundle(octets)
            except MalformedMessageError as error:
                raise TripError(source.host, in_own_words(error)) from None
            self._install(desk, source, octets)
        self._trips.praise(SUBJECT, source.host)

    def _install(self, desk: Desk, source: Endpoint, octets: bytes) -> None:
        request = InstallBundle(bundle=octets, source=source.host)
        installed = hand_in(desk, source, request, BundleInstalled, SHORT_MS)
        if installed.changed:
            log(
                EventName.ROSTER_SYNCED,
                term=installed.term,
                source=source.host,
                bundle_sequence=installed.bundle_sequence,
            )


def _fetch(source: Endpoint, path: str, session: Session) -> bytes:
    return session.fetch(source, path)


def _fetch_handover(source: Endpoint, _session: Session) -> bytes:
    """Return the last words of a CA that was replaced; what they are worth the broker verifies."""
    from workers.peer import fetch_unverified  # noqa: PLC0415 (12 MB, see `workers.sessions`)

    return fetch_unverified(source, "/v1/handover", SHORT_MS / 1000)
