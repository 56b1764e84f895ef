"""The worker's part in a certificate that is on disk and not in service, and in other events."""

import json

import msgspec
import pytest

from broker.runtime.events import EventName
from broker.runtime.paths import Paths
from broker.wire.control import Ack
from broker.wire.mesh_api import InstalledBody
from broker.wire.renewal import NoteOwnCertificate, RenewWithLease
from broker.wire.work import Failed, HooksRan, Installed, RenewOwn, RunHooks
from tests.workers.fake_node import FakeNode, Table
from tests.workers.loop_desk import logged
from tests.workers.small_ca import DAY, DOMAIN, SmallCA, now
from tests.workers.test_renewal_loop import WorkBoard, join, live, once
from workers.certstore import CertificateStore

OWN = RenewOwn("nas", (f"nas.{DOMAIN}",), via_broker=True, primary=None)


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """The mesh's CA."""
    return SmallCA()


@pytest.fixture
def store(paths: Paths, ca: SmallCA) -> CertificateStore:
    """This node is the member `nas`; a certificate is live, its hook breaks for the next one."""
    found = CertificateStore(paths.certificates, "nas")
    starts = now() - 25 * DAY  # due: what is live will not do
    found.install(ca.sign(found.prepare(), "nas", starts=starts), ca.issuing, ca.root)
    join(paths, ca)
    with WorkBoard(paths, ca):
        once(paths)
    text = f"test -e {paths.home}/mended || test $(readlink $CERTMESH_LIVE_DIR) = v0001"
    hook(paths, text)
    return found


def hook(paths: Paths, text: str, **more: object) -> None:
    """Add a `[[hook]]` that runs a line of shell."""
    entry = {"name": "web", "command": ["/bin/sh", "-c", text], **more}
    with paths.settings.open("a") as file:
        file.write("[[hook]]\n")
        file.writelines(f"{key} = {json.dumps(value)}\n" for key, value in entry.items())


def test_the_attempts_after_a_failed_hook_ask_for_no_other_certificate(
    paths: Paths, ca: SmallCA, store: CertificateStore, caplog: pytest.LogCaptureFixture
) -> None:
    """One signature, however long the hook stays broken; when it is mended that one is served."""
    before = live(store)
    caplog.set_level("INFO", "certmesh")
    with WorkBoard(paths, ca) as board:
        for _ in range(3):
            board.items.append(OWN)
            once(paths)
        (paths.home / "mended").touch()
        board.items.append(OWN)
        once(paths)
    assert len(board.seen(RenewWithLease)) == 1
    *failed, done = board.results
    assert all(isinstance(result, Failed) for result in failed)
    assert len({result.detail for result in failed}) == 1
    assert isinstance(done, Installed)
    assert (done.serial, done.state) == (live(store), "installed")
    assert done.serial != before
    assert len(logged(caplog, EventName.CERTIFICATE_REDELIVERED)) == 3
    last = board.seen(NoteOwnCertificate)[-1]
    assert (last.serial, last.state) == (done.serial, "installed")


def test_no_primary_is_needed_to_deliver_again(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """The CA may be gone by the time somebody mends the hook."""
    with WorkBoard(paths, ca, OWN) as board:
        once(paths)
        (paths.home / "mended").touch()
        board.items.append(RenewOwn("nas", OWN.sans, via_broker=False, primary=None))
        once(paths)
    assert isinstance(board.results[1], Installed)
    assert board.results[1].serial == live(store)


def test_the_primary_is_told_what_is_live_after_each_attempt(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """In the words of the heartbeats, so that the same failure again is no news in the journal."""
    before = live(store)
    table: Table = {("POST", "/v1/installed"): lambda _: Ack()}
    with FakeNode(ca, table, mutual=True) as atlas, WorkBoard(paths, ca, OWN) as board:
        once(paths)
        again = RenewOwn("nas", OWN.sans, via_broker=False, primary=atlas.endpoint())
        for _ in range(2):
            board.items.append(again)
            once(paths)
        (paths.home / "mended").touch()
        board.items.append(again)
        once(paths)
    told = [
        msgspec.json.decode(visit.body, type=InstalledBody) for visit in atlas.seen("/v1/installed")
    ]
    assert [(body.serial, body.state) for body in told] == [
        (before, "failed"),
        (before, "failed"),
        (live(store), "installed"),
    ]
    assert told[0] == told[1]
    assert "hook web exit 1" in told[0].detail


def test_an_operator_who_asks_gets_a_new_one_when_the_held_one_is_old(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """`cert renew` promises a new key; a hook that fails right now is the exception."""
    starts = now() - 2 * DAY
    store.install(ca.sign(store.prepare(), "nas", starts=starts), ca.issuing, ca.root)
    held = store.live()
    assert held is not None
    store.rollback("v0001")
    (paths.home / "mended").touch()
    with WorkBoard(paths, ca, msgspec.structs.replace(OWN, fresh=True)) as board:
        once(paths)
    assert len(board.seen(RenewWithLease)) == 1
    assert live(store) != held.serial


def test_hooks_are_told_what_happened_to_the_node(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """The result names those that failed, so that the broker tries again."""
    hook(paths, f"echo $CERTMESH_EVENT $CERTMESH_SERIAL > {paths.home}/told", event=["revoked"])
    hook(paths, "echo no >&2; exit 4", name="other", event=["ca_changed"])
    with WorkBoard(paths, ca, RunHooks("nas", "revoked"), RunHooks("nas", "ca_changed")) as board:
        once(paths)
    assert board.results == [HooksRan(""), HooksRan('hook other exit 4: "no"')]
    assert (paths.home / "told").read_text() == f"revoked {live(store)}\n"


def test_an_event_that_no_hook_asks_for_is_done_at_once(
    paths: Paths, ca: SmallCA, store: CertificateStore
) -> None:
    """Most nodes have no such hook."""
    assert live(store)
    with WorkBoard(paths, ca, RunHooks("nas", "revoked"), RunHooks("nas", "unheard-of")) as board:
        once(paths)
    assert board.results == [HooksRan(""), HooksRan("")]
