"""Renewal with the old key, against real TLS doors and a stub broker."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from broker.errors import (
    CertificateExpiredError,
    CSRRejectedError,
    NotPrimaryError,
    PeerUnreachableError,
    RenewalNotDueError,
    RevokedError,
)
from broker.runtime.paths import Paths
from broker.runtime.settings import load_settings
from broker.units import UnixSeconds
from broker.wire.control import Ack
from broker.wire.enrollment import Issued
from broker.wire.expired import expired_statement
from broker.wire.mesh_api import RenewExpiredBody
from broker.wire.node import Endpoint, GetNode, Membership
from broker.wire.renewal import NoteOwnCertificate, RenewalAnswer
from broker.wire.work import (
    CompleteWork,
    ExtendLease,
    Failed,
    Installed,
    Lease,
    LeaseWork,
    ReleaseLease,
    RenewOwn,
    WorkAnswer,
)
from tests.stub_broker import StubBroker
from tests.workers.fake_node import FakeNode, Visit
from tests.workers.loop_desk import node_in_mesh
from tests.workers.small_ca import DAY, DOMAIN, SmallCA, now
from workers.certstore import CertificateStore
from workers.keypair import make_key_and_csr
from workers.process import run_loop
from workers.renewal.expired import signed_request, worst_of
from workers.renewal.loop import RenewalLoop

MESH_ID = "01" * 16
DOOR = ("POST", "/v1/renew-expired")
RENEW = ("POST", "/v1/renew")


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """The mesh's CA."""
    return SmallCA()


@pytest.fixture
def store(paths: Paths, ca: SmallCA) -> CertificateStore:
    """This node is `nas`; its certificate ended yesterday."""
    slept = UnixSeconds(int((now() - 2 * DAY).timestamp()))
    found = CertificateStore(paths.certificates, "nas", now=lambda: slept)
    leaf = ca.sign(found.prepare(), "nas", starts=now() - 3 * DAY, lasts=2 * DAY)
    found.install(leaf, ca.issuing, ca.root)
    membership = Membership(
        mesh_id=MESH_ID,
        mesh_name="test",
        pin=ca.pin,
        root_pem=ca.root_pem,
        host="nas",
        member_id="ab",
        server_name=f"nas.{DOMAIN}",
        primary=Endpoint("atlas", ("127.0.0.1",), 1, 1, f"atlas.{DOMAIN}"),
    )
    paths.membership.write_bytes(msgspec.json.encode(membership))
    return CertificateStore(paths.certificates, "nas")


class Counter:
    """The CA behind a door: signs for whoever proves to have the old key."""

    def __init__(self, ca: SmallCA) -> None:
        self._ca = ca
        self.asked: list[RenewExpiredBody] = []

    def __call__(self, visit: Visit) -> RenewalAnswer:
        """Answer one request."""
        body = msgspec.json.decode(visit.body, type=RenewExpiredBody)
        self.asked.append(body)
        key = x509.load_der_x509_certificate(body.leaf).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        said = expired_statement(MESH_ID, body.leaf, body.csr)
        key.verify(body.signature, said, ec.ECDSA(hashes.SHA256()))
        return RenewalAnswer(issued(self._ca, body.csr))


def issued(ca: SmallCA, csr: bytes) -> Issued:
    """Return a fresh certificate."""
    leaf = ca.sign(csr, "nas", lasts=30 * DAY)
    serial = format(x509.load_der_x509_certificate(leaf).serial_number, "x")
    zero = UnixSeconds(0)
    return Issued(serial, leaf, ca.issuing, ca.root, zero, zero, zero)


@pytest.fixture
def counter(ca: SmallCA) -> Counter:
    """What the primary's door leads to."""
    return Counter(ca)


@pytest.fixture
def primary(ca: SmallCA, counter: Counter) -> Iterator[FakeNode]:
    """The primary's enrol door."""
    with FakeNode(ca, {DOOR: counter, ("POST", "/v1/installed"): lambda _: Ack()}) as node:
        yield node


def renewed(paths: Paths, *doors: Endpoint) -> Installed | Failed:
    """Let the loop do the one item; return what it reports."""
    item = RenewOwn(
        host="nas",
        sans=(f"nas.{DOMAIN}",),
        via_broker=False,
        primary=doors[0] if doors else None,
        by_old_key=True,
        doors=doors,
    )
    leases = [WorkAnswer(Lease(1, 60_000, item), 0)]
    table: dict[Any, Any] = {
        LeaseWork: lambda _: leases.pop() if leases else WorkAnswer(None, 5000),
        CompleteWork: lambda _: Ack(),
        ExtendLease: lambda _: Ack(),
        ReleaseLease: lambda _: Ack(),
        NoteOwnCertificate: lambda _: Ack(),
        GetNode: lambda _: node_in_mesh("nas"),
    }
    with StubBroker(paths, table) as broker:
        settings = load_settings(paths.settings)
        assert run_loop(RenewalLoop(settings, paths), settings, paths, once=True) == 0
        (done,) = broker.seen(CompleteWork)
    assert isinstance(done.result, Installed | Failed)
    return done.result


def door_of(node: FakeNode) -> Endpoint:
    """Return an enrol door whose mesh port is shut: only what needs no certificate gets through."""
    return msgspec.structs.replace(node.endpoint(), mesh_port=1)


def test_the_old_key_brings_a_certificate_for_a_fresh_one(
    paths: Paths, store: CertificateStore, primary: FakeNode, counter: Counter
) -> None:
    """Signed by the key of the expired pair, installed with the new one, no certificate shown."""
    before = store.live()
    assert before is not None
    result = renewed(paths, door_of(primary))
    after = store.live()
    assert after is not None
    assert isinstance(result, Installed)
    assert (result.serial, result.state) == (after.serial, "installed")
    assert before.key.read_bytes() != after.key.read_bytes()
    assert [visit.peer for visit in primary.seen(DOOR[1])] == [None]
    assert len(counter.asked) == 1


def test_no_key_is_in_what_is_sent(
    paths: Paths, store: CertificateStore, primary: FakeNode
) -> None:
    """Keys never leave the machine, the old one neither."""
    old = store.live()
    assert old is not None
    renewed(paths, door_of(primary))
    (visit,) = primary.seen(DOOR[1])
    body = msgspec.json.decode(visit.body, type=RenewExpiredBody)
    for pem in (old.key.read_bytes(), (store.directory / "live" / "key.pem").read_bytes()):
        numbers = _scalar(pem)
        assert numbers not in body.leaf + body.csr + body.signature
        assert pem not in visit.body


def _scalar(pem: bytes) -> bytes:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    key = load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.private_numbers().private_value.to_bytes(32)


def test_a_door_that_is_not_the_primarys_is_followed_to_it_once(
    paths: Paths, ca: SmallCA, store: CertificateStore, primary: FakeNode
) -> None:
    """A member that slept through a failover knows only the old primary."""

    def elsewhere(_: Visit) -> None:
        raise NotPrimaryError("birch is not the primary")

    told = msgspec.structs.replace(door_of(primary), server_name="whatever.they.say")
    with FakeNode(ca, {DOOR: elsewhere}, host="birch", primary=told) as birch:
        result = renewed(paths, door_of(birch))
        assert len(birch.seen(DOOR[1])) == 1
    assert isinstance(result, Installed)
    assert store.live() is not None


@pytest.mark.usefixtures("store")
def test_a_told_primary_has_to_prove_its_own_name(
    paths: Paths, ca: SmallCA, primary: FakeNode, counter: Counter
) -> None:
    """Whoever answers decides whom to ask next, and not by which name that is verified."""

    def elsewhere(_: Visit) -> None:
        raise NotPrimaryError("birch is not the primary")

    told = msgspec.structs.replace(door_of(primary), host="cedar", server_name=f"atlas.{DOMAIN}")
    with FakeNode(ca, {DOOR: elsewhere}, host="birch", primary=told) as birch:
        result = renewed(paths, door_of(birch))
    assert isinstance(result, Failed)
    assert "cedar: no address answered" in result.detail
    assert not counter.asked


@pytest.mark.usefixtures("store")
def test_two_that_name_each_other_are_asked_once_each(paths: Paths, ca: SmallCA) -> None:
    """A split mesh, or a lying one, sends nobody round in circles."""

    def elsewhere(_: Visit) -> None:
        raise NotPrimaryError("ask the other one")

    birch, cedar = (FakeNode(ca, {DOOR: elsewhere}, host=host) for host in ("birch", "cedar"))
    with birch, cedar:
        birch.primary, cedar.primary = cedar.endpoint(), birch.endpoint()
        result = renewed(paths, birch.endpoint(), cedar.endpoint())
        assert [len(node.seen(DOOR[1])) for node in (birch, cedar)] == [1, 1]
    assert isinstance(result, Failed)
    assert "no primary could be asked" in result.detail


@pytest.mark.usefixtures("store")
def test_who_was_named_by_a_door_cannot_send_it_on(
    paths: Paths, ca: SmallCA, primary: FakeNode, counter: Counter
) -> None:
    """One step from a door that is known; a chain of names would have no end."""

    def elsewhere(_: Visit) -> None:
        raise NotPrimaryError("ask the next one")

    birch, cedar = (FakeNode(ca, {DOOR: elsewhere}, host=host) for host in ("birch", "cedar"))
    with birch, cedar:
        birch.primary, cedar.primary = cedar.endpoint(), door_of(primary)
        assert isinstance(renewed(paths, birch.endpoint()), Failed)
        assert len(cedar.seen(DOOR[1])) == 1
    assert not counter.asked


@pytest.mark.usefixtures("store")
def test_a_dead_door_does_not_hide_a_living_one(paths: Paths, primary: FakeNode) -> None:
    """The first door is a guess."""
    gone = Endpoint("birch", ("127.0.0.1",), 1, 1, f"birch.{DOMAIN}")
    assert isinstance(renewed(paths, gone, door_of(primary)), Installed)


@pytest.mark.usefixtures("store")
def test_a_door_of_another_ca_is_told_nothing(paths: Paths, ca: SmallCA) -> None:
    """The pin decides, whoever sits at the address."""
    stranger = SmallCA("stranger")
    with FakeNode(stranger, {DOOR: Counter(ca)}) as node:
        result = renewed(paths, door_of(node))
        assert not node.visits
    assert isinstance(result, Failed)
    assert "not as the node it should be" in result.detail


def test_a_member_beyond_the_grace_learns_what_to_do(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """The refusal and its hint become what `certmesh status` says."""

    def over(_: Visit) -> None:
        raise CertificateExpiredError("expired 9 s ago", hint="certmesh invite create nas --rejoin")

    before = store.live()
    with FakeNode(ca, {DOOR: over}) as node:
        result = renewed(paths, door_of(node))
    assert result == Failed("expired 9 s ago (certmesh invite create nas --rejoin)")
    assert store.live() == before


@pytest.mark.usefixtures("store")
def test_a_clock_that_is_wrong_here_ends_at_the_mesh_door(paths: Paths, ca: SmallCA) -> None:
    """The CA says that the certificate is good, so mutual TLS is the way after all."""

    def not_due(_: Visit) -> None:
        raise RenewalNotDueError("the certificate of nas is valid for another 100 s")

    def renew(visit: Visit) -> RenewalAnswer:
        csr = msgspec.json.decode(visit.body, type=dict)["csr"]
        return RenewalAnswer(issued(ca, msgspec.convert(csr, bytes)))

    table = {DOOR: not_due, RENEW: renew, ("POST", "/v1/installed"): lambda _: Ack()}
    with FakeNode(ca, table) as node:
        result = renewed(paths, node.endpoint())
        assert [visit.path for visit in node.visits[:2]] == [DOOR[1], RENEW[1]]
    assert isinstance(result, Installed)


@pytest.mark.usefixtures("store")
def test_when_the_mesh_door_refuses_too_both_reasons_are_said(paths: Paths, ca: SmallCA) -> None:
    """One of the two clocks is wrong; who reads it should look at them."""

    def not_due(_: Visit) -> None:
        raise RenewalNotDueError("the certificate of nas is valid for another 100 s")

    def elsewhere(_: Visit) -> None:
        raise NotPrimaryError("not any more")

    with FakeNode(ca, {DOOR: not_due, RENEW: elsewhere}) as node:
        result = renewed(paths, node.endpoint())
    assert isinstance(result, Failed)
    assert "valid for another 100 s; but there: not any more" in result.detail
    assert "clock" in result.detail


def test_a_waiting_key_that_was_certified_in_vain_is_replaced(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """Its certificate ended before anybody received it: asking for it again would never end."""
    counter, first = Counter(ca), store.prepare()

    def answer(visit: Visit) -> RenewalAnswer:
        body = msgspec.json.decode(visit.body, type=RenewExpiredBody)
        if body.csr == first:
            raise CSRRejectedError("a renewal needs a fresh key")
        return counter(visit)

    with FakeNode(ca, {DOOR: answer}) as node:
        assert isinstance(renewed(paths, door_of(node)), Installed)
        assert len(node.seen(DOOR[1])) == 2
    assert len(counter.asked) == 1


def test_a_key_that_cannot_sign_the_statement_is_said_before_anybody_is_asked(
    tmp_path: Path, ca: SmallCA
) -> None:
    """Keys of other kinds can be certified; they cannot come back this way."""
    store = CertificateStore(tmp_path, "nas")
    store.install(ca.sign(store.prepare(), "nas"), ca.issuing, ca.root)
    live = store.live()
    assert live is not None
    other = ed25519.Ed25519PrivateKey.generate()
    live.key.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(CertificateExpiredError, match="no ECDSA P-256 key") as refused:
        signed_request(live, MESH_ID, b"csr")
    assert "--rejoin" in refused.value.hint


def test_the_statement_binds_mesh_certificate_and_request(tmp_path: Path, ca: SmallCA) -> None:
    """Each of the three changed, and the signature is worth nothing."""
    store = CertificateStore(tmp_path, "nas")
    store.install(ca.sign(store.prepare(), "nas"), ca.issuing, ca.root)
    live = store.live()
    assert live is not None
    _, csr = make_key_and_csr("nas")
    body = signed_request(live, MESH_ID, csr)
    key = x509.load_der_x509_certificate(body.leaf).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    good = (MESH_ID, body.leaf, csr)
    key.verify(body.signature, expired_statement(*good), ec.ECDSA(hashes.SHA256()))
    for bad in (("02" * 16, body.leaf, csr), (MESH_ID, b"x", csr), (MESH_ID, body.leaf, b"x")):
        with pytest.raises(InvalidSignature):
            key.verify(body.signature, expired_statement(*bad), ec.ECDSA(hashes.SHA256()))


def test_a_decision_is_told_before_silence() -> None:
    """Whoever reads the reason wants the one that can be acted upon."""
    silent, revoked = PeerUnreachableError("no address answered"), RevokedError("nas was revoked")
    elsewhere = NotPrimaryError("birch is not the primary")
    assert worst_of([("atlas", silent), ("birch", elsewhere), ("cedar", revoked)]) is revoked
    assert (
        "atlas: no address answered; birch: birch is not"
        in worst_of([("atlas", silent), ("birch", elsewhere)]).detail
    )
    assert "no door of the mesh is known" in worst_of([]).detail
