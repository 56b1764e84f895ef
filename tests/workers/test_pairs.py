"""Versions are parsed once, and what was damaged since is still seen."""

import os
from pathlib import Path

import pytest

from tests.support import eventually
from tests.workers.small_ca import SmallCA
from workers import pairs
from workers.certstore import CertificateStore


@pytest.fixture
def store(tmp_path: Path) -> CertificateStore:
    """A store with two versions, both read before."""
    ca, found = SmallCA(), CertificateStore(tmp_path / "certs", "nas")
    for _ in range(2):
        found.install(ca.sign(found.prepare(), found.host), ca.issuing, ca.root)
    assert found.live() is not None
    return found


def test_a_version_is_parsed_only_once(
    store: CertificateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renewal looks at the live pair a dozen times."""

    def unwanted(host: str, directory: Path) -> None:
        raise AssertionError(f"{host}: {directory} was read again")

    monkeypatch.setattr(pairs, "_pair", unwanted)
    live = store.live()
    assert live is not None
    assert (live.version, store.previous()) == ("v0002", "v0001")


@pytest.mark.parametrize("name", ["cert.pem", "key.pem"])
def test_what_is_damaged_in_place_is_no_pair_any_more(store: CertificateStore, name: str) -> None:
    """The same inode, the same length: bits turned by a bad disk tool."""
    live = store.live()
    assert live is not None
    path = live.directory / name
    before = path.stat()

    def damaged() -> bool:
        # File systems keep time in steps: what is written in the step of the reading is not seen.
        path.write_bytes(b"x" * before.st_size)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return path.stat().st_ctime_ns != before.st_ctime_ns

    eventually(damaged)
    assert path.stat().st_size == before.st_size
    assert store.live() is None


def test_a_pair_that_is_mended_counts_again(store: CertificateStore) -> None:
    """An operator puts the right key back."""
    live = store.live()
    assert live is not None
    right = live.key.read_bytes()
    earlier = (store.directory / "v0001" / "key.pem").read_bytes()
    live.key.write_bytes(earlier + b"\n")
    assert store.live() is None
    live.key.write_bytes(right)
    assert store.live() == live
