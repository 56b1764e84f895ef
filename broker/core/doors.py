"""Where a node says its doors are: checked before it is stored, dialled or shown."""

import ipaddress
from collections.abc import Iterable

from broker.core.names import check_host
from broker.errors import NameNotAllowedError

ADDRESSES_MAX = 8
PORT_MAX = 65_535


def check_doors(addresses: Iterable[str], *ports: int) -> tuple[str, ...]:
    """Return the addresses if a caller could dial them.

    Raises:
        NameNotAllowedError: Too many, neither IP address nor host name, or no TCP port.
    """
    found = tuple(addresses)
    if len(found) > ADDRESSES_MAX:
        raise NameNotAllowedError(f"at most {ADDRESSES_MAX} addresses, not {len(found)}")
    if not all(1 <= port <= PORT_MAX for port in ports):
        raise NameNotAllowedError(f"ports are 1 to {PORT_MAX}, not {ports}")
    return tuple(_address(text) for text in found)


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return check_host(text)
