"""The hash chain of the journal, for whoever keeps it and whoever only reads an export of it.

`hash = SHA-256(previous_hash || msgpack([sequence, term, at, node, incarnation, actor, event,
payload]))`; the first row follows 32 zero bytes. An export carries all of it, so an auditor needs
neither the ledger nor this mesh to recompute it. What is readable in a line, its `fields` and its
`event`, is no part of the hash: it is compared with the payload, which is.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from broker.errors import MalformedMessageError, UnknownKindError
from broker.units import UnixSeconds
from broker.wire.audit import AuditLine
from broker.wire.codec import decode_fact

GENESIS = bytes(32)
"""What the first row follows."""

Hashed = tuple[int, int, UnixSeconds, str, str, str, str, bytes]
"""The columns under the hash: all but the two hashes."""

_encoder = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True)
class TrailVerdict:
    """What a walk over exported rows found; `first_bad` is None when they hold together.

    `first` and `last` are the numbers of the first and last good row, 0 without one.
    """

    rows: int
    first: int
    last: int
    head_hash: str
    first_bad: int | None = None
    detail: str = ""


def row_hash(previous: bytes, hashed: tuple[object, ...]) -> bytes:
    """Return the hash of the row of these columns behind the row with the hash `previous`."""
    return hashlib.sha256(previous + _encoder.encode(hashed)).digest()


def fields_of(payload: bytes) -> dict[str, object]:
    """Return a fact as people read it: octets shortened to their number.

    Raises:
        MalformedMessageError: It is no fact.
        UnknownKindError: It is one of a newer release.
    """
    fields = msgspec.to_builtins(decode_fact(payload), builtin_types=(bytes,))
    return {name: _readable(value) for name, value in fields.items() if name != "kind"}


def check_trail(lines: Iterable[AuditLine]) -> TrailVerdict:
    """Recompute exported rows in their order; the first bad one ends the walk.

    A part of the journal is checked from its own first row on: that it follows the row before it
    is then a claim of the export.
    """
    rows, first, last, previous = 0, 0, 0, b""
    for line in lines:
        follows = (last + 1, previous) if rows else (line.sequence, _start(line))
        if wrong := _wrong(line, *follows):
            # A number out of order is named by where it should have been.
            return TrailVerdict(rows, first, last, previous.hex(), follows[0], wrong)
        first = first or line.sequence
        rows, last, previous = rows + 1, line.sequence, bytes.fromhex(line.hash)
    return TrailVerdict(rows, first, last, previous.hex())


def _start(line: AuditLine) -> bytes:
    """Return what the first exported row has to follow."""
    return GENESIS if line.sequence == 1 else _octets(line.previous_hash)


def _wrong(line: AuditLine, sequence: int, previous: bytes) -> str:
    """Return what is wrong with a row, or an empty string."""
    if line.sequence != sequence:
        return f"row {sequence} is missing, row {line.sequence} follows"
    if _octets(line.previous_hash) != previous:
        return "the row does not continue the row before it"
    hashed = (line.sequence, line.term, line.at, line.node, line.incarnation, line.actor)
    if row_hash(previous, (*hashed, line.event, line.payload)) != _octets(line.hash):
        return "the row does not match its hash"
    return _unreadable(line)


def _unreadable(line: AuditLine) -> str:
    """Return why what a person reads is not what was hashed, or an empty string."""
    try:
        fields = fields_of(line.payload)
        event = decode_fact(line.payload).__struct_config__.tag
    except UnknownKindError:
        return ""  # written by a newer release: the hash holds, and nobody here can read more
    except MalformedMessageError as error:
        return f"the payload is no fact: {error.detail}"
    shown = msgspec.json.decode(msgspec.json.encode(fields))
    told = msgspec.json.decode(msgspec.json.encode(line.fields))
    if (event, shown) != (line.event, told):
        return "what it shows is not what it hashed"
    return ""


def _readable(value: object) -> object:
    return f"{len(value)} bytes" if isinstance(value, bytes) else value


def _octets(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
