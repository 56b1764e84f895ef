"""CURVE keys on disk: made once, read by their owner, shown to nobody."""

import os
import threading
from pathlib import Path

import pytest
import zmq
from zmq.utils import z85

from broker.errors import KeyRejectedError
from broker.runtime.curve import (
    curve_directory,
    new_pair,
    octets_of,
    read_pair,
    server_pair,
    worker_key_file,
    worker_pair,
)
from broker.runtime.paths import Paths


def test_a_key_is_made_once_and_closed_to_others(paths: Paths) -> None:
    """Somebody grants its public half: another one tomorrow would be nobody."""
    first = worker_pair(paths)
    assert worker_pair(paths) == first
    file = worker_key_file(paths)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in curve_directory(paths).iterdir()] == ["worker.key"]
    assert server_pair(paths) != first


def test_the_public_key_is_that_of_the_secret_in_both_spellings() -> None:
    """ZeroMQ speaks Z85 or 32 octets, the ledger hexadecimal."""
    pair = new_pair()
    assert len(pair.secret) == 32
    public = zmq.curve_public(z85.encode(pair.secret))
    assert z85.decode(public).hex() == pair.public
    assert octets_of(pair.public) == z85.decode(public)


@pytest.mark.parametrize("text", ["", "ab", "AB" * 32, "0x" + "a" * 62, "a" * 63, " " * 64])
def test_octets_come_from_64_lower_case_digits_only(text: str) -> None:
    """One spelling per key: grants are compared as text."""
    with pytest.raises(ValueError, match=r"."):
        octets_of(text)


def test_a_secret_does_not_show_in_logs(paths: Paths) -> None:
    """Whoever prints a pair prints the public half."""
    pair = worker_pair(paths)
    assert pair.secret.hex() not in repr(pair)
    assert repr(pair.secret) not in repr(pair)


def test_many_processes_that_start_at_once_get_one_key(paths: Paths) -> None:
    """A grant takes one key: two halves of a pool with two keys would end in refusals."""
    found: list[str] = []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        found.append(worker_pair(paths).public)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [path.name for path in curve_directory(paths).iterdir()] == ["worker.key"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_refused_and_stays(paths: Paths, mode: int) -> None:
    """Somebody may have it already; a person decides."""
    worker_pair(paths)
    file = worker_key_file(paths)
    before = file.read_bytes()
    file.chmod(mode)
    with pytest.raises(KeyRejectedError) as refusal:
        worker_pair(paths)
    assert f"remove {file}" in refusal.value.hint
    assert file.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"x" * 64, b"ab" * 31, b"ab" * 33, b"ab" * 32 + b"\n\n"])
def test_a_damaged_key_is_refused_and_not_replaced(paths: Paths, content: bytes) -> None:
    """A new key in its place would be refused by the CA, and nobody would know why."""
    worker_pair(paths)
    file = worker_key_file(paths)
    file.write_bytes(content)
    with pytest.raises(KeyRejectedError, match="damaged") as refusal:
        worker_pair(paths)
    assert content.decode() not in refusal.value.detail or not content
    assert file.read_bytes() == content


def test_a_link_or_a_directory_in_its_place_is_refused(paths: Paths, home: Path) -> None:
    """A link would let another file's owner choose the key."""
    elsewhere = home / "elsewhere"
    elsewhere.write_bytes(new_pair().secret.hex().encode())
    elsewhere.chmod(0o600)
    directory = curve_directory(paths)
    directory.mkdir(mode=0o700)
    worker_key_file(paths).symlink_to(elsewhere)
    with pytest.raises(KeyRejectedError):
        worker_pair(paths)
    (directory / "server.key").mkdir(mode=0o700)
    with pytest.raises(KeyRejectedError):
        server_pair(paths)


def test_removing_the_file_gives_a_new_key(paths: Paths) -> None:
    """What every hint says."""
    first = worker_pair(paths)
    worker_key_file(paths).unlink()
    assert worker_pair(paths).public != first.public


def test_a_missing_file_is_not_made_by_reading(paths: Paths) -> None:
    """`read_pair` is for those who must not make one."""
    with pytest.raises(FileNotFoundError):
        read_pair(worker_key_file(paths))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_of_another_user_is_refused(paths: Paths) -> None:
    """Whoever wrote it knows it."""
    worker_pair(paths)
    os.chown(worker_key_file(paths), 12345, 12345)
    with pytest.raises(KeyRejectedError):
        worker_pair(paths)


def test_a_refused_file_leaves_no_descriptor_open(home: Path) -> None:
    """The broker tries again every second, and libzmq ends a process that runs out of them."""
    place = home / "server.key"
    place.mkdir(mode=0o700)
    before = set(Path("/proc/self/fd").iterdir())
    for _ in range(3):
        with pytest.raises(KeyRejectedError):
            read_pair(place)
    assert set(Path("/proc/self/fd").iterdir()) == before
