"""Two roots at once: what workers trust, show and write to disk while the CA is replaced."""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.errors import CSRRejectedError, NoMeshError, PeerUnreachableError
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.base import Reply, Request
from broker.wire.control import Ack
from broker.wire.ids import Service
from broker.wire.node import Endpoint, GetNode, Membership
from broker.wire.replica import PlanSync, SyncPlan
from broker.wire.roster import BundleInstalled, InstallBundle, SignedBundle
from tests.stub_broker import StubBroker
from tests.workers import tls_lab
from tests.workers.fake_node import FakeNode
from tests.workers.loop_desk import desk_at, enrol, node_in_mesh, peer_session
from tests.workers.small_ca import SmallCA, pem
from workers import transport
from workers.certstore import CertificateStore
from workers.gateway.tls import build_contexts
from workers.material import find_material
from workers.peer import PeerSession
from workers.root import roots_of
from workers.roster_sync import logic
from workers.roster_sync.loop import RosterSyncLoop

BUNDLE = msgspec.msgpack.encode(SignedBundle(body=b"body", issuing=b"der", signature=b"sig"))
WHOAMI = ("GET", "/v1/whoami")


@pytest.fixture(scope="module")
def old() -> SmallCA:
    """The CA that is replaced."""
    return SmallCA("old")


@pytest.fixture(scope="module")
def new() -> SmallCA:
    """The CA that replaces it."""
    return SmallCA("new")


def trusting_both(paths: Paths, old: SmallCA, new: SmallCA) -> Membership:
    """Let this node, certified by the old CA, trust both."""
    membership = msgspec.structs.replace(enrol(paths, old), other_roots=(new.root_pem,))
    paths.membership.write_bytes(msgspec.json.encode(membership))
    return membership


def installed(store: CertificateStore, ca: SmallCA, *roots: bytes) -> str:
    """Install a certificate of `ca` and return the chain file."""
    store.install(ca.sign(store.prepare(), store.host), ca.issuing, *roots)
    live = store.live()
    assert live is not None
    return live.chain.read_text()


def test_the_chain_file_has_both_roots_that_of_the_certificate_first(
    tmp_path: Path, old: SmallCA, new: SmallCA
) -> None:
    """A service that uses it accepts its clients before and after the switch."""
    store = CertificateStore(tmp_path / "certs", "nas")
    before = installed(store, old, old.root, new.root)
    assert before == (pem(old.issuing) + pem(old.root) + pem(new.root)).decode()
    after = installed(store, new, old.root, new.root)
    assert after == (pem(new.issuing) + pem(new.root) + pem(old.root)).decode()


def test_a_node_says_which_roots_its_chain_file_has(
    tmp_path: Path, old: SmallCA, new: SmallCA
) -> None:
    """The broker compares them with what it trusts: that is how services follow."""
    store = CertificateStore(tmp_path / "certs", "nas")
    installed(store, new, old.root, new.root)
    live = store.live()
    assert live is not None
    assert live.trusted_pins() == (new.pin, old.pin)
    live.chain.write_text("rubbish")
    assert live.trusted_pins() == ()


def test_a_certificate_under_neither_root_is_not_installed(
    tmp_path: Path, old: SmallCA, new: SmallCA
) -> None:
    """Two anchors are not any anchor."""
    store = CertificateStore(tmp_path / "certs", "nas")
    stranger = SmallCA("stranger")
    with pytest.raises(CSRRejectedError, match="does not chain"):
        installed(store, stranger, old.root, new.root)


def test_a_session_trusts_the_other_root_only_while_the_membership_says_so(
    paths: Paths, old: SmallCA, new: SmallCA
) -> None:
    """Mutual TLS with a node that has switched already."""
    both = trusting_both(paths, old, new)
    only_old = msgspec.structs.replace(both, other_roots=())
    with FakeNode(new, {WHOAMI: lambda _: Ack()}) as switched:
        with PeerSession(paths, both, timeout_s=2.0) as session:
            assert session.call(switched.endpoint(), "GET", WHOAMI[1], None, Ack) == Ack()
        with (
            PeerSession(paths, only_old, timeout_s=2.0) as session,
            pytest.raises(PeerUnreachableError, match=logic.IMPOSTOR),
        ):
            session.call(switched.endpoint(), "GET", WHOAMI[1], None, Ack)


def test_both_places_say_the_same_of_a_stranger() -> None:
    """One raises it, the other looks for it: HTTP is imported only when it is needed."""
    assert logic.IMPOSTOR == transport.IMPOSTOR


def test_a_context_has_exactly_the_roots_it_was_given(old: SmallCA, new: SmallCA) -> None:
    """Nothing of this machine's own trust comes along."""
    counts = [
        transport.context_for(*roots).cert_store_stats()["x509_ca"]
        for roots in ((old.root,), (old.root, new.root))
    ]
    assert counts == [1, 2]


def test_the_pinned_root_stays_the_pinned_one(paths: Paths, old: SmallCA, new: SmallCA) -> None:
    """Another root beside it is no way around the pin."""
    both = trusting_both(paths, old, new)
    assert roots_of(both) == (old.root, new.root)
    with pytest.raises(NoMeshError, match="pinned"):
        roots_of(msgspec.structs.replace(both, pin=new.pin))
    with pytest.raises(NoMeshError, match="damaged"):
        roots_of(msgspec.structs.replace(both, other_roots=("rubbish",)))


def test_the_mesh_door_admits_certificates_of_both_cas_and_reloads_for_it(
    paths: Paths, tmp_path: Path
) -> None:
    """A new root is new material: the gateway takes it over without a new certificate."""
    one, two = tls_lab.Lab("one"), tls_lab.Lab("two")
    tls_lab.install(paths, one.leaf())
    tls_lab.write_membership(paths, one.root_pem)
    before = find_material(paths)
    membership = msgspec.json.decode(paths.membership.read_bytes(), type=Membership)
    both = msgspec.structs.replace(membership, other_roots=(two.root_pem,))
    paths.membership.write_bytes(msgspec.json.encode(both))
    after = find_material(paths)
    assert after != before
    assert shakes_hands(build_contexts(after).mesh, one.trusting(tmp_path, two.leaf()))
    assert not shakes_hands(build_contexts(before).mesh, one.trusting(tmp_path, two.leaf()))


def shakes_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> bool:
    """Whether both sides accept each other, in memory."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(back, there, server_hostname=tls_lab.SERVER_NAME)
    two = server.wrap_bio(there, back, server_side=True)
    for _ in range(4):
        for side in (one, two):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return True


@pytest.fixture
def doors(new: SmallCA) -> Iterator[tuple[FakeNode, FakeNode]]:
    """Mesh door and enrol door of a primary that has switched."""
    bundle = {("GET", "/v1/bundle"): lambda _: BUNDLE}
    handover = {("GET", "/v1/handover"): lambda _: BUNDLE}
    with (
        FakeNode(new, bundle, host="node-a", mutual=True) as mesh,
        FakeNode(new, handover, host="node-a") as enroll,
    ):
        yield mesh, enroll


def of_both(doors: tuple[FakeNode, FakeNode]) -> Endpoint:
    """Return the endpoint that has both doors."""
    mesh, enroll = doors
    return msgspec.structs.replace(mesh.endpoint(), enroll_port=enroll.port)


def test_a_node_that_slept_fetches_the_last_words_of_the_old_ca(
    paths: Paths, settings: Settings, old: SmallCA, doors: tuple[FakeNode, FakeNode]
) -> None:
    """It cannot verify the primary; what it gets proves itself, and the broker judges it."""
    enrol(paths, old)
    answers: dict[type[Request], Callable[[Any], Reply | None]] = {
        GetNode: lambda _: node_in_mesh(),
        PlanSync: lambda _: SyncPlan(errand="bundle", source=of_both(doors)),
        InstallBundle: lambda _: BundleInstalled(bundle_sequence=8, term=3, changed=True),
    }
    loop = RosterSyncLoop(settings, peer_session)
    with (
        StubBroker(paths, answers) as broker,
        desk_at(paths, settings, Service.ROSTER_SYNC) as desk,
    ):
        loop.round(desk)
        assert broker.seen(InstallBundle) == [InstallBundle(bundle=BUNDLE, source="node-a")]
    assert [visit.path for visit in doors[1].visits if "handover" in visit.path]
    assert not doors[0].seen("/v1/bundle")


def test_a_stranger_without_last_words_stays_a_stranger(
    paths: Paths, settings: Settings, old: SmallCA, doors: tuple[FakeNode, FakeNode]
) -> None:
    """No rollover: then it is an impostor or a mistake, and is called that."""
    enrol(paths, old)
    doors[1].table["GET", "/v1/handover"] = lambda _: b""
    answers: dict[type[Request], Callable[[Any], Reply | None]] = {
        GetNode: lambda _: node_in_mesh(),
        PlanSync: lambda _: SyncPlan(errand="bundle", source=of_both(doors)),
    }
    loop = RosterSyncLoop(settings, peer_session)
    with (
        StubBroker(paths, answers) as broker,
        desk_at(paths, settings, Service.ROSTER_SYNC) as desk,
    ):
        outcome = loop.round(desk)
        assert broker.seen(InstallBundle) == []
    assert logic.IMPOSTOR in outcome.error
