"""Hostile octets bred from valid ones: edits of the octets, and edits inside their structure.

An edit is three numbers, so that hypothesis can draw and shrink it and libFuzzer's random numbers
can make one: what to do, where, and with what.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from tests.fuzz.target import Form

Edit = tuple[int, int, int]

DEEP = 20_000
SHALLOW = 2_500
"""Deep enough for every decoder, and short enough for an invite."""
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**31,
    2**53,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
    1e308,
    0.0,
    "",
    "\x00",
    "\x1b[2J\r\n",
    "\u202e\u2066\ufeff",
    "../../../etc/passwd",
    "-rf",
    "CON",
    "a" * 64 + ".example",
    "xn--\ud7ff",
    "%s%n{0}",
    "9" * 5000,
    "::ffff:1.2.3.4%eth0",
    "2026-13-45T99:99:99Z",
    "A" * 70_000,
    b"",
    b"\x00",
    b"\xff" * 300,
    b"\x30\x84\xff\xff\xff\xff",
    [],
    {},
    [[]] * 64,
    {"kind": "ready"},
    {str(number): number for number in range(200)},
)
"""What is put in place of a part: too much, too little, another type, another meaning."""

TOKENS = (
    b"\x00",
    b"\xff",
    b"\r\n\r\n",
    b"\x1b]0;",
    b"\xc1",
    b"\xdd\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x91" * DEEP,
    b"[" * DEEP,
    b"[" * SHALLOW,
    b'{"a":' * DEEP,
    b"9" * 5000,
    b"1e999",
    b"\xed\xa0\x80",
    b'"\\ud800"',
    b"\x30\x80",
    b"\x02\x01\xff",
    b"-----BEGIN CERTIFICATE-----",
    b"%00%2e%2e%2f",
)


def mutated(seed: bytes, form: Form, edits: Sequence[Edit], bytes_max: int) -> bytes:
    """Return `seed` after the edits, at most `bytes_max` long."""
    octets = seed
    for what, where, value in edits:
        octets = _edited(octets, form, what, where, value)
    return octets[:bytes_max]


def poisoned(seed: bytes) -> Iterator[bytes]:
    """Yield `seed` with each token at a few places, one of them a field that nobody knows."""
    for token in TOKENS:
        for part in (1, 2, 3):
            place = len(seed) * part // 4
            yield seed[:place] + token + seed[place:]
        head, brace, tail = seed.partition(b"{")
        if brace:
            yield head + brace + b'"z":' + token + b"," + tail


def _edited(octets: bytes, form: Form, what: int, where: int, value: int) -> bytes:
    inside = _INSIDE.get(form)
    if inside is not None and what % 2:
        with contextlib.suppress(ValueError, TypeError, RecursionError, msgspec.MsgspecError):
            return inside(octets, what // 2, where, value)
    return _OUTSIDE[what // 2 % len(_OUTSIDE)](octets, where, value)


def _flip(octets: bytes, where: int, value: int) -> bytes:
    if not octets:
        return bytes([value % 256])
    place = where % len(octets)
    return octets[:place] + bytes([octets[place] ^ (1 + value % 255)]) + octets[place + 1 :]


def _insert(octets: bytes, where: int, value: int) -> bytes:
    place = where % (len(octets) + 1)
    return octets[:place] + TOKENS[value % len(TOKENS)] + octets[place:]


def _overwrite(octets: bytes, where: int, value: int) -> bytes:
    place, token = where % (len(octets) + 1), TOKENS[value % len(TOKENS)]
    return octets[:place] + token + octets[place + len(token) :]


def _cut(octets: bytes, where: int, value: int) -> bytes:
    place = where % (len(octets) + 1)
    return octets[:place] if value % 2 else octets[place:]


def _drop(octets: bytes, where: int, value: int) -> bytes:
    place = where % (len(octets) + 1)
    return octets[:place] + octets[place + 1 + value % 32 :]


def _repeat(octets: bytes, where: int, value: int) -> bytes:
    place = where % (len(octets) + 1)
    part = octets[place : place + 64]
    return octets[:place] + part * (1 + value % 2000) + octets[place:]


_OUTSIDE: tuple[Callable[[bytes, int, int], bytes], ...] = (
    _flip,
    _insert,
    _overwrite,
    _cut,
    _drop,
    _repeat,
)


def _inside_msgpack(octets: bytes, what: int, where: int, value: int) -> bytes:
    return msgspec.msgpack.encode(_changed(msgspec.msgpack.decode(octets), what, where, value))


def _inside_json(octets: bytes, what: int, where: int, value: int) -> bytes:
    changed = _changed(json.loads(octets), what, where, value)
    return json.dumps(changed, default=lambda raw: raw.hex()).encode()


def _inside_http(octets: bytes, what: int, where: int, value: int) -> bytes:
    head, _, body = octets.partition(b"\n")
    return head + b"\n" + _inside_json(body, what, where, value)


_INSIDE: dict[Form, Callable[[bytes, int, int, int], bytes]] = {
    "msgpack": _inside_msgpack,
    "json": _inside_json,
    "http": _inside_http,
}


def _changed(tree: Any, what: int, where: int, value: int) -> Any:
    places = _places(tree)
    if not places:
        return VALUES[value % len(VALUES)]
    holder, key = places[where % len(places)]
    match what % 4:
        case 0 | 1:
            holder[key] = VALUES[value % len(VALUES)]
        case 2:
            del holder[key]
        case _:
            holder[key] = [holder[key]] * (2 + value % 300)
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Return every place in a tree of plain values, as its container and the key in it."""
    found: list[tuple[Any, Any]] = []
    waiting = [tree] if isinstance(tree, (dict, list)) else []
    while waiting:
        part = waiting.pop()
        keys = part.keys() if isinstance(part, dict) else range(len(part))
        for key in list(keys):
            found.append((part, key))
            if isinstance(part[key], (dict, list)):
                waiting.append(part[key])
    return found
