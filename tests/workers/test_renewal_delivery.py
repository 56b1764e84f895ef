"""From a signed certificate to one that is served, or back to the one before."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cryptography import x509

from broker.errors import CSRRejectedError
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.work import Installed
from tests.workers.small_ca import DOMAIN, SmallCA
from workers.certstore import CertificateStore
from workers.renewal.delivery import Delivery
from workers.renewal.hook import PlainPause
from workers.renewal.hookset import HookSet
from workers.renewal.probe import Prober, Seen

Look = Callable[[str, str], Seen]
APP = "tcp://127.0.0.1:18743"


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """One CA is enough for all tests here."""
    return SmallCA()


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A file in which hooks leave their traces."""
    return tmp_path / "trace"


def delivery(
    paths: Paths, settings: Settings, look: Look | None = None, **policy: object
) -> Delivery:
    """Return what delivers for the host `nas`; with `look` there is one port to probe."""
    if look is not None:
        policy.setdefault("probe", (APP,))
    return Delivery(
        store=CertificateStore(paths.certificates, "nas"),
        hooks=HookSet(paths, settings, PlainPause()),
        prober=Prober(PlainPause(), wait_ms=600, look=look),
        policy=msgspec.structs.replace(settings.renewal, **policy),
        server_name=f"nas.{DOMAIN}",
    )


def install(found: Delivery, ca: SmallCA) -> Installed:
    """Deliver a fresh certificate."""
    leaf = ca.sign(found.store.prepare(), "nas")
    return found.install(leaf, ca.issuing, ca.root)


def hook(paths: Paths, name: str, text: str, **more: object) -> None:
    """Add a `[[hook]]` that runs a line of shell."""
    entry = {"name": name, "command": ["/bin/sh", "-c", text], **more}
    with paths.settings.open("a") as file:
        file.write("[[hook]]\n")
        file.writelines(f"{key} = {json.dumps(value)}\n" for key, value in entry.items())


def live(found: Delivery) -> str:
    """Return the serial that is live."""
    certificate = found.store.live()
    assert certificate is not None
    return certificate.serial


def test_without_hooks_and_probes_a_certificate_is_installed(
    paths: Paths, settings: Settings, ca: SmallCA
) -> None:
    """Nobody to ask whether it is served, and no claim that it is."""
    found = delivery(paths, settings)
    result = install(found, ca)
    assert (result.state, result.detail) == ("installed", "")
    assert live(found) == result.serial
    assert found.report().state == "installed"


def test_hooks_learn_everything_about_the_certificate(
    paths: Paths, settings: Settings, ca: SmallCA, trace: Path
) -> None:
    """The documented variables, and certbot's, so that its scripts work."""
    hook(paths, "web", f"env | sort > {trace}")
    found = delivery(paths, settings)
    result = install(found, ca)
    seen = dict(line.partition("=")[::2] for line in trace.read_text().splitlines())
    link = str(paths.certificates / "nas" / "live")
    assert seen["CERTMESH_EVENT"] == "issued"
    assert seen["CERTMESH_HOST"] == "nas"
    assert seen["CERTMESH_SERIAL"] == result.serial
    assert seen["CERTMESH_LIVE_DIR"] == seen["RENEWED_LINEAGE"] == link
    assert seen["CERTMESH_CERT"] == f"{link}/cert.pem"
    assert seen["CERTMESH_KEY"] == f"{link}/key.pem"
    assert seen["CERTMESH_CHAIN"] == f"{link}/chain.pem"
    assert seen["CERTMESH_FULLCHAIN"] == f"{link}/fullchain.pem"
    assert seen["RENEWED_DOMAINS"] == f"nas.{DOMAIN}"
    assert seen["CERTMESH_NOT_AFTER"].endswith("Z")
    assert seen["CERTMESH_DRY_RUN"] == ""


def test_the_second_certificate_is_a_renewal(
    paths: Paths, settings: Settings, ca: SmallCA, trace: Path
) -> None:
    """Hooks may care."""
    hook(paths, "web", f"echo $CERTMESH_EVENT >> {trace}")
    found = delivery(paths, settings)
    install(found, ca)
    install(found, ca)
    assert trace.read_text() == "issued\nrenewed\n"


def test_stages_run_around_the_swap(
    paths: Paths, settings: Settings, ca: SmallCA, trace: Path
) -> None:
    """Before it the old certificate is live, after it the new one."""
    for stage in ("pre", "deploy", "post"):
        script = paths.home / "hooks.d" / stage / "note"
        script.parent.mkdir(parents=True)
        script.write_text(f"#!/bin/sh\necho {stage} $(readlink $CERTMESH_LIVE_DIR) >> {trace}\n")
        script.chmod(0o700)
    found = delivery(paths, settings)
    install(found, ca)
    trace.unlink()
    install(found, ca)
    assert trace.read_text() == "pre v0001\ndeploy v0002\npost v0002\n"


def test_a_failed_pre_hook_stops_the_installation(
    paths: Paths, settings: Settings, ca: SmallCA
) -> None:
    """Nothing has changed yet, so nothing has to be put back."""
    found = delivery(paths, settings)
    first = install(found, ca)
    script = paths.home / "hooks.d" / "pre" / "check"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\nexit 1\n")
    script.chmod(0o700)
    with pytest.raises(CSRRejectedError, match="pre/check exit 1"):
        install(found, ca)
    assert live(found) == first.serial


def test_a_failed_hook_rolls_back_to_the_last_good_pair_and_runs_the_hooks_again(
    paths: Paths, settings: Settings, ca: SmallCA, trace: Path
) -> None:
    """The service must load the old pair again."""
    found = delivery(paths, settings)
    first = install(found, ca)
    hook(paths, "web", f"echo $CERTMESH_SERIAL >> {trace}; echo no key >&2; exit 1", retries=1)
    second = install(found, ca)
    assert second.state == "failed"
    assert 'hook web exit 1: "no key"' in second.detail
    assert f"rolled back to {first.serial[:16]}" in second.detail
    assert live(found) == first.serial
    assert trace.read_text().split() == [second.serial, second.serial, first.serial]


def test_a_failed_first_hook_keeps_the_only_certificate(
    paths: Paths, settings: Settings, ca: SmallCA
) -> None:
    """There is nothing to go back to."""
    hook(paths, "web", "exit 1")
    found = delivery(paths, settings)
    result = install(found, ca)
    assert result.state == "failed"
    assert live(found) == result.serial


def test_without_rollback_a_failed_hook_leaves_the_new_certificate_and_says_so(
    paths: Paths, settings: Settings, ca: SmallCA
) -> None:
    """`renewal.rollback = false`."""
    found = delivery(paths, settings, rollback=False)
    install(found, ca)
    hook(paths, "web", "exit 1")
    result = install(found, ca)
    assert result.state == "failed"
    assert live(found) == result.serial


def test_a_failure_is_reported_until_a_renewal_succeeds_also_by_the_next_process(
    paths: Paths, settings: Settings, ca: SmallCA
) -> None:
    """The CA keeps saying so until it is mended; a restart must not forget it."""
    install(delivery(paths, settings), ca)
    hook(paths, "web", f"test -e {paths.home}/mended")
    install(delivery(paths, settings), ca)
    report = delivery(paths, settings).report()
    assert (report.present, report.state) == (True, "failed")
    assert "hook web exit 1" in report.detail
    (paths.home / "mended").touch()
    install(delivery(paths, settings), ca)
    assert delivery(paths, settings).report().state == "installed"


def test_a_hung_hook_is_a_failed_hook(paths: Paths, settings: Settings, ca: SmallCA) -> None:
    """And the worker goes on."""
    found = delivery(paths, settings)
    first = install(found, ca)
    hook(
        paths,
        "web",
        f"readlink {found.store.live_link} | grep -q v0001 || sleep 60",
        timeout="300ms",
    )
    result = install(found, ca)
    assert "hook web timed out" in result.detail
    assert live(found) == first.serial


def test_a_failed_post_hook_is_told_but_goes_back_to_nothing(
    paths: Paths, settings: Settings, ca: SmallCA
) -> None:
    """The certificate is in service by then."""
    found = delivery(paths, settings)
    install(found, ca)
    script = paths.home / "hooks.d" / "post" / "mail"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\nexit 5\n")
    script.chmod(0o700)
    result = install(found, ca)
    assert (result.state, result.detail) == ("installed", "hook post/mail exit 5")
    assert live(found) == result.serial


def test_a_port_that_serves_the_new_certificate_makes_it_served(
    paths: Paths, settings: Settings, ca: SmallCA
) -> None:
    """The closed loop: seen from outside, not assumed."""
    answers: list[str] = []
    found = delivery(paths, settings, lambda _target, _name: Seen(answers.pop(0)))
    leaf = ca.sign(found.store.prepare(), "nas")
    serial = format(x509.load_der_x509_certificate(leaf).serial_number, "x")
    answers += ["", "0abc", serial]
    result = found.install(leaf, ca.issuing, ca.root)
    assert result.state == "served"
    assert answers == []


def test_a_port_that_goes_on_serving_the_old_certificate_rolls_back(
    paths: Paths, settings: Settings, ca: SmallCA
) -> None:
    """The reload did nothing: files and service would disagree."""
    first = install(delivery(paths, settings), ca)
    found = delivery(paths, settings, lambda _target, _name: Seen(first.serial))
    result = install(found, ca)
    assert result.state == "failed"
    assert f"still serves {first.serial[:16]}" in result.detail
    assert live(found) == first.serial


def test_a_stale_port_is_reported_as_stale_until_it_comes_round(
    paths: Paths, settings: Settings, ca: SmallCA
) -> None:
    """Without rollback the new files stay; the operator reloads by hand; the report follows."""
    served = ["old"]
    found = delivery(paths, settings, lambda _target, _name: Seen(served[0]), rollback=False)
    result = install(found, ca)
    assert (result.state, found.report().state) == ("stale", "stale")
    found.look_again()
    assert found.report().state == "stale"
    served[0] = result.serial
    found.look_again()
    assert found.report().state == "served"


def test_a_delivery_that_was_cut_short_is_finished_at_the_next_start(
    paths: Paths, settings: Settings, ca: SmallCA, trace: Path
) -> None:
    """Killed between the swap and the hooks: the service would go on with the old certificate.

    (row 6)
    """
    hook(paths, "web", f"echo $CERTMESH_EVENT $CERTMESH_SERIAL >> {trace}")
    found = delivery(paths, settings)
    install(found, ca)
    trace.unlink()
    store = found.store
    done = store.install(ca.sign(store.prepare(), "nas"), ca.issuing, ca.root)
    delivery(paths, settings).settle()
    delivery(paths, settings).settle()
    assert trace.read_text().splitlines() == [f"renewed {done.serial}"]


def test_settling_runs_the_hooks_of_a_first_certificate_that_join_installed(
    paths: Paths, settings: Settings, ca: SmallCA, trace: Path
) -> None:
    """Joining runs no hooks; the first start of the worker does."""
    hook(paths, "web", f"echo $CERTMESH_EVENT >> {trace}")
    found = delivery(paths, settings)
    found.store.install(ca.sign(found.store.prepare(), "nas"), ca.issuing, ca.root)
    found.settle()
    assert trace.read_text() == "issued\n"


def test_without_a_certificate_the_report_says_so(paths: Paths, settings: Settings) -> None:
    """The broker then knows that one is due."""
    report = delivery(paths, settings).report()
    assert (report.present, report.serial, report.state) == (False, "", "unknown")
