"""Bringing a certificate forward again, interrupted: killed at any step, frozen and thawed."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from broker.clock import wall_s
from broker.errors import NotFoundError
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from tests.support import eventually
from tests.workers.small_ca import DAY, SmallCA, key_pem_matches, now, pem
from tests.workers.test_redelivery import delivery, fail_once, hook, install, live, wanted
from workers.certstore import CertificateStore
from workers.renewal.delivery import Delivery

REPOSITORY = Path(__file__).parents[2]
VICTIM = Path(__file__).with_name("certstore_victim.py")


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """One CA is enough for all tests here."""
    return SmallCA()


@pytest.fixture
def found(paths: Paths, settings: Settings) -> Delivery:
    """What delivers for the host `nas`."""
    return delivery(paths, settings)


def test_a_worker_that_was_frozen_cannot_bring_an_old_one_back(
    found: Delivery, paths: Paths, ca: SmallCA
) -> None:
    """Meanwhile another one installed and served a newer certificate; its record stays too."""
    fail_once(found, paths, ca)
    waiting = found.waiting(wanted(paths, ca.root), wall_s())
    assert waiting is not None
    (paths.home / "mended").touch()
    third = install(found, ca)
    with pytest.raises(NotFoundError, match="has replaced"):
        found.deliver_again(waiting)
    with pytest.raises(NotFoundError, match="has replaced"):
        found.store.rollback("v0001", instead_of="v0002")
    assert live(found) == "v0003"
    assert (found.report().serial, found.report().state) == (third.serial, "installed")


def test_a_frozen_worker_that_fails_late_leaves_the_other_ones_record_alone(
    found: Delivery, paths: Paths, ca: SmallCA, settings: Settings
) -> None:
    """It thaws in the middle of its hooks, and what it has to say is about the past."""
    install(found, ca)
    other = delivery(paths, settings)
    hook(paths, "exit 1")
    original = found.hooks.run

    def run(stage: str, *rest: object, **more: object) -> object:
        runs = original(stage, *rest, **more)  # type: ignore[arg-type]  # as it came
        if stage == "deploy" and live(found) == "v0002":
            hook(paths, "exit 0")
            install(other, ca)
        return runs

    found.hooks.run = run  # type: ignore[method-assign,assignment]  # the moment of the thaw
    assert install(found, ca).state == "failed"
    assert live(found) == "v0003"
    assert other.report().state == "installed"


@pytest.mark.faults
def test_defect_18_a_delivery_again_that_is_killed_at_any_step_leaves_a_whole_pair(
    tmp_path: Path, ca: SmallCA
) -> None:
    """Torn pairs, and a second attempt that finds nothing to go back to (row 6)."""
    deaths: list[str] = []
    while True:
        store = CertificateStore(tmp_path / str(len(deaths)), "nas")
        for _ in range(2):
            store.install(ca.sign(store.prepare(), "nas"), ca.issuing, ca.root)
        store.rollback("v0001")
        name = die_while_bringing_forward(store, "v0002", len(deaths))
        found = store.live()
        assert found is not None
        assert found.version == ("v0001" if name else "v0002")
        link = store.live_link
        assert key_pem_matches((link / "key.pem").read_bytes(), (link / "cert.pem").read_bytes())
        store.bring_forward("v0002")
        assert store.previous() == "v0001"
        if not name:
            break
        deaths.append(name)
    assert deaths == ["previous staged", "previous swapped", "live staged", "live swapped"]


def die_while_bringing_forward(store: CertificateStore, version: str, deadly: int) -> str:
    """Return the step at which the process died, or an empty text when it lived."""
    result = subprocess.run(
        [sys.executable, VICTIM, store.directory.parent, str(deadly), version],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=REPOSITORY,
        env={"PYTHONPATH": str(REPOSITORY)},
    )
    if result.returncode == 0:
        return ""
    assert result.returncode == -signal.SIGKILL, result.stderr
    return result.stdout.strip()


def test_a_delivery_again_that_was_cut_short_is_finished_at_the_next_start(
    found: Delivery, paths: Paths, ca: SmallCA, settings: Settings
) -> None:
    """Killed between the swap and the hooks, as with a new certificate."""
    fail_once(found, paths, ca)
    (paths.home / "mended").touch()
    found.store.bring_forward("v0002")
    fresh = delivery(paths, settings)
    fresh.settle()
    assert (fresh.report().state, live(fresh)) == ("installed", "v0002")
    (paths.home / "mended").unlink()
    found.store.rollback("v0001")
    found.store.bring_forward("v0002")
    (found.store.directory / "delivery.json").unlink()
    delivery(paths, settings).settle()
    assert live(fresh) == "v0001"


@pytest.mark.parametrize("again", [False, True], ids=["a new one", "one delivered again"])
def test_a_worker_that_starts_leaves_a_delivery_alone_that_another_is_at(
    found: Delivery, paths: Paths, ca: SmallCA, settings: Settings, *, again: bool
) -> None:
    """Its hooks are running: not cut short, and a second reload at the same time helps nobody."""
    fail_once(found, paths, ca)
    hook(paths, "echo ran >> runs; while ! test -e go; do sleep 0.02; done")
    waiting = found.waiting(wanted(paths, ca.root), wall_s())
    assert waiting is not None
    leaf = ca.sign(found.store.prepare(), "nas")

    def deliver() -> None:
        if again:
            found.deliver_again(waiting)
        else:
            found.install(leaf, ca.issuing, ca.root)

    worker = threading.Thread(target=deliver)
    worker.start()
    try:
        eventually((paths.home / "runs").exists)
        (late := threading.Timer(0.5, (paths.home / "go").touch)).start()
        delivery(paths, settings).settle()
        late.join()
    finally:
        (paths.home / "go").touch()
        worker.join(10)
    assert (paths.home / "runs").read_text().split() == ["ran"]
    assert found.report().state == "installed"


def test_while_hooks_run_another_worker_reports_the_certificate_before(
    found: Delivery, paths: Paths, ca: SmallCA, settings: Settings
) -> None:
    """Or each attempt would tell of a recovery, in the journal too, and then of a failure again."""
    fail_once(found, paths, ca)
    failed = found.report()
    other = delivery(paths, settings)
    found.store.bring_forward("v0002")
    assert other.report() == failed
    found.store.rollback("v0001")
    assert other.report() == failed


def test_a_certificate_before_that_has_expired_is_not_reported_any_more(
    paths: Paths, ca: SmallCA, settings: Settings
) -> None:
    """The doors have to open with the new one, whatever the hooks are at."""
    found = delivery(paths, settings)
    clock = now() - 2 * DAY
    install(found, ca, starts=clock, lasts=3 * DAY)
    second = found.store.install(ca.sign(found.store.prepare(), "nas"), ca.issuing, ca.root)
    assert found.report().serial != second.serial
    version = found.store.directory / "v0001"
    leaf = ca.sign(csr_of(version / "key.pem"), "nas", starts=clock, lasts=DAY)
    record = json.loads((found.store.directory / "delivery.json").read_bytes())
    record["serial"] = format(x509.load_der_x509_certificate(leaf).serial_number, "x")
    (found.store.directory / "delivery.json").write_text(json.dumps(record))
    (version / "cert.pem").write_bytes(pem(leaf))
    assert (found.report().serial, found.report().state) == (second.serial, "installed")


def csr_of(key: Path) -> bytes:
    """Return a request with the key of a file."""
    private = load_pem_private_key(key.read_bytes(), password=None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(private, hashes.SHA256()).public_bytes(Encoding.DER)
