"""Host names and SANs: what may be a name in this mesh.

Invariants: a host name is an RFC 1123 name in lower case and therefore safe in paths, logs and
TXT records; a SAN that is permitted lies inside names and networks, and is never single-label. What
a policy makes of that, wildcards included, is `broker.core.policy`'s.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from functools import cache

from broker.errors import NameNotAllowedError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

HOST_LENGTH_MAX = 253
"""RFC 1035 2.3.4: 255 octets on the wire, 253 as text."""
MDNS = "local"
"""The domain of multicast DNS (RFC 6762 section 3), in which every short name is found too."""

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def check_host(text: str) -> str:
    """Return `text` if it is a host name, in lower case already.

    Raises:
        NameNotAllowedError: Empty, over 253 characters, or a label RFC 1123 2.1 does not allow.
    """
    if not text or len(text) > HOST_LENGTH_MAX:
        raise NameNotAllowedError(
            f"a host name has 1 to {HOST_LENGTH_MAX} characters, this one has {len(text)}",
            hint="use the short name of the machine, such as nas",
        )
    if not all(_LABEL.fullmatch(label) for label in text.split(".")):
        raise NameNotAllowedError(
            f"{text!r} is not a host name",
            hint="use lower-case letters, digits and hyphens, parts joined by dots (RFC 1123)",
        )
    return text


def check_new_host(text: str, domain: str) -> str:
    """Return `text` if a machine of the mesh may be called that.

    Args:
        text: The name it wants.
        domain: The mesh's own.

    Raises:
        NameNotAllowedError: Not a host name, or how callers write the name of another host: with
            it in a certificate, `nas.home.internal` could pass for `nas`.
    """
    short, _, parent = check_host(text).partition(".")
    if parent in {domain, MDNS}:
        raise NameNotAllowedError(
            f"{text!r} is how others call the host {short!r}", hint=f"use the short name {short}"
        )
    return text


def mesh_domain(mesh_name: str) -> str:
    """Return the private domain of a mesh; `.internal` is reserved for private use."""
    return f"{mesh_name}.internal"


def server_name(host: str, domain: str) -> str:
    """Return the DNS name callers verify a node by.

    A single-label name cannot lie inside a permitted subtree of a name-constrained CA (RFC 5280
    4.2.1.10), so an undotted host gets the mesh's own domain.
    """
    return host if "." in host else f"{host}.{domain}"


def granted_sans(
    host: str, domain: str, addresses: Iterable[str], extra: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return the SANs a host gets: its server name, its mDNS name, its addresses, extras."""
    names = [server_name(host, domain)]
    if "." not in host:
        names.append(f"{host}.{MDNS}")
    return tuple(dict.fromkeys([*names, *map(_canonical, extra), *map(_canonical, addresses)]))


def is_permitted(san: str, *, names: Sequence[str], networks: Sequence[str]) -> bool:
    """Whether one SAN lies inside.

    Args:
        san: A DNS name or an IP address as text; a wildcard is no name.
        names: Permitted patterns such as `*.home.arpa`.
        networks: Permitted networks in CIDR form.
    """
    address = _address(san)
    if address is not None:
        parsed = _networks(tuple(networks))
        return any(address in net for net in parsed if net.version == address.version)
    if "." not in san or len(san) > HOST_LENGTH_MAX:
        return False
    if not all(_LABEL.fullmatch(label) for label in san.split(".")):
        return False
    return any(_is_below(san, pattern) for pattern in names)


def addresses_in(addresses: Iterable[str], networks: Sequence[str]) -> tuple[str, ...]:
    """Return the addresses that are IP addresses inside `networks`, canonical, in order."""
    inside = [
        _canonical(text)
        for text in addresses
        if _address(text) is not None and is_permitted(text, names=(), networks=networks)
    ]
    return tuple(dict.fromkeys(inside))


@cache
def _networks(networks: tuple[str, ...]) -> tuple[Network, ...]:
    # A mesh has one policy; parsing it for every certificate costs more than the question.
    return tuple(ipaddress.ip_network(text) for text in networks)


def _is_below(san: str, pattern: str) -> bool:
    base = pattern.removeprefix("*.")
    return san == base or san.endswith("." + base)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    # Cheap test first: most SANs are names, and a failed parse costs an exception each.
    if not text[-1:].isdigit() and ":" not in text:
        return None
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _canonical(text: str) -> str:
    address = _address(text)
    return text if address is None else str(address)
