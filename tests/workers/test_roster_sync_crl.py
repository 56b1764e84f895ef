"""Revocation lists on a member: fetched, handed to the broker, written for other software."""

import logging
import stat
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from broker.errors import BundleRejectedError, RevokedError
from broker.runtime.events import EventName
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.units import UnixSeconds
from broker.wire.base import Reply, Request
from broker.wire.enrollment import CRLInstalled, GetTrust, InstallCRL, TrustAnswer
from broker.wire.ids import Service
from broker.wire.node import GetNode, Membership
from tests.stub_broker import StubBroker
from tests.workers.fake_node import FakeNode, Visit
from tests.workers.loop_desk import desk_at, endpoint, enrol, logged, node_in_mesh, peer_session
from tests.workers.small_ca import SmallCA, pem
from workers.pem import crl_pem
from workers.process import Desk
from workers.roster_sync.bundle import BundleErrand
from workers.roster_sync.crl import ListErrand, is_old
from workers.roster_sync.trips import TripError, Trips

LISTS = b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"
PATH = ("GET", "/v1/crl.pem")
NOW = UnixSeconds(10_000)


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """The mesh's CA."""
    return SmallCA()


@pytest.fixture
def primary(ca: SmallCA) -> Iterator[FakeNode]:
    """The enrol port of node-a: it asks nobody for a certificate."""
    with FakeNode(ca, {PATH: lambda _: LISTS}, host="node-a") as node:
        yield node


def trust_of(ca: SmallCA, **changed: Any) -> TrustAnswer:
    """Return what a broker trusts, with a list that lasts from 0 to 30,000."""
    held = TrustAnswer(
        root=ca.root,
        issuing=ca.issuing,
        crl=b"the list",
        crl_number=8,
        root_crl=b"the root's",
        this_update=UnixSeconds(0),
        next_update=UnixSeconds(30_000),
    )
    return msgspec.structs.replace(held, **changed)


@pytest.fixture
def broker(paths: Paths, ca: SmallCA, primary: FakeNode) -> Iterator[StubBroker]:
    """The broker of node-b."""
    enrol(paths, ca)
    node = node_in_mesh(key_holders=(primary.endpoint(),))
    assert node.mesh is not None
    mesh = msgspec.structs.replace(node.mesh, primary=primary.endpoint())
    answers: dict[type[Request], Callable[[Any], Reply | None]] = {
        GetNode: lambda _: msgspec.structs.replace(node, mesh=mesh),
        GetTrust: lambda _: trust_of(ca),
        InstallCRL: lambda _: CRLInstalled(crl_number=8, changed=True),
    }
    with StubBroker(paths, answers) as stub:
        yield stub


@pytest.fixture
def desk(broker: StubBroker, paths: Paths, settings: Settings) -> Iterator[Desk]:
    """Where the errand works."""
    assert broker.boot_id
    with desk_at(paths, settings, Service.ROSTER_SYNC) as found:
        yield found


@pytest.fixture
def errand() -> ListErrand:
    """The errand under test, at 10,000 s."""
    return ListErrand(Trips(peer_session), wall=lambda: NOW)


@pytest.fixture(autouse=True)
def _all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "certmesh")


def test_what_the_primary_lists_goes_to_the_broker_and_into_files(
    errand: ListErrand, desk: Desk, broker: StubBroker, paths: Paths, ca: SmallCA
) -> None:
    """The broker judges; the files hold what it believes, root and issuing CA and their lists."""
    errand.run(desk)
    assert broker.seen(InstallCRL) == [InstallCRL(LISTS, "node-a")]
    assert (paths.trust / "ca.pem").read_bytes() == pem(ca.issuing) + pem(ca.root)
    lists = (paths.trust / "crl.pem").read_text()
    assert lists == crl_pem(b"the list") + crl_pem(b"the root's")


def test_while_the_ca_is_replaced_the_other_root_is_written_too(
    errand: ListErrand, desk: Desk, paths: Paths, ca: SmallCA
) -> None:
    """Members show certificates of both; a service that knows one root refuses half of them."""
    membership = msgspec.json.decode(paths.membership.read_bytes(), type=Membership)
    other = SmallCA("next").root_pem
    changed = msgspec.structs.replace(membership, other_roots=(other,))
    paths.membership.write_bytes(msgspec.json.encode(changed))
    errand.run(desk)
    written = (paths.trust / "ca.pem").read_text()
    assert written == (pem(ca.issuing) + pem(ca.root)).decode() + other


def test_the_files_are_private_and_replaced_whole(
    errand: ListErrand, desk: Desk, paths: Paths
) -> None:
    """A reader finds the old file or the new one; others get a copy by an export."""
    errand.run(desk)
    first = (paths.trust / "crl.pem").stat().st_ino
    assert stat.S_IMODE(paths.trust.stat().st_mode) == 0o700
    assert stat.S_IMODE((paths.trust / "crl.pem").stat().st_mode) == 0o600
    assert sorted(path.name for path in paths.trust.iterdir()) == ["ca.pem", "crl.pem"]
    ListErrand(Trips(peer_session), wall=lambda: NOW).run(desk)
    assert (paths.trust / "crl.pem").stat().st_ino == first  # the same content is left alone


def test_nothing_is_fetched_while_the_bundle_stays_and_the_list_is_young(
    errand: ListErrand, desk: Desk, primary: FakeNode
) -> None:
    """A round of a standby comes every second."""
    for _ in range(3):
        errand.run(desk)
    assert len(primary.visits) == 1


def test_a_bundle_that_moved_or_a_list_at_half_of_its_time_is_a_reason_to_fetch(
    ca: SmallCA,
) -> None:
    """A revocation must not wait for the end of a list that lasts a week."""
    assert not is_old(trust_of(ca), UnixSeconds(14_999))
    assert is_old(trust_of(ca), UnixSeconds(15_000))
    assert is_old(trust_of(ca, this_update=None, next_update=None), NOW)


def test_a_list_the_broker_does_not_believe_changes_no_file(
    errand: ListErrand,
    desk: Desk,
    broker: StubBroker,
    paths: Paths,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What was believed before stays; the failure is told in its own words."""

    def refuse(_: InstallCRL) -> Reply:
        raise BundleRejectedError("an old copy")

    broker.answers[InstallCRL] = refuse
    errand.run(desk)
    assert (paths.trust / "crl.pem").read_text().startswith(crl_pem(b"the list"))
    told = [line["reason"] for line in logged(caplog, EventName.ROSTER_REJECTED)]
    assert told == ["verification failed: an old copy"]


def test_another_key_holder_stands_in_when_the_primary_is_away(
    errand: ListErrand, desk: Desk, broker: StubBroker, primary: FakeNode
) -> None:
    """The files of a member must survive the primary."""
    away = endpoint("node-a", port=9)
    standby = msgspec.structs.replace(primary.endpoint(), host="node-s")
    node = node_in_mesh(key_holders=(standby,))
    assert node.mesh is not None
    mesh = msgspec.structs.replace(node.mesh, primary=msgspec.structs.replace(away, enroll_port=9))
    broker.answers[GetNode] = lambda _: msgspec.structs.replace(node, mesh=mesh)
    errand.run(desk)
    assert [request.source for request in broker.seen(InstallCRL)] == ["node-s"]


def test_a_primary_writes_its_own_lists_and_asks_nobody(
    errand: ListErrand, desk: Desk, broker: StubBroker, primary: FakeNode, paths: Paths
) -> None:
    """It signs them."""
    broker.answers[GetNode] = lambda _: node_in_mesh("node-a", role="primary")
    errand.run(desk)
    assert primary.visits == []
    assert (paths.trust / "crl.pem").exists()


def test_a_broker_without_any_list_leaves_the_file_as_it_is(
    errand: ListErrand, desk: Desk, broker: StubBroker, paths: Paths, ca: SmallCA
) -> None:
    """An empty file would make services refuse everybody, or nobody."""
    broker.answers[InstallCRL] = lambda _: CRLInstalled(crl_number=0, changed=False)
    broker.answers[GetTrust] = lambda _: trust_of(ca, crl=b"")
    errand.run(desk)
    assert not (paths.trust / "crl.pem").exists()


def test_a_directory_that_cannot_be_written_stops_no_other_errand(
    errand: ListErrand, desk: Desk, paths: Paths, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told, and tried again."""
    paths.trust.write_text("in the way")
    errand.run(desk)
    (line,) = logged(caplog, EventName.ROSTER_REJECTED)
    assert "cannot be written" in line["reason"]


def test_a_node_that_is_called_revoked_fetches_the_signed_list_at_once(
    desk: Desk, broker: StubBroker, ca: SmallCA
) -> None:
    """The word of one node proves nothing; the list does, and the broker reads it there."""
    trips = Trips(peer_session)
    errand = ListErrand(trips, wall=lambda: NOW)
    errand.run(desk)
    before = len(broker.seen(InstallCRL))

    def refuse(_: Visit) -> None:
        raise RevokedError("node-b was revoked")

    with (
        FakeNode(ca, {("GET", "/v1/bundle"): refuse}, host="node-a", mutual=True) as door,
        pytest.raises(TripError),
    ):
        BundleErrand(trips).fetch_from(desk, node_in_mesh(), door.endpoint())
    assert trips.called_revoked
    errand = ListErrand(trips, wall=lambda: NOW)
    errand._fetched = (desk.node().bundle_term, desk.node().bundle_sequence)
    errand.run(desk)
    assert len(broker.seen(InstallCRL)) == before + 1
    assert not trips.called_revoked
