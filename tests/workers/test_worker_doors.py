"""The doors about remote workers, over real TLS and the real local socket."""

import base64
from collections.abc import Iterator

import pytest

from broker.errors import ForbiddenError
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.units import UnixSeconds
from broker.wire.claims import SignedMandate
from broker.wire.ids import Service
from broker.wire.remote import (
    BindWorker,
    EnrollWorker,
    ListRemoteWorkers,
    RemoteWorkersView,
    RemoteWorkerView,
    RevokeWorker,
    WorkerDoor,
)
from broker.wire.renewal import InstallAnswer, RekeyAnswer, StartInstall, StartRekey
from broker.wire.roster import WhoAmI
from tests.stub_broker import StubBroker
from tests.workers.door_house import House, is_refused, visit, visit_unix
from tests.workers.yard import LIMITS, Yard, whoami
from workers.console.service import Console

KEY, SERVER = "aa" * 32, "bb" * 32
MANDATE = SignedMandate(b"a mandate", b"signed")
GRANT = RemoteWorkerView("c1", "nas", "a1", "enrolled", "", UnixSeconds(1), "ann")


@pytest.fixture
def yard(paths: Paths, settings: Settings) -> Iterator[Yard]:
    """A gateway with open doors."""
    with (
        StubBroker(paths, {WhoAmI: whoami}) as broker,
        House(paths, Service.GATEWAY) as house,
    ):
        made = Yard(paths, settings, house, broker)
        made.open()
        yield made


def test_a_key_is_told_over_mutual_tls_only(yard: Yard) -> None:
    """Who the caller is, its certificate says; nothing in the body does."""
    yard.broker.answers[BindWorker] = lambda _: WorkerDoor(7644, SERVER, "c1")
    assert is_refused(yard.mesh, yard.stranger())
    with visit(yard.mesh, yard.member(yard.lab.leaf("nas"))) as visitor:
        said = visitor.ask("POST", "/v1/worker", {"public_key": KEY, "host": "atlas"})
        assert (said.status, said.json["port"], said.json["server_key"]) == (200, 7644, SERVER)
        for bad in ("", KEY[:-1], KEY.upper(), KEY + "\n", "g" * 64):
            assert visitor.ask("POST", "/v1/worker", {"public_key": bad}).status == 400
    (told,) = yard.broker.seen(BindWorker)
    assert (told.peer.host, told.public_key) == ("nas", KEY)
    with visit(yard.enroll, yard.stranger()) as visitor:
        assert visitor.ask("POST", "/v1/worker", {"public_key": KEY}).status == 404


def test_a_refused_key_comes_with_what_to_do(yard: Yard) -> None:
    """A worker shows it to whoever looks."""

    def refuse(_: BindWorker) -> WorkerDoor:
        raise ForbiddenError("nobody let it in", hint="certmesh worker enroll nas")

    yard.broker.answers[BindWorker] = refuse
    with visit(yard.mesh, yard.member(yard.lab.leaf("nas"))) as visitor:
        said = visitor.ask("POST", "/v1/worker", {"public_key": KEY})
    assert (said.status, said.json["code"]) == (403, "forbidden")
    assert said.json["hint"] == "certmesh worker enroll nas"


def test_a_mandate_gets_from_the_door_to_the_broker_as_it_came(yard: Yard) -> None:
    """The gateway judges none of it; a call without one stays without."""
    yard.broker.answers[StartRekey] = lambda _: RekeyAnswer(b"csr")
    yard.broker.answers[StartInstall] = lambda _: InstallAnswer("1f", "served", "")
    octets = base64.b64encode
    mandate = {"body": octets(b"a mandate").decode(), "signature": octets(b"signed").decode()}
    pair = {"leaf": octets(b"leaf").decode(), "issuing": octets(b"issuing").decode()}
    with visit(yard.mesh, yard.member(yard.lab.leaf("nas"))) as visitor:
        for more in ({}, {"mandate": mandate}):
            assert visitor.ask("POST", "/v1/renewal/csr", {"term": 3, **more}).status == 200
            body = {"term": 3, **pair, **more}
            assert visitor.ask("POST", "/v1/renewal/install", body).status == 200
    assert [call.mandate for call in yard.broker.seen(StartRekey)] == [None, MANDATE]
    assert [call.mandate for call in yard.broker.seen(StartInstall)] == [None, MANDATE]


def test_grants_are_made_ended_and_listed_at_the_console(paths: Paths, settings: Settings) -> None:
    """The operator is who asks, never who the body names."""
    with StubBroker(paths) as broker, House(paths, Service.CONSOLE) as house:
        broker.answers[EnrollWorker] = broker.answers[RevokeWorker] = lambda _: GRANT
        broker.answers[ListRemoteWorkers] = lambda _: RemoteWorkersView((GRANT,))
        house.round(house.furnish(lambda asker: Console(settings, paths, asker, LIMITS)))
        with visit_unix(paths.api_socket) as visitor:
            body = {"host": "nas", "operator": "mallory"}
            assert visitor.ask("POST", "/v1/remote-workers", body).json["grant_id"] == "c1"
            dry = {"dry_run": True}
            assert visitor.ask("POST", "/v1/remote-workers/nas/revoke", dry).status == 200
            assert visitor.ask("GET", "/v1/remote-workers").json["workers"][0]["host"] == "nas"
        (wish,), (end,) = broker.seen(EnrollWorker), broker.seen(RevokeWorker)
    assert (wish.host, wish.dry_run, "mallory" in wish.operator) == ("nas", False, False)
    assert (end.host, end.dry_run) == ("nas", True)
