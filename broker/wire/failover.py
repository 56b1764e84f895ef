"""What the failover worker announces, whom it probes, and what it saw."""

from broker.wire.base import Body, Reply, Request
from broker.wire.claims import Claim, Gossip
from broker.wire.ids import Hex, Host, Port, Text
from broker.wire.node import Endpoint
from broker.wire.roster import Peer


class Announcement(Body, frozen=True):
    """mDNS service to publish; TXT values only find addresses and prove nothing."""

    instance: Text
    port: Port
    addresses: tuple[Text, ...]
    server: Text
    txt: dict[str, str]


class PlanFailover(Request, frozen=True, tag="plan-failover"):
    """Ask what to announce now and whom to probe."""


class FailoverPlan(Reply, frozen=True, tag="failover-plan"):
    """`announce` None means withdraw; `targets` are the other key holders.

    `claim` and `gossip` are what the probes say of this node; None: it has nothing to claim.
    """

    announce: Announcement | None
    targets: tuple[Endpoint, ...]
    discovery: bool
    pin: Hex
    host: Host
    claim: Claim | None = None
    gossip: Gossip = Gossip()


class Hint(Body, frozen=True):
    """An unverified service found by mDNS: where to ask, never evidence."""

    instance: Text
    addresses: tuple[Text, ...]
    port: Port
    role: Text
    fingerprint: Text
    term: Text


class Hello(Request, frozen=True, tag="hello"):
    """A key holder probes this node over mTLS and says where it stands itself."""

    peer: Peer
    claim: Claim
    gossip: Gossip = Gossip()


class HelloAnswer(Reply, frozen=True, tag="hello-answer"):
    """This node's own claim, over a verified connection, and the newest it has heard."""

    claim: Claim
    gossip: Gossip = Gossip()


class Sighting(Body, frozen=True):
    """Outcome of one probe: a verified claim, or why there is none."""

    host: Host
    address: Text
    claim: Claim | None
    error: Text = ""
    gossip: Gossip = Gossip()


class ReportSightings(Request, frozen=True, tag="report-sightings"):
    """What the failover worker verified in one round, and the hints it holds."""

    sightings: tuple[Sighting, ...]
    hints: tuple[Hint, ...] = ()


class ListPeers(Request, frozen=True, tag="list-peers"):
    """Ask for the newest sightings and hints."""


class PeersView(Reply, frozen=True, tag="peers-view"):
    """Known and discovered nodes."""

    sightings: tuple[Sighting, ...]
    hints: tuple[Hint, ...]
