"""Trust stores, all of them below a temporary directory: the machine's own are never touched.

`update-ca-certificates` is the real one where the machine has it, run on injected paths. `certutil`
is a small stand-in that keeps its database in a directory.
"""

import hashlib
import os
import shutil
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from broker.cli.truststore.anchor import anchors_of, fingerprints
from broker.cli.truststore.debian import system_store
from broker.cli.truststore.nss import nss_stores
from broker.cli.truststore.store import ROOT_VARIABLE
from broker.errors import PinMismatchError
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.wire.node import Membership
from tests.cli.command import Certmesh
from tests.cli.views import membership
from tests.workers.tls_lab import Lab

CERTUTIL = """#!/bin/sh
# certutil VERB -d sql:DIR [-a] [-n NAME] [-t FLAGS]
verb=$1; directory=${3#sql:}; shift 3
while [ $# -gt 0 ]; do
    case $1 in -n) name=$2; shift;; -t) flags=$2; shift;; esac
    shift
done
test -e "$directory/locked" && { echo "certutil: database is locked" >&2; exit 255; }
case "$verb$name" in
    -L) echo "Certificate Nickname   Trust Attributes"; echo
        for file in "$directory"/*.held; do
            test -e "$file" && echo "$(basename "$file" .held)   C,,"
        done; exit 0;;
    -L*) cat "$directory/$name.held";;
    -A*) cat > "$directory/$name.held"; echo "$flags" > "$directory/$name.flags";;
    -D*) rm "$directory/$name.held";;
esac
"""
REAL_PLACES = (Path("/usr/local/share/ca-certificates"), Path("/etc/ssl/certs"))


def pin_of(pem: str) -> str:
    """Return the SHA-256 of a certificate."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


class Machine:
    """A machine in a directory: its system store, a home with two NSS databases."""

    def __init__(self, root: Path, paths: Paths) -> None:
        self.root, self.paths = root, paths
        self.lab = Lab()
        self.pin = pin_of(self.lab.root_pem)
        self.name = f"certmesh-home-{self.pin[:8]}"
        self.local = root / "usr/local/share/ca-certificates"
        self.file = self.local / f"{self.name}.crt"
        self.bundle = root / "etc/ssl/certs/ca-certificates.crt"
        self.shared = root / "home/.pki/nssdb"
        self.firefox = root / "home/.mozilla/firefox/ab12.default"
        self.remember(replace(membership(), pin=self.pin, root_pem=self.lab.root_pem))

    def remember(self, told: Membership) -> None:
        """Let the node belong to this mesh."""
        self.paths.membership.write_bytes(msgspec.json.encode(told))

    def browsers(self, bin_directory: Path | None) -> None:
        """Make the databases, and `certutil` in a directory of the search path."""
        for database in (self.shared, self.firefox):
            database.mkdir(parents=True)
            (database / "cert9.db").touch()
        if bin_directory is not None:
            bin_directory.mkdir()
            tool = bin_directory / "certutil"
            tool.write_text(CERTUTIL)
            tool.chmod(0o755)

    def some_public_root(self) -> str:
        """Put a root into the store that came with the system; return its fingerprint."""
        pem = Lab("public").root_pem
        share = self.root / "usr/share/ca-certificates"
        share.mkdir(parents=True)
        (share / "public.crt").write_text(pem)
        (self.root / "etc").mkdir()
        (self.root / "etc/ca-certificates.conf").write_text("public.crt\n")
        return pin_of(pem)

    @property
    def bundled(self) -> frozenset[str]:
        """What every program that reads the bundle trusts."""
        return fingerprints(self.bundle.read_text()) if self.bundle.exists() else frozenset()


@pytest.fixture
def machine(home: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine without browsers; afterwards the real stores are as they were."""
    before = [snapshot(place) for place in REAL_PLACES]
    monkeypatch.setenv(ROOT_VARIABLE, str(home / "machine"))
    monkeypatch.setenv("PATH", f"{home / 'bin'}:/usr/sbin:/usr/bin:/bin")
    yield Machine(home / "machine", paths)
    assert [snapshot(place) for place in REAL_PLACES] == before


def snapshot(place: Path) -> list[tuple[str, int]]:
    """Return names and times of everything in a directory."""
    if not place.exists():
        return []
    return sorted((entry.name, entry.lstat().st_mtime_ns) for entry in place.iterdir())


needs_tool = pytest.mark.skipif(
    shutil.which("update-ca-certificates", path="/usr/sbin:/usr/bin") is None,
    reason="no update-ca-certificates here",
)


@needs_tool
def test_the_root_goes_into_the_file_and_the_bundle_and_out_again(
    machine: Machine, certmesh: Certmesh
) -> None:
    """What the system's tools read is the bundle, so that is what counts."""
    public = machine.some_public_root()
    said = certmesh("trust", "status", "--store", "system", "--json")
    assert (said.status, said.body["stores"][0]["state"]) == (Exit.ATTENTION, "missing")
    said = certmesh("trust", "install", "--store", "system", "--yes", "--json")
    assert (said.status, said.body["stores"][0]["state"]) == (Exit.OK, "installed")
    assert (said.body["pin"], said.body["dry_run"]) == (machine.pin, False)
    assert machine.bundled == {machine.pin, public}
    assert stat.S_IMODE(machine.file.stat().st_mode) == 0o644
    assert certmesh("trust", "status", "--store", "system").status == Exit.OK
    said = certmesh("trust", "uninstall", "--store", "system", "--yes")
    assert said.status == Exit.OK
    assert not machine.file.exists()
    assert machine.bundled == {public}


@needs_tool
def test_uninstalling_leaves_every_other_certificate_where_it_is(
    machine: Machine, certmesh: Certmesh
) -> None:
    """The company's own root beside ours is not ours."""
    other = Lab("company").root_pem
    machine.local.mkdir(parents=True)
    (machine.local / "company.crt").write_text(other)
    assert certmesh("trust", "install", "--store", "system", "--yes").status == Exit.OK
    assert machine.bundled == {machine.pin, pin_of(other)}
    assert certmesh("trust", "uninstall", "--store", "system", "--yes").status == Exit.OK
    assert machine.bundled == {pin_of(other)}
    assert (machine.local / "company.crt").read_text() == other


@needs_tool
def test_what_has_our_name_and_is_not_our_root_stays(machine: Machine, certmesh: Certmesh) -> None:
    """Neither overwritten nor removed: a person has to look at it."""
    other = Lab("other").root_pem
    machine.local.mkdir(parents=True)
    machine.file.write_text(other)
    for verb in ("install", "uninstall"):
        said = certmesh("trust", verb, "--store", "system", "--yes", "--json")
        assert (said.status, said.body["stores"][0]["state"]) == (Exit.ATTENTION, "foreign")
        assert machine.file.read_text() == other


@needs_tool
def test_a_file_that_the_bundle_lacks_is_put_right(machine: Machine, certmesh: Certmesh) -> None:
    """Somebody copied it and never ran the tool: nothing trusts it."""
    machine.local.mkdir(parents=True)
    machine.file.write_text(machine.lab.root_pem)
    said = certmesh("trust", "status", "--store", "system", "--json")
    assert said.body["stores"][0]["state"] == "stale"
    assert certmesh("trust", "install", "--store", "system", "--yes").status == Exit.OK
    assert machine.bundled == {machine.pin}


def test_a_root_that_was_not_pinned_is_never_installed(
    machine: Machine, certmesh: Certmesh
) -> None:
    """Whoever can write the file must not become a CA of the whole machine."""
    machine.remember(replace(membership(), pin=machine.pin, root_pem=Lab("evil").root_pem))
    for verb in ("install", "status", "uninstall"):
        said = certmesh("trust", verb, "--yes", "--json")
        assert (said.status, said.body["code"]) == (Exit.REFUSED, "pin_mismatch")
    assert not machine.root.exists()


def test_two_certificates_in_the_file_are_not_one_root(machine: Machine) -> None:
    """The pinned one in front would otherwise carry a second one in."""
    both = machine.lab.root_pem + Lab("evil").root_pem
    with pytest.raises(PinMismatchError):
        anchors_of(replace(membership(), pin=machine.pin, root_pem=both))


def test_the_next_root_is_installed_too_while_the_ca_is_being_replaced(machine: Machine) -> None:
    """Programs of this machine have to trust both until the old one is retired."""
    following = Lab("next").root_pem
    told = replace(
        membership(), pin=machine.pin, root_pem=machine.lab.root_pem, other_roots=(following,)
    )
    assert [anchor.pin for anchor in anchors_of(told)] == [machine.pin, pin_of(following)]


def test_nobody_is_asked_twice_and_without_a_yes_nothing_happens(
    machine: Machine, certmesh: Certmesh
) -> None:
    """Without a terminal the missing flag is named."""
    said = certmesh("trust", "install", "--store", "system", "--no-input")
    assert said.status == Exit.USAGE
    assert "--yes" in said.err
    assert not machine.root.exists()


@needs_tool
def test_a_dry_run_writes_nothing(machine: Machine, certmesh: Certmesh) -> None:
    """It says what it would do, and needs no yes."""
    said = certmesh("trust", "install", "--store", "system", "--dry-run")
    assert said.status == Exit.OK
    assert f"would install: {machine.file}" in said.err
    assert not machine.root.exists()


def test_a_store_nobody_knows_is_wrong_usage(machine: Machine, certmesh: Certmesh) -> None:
    """Named before anything is touched."""
    assert certmesh("trust", "install", "--store", "system,java", "--yes").status == Exit.USAGE
    assert not machine.root.exists()


def test_the_root_goes_into_every_nss_database_of_the_user(
    machine: Machine, home: Path, certmesh: Certmesh
) -> None:
    """Chromium's and each Firefox profile; trusted for servers, not for mail or code."""
    machine.browsers(home / "bin")
    said = certmesh("trust", "install", "--store", "nss", "--yes", "--json")
    assert [line["state"] for line in said.body["stores"]] == ["installed"] * 2
    for database in (machine.shared, machine.firefox):
        assert fingerprints((database / f"{machine.name}.held").read_text()) == {machine.pin}
        assert (database / f"{machine.name}.flags").read_text().strip() == "C,,"
    assert certmesh("trust", "status", "--store", "nss").status == Exit.OK
    assert certmesh("trust", "uninstall", "--store", "nss", "--yes").status == Exit.OK
    assert not list(machine.root.rglob("*.held"))


def test_a_foreign_certificate_under_our_nickname_stays(
    machine: Machine, home: Path, certmesh: Certmesh
) -> None:
    """And the other database is done all the same."""
    machine.browsers(home / "bin")
    other = Lab("other").root_pem
    (machine.shared / f"{machine.name}.held").write_text(other)
    said = certmesh("trust", "install", "--store", "nss", "--yes", "--json")
    assert said.status == Exit.ATTENTION
    assert [line["state"] for line in said.body["stores"]] == ["foreign", "installed"]
    certmesh("trust", "uninstall", "--store", "nss", "--yes")
    assert (machine.shared / f"{machine.name}.held").read_text() == other


def test_a_database_that_is_locked_is_said_with_what_to_do(
    machine: Machine, home: Path, certmesh: Certmesh
) -> None:
    """A running browser, or a main password."""
    machine.browsers(home / "bin")
    (machine.firefox / "locked").touch()
    said = certmesh("trust", "status", "--store", "nss")
    assert said.status != Exit.OK
    assert "database is locked" in said.err
    assert "close the browser" in said.err


def test_without_certutil_the_missing_package_is_named(
    machine: Machine, certmesh: Certmesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one line a person has to type."""
    machine.browsers(None)
    monkeypatch.setenv("PATH", "/nonexistent")
    said = certmesh("trust", "status", "--store", "nss")
    assert said.status == Exit.ATTENTION
    assert "apt install libnss3-tools" in said.err
    assert certmesh("trust", "install", "--store", "nss", "--no-input").status == Exit.ATTENTION


def test_without_browsers_there_is_nothing_to_do(machine: Machine, certmesh: Certmesh) -> None:
    """A server has none, and that is no trouble."""
    said = certmesh("trust", "status", "--store", "nss", "--json")
    assert (said.status, said.body["stores"][0]["state"]) == (Exit.OK, "none")
    assert said.body["pin"] == machine.pin


def test_a_node_without_a_mesh_has_nothing_to_trust(machine: Machine, certmesh: Certmesh) -> None:
    """Exit 6, as every command."""
    machine.paths.membership.unlink()
    assert certmesh("trust", "status").status == Exit.NO_MESH


def test_a_name_that_is_a_path_stays_a_name(machine: Machine) -> None:
    """A mesh called `../../x` writes into no other directory."""
    told = replace(
        membership(), mesh_name="../../Éx y", pin=machine.pin, root_pem=machine.lab.root_pem
    )
    (anchor,) = anchors_of(told)
    assert "/" not in anchor.name
    assert anchor.name.startswith("certmesh-..-..-")


def test_tests_cannot_reach_the_real_stores() -> None:
    """The guard of this folder: an impossible place, unless a test names a better one."""
    root = Path(os.environ[ROOT_VARIABLE])
    assert not root.exists()
    (anchor,) = anchors_of(replace(membership(), pin=pin_of(pem := Lab().root_pem), root_pem=pem))
    finding = system_store(root).look(anchor)
    assert finding.state in ("missing", "unavailable")
    assert str(root) in finding.place or finding.state == "unavailable"
    assert [store.look(anchor).state for store in nss_stores(root / "home")] == ["none"]


@needs_tool
def test_a_bundle_that_keeps_the_root_is_said_so(machine: Machine, certmesh: Certmesh) -> None:
    """With no certificate left the system's tool makes no bundle, and the old one stays."""
    assert certmesh("trust", "install", "--store", "system", "--yes").status == Exit.OK
    said = certmesh("trust", "uninstall", "--store", "system", "--yes")
    assert said.status == Exit.ATTENTION
    assert "update-ca-certificates --fresh" in said.err
    assert not machine.file.exists()
