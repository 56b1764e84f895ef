"""CURVE key pairs on disk: one for the broker, one for the remote workers of a machine.

The file holds the secret alone, the public key is computed from it: the two never disagree. In
messages and in the ledger a key is 64 hexadecimal digits; ZeroMQ takes the 32 octets.

Invariant: a file that is there is read or refused, never replaced. Somebody granted its public key.
"""

import contextlib
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from broker.errors import KeyRejectedError
from broker.runtime.files import fsync_directory, private_directory, write_new
from broker.runtime.paths import Paths

KEY_BYTES = 32
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_SECRET = re.compile(rb"[0-9a-f]{64}\n?")
_FILE_BYTES_MAX = 128


@dataclass(frozen=True, slots=True)
class CurvePair:
    """Both halves; `public` is what others may know, as 64 hexadecimal digits."""

    public: str
    secret: bytes = field(repr=False)


def curve_directory(paths: Paths) -> Path:
    """Return where this node keeps its CURVE keys."""
    return paths.data / "curve"


def server_pair(paths: Paths) -> CurvePair:
    """Return the key of this node's broker, made at its first use; raises as `read_pair`."""
    return _kept(curve_directory(paths) / "server.key")


def worker_pair(paths: Paths) -> CurvePair:
    """Return the key of this machine's remote renewal workers; raises as `read_pair`."""
    return _kept(curve_directory(paths) / "worker.key")


def worker_key_file(paths: Paths) -> Path:
    """Return the file whose removal gives this machine's remote renewal workers a new key."""
    return curve_directory(paths) / "worker.key"


def new_pair() -> CurvePair:
    """Return a fresh pair."""
    _, secret = zmq.curve_keypair()
    return _pair(z85.decode(secret))


def read_pair(path: Path) -> CurvePair:
    """Return the pair in a file.

    Raises:
        KeyRejectedError: Open to others, of another owner, no key, unreadable; the hint says what
            to do.
        FileNotFoundError: No such file.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags)
        try:
            found = os.fstat(descriptor)
            content = os.read(descriptor, _FILE_BYTES_MAX)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyRejectedError(
            f"cannot read {path}: {error.strerror}", hint="mend it, or remove it for a new key"
        ) from None
    if found.st_mode & _OTHERS or found.st_uid not in {0, os.geteuid()}:
        raise KeyRejectedError(
            f"{path} is open to other users or belongs to one; it was not used",
            hint=f"remove {path}: a new key is made, and has to be granted again",
        )
    if not _SECRET.fullmatch(content):
        raise KeyRejectedError(
            f"{path} is damaged: it holds no CURVE key",
            hint=f"remove {path}: a new key is made, and has to be granted again",
        )
    return _pair(bytes.fromhex(content.decode()))


def octets_of(key: str) -> bytes:
    """Return the 32 octets of a key in hexadecimal.

    Raises:
        ValueError: Not 64 hexadecimal digits.
    """
    octets = bytes.fromhex(key)
    if len(octets) != KEY_BYTES or octets.hex() != key:
        raise ValueError("a CURVE key has 64 hexadecimal digits")
    return octets


def _kept(path: Path) -> CurvePair:
    with contextlib.suppress(FileNotFoundError):
        return read_pair(path)
    try:
        private_directory(path.parent)
        _make(path)
    except OSError as error:
        raise KeyRejectedError(
            f"cannot keep a key in {path}: {error.strerror}", hint=f"look at {path.parent}"
        ) from None
    return read_pair(path)


def _make(path: Path) -> None:
    """Put a new key at `path`, whole and durable; one that is there meanwhile stays.

    Several processes start at once and must end up with one key, hence a link and no rename.
    """
    staged = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        write_new(staged, new_pair().secret.hex().encode() + b"\n", 0o600)
        with contextlib.suppress(FileExistsError):
            os.link(staged, path)
    finally:
        staged.unlink(missing_ok=True)
    fsync_directory(path.parent)


def _pair(secret: bytes) -> CurvePair:
    return CurvePair(z85.decode(zmq.curve_public(z85.encode(secret))).hex(), secret)
