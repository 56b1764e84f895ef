"""Where a node says its doors are: checked before it is stored, dialled or shown."""

import ipaddress
import re
from collections.abc import Iterable

from broker.core.names import check_host
from broker.errors import NameNotAllowedError

ADDRESSES_MAX = 8
PORT_MAX = 65_535
ADDRESS_LENGTH_SHOWN = 64
_ZONE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
"""Name or number of an interface (Linux: IFNAMSIZ, with its NUL)."""


def check_doors(addresses: Iterable[str], *ports: int) -> tuple[str, ...]:
    """Return the first addresses if a caller could dial them; port 0 is a listener that is off.

    Raises:
        NameNotAllowedError: Neither IP address nor host name, or no TCP port.
    """
    if not all(0 <= port <= PORT_MAX for port in ports):
        raise NameNotAllowedError(f"ports are 0 to {PORT_MAX}, not {ports}")
    return tuple(_address(text) for text in tuple(addresses)[:ADDRESSES_MAX])


def _address(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return check_host(text)
    # To the parser a zone id is free text: line feeds, escape sequences, a thousand characters.
    zone = getattr(address, "scope_id", None)
    if zone is not None and not _ZONE.fullmatch(zone):
        raise NameNotAllowedError(
            f"{text[:ADDRESS_LENGTH_SHOWN]!r} is no address",
            hint="write it without the part behind %, or with the name of an interface",
        )
    return str(address)
