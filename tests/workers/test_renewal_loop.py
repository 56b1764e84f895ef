"""The renewal loop against a stub broker and real TLS peers."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509

from broker.errors import (
    BusyError,
    DeadlineError,
    LeaseLostError,
    MeshError,
    RenewalInProgressError,
    RevokedError,
    ThrottledError,
)
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings, load_settings
from broker.wire.base import Request
from broker.wire.control import Ack
from broker.wire.enrollment import Issued
from broker.wire.events import AuthorityMoved, RoleMoved, WorkAvailable
from broker.wire.ids import Service
from broker.wire.liveness import Beat
from broker.wire.mesh_api import InstallBody, InstalledBody, RekeyBody, RenewBody
from broker.wire.node import Endpoint, GetNode, Membership
from broker.wire.renewal import (
    InstallAnswer,
    NoteOwnCertificate,
    RekeyAnswer,
    RenewalAnswer,
    RenewWithLease,
)
from broker.wire.work import (
    CompleteWork,
    ExtendLease,
    Failed,
    Install,
    Installed,
    Lease,
    LeaseWork,
    Rekey,
    Rekeyed,
    ReleaseLease,
    RenewMember,
    RenewOwn,
    WorkAnswer,
    WorkItem,
)
from tests.stub_broker import StubBroker
from tests.support import eventually
from tests.workers.fake_node import FakeNode, Table, Visit
from tests.workers.loop_desk import node_in_mesh
from tests.workers.small_ca import DOMAIN, SmallCA
from workers.certstore import CertificateStore
from workers.keypair import make_key_and_csr
from workers.leaf import read_certificate, serial_of
from workers.process import Desk, run_loop
from workers.renewal.errand import Errand, build_errand
from workers.renewal.logic import next_round_ms
from workers.renewal.loop import Build, RenewalLoop

REPOSITORY = Path(__file__).parents[2]
TERM = 7


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """The mesh's CA."""
    return SmallCA()


class WorkBoard(StubBroker):
    """A stub broker with a list of work and a CA behind it."""

    def __init__(self, paths: Paths, ca: SmallCA, *items: WorkItem, ttl_ms: int = 60_000) -> None:
        super().__init__(
            paths,
            {
                LeaseWork: self._lease,
                CompleteWork: lambda _: Ack(),
                ExtendLease: lambda _: Ack(),
                ReleaseLease: lambda _: Ack(),
                NoteOwnCertificate: lambda _: Ack(),
                RenewWithLease: self._sign,
            },
        )
        self._ca = ca
        self._ttl_ms = ttl_ms
        self.items = list(items)
        self.next_in_ms = 5000
        self.leased = 0

    @property
    def results(self) -> list[Any]:
        """What came of the items, in order."""
        return [request.result for request in self.seen(CompleteWork)]

    def _lease(self, _: LeaseWork) -> WorkAnswer:
        if not self.items:
            return WorkAnswer(None, self.next_in_ms)
        self.leased += 1
        return WorkAnswer(Lease(self.leased, self._ttl_ms, self.items.pop(0)), 0)

    def _sign(self, request: RenewWithLease) -> RenewalAnswer:
        return RenewalAnswer(issued(self._ca, request.csr))


def issued(ca: SmallCA, csr: bytes) -> Issued:
    """Return a signed answer for the host that the request names."""
    (name,) = x509.load_der_x509_csr(csr).subject
    leaf = ca.sign(csr, str(name.value))
    parsed = x509.load_der_x509_certificate(leaf)
    return Issued(
        serial=format(parsed.serial_number, "x"),
        leaf=leaf,
        issuing=ca.issuing,
        root=ca.root,
        not_before=0,  # type: ignore[arg-type]  # not looked at
        not_after=0,  # type: ignore[arg-type]  # not looked at
        renew_at=0,  # type: ignore[arg-type]  # not looked at
    )


@pytest.fixture
def store(paths: Paths, ca: SmallCA) -> CertificateStore:
    """This node is the member `nas`, with a certificate."""
    found = CertificateStore(paths.certificates, "nas")
    found.install(ca.sign(found.prepare(), "nas"), ca.issuing, ca.root)
    join(paths, ca)
    return found


def join(paths: Paths, ca: SmallCA) -> None:
    """Write the membership of `nas`."""
    membership = Membership(
        mesh_id="01",
        mesh_name="test",
        pin=ca.pin,
        root_pem=ca.root_pem,
        host="nas",
        member_id="ab",
        server_name=f"nas.{DOMAIN}",
        primary=Endpoint("atlas", ("127.0.0.1",), 1, 1, f"atlas.{DOMAIN}"),
    )
    paths.membership.write_bytes(msgspec.json.encode(membership))


def once(paths: Paths, build: Build | None = None) -> int:
    """Run one round as the process does."""
    settings = load_settings(paths.settings)
    return run_loop(RenewalLoop(settings, paths, build), settings, paths, once=True)


def impatient(desk: Desk, membership: Membership) -> Errand:
    """Build what works, with the times of a long installation shortened."""
    errand = build_errand(desk, membership)
    errand.hold.every_ms = 50
    errand.report_after_ms = 0
    return errand


def live(store: CertificateStore) -> str:
    """Return the serial that is live."""
    certificate = store.live()
    assert certificate is not None
    return certificate.serial


def renew_member(node: FakeNode, host: str = "pi") -> RenewMember:
    """Return the work of renewing the member behind `node`."""
    return RenewMember(host, "cd", node.endpoint(), "1", 0, TERM)  # type: ignore[arg-type]  # not looked at


def member_doors(csr: Callable[[Visit], Any], install: Callable[[Visit], Any]) -> Table:
    """Return the two doors a renewal worker knocks at."""
    return {("POST", "/v1/renewal/csr"): csr, ("POST", "/v1/renewal/install"): install}


@pytest.fixture
def member(ca: SmallCA, tmp_path: Path) -> Iterator[tuple[FakeNode, CertificateStore]]:
    """A member `pi` that makes keys and installs, behind its own mesh port."""
    disk = CertificateStore(tmp_path / "pi", "pi")

    def install(visit: Visit) -> InstallAnswer:
        body = msgspec.json.decode(visit.body, type=InstallBody)
        done = disk.install(body.leaf, body.issuing, ca.root)
        return InstallAnswer(done.serial, "served", "", 12)

    table = member_doors(lambda _: RekeyAnswer(disk.prepare(reuse_s=600)), install)
    with FakeNode(ca, table, host="pi", mutual=True) as node:
        yield node, disk


def test_defect_13_a_renewed_certificate_reaches_the_members_disk(
    paths: Paths,
    ca: SmallCA,
    store: CertificateStore,
    member: tuple[FakeNode, CertificateStore],
) -> None:
    """Reference defect 13: renewed certificates were never sent."""
    node, disk = member
    with WorkBoard(paths, ca, renew_member(node)) as board:
        assert once(paths) == 0
    assert board.results == [Installed(live(disk), "served", "", 12)]
    assert live(store) != live(disk)


def test_a_primary_that_asks_for_a_key_says_in_which_term(
    paths: Paths,
    ca: SmallCA,
    store: CertificateStore,
    member: tuple[FakeNode, CertificateStore],
) -> None:
    """The member refuses a primary that was replaced while its renewal worker was frozen."""
    node, _ = member
    assert live(store)
    with WorkBoard(paths, ca, renew_member(node)):
        once(paths)
    (rekey,), (install,) = node.seen("/v1/renewal/csr"), node.seen("/v1/renewal/install")
    assert msgspec.json.decode(rekey.body, type=RekeyBody).term == TERM
    assert msgspec.json.decode(install.body, type=InstallBody).term == TERM


def test_the_members_key_never_crosses_the_wire(
    paths: Paths,
    ca: SmallCA,
    store: CertificateStore,
    member: tuple[FakeNode, CertificateStore],
) -> None:
    """Reference defect 28: the CA made and shipped members' private keys."""
    node, disk = member
    with WorkBoard(paths, ca, renew_member(node)) as board:
        once(paths)
    assert live(store)
    key = (disk.live_link / "key.pem").read_bytes()
    secret = b"".join(key.splitlines()[1:-1])[:60]
    sent = b"".join(visit.body for visit in node.visits)
    told = msgspec.msgpack.encode([call.request for call in board.calls])
    assert secret not in sent + told
    assert not list(paths.certificates.glob("pi"))


def test_defect_14_the_hooks_of_a_member_do_not_run_on_the_ca(
    paths: Paths,
    ca: SmallCA,
    store: CertificateStore,
    member: tuple[FakeNode, CertificateStore],
    tmp_path: Path,
) -> None:
    """Reference defect 14: the hook a member set ran on the CA, as the daemon's user (row 46)."""
    trace = tmp_path / "trace"
    node, _ = member
    assert live(store)
    with WorkBoard(paths, ca) as board:
        once(paths)  # the own certificate is settled first
        with paths.settings.open("a") as file:
            file.write(f'[[hook]]\nname="web"\ncommand=["/usr/bin/touch", "{trace}"]\n')
        board.items.append(renew_member(node))
        once(paths)
    assert len(board.results) == 1
    assert not trace.exists()


def test_the_first_round_works_at_once_and_reports_what_is_live(
    paths: Paths,
    ca: SmallCA,
    store: CertificateStore,
    member: tuple[FakeNode, CertificateStore],
) -> None:
    """Reference defect 16: no pass at start."""
    node, _ = member
    with WorkBoard(paths, ca, renew_member(node), renew_member(node)) as board:
        once(paths)
    assert len(board.results) == 2
    notes = board.seen(NoteOwnCertificate)
    assert (notes[0].present, notes[0].serial) == (True, live(store))


def test_one_members_failure_does_not_stop_the_batch(
    paths: Paths,
    ca: SmallCA,
    store: CertificateStore,
    member: tuple[FakeNode, CertificateStore],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The others must not expire with it."""
    node, disk = member
    gone = msgspec.structs.replace(node.endpoint(), mesh_port=1)
    away = msgspec.structs.replace(renew_member(node, "gone"), endpoint=gone)
    assert live(store)
    with (
        caplog.at_level("INFO", "certmesh"),
        WorkBoard(paths, ca, away, renew_member(node)) as board,
    ):
        once(paths)
    failed, done = board.results
    assert isinstance(failed, Failed)
    assert "127.0.0.1:1 refused the connection" in failed.detail
    assert done == Installed(live(disk), "served", "", 12)
    told = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    assert [line["message"] for line in told if "message" in line] == [
        "Certificate renewal failed",
        "Certificate renewed",
        "Renewal check complete",
    ]
    assert (told[-1]["count"], told[-1]["failed"]) == (1, 1)


def test_a_members_failed_hook_is_told_in_its_own_words(
    paths: Paths,
    ca: SmallCA,
    store: CertificateStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is renewed, and still somebody has to look."""
    _, csr = keys()

    def install(visit: Visit) -> InstallAnswer:
        leaf = read_certificate(msgspec.json.decode(visit.body, type=InstallBody).leaf, "leaf")
        return InstallAnswer(serial_of(leaf), "failed", "hook web exit 1")

    table = member_doors(lambda _: RekeyAnswer(csr), install)
    assert live(store)
    with (
        caplog.at_level("INFO", "certmesh"),
        FakeNode(ca, table, host="pi", mutual=True) as node,
        WorkBoard(paths, ca, renew_member(node)) as board,
    ):
        once(paths)
    (result,) = board.results
    assert isinstance(result, Installed)
    assert (result.state, result.detail) == ("failed", "hook web exit 1")
    assert any(
        "Certificate renewed but hook failed" in str(record.msg) and record.levelname == "WARNING"
        for record in caplog.records
    )


def keys() -> tuple[bytes, bytes]:
    """Return a key and CSR of `pi`."""
    return make_key_and_csr("pi")


def test_defect_17_the_primary_renews_its_own_certificate_at_its_own_broker(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """Reference defect 17: the CA's own certificate never renewed."""
    before = live(store)
    work = RenewOwn("nas", (), via_broker=True, primary=None)
    with WorkBoard(paths, ca, work) as board:
        once(paths)
    assert live(store) != before
    assert board.results == [Installed(live(store), "installed", "")]
    assert [note.serial for note in board.seen(NoteOwnCertificate)][-1] == live(store)
    order = [type(call.request) for call in board.calls]
    assert order.index(CompleteWork) > len(order) - 1 - order[::-1].index(NoteOwnCertificate)


def test_a_node_without_a_certificate_gets_its_first_one(paths: Paths, ca: SmallCA) -> None:
    """The primary has none between init and its first start."""
    join(paths, ca)
    work = RenewOwn("nas", (), via_broker=True, primary=None)
    with WorkBoard(paths, ca, work) as board:
        once(paths)
    first, *_, last = board.seen(NoteOwnCertificate)
    assert (first.present, last.present) == (False, True)
    assert len(board.results) == 1


def test_a_member_pulls_for_itself_and_says_what_it_serves(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """Members behind NAT or asleep are not reached by the sweep."""
    before = live(store)
    table: Table = {
        ("POST", "/v1/renew"): lambda visit: RenewalAnswer(
            issued(ca, msgspec.json.decode(visit.body, type=RenewBody).csr)
        ),
        ("POST", "/v1/installed"): lambda _: Ack(),
    }
    with FakeNode(ca, table, mutual=True) as atlas:
        work = RenewOwn("nas", (), via_broker=False, primary=atlas.endpoint())
        with WorkBoard(paths, ca, work) as board:
            once(paths)
    assert live(store) != before
    assert board.results == [Installed(live(store), "installed", "")]
    (report,) = atlas.seen("/v1/installed")
    assert msgspec.json.decode(report.body, type=InstalledBody).serial == live(store)
    assert report.peer != atlas.seen("/v1/renew")[0].peer


def test_a_pull_that_is_refused_fails_with_the_reason_and_the_advice(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """`certmesh status` shows this sentence."""

    def refuse(_: Visit) -> None:
        raise RevokedError("nas was revoked", hint="join again with a new invite")

    before = live(store)
    with FakeNode(ca, {("POST", "/v1/renew"): refuse}, mutual=True) as atlas:
        work = RenewOwn("nas", (), via_broker=False, primary=atlas.endpoint())
        with WorkBoard(paths, ca, work) as board:
            once(paths)
    assert board.results == [Failed("nas was revoked (join again with a new invite)")]
    assert live(store) == before


@pytest.mark.parametrize("busy", [BusyError, ThrottledError, RenewalInProgressError])
def test_a_pull_that_is_put_off_says_so(
    paths: Paths, ca: SmallCA, store: CertificateStore, busy: type[MeshError]
) -> None:
    """The broker tells nobody of a failure that is none."""

    def refuse(_: Visit) -> None:
        raise busy("200 others are before you", hint="try again in a moment")

    before = live(store)
    with FakeNode(ca, {("POST", "/v1/renew"): refuse}, mutual=True) as atlas:
        work = RenewOwn("nas", (), via_broker=False, primary=atlas.endpoint())
        with WorkBoard(paths, ca, work) as board:
            once(paths)
    (result,) = board.results
    assert isinstance(result, Failed)
    assert result.queued
    assert live(store) == before


def test_a_pull_without_a_known_primary_fails_and_backs_off(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """Instead of asking itself."""
    assert live(store)
    with WorkBoard(paths, ca, RenewOwn("nas", (), via_broker=False, primary=None)) as board:
        once(paths)
    assert isinstance(board.results[0], Failed)


def test_an_own_renewal_that_was_rolled_back_counts_as_failed(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """The old pair is due again at once: without backoff the CA would sign without end."""
    with WorkBoard(paths, ca) as board:
        once(paths)
        with paths.settings.open("a") as file:
            file.write('[[hook]]\nname="web"\ncommand=["/bin/false"]\n')
        before = live(store)
        board.items.append(RenewOwn("nas", (), via_broker=True, primary=None))
        once(paths)
    assert isinstance(board.results[0], Failed)
    assert "rolled back" in board.results[0].detail
    assert live(store) == before
    last = board.seen(NoteOwnCertificate)[-1]
    assert (last.serial, last.state) == (before, "failed")


def test_a_rekey_answers_with_a_fresh_key_and_a_retry_with_the_same(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """The key stays in the pending directory."""
    with WorkBoard(paths, ca, Rekey("nas"), Rekey("nas")) as board:
        once(paths)
    first, second = board.results
    assert isinstance(first, Rekeyed)
    assert isinstance(second, Rekeyed)
    assert first.csr == second.csr
    request = x509.load_der_x509_csr(first.csr)
    current = x509.load_pem_x509_certificate((store.live_link / "cert.pem").read_bytes())
    assert request.public_key() != current.public_key()


def test_a_delivered_certificate_is_installed_and_answered(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """The member's half of the push."""
    leaf = ca.sign(store.prepare(), "nas")
    with WorkBoard(paths, ca, Install("nas", leaf, ca.issuing)) as board:
        once(paths)
    assert board.results == [Installed(live(store), "installed", "")]


def test_a_delivered_certificate_of_another_ca_is_refused(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """A key holder gone wrong must not replace the trust."""
    before, evil = live(store), SmallCA("evil")
    leaf = evil.sign(store.prepare(), "nas")
    with WorkBoard(paths, ca, Install("nas", leaf, evil.issuing)) as board:
        once(paths)
    assert isinstance(board.results[0], Failed)
    assert "pinned root" in board.results[0].detail
    assert live(store) == before


def test_a_lost_lease_drops_the_result_and_the_loop_goes_on(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """Another worker has the work; its answer counts."""

    def stale(request: CompleteWork) -> Ack:
        if request.lease_id == 1:
            raise LeaseLostError("lease 1 was given to another worker")
        return Ack()

    assert live(store)
    with WorkBoard(paths, ca, Rekey("nas"), Rekey("nas")) as board:
        board.answers[CompleteWork] = stale
        assert once(paths) == 0
    assert [request.lease_id for request in board.seen(CompleteWork)] == [1, 2]


def test_a_lease_lost_before_the_work_begins_stops_it(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """A worker that thaws must not even start."""

    def lost(_: Request) -> Ack:
        raise LeaseLostError("gone")

    before = live(store)
    work = RenewOwn("nas", (), via_broker=True, primary=None)
    with WorkBoard(paths, ca, work, ttl_ms=1000) as board:
        board.answers[ExtendLease] = lost
        once(paths)
    assert board.results == []
    assert board.seen(RenewWithLease) == []
    assert live(store) == before


def test_the_lease_is_extended_to_last_as_long_as_the_hooks_may(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """Otherwise a second worker begins while the hook still runs."""
    with paths.settings.open("a") as file:
        file.write('[[hook]]\nname="web"\ncommand=["/bin/true"]\ntimeout="300s"\n')
    leaf = ca.sign(store.prepare(), "nas")
    with WorkBoard(paths, ca, Install("nas", leaf, ca.issuing)) as board:
        once(paths)
    (extension,) = board.seen(ExtendLease)
    assert extension.ttl_ms > 300_000


@pytest.mark.parametrize("way", ["install", "own"])
def test_the_lease_is_extended_again_and_again_while_a_hook_runs(
    paths: Paths, ca: SmallCA, store: CertificateStore, way: str
) -> None:
    """The broker grants ten minutes at a time; hooks may take longer."""
    with WorkBoard(paths, ca) as board:
        once(paths)  # the delivery of the first certificate ends without a lease
        assert board.seen(ExtendLease) == []
        with paths.settings.open("a") as file:
            file.write('[[hook]]\nname="web"\ncommand=["/bin/sleep", "1"]\ntimeout="900s"\n')
        if way == "install":
            board.items.append(Install("nas", ca.sign(store.prepare(), "nas"), ca.issuing))
        else:
            board.items.append(RenewOwn("nas", (), via_broker=True, primary=None))
        once(paths, impatient)
        assert isinstance(board.results[0], Installed)
        extensions = board.seen(ExtendLease)
    assert len(extensions) > 5
    assert {extension.lease_id for extension in extensions} == {1}
    assert all(extension.ttl_ms > 900_000 for extension in extensions)


def test_a_lease_that_is_lost_meanwhile_does_not_end_the_hook(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """Half a reload is worse than one too many; the certificate is live and is reported so."""

    def lost(_: Request) -> Ack:
        raise LeaseLostError("gone")

    with WorkBoard(paths, ca) as board:
        once(paths)
        with paths.settings.open("a") as file:
            file.write('[[hook]]\nname="web"\ncommand=["/bin/sleep", "0.3"]\ntimeout="5s"\n')
        board.answers |= {ExtendLease: lost, CompleteWork: lost}
        before = live(store)
        board.items.append(Install("nas", ca.sign(store.prepare(), "nas"), ca.issuing))
        assert once(paths, impatient) == 0
        assert board.seen(NoteOwnCertificate)[-1].serial == live(store) != before


def test_a_push_whose_hooks_go_on_is_told_as_that(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """The member's gateway stops waiting after two minutes; nothing has failed yet."""

    def late(_: Visit) -> InstallAnswer:
        raise DeadlineError("the broker did not answer StartInstall within 120000 ms")

    assert live(store)
    _, csr = keys()
    with (
        FakeNode(
            ca, member_doors(lambda _: RekeyAnswer(csr), late), host="pi", mutual=True
        ) as node,
        WorkBoard(paths, ca, renew_member(node)) as board,
    ):
        once(paths)
    assert board.results == [Failed("the member is still installing; its report follows")]


@pytest.mark.parametrize(("build", "reports"), [(impatient, 1), (None, 0)])
def test_a_member_reports_an_installation_that_took_long(
    paths: Paths, ca: SmallCA, store: CertificateStore, build: Build | None, reports: int
) -> None:
    """Whoever pushed it may wait no more; a quick one has its answer already."""
    leaf = ca.sign(store.prepare(), "nas")
    with FakeNode(ca, {("POST", "/v1/installed"): lambda _: Ack()}, mutual=True) as atlas:
        node = node_in_mesh("nas")
        assert node.mesh is not None
        mesh = msgspec.structs.replace(node.mesh, primary=atlas.endpoint())
        with WorkBoard(paths, ca, Install("nas", leaf, ca.issuing)) as board:
            board.answers[GetNode] = lambda _: msgspec.structs.replace(node, mesh=mesh)
            once(paths, build)
        seen = atlas.seen("/v1/installed")
    assert board.results == [Installed(live(store), "installed", "")]
    assert len(seen) == reports
    for visit in seen:
        body = msgspec.json.decode(visit.body, type=InstalledBody)
        assert body == InstalledBody(live(store), "installed", "")


def test_a_report_that_reaches_nobody_costs_the_installation_nothing(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """The next heartbeat says the same."""
    leaf = ca.sign(store.prepare(), "nas")
    with WorkBoard(paths, ca, Install("nas", leaf, ca.issuing)) as board:
        board.answers[GetNode] = lambda _: node_in_mesh("nas", mesh=None)
        once(paths, impatient)
    assert board.results == [Installed(live(store), "installed", "")]


def test_without_a_mesh_the_loop_idles(paths: Paths, ca: SmallCA) -> None:
    """A node that was not joined yet has nothing to renew."""
    with WorkBoard(paths, ca) as board:
        assert once(paths) == 0
    assert board.seen(LeaseWork) == []


def test_a_failed_own_renewal_ends_the_round(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """A broker that hands it out again at once must not make the worker spin."""
    assert live(store)
    again = RenewOwn("nas", (), via_broker=False, primary=None)
    with WorkBoard(paths, ca, again, again, again) as board:
        once(paths)
    assert len(board.results) == 1


def test_the_loop_comes_again_when_the_broker_says_but_within_seconds(
    settings: Settings, paths: Paths
) -> None:
    """A restarted broker knows of the certificate only what the next round tells it."""
    assert next_round_ms(2000, 3_600_000) == 2000
    assert next_round_ms(7_200_000, 3_600_000) == 5000
    assert next_round_ms(50_000, 1000) == 1000
    assert RenewalLoop(settings, paths).period_ms == 5000
    assert set(RenewalLoop.wakes) == {WorkAvailable, RoleMoved, AuthorityMoved}


@contextlib.contextmanager
def worker(paths: Paths) -> Iterator["subprocess.Popen[str]"]:
    """Run the real process; it is reaped whatever happens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "workers.renewal", paths.settings, "--foreground"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.faults
def test_a_stop_hands_the_work_back_while_a_peer_is_slow(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """Within a second, and at once free for another worker."""
    assert live(store)
    asked, release = threading.Event(), threading.Event()

    def slow(_: Visit) -> RekeyAnswer:
        asked.set()
        release.wait(20)
        return RekeyAnswer(b"")

    doors = member_doors(slow, slow)
    with FakeNode(ca, doors, host="pi", mutual=True) as node:
        board = WorkBoard(paths, ca, renew_member(node))
        with board, worker(paths) as process:
            assert asked.wait(20)
            process.send_signal(signal.SIGTERM)
            assert process.wait(3) == 0
            assert [request.lease_id for request in board.seen(ReleaseLease)] == [1]
            assert board.results == []
        release.set()


@pytest.mark.faults
def test_the_worker_goes_on_beating_while_a_peer_is_slow(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """So that a worker that is really frozen stands out at once."""
    assert live(store)
    asked, release = threading.Event(), threading.Event()

    def slow(_: Visit) -> RekeyAnswer:
        asked.set()
        release.wait(20)
        return RekeyAnswer(b"")

    with FakeNode(ca, member_doors(slow, slow), host="pi", mutual=True) as node:
        board = WorkBoard(paths, ca, renew_member(node))
        with board, worker(paths):
            assert asked.wait(20)
            seen = len(board.seen(Beat))
            eventually(lambda: len(board.seen(Beat)) > seen + 3)
            assert all(beat.within_ms <= 10_000 for beat in board.seen(Beat)[seen:])
        release.set()


@pytest.mark.faults
def test_a_running_hook_finishes_before_the_worker_stops(
    paths: Paths, ca: SmallCA, store: CertificateStore, tmp_path: Path
) -> None:
    """A service cut off in the middle of its reload is worse than a second of patience."""
    started, done = tmp_path / "started", tmp_path / "done"
    with paths.settings.open("a") as file:
        script = json.dumps(f"touch {started}; sleep 1; touch {done}")
        file.write(f'[[hook]]\nname="web"\ncommand=["/bin/sh", "-c", {script}]\n')
    leaf = ca.sign(store.prepare(), "nas")
    with WorkBoard(paths, ca) as board, worker(paths) as process:
        eventually(done.exists, within_s=20)  # the settling of the first certificate
        started.unlink()
        done.unlink()
        board.items.append(Install("nas", leaf, ca.issuing))
        board.publish_until(WorkAvailable(Service.RENEWAL), started.exists)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert done.exists()
        assert board.results == [Installed(live(store), "installed", "", board.results[0].hook_ms)]
    assert os.path.samefile(store.live_link, store.directory / "v0002")  # noqa: PTH121 (a link)
