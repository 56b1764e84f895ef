"""A certificate that failed to come into service is delivered again, and no other is asked for."""

import json
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from broker.clock import wall_s
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.units import UnixSeconds
from broker.wire.work import Installed
from tests.workers.small_ca import DAY, DOMAIN, SmallCA, now
from workers.certstore import CertificateStore
from workers.renewal.delivery import Delivery
from workers.renewal.held import Wanted, held_of
from workers.renewal.hook import PlainPause
from workers.renewal.hookset import HookSet
from workers.renewal.probe import Prober, Seen

BREAK = "test -e mended || test $(readlink $CERTMESH_LIVE_DIR) = v0001"


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """One CA is enough for all tests here."""
    return SmallCA()


@pytest.fixture
def found(paths: Paths, settings: Settings) -> Delivery:
    """What delivers for the host `nas`."""
    return delivery(paths, settings)


def delivery(paths: Paths, settings: Settings, **policy: object) -> Delivery:
    """Return what delivers for `nas`; `policy` replaces fields of `[renewal]`."""
    return Delivery(
        store=CertificateStore(paths.certificates, "nas"),
        hooks=HookSet(paths, settings, PlainPause()),
        prober=Prober(PlainPause()),
        policy=msgspec.structs.replace(settings.renewal, **policy),
        server_name=f"nas.{DOMAIN}",
    )


def wanted(paths: Paths, *roots: bytes) -> Wanted:
    """Return what a certificate has to be like under these roots."""
    return Wanted(roots, (f"nas.{DOMAIN}",), 0.667, paths.trust / "crl.pem")


def install(found: Delivery, ca: SmallCA, **signed: object) -> Installed:
    """Deliver a fresh certificate."""
    leaf = ca.sign(found.store.prepare(), "nas", **signed)  # type: ignore[arg-type]  # any of them
    return found.install(leaf, ca.issuing, ca.root)


def live(found: Delivery) -> str:
    """Return the version that is live."""
    return str(found.store.live_link.readlink())


def hook(paths: Paths, text: str) -> None:
    """Make a line of shell the only hook; it runs in the home."""
    command = ["/bin/sh", "-c", f"cd {paths.home}; {text}"]
    entry = f'[[hook]]\nname = "web"\ncommand = {json.dumps(command)}\n'
    before = paths.settings.read_text().partition("[[hook]]")[0]
    paths.settings.write_text(before + entry)


def fail_once(found: Delivery, paths: Paths, ca: SmallCA, **signed: object) -> Installed:
    """Install a good certificate, then one whose hook fails."""
    install(found, ca)
    hook(paths, BREAK)
    return install(found, ca, **signed)


def test_after_a_rollback_the_new_certificate_waits_on_disk(
    found: Delivery, paths: Paths, ca: SmallCA
) -> None:
    """It is as good as new: only the hook was broken."""
    failed = fail_once(found, paths, ca)
    assert live(found) == "v0001"
    waiting = found.waiting(wanted(paths, ca.root), wall_s())
    assert waiting is not None
    assert (waiting.version, waiting.serial) == ("v0002", failed.serial)


def test_defect_15_a_hook_that_fails_for_days_costs_no_certificates(
    found: Delivery, paths: Paths, ca: SmallCA
) -> None:
    """Each attempt brings the same one: the CA has nothing to sign, and nothing to revoke later."""
    failed = fail_once(found, paths, ca)
    details = set()
    for _ in range(4):
        waiting = found.waiting(wanted(paths, ca.root), wall_s())
        assert waiting is not None
        again = found.deliver_again(waiting)
        assert (again.serial, again.state) == (failed.serial, "failed")
        details.add(again.detail)
        report = found.report()
        assert (report.state, report.detail) == ("failed", again.detail)
        assert live(found) == "v0001"
    assert details == {failed.detail}
    assert found.store.versions() == ["v0001", "v0002"]


def test_when_the_hook_is_mended_the_next_attempt_serves(
    found: Delivery, paths: Paths, ca: SmallCA, settings: Settings
) -> None:
    """Also by a process that knows nothing but the disk."""
    failed = fail_once(found, paths, ca)
    (paths.home / "mended").touch()
    other = delivery(paths, settings)
    waiting = other.waiting(wanted(paths, ca.root), wall_s())
    assert waiting is not None
    done = other.deliver_again(waiting)
    assert (done.serial, done.state, done.detail) == (failed.serial, "installed", "")
    assert live(found) == "v0002"
    assert (found.report().state, found.report().serial) == ("installed", failed.serial)
    assert other.waiting(wanted(paths, ca.root), wall_s()) is None


def test_a_delivery_again_runs_all_stages_as_a_renewal(
    found: Delivery, paths: Paths, ca: SmallCA
) -> None:
    """What `pre` stops and `post` starts belongs to every attempt."""
    fail_once(found, paths, ca)
    trace = paths.home / "trace"
    for stage in ("pre", "deploy", "post"):
        script = paths.home / "hooks.d" / stage / "note"
        script.parent.mkdir(parents=True)
        script.write_text(
            f"#!/bin/sh\necho {stage} $CERTMESH_EVENT $(readlink $CERTMESH_LIVE_DIR) >> {trace}\n"
        )
        script.chmod(0o700)
    (paths.home / "mended").touch()
    waiting = found.waiting(wanted(paths, ca.root), wall_s())
    assert waiting is not None
    found.deliver_again(waiting)
    assert trace.read_text() == "pre renewed v0001\ndeploy renewed v0002\npost renewed v0002\n"


def test_a_first_certificate_whose_hook_fails_is_tried_again_where_it_is(
    found: Delivery, paths: Paths, ca: SmallCA
) -> None:
    """There is nothing to go back to; it stays live, and its hooks run until they succeed."""
    hook(paths, "test -e mended && echo $CERTMESH_EVENT > told")
    first = install(found, ca)
    assert first.state == "failed"
    for _ in range(2):
        waiting = found.waiting(wanted(paths, ca.root), wall_s())
        assert waiting is not None
        assert found.deliver_again(waiting).state == "failed"
    (paths.home / "mended").touch()
    waiting = found.waiting(wanted(paths, ca.root), wall_s())
    assert waiting is not None
    assert found.deliver_again(waiting).state == "installed"
    assert (paths.home / "told").read_text() == "issued\n"
    assert found.waiting(wanted(paths, ca.root), wall_s()) is None


def test_without_rollback_a_port_that_lags_is_tried_again_too(
    paths: Paths, settings: Settings, ca: SmallCA
) -> None:
    """A second reload may do what the first did not."""
    found = delivery(paths, settings, rollback=False, probe=("tcp://127.0.0.1:1",))
    served = ["old"]
    found.prober = Prober(PlainPause(), wait_ms=0, look=lambda *_: Seen(served[0]))
    install(found, ca)
    second = install(found, ca)
    assert second.state == "stale"
    waiting = found.waiting(wanted(paths, ca.root), wall_s())
    assert waiting is not None
    assert waiting.version == "v0002"
    served[0] = second.serial
    assert found.deliver_again(waiting).state == "served"


def test_a_good_certificate_is_not_delivered_again(
    found: Delivery, paths: Paths, ca: SmallCA
) -> None:
    """Nor are those that were retired: they are older."""
    install(found, ca)
    install(found, ca)
    assert found.waiting(wanted(paths, ca.root), wall_s()) is None


def test_an_operator_who_asks_for_a_new_one_gets_the_held_one_only_while_it_is_young(
    found: Delivery, paths: Paths, ca: SmallCA
) -> None:
    """Typing the command ten times at a broken hook must not cost ten certificates either."""
    fail_once(found, paths, ca, starts=now() - timedelta(seconds=100))
    fresh = replace(wanted(paths, ca.root), young_s=600)
    assert found.waiting(fresh, wall_s()) is not None
    assert found.waiting(replace(fresh, young_s=30), wall_s()) is None


def test_an_operator_who_asks_for_a_new_one_does_not_mean_the_live_one(
    found: Delivery, paths: Paths, ca: SmallCA
) -> None:
    """`cert renew` waits for another serial."""
    hook(paths, "exit 1")
    install(found, ca, starts=now() - timedelta(seconds=100))
    assert found.waiting(wanted(paths, ca.root), wall_s()) is not None
    assert found.waiting(replace(wanted(paths, ca.root), young_s=600), wall_s()) is None


def test_one_that_is_due_itself_is_not_worth_another_attempt(
    found: Delivery, paths: Paths, ca: SmallCA
) -> None:
    """After weeks with a broken hook a new certificate is due all the same."""
    fail_once(found, paths, ca, starts=now(), lasts=3 * DAY)
    assert held_of(found.store, wanted(paths, ca.root), wall_s()) is not None
    later = UnixSeconds(wall_s() + int(timedelta(days=2, minutes=10).total_seconds()))
    assert held_of(found.store, wanted(paths, ca.root), later) is None


def test_one_of_another_ca_or_with_other_roots_beside_it_is_not_held(
    found: Delivery, paths: Paths, ca: SmallCA
) -> None:
    """While the CA is replaced the services need the new chain file, so a new certificate."""
    fail_once(found, paths, ca)
    other = SmallCA("next")
    assert held_of(found.store, wanted(paths, ca.root), wall_s()) is not None
    assert held_of(found.store, wanted(paths, ca.root, other.root), wall_s()) is None
    assert held_of(found.store, wanted(paths, other.root, ca.root), wall_s()) is None


def test_one_without_the_names_that_are_wanted_is_not_held(
    found: Delivery, paths: Paths, ca: SmallCA
) -> None:
    """The mesh may have given this host another name meanwhile."""
    fail_once(found, paths, ca)
    renamed = replace(wanted(paths, ca.root), sans=("nas2.test.internal",))
    assert held_of(found.store, renamed, wall_s()) is None


def test_one_whose_signature_does_not_verify_is_not_held(
    found: Delivery, paths: Paths, ca: SmallCA
) -> None:
    """The disk is not believed: the chain is verified as at the installation."""
    fail_once(found, paths, ca)
    chain = found.store.directory / "v0002" / "chain.pem"
    chain.write_text(chain.read_text().split("-----END", 1)[0] + "-----END CERTIFICATE-----\n")
    assert held_of(found.store, wanted(paths, ca.root), wall_s()) is None
    impostor = SmallCA("test")
    issuing = x509.load_der_x509_certificate(impostor.issuing).public_bytes(Encoding.PEM)
    chain.write_bytes(issuing + ca.root_pem.encode())
    assert held_of(found.store, wanted(paths, ca.root), wall_s()) is None


def test_one_with_another_key_is_not_held(found: Delivery, paths: Paths, ca: SmallCA) -> None:
    """Never a torn pair, whoever edited the files."""
    fail_once(found, paths, ca)
    version = found.store.directory / "v0002"
    version.joinpath("key.pem").write_bytes((version.parent / "v0001" / "key.pem").read_bytes())
    assert held_of(found.store, wanted(paths, ca.root), wall_s()) is None


def test_one_that_a_revocation_list_names_is_not_held(
    found: Delivery, paths: Paths, ca: SmallCA
) -> None:
    """Serving it would be refused everywhere; a list that cannot be read names nobody."""
    failed = fail_once(found, paths, ca)
    paths.trust.mkdir()
    lists = paths.trust / "crl.pem"
    lists.write_bytes(b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
    assert held_of(found.store, wanted(paths, ca.root), wall_s()) is not None
    lists.write_bytes(lists.read_bytes() + crl(ca, 7) + crl(ca, int(failed.serial, 16)))
    assert held_of(found.store, wanted(paths, ca.root), wall_s()) is None


def crl(ca: SmallCA, serial: int) -> bytes:
    """Return a revocation list (PEM) with one serial."""
    entry = x509.RevokedCertificateBuilder(serial, now().replace(tzinfo=None)).build()
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(x509.load_der_x509_certificate(ca.issuing).subject)
        .last_update(now())
        .next_update(now() + DAY)
        .add_revoked_certificate(entry)
    )
    return builder.sign(ca.issuing_key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_of_several_that_failed_the_newest_is_held(
    found: Delivery, paths: Paths, ca: SmallCA
) -> None:
    """The CA knows that one as the current one."""
    fail_once(found, paths, ca)
    third = install(found, ca)
    held = held_of(found.store, wanted(paths, ca.root), wall_s())
    assert held is not None
    assert (held.version, held.serial) == ("v0003", third.serial)


def test_the_held_one_is_never_pruned(found: Delivery, paths: Paths, ca: SmallCA) -> None:
    """However often other renewals failed before it."""
    found.store = CertificateStore(paths.certificates, "nas", keep=2)
    fail_once(found, paths, ca)
    latest = [install(found, ca).serial for _ in range(4)][-1]
    held = held_of(found.store, wanted(paths, ca.root), wall_s())
    assert held is not None
    assert held.serial == latest
    assert live(found) == "v0001"
