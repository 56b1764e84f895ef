"""Backup files on disk: streams of sealed chunks, never more than one chunk in memory.

A file that is under way has a name of its own and mode 0600; what has the name of a backup was
read back before. Names inside a backup come from a list: nothing is ever written outside the
directory it is opened into.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from broker.errors import BackupRejectedError, MeshError, StorageError
from broker.pki.container import (
    CHUNK_BYTES,
    MAGIC,
    TAG_BYTES,
    TRAILER_BYTES_MAX,
    BackupHeader,
    ChunkSealer,
    SignedHeader,
    split_trailer,
    trailer,
)
from broker.runtime.files import FILE_MODE, fsync_directory, private_directory
from broker.wire.base import Body
from broker.wire.codec import decode_body, encode_body

LENGTH_BYTES = 4
PIECE_BYTES_MAX = 4096
LEDGER, MEMBERSHIP, SETTINGS, AUTHORITY = "ledger.db", "membership.json", "certmesh.toml", "ca"
_NAMES = re.compile(
    r"(?:ledger\.db|membership\.json|certmesh\.toml"
    r"|ca(?:\.[\w-]{1,80})?/[a-z0-9_-][a-z0-9_.-]{0,63})\Z"
)


class Piece(Body, frozen=True):
    """One file in the stream; its content follows."""

    name: str
    size: int
    digest: bytes


@dataclass(slots=True)
class SealedStream:
    """Writes octets as sealed chunks, and knows what it has written."""

    target: BinaryIO
    sealer: ChunkSealer
    size: int = 0
    _waiting: bytearray = field(default_factory=bytearray)
    _digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    @property
    def digest(self) -> str:
        """SHA-256 of all sealed octets so far."""
        return self._digest.hexdigest()

    def write(self, octets: bytes) -> None:
        """Take octets; whole chunks are sealed and written."""
        self._waiting += octets
        # One chunk stays back: only the end knows which one is the last.
        while len(self._waiting) > CHUNK_BYTES:
            self._put(bytes(self._waiting[:CHUNK_BYTES]), last=False)
            del self._waiting[:CHUNK_BYTES]

    def end(self) -> None:
        """Write the last chunk."""
        self._put(bytes(self._waiting), last=True)
        self._waiting.clear()

    def _put(self, chunk: bytes, *, last: bool) -> None:
        sealed = self.sealer.seal(chunk, last=last)
        self.target.write(sealed)
        self._digest.update(sealed)
        self.size += len(sealed)


@dataclass(slots=True)
class OpenedStream:
    """Reads octets out of sealed chunks, each one authenticated before a byte of it is seen."""

    source: BinaryIO
    sealer: ChunkSealer
    left: int
    _waiting: bytearray = field(default_factory=bytearray)

    def read(self, size: int) -> bytes:
        """Return exactly `size` octets.

        Raises:
            BackupRejectedError: A chunk is damaged, or the stream is shorter.
        """
        while len(self._waiting) < size:
            if not self.left:
                raise BackupRejectedError("the content ends too early")
            taken = min(self.left, CHUNK_BYTES + TAG_BYTES)
            self.left -= taken
            self._waiting += self.sealer.open(self.source.read(taken), last=not self.left)
        octets = bytes(self._waiting[:size])
        del self._waiting[:size]
        return octets

    @property
    def is_at_end(self) -> bool:
        """Whether nothing is left."""
        return not self.left and not self._waiting


def pack(stream: SealedStream, files: Mapping[str, Path]) -> None:
    """Write these files into the stream, by their names in the backup."""
    for name, path in files.items():
        piece = encode_body(Piece(name, path.stat().st_size, digest_of(path)))
        stream.write(len(piece).to_bytes(LENGTH_BYTES) + piece)
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                stream.write(chunk)
    stream.end()


def unpack(stream: OpenedStream, place: Path) -> tuple[str, ...]:
    """Write the files of the stream below `place`, 0600 and synced; return their names.

    Raises:
        BackupRejectedError: It holds something else than a backup may hold.
    """
    names: list[str] = []
    while not stream.is_at_end:
        piece = _piece(stream)
        if piece.name in names:
            raise BackupRejectedError(f"the content has {piece.name} twice")
        target = place / piece.name
        if target.parent != place:
            private_directory(target.parent)
        _write(stream, piece, target)
        names.append(piece.name)
    return tuple(names)


def write_body(path: Path, key: bytes, files: Mapping[str, Path]) -> tuple[int, str]:
    """Write the sealed content of a new file at `path`; return its length and its digest."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), FILE_MODE)
        file.write(MAGIC)
        stream = SealedStream(file, ChunkSealer(key))
        pack(stream, files)
    return stream.size, stream.digest


def write_trailer(path: Path, header: BackupHeader, signed: SignedHeader) -> None:
    """Put this end behind the content, in place of an earlier one, and make the file durable."""
    with path.open("r+b") as file:
        file.seek(len(MAGIC) + header.body_bytes)
        file.truncate()
        file.write(trailer(signed))
        file.flush()
        os.fsync(file.fileno())


def read_end(path: Path) -> tuple[SignedHeader, int]:
    """Return the signed header of the file, and how many octets of content lie before it.

    Raises:
        BackupRejectedError: It is no backup, or cut off.
        StorageError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            begins = file.read(len(MAGIC))
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TRAILER_BYTES_MAX))
            end = file.read()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from None
    if begins != MAGIC:
        raise BackupRejectedError(f"{path.name} is no backup of certmesh")
    signed, length = split_trailer(end)
    return signed, size - len(MAGIC) - length


def check_content(path: Path, header: BackupHeader, size: int) -> None:
    """Check that the content is what the header names; nothing of it is parsed.

    Raises:
        BackupRejectedError: It is shorter, longer, or another one.
    """
    digest = hashlib.sha256()
    for chunk in _octets(path, size):
        digest.update(chunk)
    if size != header.body_bytes or digest.hexdigest() != header.digest:
        raise BackupRejectedError(
            f"the content of {path.name} is damaged: its digest does not fit",
            hint="take another backup",
        )


def open_into(path: Path, header: BackupHeader, key: bytes, place: Path) -> tuple[str, ...]:
    """Unpack the content of a backup below the private directory `place`; return the names.

    Raises:
        BackupRejectedError: It is not what was sealed with this key.
        StorageError: The disk refused.
    """
    try:
        with path.open("rb") as file:
            file.seek(len(MAGIC))
            return unpack(OpenedStream(file, ChunkSealer(key), header.body_bytes), place)
    except OSError as error:
        raise StorageError(f"cannot unpack {path}: {error.strerror}", hint="make room") from None


def digest_of(path: Path) -> bytes:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def put_into_place(staged: Path, final: Path) -> None:
    """Give a finished file its name, durably."""
    staged.rename(final)
    fsync_directory(final.parent)


def _octets(path: Path, size: int) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            file.seek(len(MAGIC))
            while size > 0 and (chunk := file.read(min(size, CHUNK_BYTES))):
                size -= len(chunk)
                yield chunk
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from None


def _piece(stream: OpenedStream) -> Piece:
    size = int.from_bytes(stream.read(LENGTH_BYTES))
    if not 0 < size <= PIECE_BYTES_MAX:
        raise BackupRejectedError("the content cannot be read")
    try:
        piece = decode_body(stream.read(size), Piece)
    except MeshError as error:
        if isinstance(error, BackupRejectedError):
            raise
        raise BackupRejectedError("the content cannot be read") from None
    if not _NAMES.match(piece.name) or piece.size < 0:
        raise BackupRejectedError("the content has a file that no backup holds")
    return piece


def _write(stream: OpenedStream, piece: Piece, target: Path) -> None:
    digest, left = hashlib.sha256(), piece.size
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(target, flags, FILE_MODE), "wb") as file:
        while left:
            chunk = stream.read(min(left, CHUNK_BYTES))
            left -= len(chunk)
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if digest.digest() != piece.digest:
        raise BackupRejectedError(f"{piece.name} is not what was put into the backup")
