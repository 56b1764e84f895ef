"""JSON of this node's own files and programs: whatever is in it, one refusal.

Apart from the codec, which knows every message: a command that reads one file does not need those.
"""

from typing import TypeVar

import msgspec

from broker.errors import MalformedMessageError

S = TypeVar("S", bound=msgspec.Struct)


def decode_json(raw: bytes, kind: type[S]) -> S:
    """Return the struct in JSON octets.

    Raises:
        MalformedMessageError: Anything else. msgspec by itself lets octets that are no UTF-8, and
            nesting without end, out as exceptions of two other families.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise MalformedMessageError(f"not the JSON of a {kind.__name__}: {error}") from None
