"""Certificates on disk: never a torn pair, never a key others can read."""

import signal
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from broker.cli.aside import PRIVATE
from broker.errors import (
    CSRRejectedError,
    MalformedMessageError,
    NameNotAllowedError,
    NotFoundError,
)
from broker.units import UnixSeconds
from tests.workers.small_ca import DAY, DOMAIN, SmallCA, key_pem_matches, now
from workers.certstore import CertificateStore, Installed
from workers.keypair import make_key_and_csr

REPOSITORY = Path(__file__).parents[2]
VICTIM = Path(__file__).with_name("certstore_victim.py")


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """One CA is enough for all tests here."""
    return SmallCA()


@pytest.fixture
def store(tmp_path: Path) -> CertificateStore:
    """An empty store for one host."""
    return CertificateStore(tmp_path / "certs", "nas", keep=3)


def install(store: CertificateStore, ca: SmallCA) -> Installed:
    """Install a fresh certificate the ordinary way."""
    leaf = ca.sign(store.prepare(), store.host)
    return store.install(leaf, ca.issuing, ca.root)


def live_pair_matches(store: CertificateStore) -> bool:
    """Read what `live` points at the way a web server does, without the store's own checks."""
    link = store.live_link
    return key_pem_matches((link / "key.pem").read_bytes(), (link / "cert.pem").read_bytes())


def test_an_installed_certificate_is_live_and_its_pair_matches(
    store: CertificateStore, ca: SmallCA
) -> None:
    """The main path."""
    done = install(store, ca)
    live = store.live()
    assert live is not None
    assert (live.version, live.serial) == ("v0001", done.serial)
    assert live.sans == (f"nas.{DOMAIN}", "127.0.0.1")
    assert str(store.live_link.readlink()) == "v0001"
    assert live_pair_matches(store)
    assert not store.pending.exists()


def test_the_files_are_the_ones_consumers_expect(store: CertificateStore, ca: SmallCA) -> None:
    """Web servers want leaf + issuing, curl wants issuing + root, HAProxy all in one file."""
    install(store, ca)
    parts = {
        name: (store.live_link / f"{name}.pem").read_text()
        for name in ("cert", "key", "privkey", "chain", "fullchain", "combined")
    }
    assert parts["chain"].endswith(ca.root_pem)
    assert parts["fullchain"].startswith(parts["cert"])
    assert parts["combined"] == parts["key"] + parts["fullchain"]
    assert parts["privkey"] == parts["key"]
    assert parts["fullchain"].count("BEGIN") == 2


def test_whoever_leaves_the_mesh_removes_every_file_with_a_key(
    store: CertificateStore, ca: SmallCA
) -> None:
    """A new form of the files must not survive in what `leave` sets aside."""
    install(store, ca)
    files = store.live_link.resolve().iterdir()
    assert {file.name for file in files if b"PRIVATE KEY" in file.read_bytes()} == PRIVATE


def test_nothing_in_the_store_is_open_to_others(store: CertificateStore, ca: SmallCA) -> None:
    """Keys lie here."""
    install(store, ca)
    store.prepare()
    for path in [store.directory.parent, *store.directory.parent.rglob("*")]:
        if not path.is_symlink():
            wanted = 0o700 if path.is_dir() else 0o600
            assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_the_same_certificate_again_changes_nothing(store: CertificateStore, ca: SmallCA) -> None:
    """A worker killed after the swap gets the same work again."""
    leaf = ca.sign(store.prepare(), "nas")
    first = store.install(leaf, ca.issuing, ca.root)
    again = store.install(leaf, ca.issuing, ca.root)
    assert first.changed
    assert not again.changed
    assert again.version == first.version == "v0001"


def test_a_second_installation_remembers_the_version_to_go_back_to(
    store: CertificateStore, ca: SmallCA
) -> None:
    """Rollback needs the last good pair, also after a repeat of the installation."""
    install(store, ca)
    leaf = ca.sign(store.prepare(), "nas")
    assert store.install(leaf, ca.issuing, ca.root).previous == "v0001"
    assert store.install(leaf, ca.issuing, ca.root).previous == "v0001"


def test_rollback_makes_the_earlier_pair_live_again(store: CertificateStore, ca: SmallCA) -> None:
    """What ran before runs again."""
    first = install(store, ca)
    second = install(store, ca)
    assert store.rollback(second.previous).serial == first.serial
    assert str(store.live_link.readlink()) == "v0001"
    assert live_pair_matches(store)


def test_after_a_rollback_the_next_version_goes_back_to_the_good_one(
    store: CertificateStore, ca: SmallCA
) -> None:
    """The version that failed must never be what a later failure returns to."""
    install(store, ca)
    second = install(store, ca)
    store.rollback(second.previous)
    third = install(store, ca)
    assert (third.version, third.previous) == ("v0003", "v0001")


def test_rollback_to_an_expired_pair_is_refused(tmp_path: Path, ca: SmallCA) -> None:
    """An expired certificate is worse than a hook that failed."""
    clock = [UnixSeconds(int(now().timestamp()))]
    store = CertificateStore(tmp_path, "nas", now=lambda: clock[0])
    leaf = ca.sign(store.prepare(), "nas", lasts=2 * DAY)
    store.install(leaf, ca.issuing, ca.root)
    second = install(store, ca)
    clock[0] = UnixSeconds(clock[0] + int((3 * DAY).total_seconds()))
    with pytest.raises(CSRRejectedError, match="expired"):
        store.rollback(second.previous)
    assert str(store.live_link.readlink()) == "v0002"


@pytest.mark.parametrize("version", ["v0009", "", "../../etc", "pending"])
def test_rollback_to_what_is_no_version_is_refused(
    store: CertificateStore, ca: SmallCA, version: str
) -> None:
    """The name goes into a link."""
    install(store, ca)
    with pytest.raises(NotFoundError):
        store.rollback(version)


def test_old_versions_go_but_never_the_live_or_the_previous_one(
    store: CertificateStore, ca: SmallCA
) -> None:
    """Keys that nobody uses should not lie around."""
    install(store, ca)
    install(store, ca)
    store.rollback("v0001")
    for _ in range(5):
        install(store, ca)
        store.rollback("v0001")
    names = {entry.name for entry in store.directory.iterdir() if entry.name.startswith("v")}
    assert "v0001" in names
    assert len(names) == 4


def test_a_certificate_for_another_key_is_refused(store: CertificateStore, ca: SmallCA) -> None:
    """A frozen worker's certificate must not meet the key of the worker that took over."""
    first = install(store, ca)
    _, foreign = make_key_and_csr("nas")
    store.prepare()
    with pytest.raises(CSRRejectedError, match="does not belong to the key"):
        store.install(ca.sign(foreign, "nas"), ca.issuing, ca.root)
    live = store.live()
    assert live is not None
    assert live.serial == first.serial
    assert store.pending.exists()


def test_a_certificate_of_a_foreign_ca_is_refused(store: CertificateStore, ca: SmallCA) -> None:
    """The chain must end at the pinned root, whatever came with the leaf."""
    other = SmallCA("evil")
    leaf = other.sign(store.prepare(), "nas")
    with pytest.raises(CSRRejectedError, match="pinned root"):
        store.install(leaf, other.issuing, ca.root)
    assert store.live() is None


def test_an_issuing_certificate_that_did_not_sign_the_leaf_is_refused(
    store: CertificateStore, ca: SmallCA
) -> None:
    """Fullchain.pem would be useless."""
    leaf = ca.sign(store.prepare(), "nas")
    with pytest.raises(CSRRejectedError, match="pinned root"):
        store.install(leaf, SmallCA().issuing, ca.root)


def test_a_certificate_for_another_host_is_refused(store: CertificateStore, ca: SmallCA) -> None:
    """A name mix-up at the CA must not take the service down."""
    leaf = ca.sign(store.prepare(), "pi")
    with pytest.raises(CSRRejectedError, match=r"it names pi, pi\.test\.internal"):
        store.install(leaf, ca.issuing, ca.root)


@pytest.mark.parametrize(
    ("starts", "lasts", "words"),
    [(-3 * DAY, DAY, "expired"), (timedelta(hours=1), DAY, "becomes valid only in")],
)
def test_a_certificate_that_is_not_valid_now_is_refused(
    store: CertificateStore, ca: SmallCA, starts: timedelta, lasts: timedelta, words: str
) -> None:
    """Installing it would take the service down."""
    leaf = ca.sign(store.prepare(), "nas", starts=now() + starts, lasts=lasts)
    with pytest.raises(CSRRejectedError, match=words):
        store.install(leaf, ca.issuing, ca.root)
    assert store.live() is None


@pytest.mark.parametrize("octets", [b"", b"\x30\x03\x02\x01\x01", b"-----BEGIN"])
def test_octets_that_are_no_certificate_are_malformed(
    store: CertificateStore, ca: SmallCA, octets: bytes
) -> None:
    """They come over the network."""
    store.prepare()
    with pytest.raises(MalformedMessageError):
        store.install(octets, ca.issuing, ca.root)


def test_without_a_waiting_key_nothing_is_installed(store: CertificateStore, ca: SmallCA) -> None:
    """Its key may have been replaced or never made here."""
    _, csr = make_key_and_csr("nas")
    with pytest.raises(NotFoundError, match="no key"):
        store.install(ca.sign(csr, "nas"), ca.issuing, ca.root)


def test_a_retry_reuses_the_waiting_key_while_it_is_young(tmp_path: Path) -> None:
    """The CA answers the same key with the same certificate."""
    clock = [UnixSeconds(int(now().timestamp()))]
    store = CertificateStore(tmp_path, "nas", now=lambda: clock[0])
    first = store.prepare(reuse_s=600)
    assert store.prepare(reuse_s=600) == first
    assert store.prepare(("nas.local",), reuse_s=600) != first
    assert store.prepare() != first
    second = store.prepare(reuse_s=600)
    clock[0] = UnixSeconds(clock[0] + 601)
    assert store.prepare(reuse_s=600) != second


def test_a_certificate_for_an_older_key_leaves_the_newer_waiting_key_alone(
    store: CertificateStore, ca: SmallCA
) -> None:
    """A repeated delivery must not destroy the key of the next renewal."""
    leaf = ca.sign(store.prepare(), "nas")
    store.install(leaf, ca.issuing, ca.root)
    newer = store.prepare()
    store.install(leaf, ca.issuing, ca.root)
    assert store.prepare(reuse_s=600) == newer


@pytest.mark.parametrize("host", ["", "a/b", "..", "a\nb", "*.x", "A", "x" * 64, "a." * 127 + "a"])
def test_a_host_name_that_could_leave_the_directory_is_refused(tmp_path: Path, host: str) -> None:
    """Reference defect 25: host names with slashes escaped the directory as root (row 45)."""
    with pytest.raises(NameNotAllowedError):
        CertificateStore(tmp_path, host)


def test_a_live_link_to_a_torn_pair_counts_as_no_certificate(
    store: CertificateStore, ca: SmallCA
) -> None:
    """Somebody may have edited the files; a listener built from them would break."""
    install(store, ca)
    key, _ = make_key_and_csr("nas")
    (store.live_link / "key.pem").write_bytes(key)
    assert store.live() is None


@pytest.mark.faults
@pytest.mark.parametrize("renewal", [False, True], ids=["first", "renewal"])
def test_defect_18_files_are_never_a_torn_pair_whatever_step_the_process_is_killed_at(
    tmp_path: Path, ca: SmallCA, *, renewal: bool
) -> None:
    """Reference defect 18: four plain writes, torn pairs, a readable key in between.

    (rows 6, 12)
    """
    deaths: list[str] = []
    while True:
        store = CertificateStore(tmp_path / str(len(deaths)), "nas")
        old = install(store, ca).serial if renewal else None
        leaf = ca.sign(store.prepare(), "nas")
        name = die_while_installing(store, (leaf, ca.issuing, ca.root), len(deaths))
        check_survivor(store, old, leaf, ca)
        if not name:
            break
        deaths.append(name)
    assert {"version named", "live staged", "live swapped", "pending removed"} <= set(deaths)
    assert len(deaths) == (12 if renewal else 10)


def die_while_installing(store: CertificateStore, ders: tuple[bytes, ...], deadly: int) -> str:
    """Return the step at which the installing process died, or an empty text when it lived."""
    result = subprocess.run(
        [sys.executable, VICTIM, store.directory.parent, str(deadly)],
        input="\n".join(der.hex() for der in ders),
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


def check_survivor(store: CertificateStore, old: str | None, leaf: bytes, ca: SmallCA) -> None:
    """Check what is on disk after a death, then that the repeated work ends well."""
    live = store.live()
    assert (live.serial if live else None) in {old, format(serial(leaf), "x")}
    if live is not None:
        assert live_pair_matches(store)
    if (live.serial if live else None) == old:
        assert store.pending.exists(), "the key went before its certificate was live"
    for path in store.directory.rglob("*.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    store.install(leaf, ca.issuing, ca.root)
    found = store.live()
    assert found is not None
    assert found.serial == format(serial(leaf), "x")
    assert live_pair_matches(store)
    assert not store.pending.exists()


def serial(leaf: bytes) -> int:
    """Return the serial number of a DER certificate."""
    return x509.load_der_x509_certificate(leaf).serial_number
