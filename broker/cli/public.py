"""The JSON people's scripts read: RFC 3339 times and durations in seconds, from wire structs.

The wire says `not_after: 1795440000` and `silent_ms: 400`; the command says
`"not_after": "2026-11-23T13:20:00Z"` and `"silent_s": 0.4`. Which fields are times is read from
their annotation, so a new field needs nothing here.
"""

import base64
from collections.abc import Mapping
from functools import cache
from typing import Any, get_args, get_type_hints

import msgspec

from broker.cli.shape import rfc3339
from broker.units import UnixSeconds


def public(value: msgspec.Struct) -> dict[str, Any]:
    """Return a wire struct as plain JSON values, without its wire tag."""
    times = _time_fields(type(value))
    shown: dict[str, Any] = {}
    for field in msgspec.structs.fields(value):
        content = getattr(value, field.name)
        if field.name in times and content is not None:
            shown[field.name] = rfc3339(content)
        elif field.name.endswith("_ms"):
            shown[f"{field.name[:-3]}_s"] = None if content is None else content / 1000
        else:
            shown[field.name] = _plain(content)
    return shown


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return public(value)
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value


@cache
def _time_fields(kind: type[msgspec.Struct]) -> frozenset[str]:
    hints = get_type_hints(kind)
    return frozenset(name for name, hint in hints.items() if _is_time(hint))


def _is_time(hint: object) -> bool:
    return hint is UnixSeconds or UnixSeconds in get_args(hint)
