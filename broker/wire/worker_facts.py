"""Facts about renewal workers on other machines."""

from broker.wire.base import Fact
from broker.wire.ids import Hex, Host


class WorkerEnrolled(Fact, frozen=True, tag="worker.enrolled"):
    """A person lets a member's machine run renewal workers for the CA."""

    grant_id: Hex
    member_id: Hex
    host: Host


class WorkerBound(Fact, frozen=True, tag="worker.bound"):
    """The machine told the one CURVE key that this grant is for."""

    grant_id: Hex
    member_id: Hex
    public_key: Hex


class WorkerRevoked(Fact, frozen=True, tag="worker.revoked"):
    """Absorbing: the grant is over, also where it stands ahead of its enrolment."""

    grant_id: Hex
    member_id: Hex
    host: Host
