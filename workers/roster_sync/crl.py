"""Revocation lists: fetched from the primary, served by this node too, written for other software.

`trust/ca.pem` (root and issuing certificate) and `trust/crl.pem` (the list of each) are what
nginx's `ssl_client_certificate` and `ssl_crl`, and PostgreSQL's `ssl_ca_file` and `ssl_crl_file`
take. They are replaced whole, and only when their content changed. Whether a list is to be
believed the broker decides, against the pinned root; its number never goes back.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from broker.clock import boottime_ms, wall_s
from broker.errors import MeshError
from broker.runtime.events import EventName
from broker.runtime.files import private_directory, write_atomic
from broker.runtime.logs import log
from broker.units import Millis, UnixSeconds
from broker.wire.enrollment import CRLInstalled, GetTrust, InstallCRL, TrustAnswer
from broker.wire.node import Endpoint, NodeView
from workers.fanout import Session
from workers.membership import load_membership
from workers.pem import certificate_pem, crl_pem
from workers.process import Desk
from workers.roster_sync.logic import sources
from workers.roster_sync.trips import SHORT_MS, BrokenOffError, TripError, Trips, hand_in

SUBJECT = "revocation list"
LISTS_PATH = "/v1/crl.pem"
LISTS_BYTES_MAX = 1_000_000
LOOK_EVERY_MS = 60_000
"""How often to look while the bundle stays what it is: the lists last for days."""
MOVED_EVERY_MS = 2_000
"""How often at most while bundles follow each other."""
AUTHORITIES, LISTS = "ca.pem", "crl.pem"

Version = tuple[int, int]


class ListErrand:
    """Keeps this node's revocation lists fresh; never stands in the way of the other errands."""

    def __init__(self, trips: Trips, wall: Callable[[], UnixSeconds] = wall_s) -> None:
        self._trips = trips
        self._wall = wall
        self._looked_ms: Millis | None = None
        self._looked: Version | None = None
        self._fetched: Version | None = None

    def run(self, desk: Desk) -> None:
        """Fetch what is newer, write what changed; trouble is told and tried again later."""
        try:
            node = desk.node()
            if node.mesh is None or desk.stopping() or not self._is_due(_version(node)):
                return
            self._look(desk, node)
        except TripError as error:
            self._trips.complain(SUBJECT, error)
        except OSError as error:
            self._trips.complain(SUBJECT, TripError("trust", f"cannot be written: {error}"))
        except (BrokenOffError, MeshError):
            return  # the process stops, or the own broker does not answer: another round finds out

    def _is_due(self, version: Version) -> bool:
        now_ms = boottime_ms()
        news = version != self._looked or self._trips.called_revoked
        pause_ms = MOVED_EVERY_MS if news else LOOK_EVERY_MS
        if self._looked_ms is not None and now_ms - self._looked_ms < pause_ms:
            return False
        self._looked_ms, self._looked = now_ms, version
        return True

    def _look(self, desk: Desk, node: NodeView) -> None:
        trust = desk.ask(GetTrust(), TrustAnswer)
        moved = self._fetched != _version(node) or self._trips.called_revoked
        self._trips.called_revoked = False
        if node.role != "primary" and (moved or is_old(trust, self._wall())):
            try:
                trust = self._fetch(desk, node, trust)
            finally:
                # What this node has is written also when nobody had anything newer.
                write_trust(desk.paths.trust, trust, _other_roots(desk))
            self._fetched = _version(node)
        write_trust(desk.paths.trust, trust, _other_roots(desk))

    def _fetch(self, desk: Desk, node: NodeView, held: TrustAnswer) -> TrustAnswer:
        """Return what this node trusts after asking the primary, or who else holds the key."""
        primary = node.mesh.primary if node.mesh else None
        found = [source for source in sources(node, primary) if source.enroll_port]
        trouble: TripError | None = None
        for source in found:
            try:
                return self._take(desk, source, held)
            except TripError as error:
                trouble = trouble or error
        raise trouble or TripError("primary", "no endpoint: no key holder has an enrol port")

    def _take(self, desk: Desk, source: Endpoint, held: TrustAnswer) -> TrustAnswer:
        octets = self._trips.ask(desk, source, partial(_fetch_lists, source))
        if not 0 < len(octets) <= LISTS_BYTES_MAX:
            raise TripError(source.host, f"bad format: {len(octets)} octets of revocation lists")
        answer = hand_in(desk, source, InstallCRL(octets, source.host), CRLInstalled, SHORT_MS)
        self._trips.praise(SUBJECT, source.host)
        if not answer.changed:
            return held
        log(EventName.CRL_PUBLISHED, source=source.host, number=answer.crl_number)
        return desk.ask(GetTrust(), TrustAnswer)


def is_old(trust: TrustAnswer, now: UnixSeconds) -> bool:
    """Return whether half of the time of the list at hand is over, or there is none."""
    if trust.this_update is None or trust.next_update is None:
        return True
    return now >= (trust.this_update + trust.next_update) // 2


def write_trust(directory: Path, trust: TrustAnswer, others: tuple[str, ...] = ()) -> bool:
    """Write the files that are not what they should be; return whether the lists changed.

    Files are 0600 in a directory that only the node's user may enter: other users get a copy by
    `certmesh ca export`.

    Args:
        directory: Where; it is made when it is missing.
        trust: What the broker believes.
        others: Roots to trust besides (PEM), while the CA is being replaced.

    Raises:
        OSError: The disk refused; the old files are still there.
    """
    if not trust.issuing:
        return False
    private_directory(directory)
    chain = certificate_pem(trust.issuing) + certificate_pem(trust.root)
    _replace(directory / AUTHORITIES, chain + "".join(others))
    if not trust.crl:
        return False
    lists = (trust.crl, trust.root_crl, *trust.other_lists)
    return _replace(directory / LISTS, "".join(crl_pem(der) for der in lists if der))


def _replace(path: Path, text: str) -> bool:
    content = text.encode("ascii")
    try:
        if path.read_bytes() == content:
            return False
    except FileNotFoundError:
        pass
    write_atomic(path, content)
    return True


def _other_roots(desk: Desk) -> tuple[str, ...]:
    membership = load_membership(desk.paths)
    return membership.other_roots if membership is not None else ()


def _version(node: NodeView) -> Version:
    return (node.bundle_term, node.bundle_sequence)


def _fetch_lists(source: Endpoint, session: Session) -> bytes:
    return session.fetch(source, LISTS_PATH, port="enroll")
