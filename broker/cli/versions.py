"""The versions of a host's certificate on this disk, and how the last delivery of one ended."""

import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from broker.cli.served import read_leaf
from broker.errors import MalformedMessageError
from broker.wire.plain import decode_json

_VERSION = re.compile(r"v([0-9]{4,})")


class Delivery(msgspec.Struct, frozen=True):
    """What the renewal worker wrote down of the last delivery: `delivery.json`."""

    serial: str = ""
    state: str = "unknown"
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    """One readable version; `held`: newer than the live one, it waits for hooks to be mended."""

    name: str
    serial: str
    not_after: int
    live: bool
    held: bool


def versions_of(directory: Path) -> tuple[Version, ...]:
    """Return the versions in a host's directory, newest first; what cannot be read is left out."""
    live = _live_name(directory)
    found = []
    for path in sorted(directory.glob("v*"), key=_number, reverse=True):
        try:
            leaf = read_leaf(path / "cert.pem")
        except (OSError, MalformedMessageError):
            continue
        held = bool(live) and _number(path) > int(live[1:])
        found.append(Version(path.name, leaf.serial, leaf.not_after, path.name == live, held))
    return tuple(found)


def last_delivery(directory: Path) -> Delivery:
    """Return how the last delivery ended; `unknown` when nobody wrote it down."""
    try:
        return decode_json((directory / "delivery.json").read_bytes(), Delivery)
    except (OSError, MalformedMessageError):
        return Delivery()


def _live_name(directory: Path) -> str:
    try:
        name = (directory / "live").readlink().name
    except OSError:
        return ""
    return name if _VERSION.fullmatch(name) else ""


def _number(path: Path) -> int:
    match = _VERSION.fullmatch(path.name)
    return int(match[1]) if match else -1
