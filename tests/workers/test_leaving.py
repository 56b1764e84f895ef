"""Leaving the mesh: who is told, by whom, and what the answers mean."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from broker.errors import (
    ConflictError,
    NoMeshError,
    NotPrimaryError,
    PeerUnreachableError,
    RevokedError,
)
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.control import Ack
from broker.wire.ids import Service
from broker.wire.node import Endpoint, Membership
from broker.wire.roster import LeaveMesh, WhoAmI
from tests.stub_broker import StubBroker
from tests.workers.door_house import House, is_refused, visit
from tests.workers.fake_node import FakeNode, Visit
from tests.workers.small_ca import DOMAIN, SmallCA
from tests.workers.yard import Yard, whoami
from workers.certstore import CertificateStore
from workers.enroll.leaving import Leaving

LEAVE = ("POST", "/v1/leave")


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """The mesh's CA."""
    return SmallCA()


@pytest.fixture
def atlas(ca: SmallCA) -> Iterator[FakeNode]:
    """The primary's mesh port."""
    with FakeNode(ca, {LEAVE: lambda _: Ack()}, mutual=True) as node:
        yield node


def enrolled(paths: Paths, ca: SmallCA, primary: Endpoint) -> None:
    """Give this node a certificate and a membership."""
    store = CertificateStore(paths.certificates, "nas")
    store.install(ca.sign(store.prepare(), "nas"), ca.issuing, ca.root)
    membership = Membership(
        mesh_id="01",
        mesh_name="test",
        pin=ca.pin,
        root_pem=ca.root_pem,
        host="nas",
        member_id="ab",
        server_name=f"nas.{DOMAIN}",
        primary=primary,
    )
    paths.membership.write_bytes(msgspec.json.encode(membership))


def leave(paths: Paths, primary: Endpoint | None = None) -> list[dict[str, Any]]:
    """Leave and return what was said."""
    said: list[dict[str, Any]] = []
    assert Leaving(paths, said.append).run(primary) == 0
    return said


def nowhere() -> Endpoint:
    """Return the doors of a primary that is gone."""
    return Endpoint("atlas", ("127.0.0.1",), 9, 9, f"atlas.{DOMAIN}")


def test_the_primary_is_told_with_the_certificate_that_ends(
    paths: Paths, ca: SmallCA, atlas: FakeNode
) -> None:
    """Nobody can let another host leave: the call proves who goes."""
    enrolled(paths, ca, atlas.endpoint())
    assert leave(paths) == [{"kind": "left", "host": "nas", "mesh": "test"}]
    (seen,) = atlas.seen("/v1/leave")
    assert seen.peer is not None
    assert seen.body == b""
    assert paths.membership.exists()


def test_the_place_the_pool_knows_comes_before_the_one_noted_at_the_join(
    paths: Paths, ca: SmallCA, atlas: FakeNode
) -> None:
    """The role may have moved since; the old primary may be long gone."""
    enrolled(paths, ca, nowhere())
    assert leave(paths, atlas.endpoint())[0]["kind"] == "left"


def test_a_standby_says_who_is_the_primary_and_is_followed(
    paths: Paths, ca: SmallCA, atlas: FakeNode
) -> None:
    """Without a running pool only the place noted at the join is known."""

    def elsewhere(_visit: Visit) -> Ack:
        raise NotPrimaryError("ask atlas")

    with FakeNode(
        ca, {LEAVE: elsewhere}, host="birch", mutual=True, primary=atlas.endpoint()
    ) as birch:
        enrolled(paths, ca, birch.endpoint())
        leave(paths)
    assert len(atlas.seen("/v1/leave")) == 1


def test_who_is_out_already_has_left(paths: Paths, ca: SmallCA, atlas: FakeNode) -> None:
    """The answer to the first attempt was lost; the second must not fail for ever."""

    def revoked(_visit: Visit) -> Ack:
        raise RevokedError("nas was revoked")

    atlas.table[LEAVE] = revoked
    enrolled(paths, ca, atlas.endpoint())
    assert "before" in leave(paths)[0]["note"]


def test_a_refusal_and_silence_are_told_apart(paths: Paths, ca: SmallCA, atlas: FakeNode) -> None:
    """A standby must not leave; with nobody there the operator may insist."""

    def keeps_the_key(_visit: Visit) -> Ack:
        raise ConflictError("nas is a standby", hint="certmesh standby remove nas")

    atlas.table[LEAVE] = keeps_the_key
    enrolled(paths, ca, atlas.endpoint())
    with pytest.raises(ConflictError):
        leave(paths)
    with pytest.raises(PeerUnreachableError):
        leave(paths, nowhere())


def test_there_is_nothing_to_leave_without_a_mesh(paths: Paths) -> None:
    """Exit status 6 of every command."""
    with pytest.raises(NoMeshError):
        leave(paths)


def test_the_gateway_hands_the_callers_certificate_to_the_broker(
    paths: Paths, settings: Settings
) -> None:
    """The body says nothing: whoever calls is who leaves."""
    with (
        StubBroker(paths, {WhoAmI: whoami, LeaveMesh: lambda _: Ack()}) as broker,
        House(paths, Service.GATEWAY) as house,
    ):
        yard = Yard(paths, settings, house, broker)
        yard.open()
        pair = yard.lab.leaf("nas")
        with visit(yard.mesh, yard.member(pair)) as visitor:
            assert visitor.ask("POST", "/v1/leave").status == 200
        (asked,) = broker.seen(LeaveMesh)
        assert (asked.peer.host, asked.peer.fingerprint) == ("nas", pair.fingerprint)
        assert is_refused(yard.mesh, yard.stranger())
