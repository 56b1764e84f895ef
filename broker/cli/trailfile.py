"""An export of the audit trail: one JSON object a line, whole enough to recompute the hash chain.

Nothing in it is believed when it is read back: the hashes say whether the lines belong together,
and what a line shows must be what it hashed.
"""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from broker.cli.shape import rfc3339
from broker.errors import MalformedMessageError, StorageError
from broker.runtime.files import fsync_directory
from broker.wire.audit import AuditLine

SCHEMA = "certmesh.audit-row/1"
LINE_BYTES_MAX = 4 * 1024 * 1024
FILE_MODE = 0o600


class ExportedLine(AuditLine, frozen=True):
    """A row as it is exported: `time` is `at` for people and log stores."""

    schema: str = SCHEMA
    time: str = ""


def exported(line: AuditLine) -> bytes:
    """Return a row as one line of an export."""
    fields = {name: getattr(line, name) for name in AuditLine.__struct_fields__}
    return msgspec.json.encode(ExportedLine(**fields, time=rfc3339(line.at))) + b"\n"


def read_export(path: Path) -> Iterator[AuditLine]:
    """Yield the rows of an export.

    Raises:
        MalformedMessageError: A line is no row of an export, or shows another time than it has.
        StorageError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(iter(lambda: file.readline(LINE_BYTES_MAX), b""), start=1):
                if raw.strip():
                    yield _line(raw, number)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from None


@contextmanager
def export_to(path: Path | None) -> Iterator[IO[bytes]]:
    """Open where an export goes: standard output, or a file that appears whole or not at all.

    Raises:
        StorageError: The file cannot be written.
    """
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(staged, flags, FILE_MODE), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
        fsync_directory(path.parent)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}", hint="name another place with -o"
        ) from None
    finally:
        staged.unlink(missing_ok=True)


def _line(raw: bytes, number: int) -> AuditLine:
    try:
        line = msgspec.json.decode(raw, type=ExportedLine)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise MalformedMessageError(
            f"line {number} is no row of an audit trail: {error}",
            hint="give a file that `certmesh audit export` wrote",
        ) from None
    if line.time != rfc3339(line.at):
        raise MalformedMessageError(f"line {number} shows another time than the one it has")
    return line
