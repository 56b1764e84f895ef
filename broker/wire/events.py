"""Hints the broker publishes. A lost event costs one interval, never correctness."""

from broker.wire.base import Event
from broker.wire.ids import CAState, Hex, Role, Sequence, Service, Term


class RosterMoved(Event, frozen=True, tag="roster-moved"):
    """The journal grew."""

    term: Term
    sequence: Sequence


class BundleMoved(Event, frozen=True, tag="bundle-moved"):
    """Key holders or revocations changed."""

    bundle_sequence: Sequence


class WorkAvailable(Event, frozen=True, tag="work-available"):
    """A service has something to lease."""

    service: Service


class AuthorityMoved(Event, frozen=True, tag="authority-moved"):
    """The CA key was locked or unlocked."""

    state: CAState


class RoleMoved(Event, frozen=True, tag="role-moved"):
    """This node's role, term or membership changed."""

    role: Role
    term: Term


class CertificateMoved(Event, frozen=True, tag="certificate-moved"):
    """This node's own certificate changed on disk: reload listeners, close old sessions."""

    serial: Hex


class SyncWanted(Event, frozen=True, tag="sync-wanted"):
    """This node has something to fetch from, or to bring to, the primary."""
