"""JSON files that notice when they rot: a checksum among their own fields.

A flipped bit in a name or a pin would still be a good file. The checksum (CRC-32: any one burst of
up to 32 bits is seen, and no worker has to load OpenSSL for it) covers whatever fields there are,
also those of a newer release; a file without one, of an older release, is taken as it is. It is no
protection against anybody: whoever can write the file can write the checksum.
"""

import zlib
from typing import Any

import msgspec

from broker.errors import MalformedMessageError

CHECKSUM = "checksum"


def encode_checked(body: msgspec.Struct) -> bytes:
    """Return `body` as JSON for a file, with the checksum of its fields."""
    fields: dict[str, Any] = msgspec.to_builtins(body)
    return msgspec.json.format(msgspec.json.encode({**fields, CHECKSUM: _checksum(fields)}))


def check_checksum(raw: bytes) -> None:
    """Check that the JSON object in `raw` is as it was written, as far as it can tell.

    Raises:
        MalformedMessageError: It is not, or it is no JSON object.
    """
    try:
        fields = msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
        raise MalformedMessageError("not a JSON object") from None
    written = fields.pop(CHECKSUM, None)
    if written is not None and written != _checksum(fields):
        raise MalformedMessageError("its checksum does not match: something in it was changed")


def _checksum(fields: dict[str, Any]) -> str:
    return f"{zlib.crc32(msgspec.json.encode(fields, order='sorted')):08x}"
