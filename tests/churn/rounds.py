"""Thousands of rounds of a worker's loop in this process, against peers that come and go.

One key holder answers, one refuses, and others with ever new names are dead: what the loop keeps
of a peer has to go with the peer.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from broker.errors import UnavailableError
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.units import UnixSeconds
from broker.wire.base import Reply, Request
from broker.wire.control import Ack
from broker.wire.failover import FailoverPlan, HelloAnswer, PlanFailover, ReportSightings
from broker.wire.ids import Service
from broker.wire.node import Endpoint, GetNode
from broker.wire.replica import PlanSync, SyncPlan
from broker.wire.roster import (
    BundleInstalled,
    HeartbeatAnswer,
    HeartbeatPlan,
    InstallBundle,
    NoteHeartbeat,
    PrepareHeartbeat,
    SignedBundle,
)
from tests.churn import census
from tests.churn.census import Census
from tests.stub_broker import StubBroker
from tests.workers.fake_node import FakeNode, Table, Visit
from tests.workers.loop_desk import (
    GOSSIP,
    PIN,
    claim_of,
    desk_at,
    endpoint,
    enrol,
    node_in_mesh,
    peer_session,
)
from tests.workers.small_ca import SmallCA
from workers.failover.loop import FailoverLoop
from workers.heartbeat.loop import HeartbeatLoop
from workers.process import Desk, Loop
from workers.roster_sync.loop import RosterSyncLoop

BUNDLE = msgspec.msgpack.encode(SignedBundle(body=b"body", issuing=b"der", signature=b"sig"))
GONE_PORT = 37_999
"""Nobody listens there; a connection is refused at once."""
NAMES = 7
"""A new name every so many rounds."""


@dataclass(frozen=True)
class Held:
    """What the process holds at one moment."""

    tables: dict[str, int]
    descriptors: int
    threads: int
    blocks: int


@dataclass
class Track:
    """A loop at its desk; the stub broker and the fake peers note everything, so that is wiped."""

    loop: Loop
    desk: Desk
    broker: StubBroker
    peers: tuple[FakeNode, ...]
    counting: int = 0
    """Blocks that the counts themselves keep."""

    def run(self, rounds: int) -> Held:
        """Go round and round, then count; a round may fail as rounds do."""
        for _ in range(rounds):
            self.loop.round(self.desk)
        self.broker.calls.clear()
        self.broker.lanes.clear()
        self.broker.identities.clear()
        for peer in self.peers:
            peer.visits.clear()
        blocks = census.blocks()
        tables = Census().of(self.loop, type(self.loop).__name__).of_modules().sizes
        counting, self.counting = self.counting, self.counting + census.blocks() - blocks
        return Held(tables, census.descriptors(), census.threads(), blocks - counting)


@contextmanager
def track(service: Service, paths: Paths, settings: Settings) -> Iterator[Track]:
    """Give one of the loops everything it needs."""
    ca, kind = SmallCA(), _LOOPS[service]
    enrol(paths, ca)
    with (
        FakeNode(ca, _table(_answers), host="node-a", mutual=True) as living,
        FakeNode(ca, _table(_refuses), host="node-s", mutual=True) as refusing,
    ):
        targets = _targets(living.endpoint(), refusing.endpoint())
        with StubBroker(paths, _replies(targets)) as broker:
            loop = kind(settings)
            with desk_at(paths, settings, service, wakes=loop.wakes) as desk:
                yield Track(loop, desk, broker, (living, refusing))


def _targets(*stay: Endpoint) -> Callable[[], tuple[Endpoint, ...]]:
    """Return who is to be asked this time: those that stay, and one that has gone since."""
    count = itertools.count()

    def now() -> tuple[Endpoint, ...]:
        return (*stay, endpoint(f"gone-{next(count) // NAMES}", port=GONE_PORT))

    return now


def _replies(
    targets: Callable[[], tuple[Endpoint, ...]],
) -> dict[type[Request], Callable[[Any], Reply | None]]:
    def beats(_: object) -> HeartbeatPlan:
        return HeartbeatPlan(
            targets=targets(),
            pin=PIN,
            served_serial="0a",
            served_not_after=None,
            served="served",
            endpoint=endpoint("node-b"),
            bundle_sequence=7,
            term=3,
            gossip=GOSSIP,
        )

    def probes(_: object) -> FailoverPlan:
        own = claim_of("node-b", role="standby", serving=False)
        return FailoverPlan(None, targets(), True, PIN, "node-b", own, GOSSIP)

    def errand(_: object) -> SyncPlan:
        living, _refusing, gone = targets()
        # Every other time the source is one that has gone: that round fails.
        return SyncPlan(errand="bundle", source=living if gone.host[-1] in "02468" else gone)

    return {
        GetNode: lambda _: node_in_mesh(role="standby"),
        PrepareHeartbeat: beats,
        NoteHeartbeat: lambda _: Ack(),
        PlanFailover: probes,
        ReportSightings: lambda _: Ack(),
        PlanSync: errand,
        InstallBundle: lambda _: BundleInstalled(bundle_sequence=8, term=3, changed=True),
    }


def _table(respond: Callable[[Visit], Any]) -> Table:
    paths = (("POST", "/v1/heartbeat"), ("POST", "/v1/hello"), ("GET", "/v1/bundle"))
    return dict.fromkeys(paths, respond)


def _answers(visit: Visit) -> Any:
    if visit.path.startswith("/v1/bundle"):
        return BUNDLE
    if visit.path.startswith("/v1/hello"):
        return HelloAnswer(claim_of("node-a"), GOSSIP)
    return HeartbeatAnswer(True, endpoint("node-a"), 3, 7, UnixSeconds(0), 9_000, GOSSIP)


def _refuses(_visit: Visit) -> Any:
    raise UnavailableError("too busy", retry_after_ms=1000)


_LOOPS: dict[Service, Callable[[Settings], Loop]] = {
    Service.HEARTBEAT: lambda settings: HeartbeatLoop(settings, peer_session),
    Service.ROSTER_SYNC: lambda settings: RosterSyncLoop(settings, peer_session),
    Service.FAILOVER: lambda settings: FailoverLoop(settings, None, peer_session),
}
LOOPS = tuple(_LOOPS)
