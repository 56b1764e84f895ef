"""The leaf profile and its lint, run before every signature.

The lint is the last word on names: it knows only the profile and what the issuing certificate
itself permits, so a leaf that would fail name-constraint checks at a client is never signed,
whatever the policy code decided. All mismatches are collected and reported at once.

Source: RFC 5280 4.2.1.6 and 4.2.1.10; RFC 1123 2.1 for host names.
"""

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography import x509

from broker.errors import CSRRejectedError, NameNotAllowedError
from broker.pki.chain import PARSE_ERRORS

NAME_LENGTH_MAX = 253
COMMON_NAME_LENGTH_MAX = 64
"""ub-common-name of RFC 5280 appendix A; a longer host gets no CN, its SAN is what counts."""
SERIAL_LIMIT = 2**128
URL_LENGTH_MAX = 512
MESH_ID_LENGTH_MAX = 48
MEMBER_ID_LENGTH_MAX = 64
SANS_MAX = 64

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_HEX = re.compile(r"[0-9a-f]+")
_URL = re.compile(r"https?://[!-~]+")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class LeafProfile:
    """Everything that will stand in a leaf, except its key.

    Attributes:
        serial: 128 random bits, already recorded.
        host: Name of the member; the CN if it fits.
        sans: DNS names and IP addresses as text, as policy decided them.
        not_before: First second of validity.
        not_after: Last second of validity, itself still valid.
        crl_url: Where the CRL is, or empty for none.
        mesh_id: Hex, part of the subject.
        member_id: Hex, part of the subject.
        wildcards: Whether a SAN may stand for every name of one label below it.
    """

    serial: int
    host: str
    sans: tuple[str, ...]
    not_before: int
    not_after: int
    crl_url: str
    mesh_id: str
    member_id: str
    wildcards: bool = False


@dataclass(frozen=True, slots=True)
class IssuerFacts:
    """What the issuing certificate itself permits."""

    not_after: int
    names: tuple[str, ...]
    networks: tuple[Network, ...]
    not_before: int = 0


def facts_of(issuing: x509.Certificate) -> IssuerFacts:
    """Return the bounds that the issuing certificate puts on its leaves.

    Raises:
        ValueError: It has no name constraints, so it is not an issuing CA of a mesh.
    """
    try:
        constraints = issuing.extensions.get_extension_for_class(x509.NameConstraints).value
    except PARSE_ERRORS:
        raise ValueError("it has no name constraints") from None
    permitted = constraints.permitted_subtrees or []
    return IssuerFacts(
        not_after=int(issuing.not_valid_after_utc.timestamp()),
        names=tuple(name.value for name in permitted if isinstance(name, x509.DNSName)),
        networks=tuple(
            name.value
            for name in permitted
            if isinstance(name, x509.IPAddress)
            and isinstance(name.value, ipaddress.IPv4Network | ipaddress.IPv6Network)
        ),
        not_before=int(issuing.not_valid_before_utc.timestamp()),
    )


def is_dns_name(name: str) -> bool:
    """Tell whether `name` is a lower-case RFC 1123 host name of at most 253 characters."""
    if not 0 < len(name) <= NAME_LENGTH_MAX or _DNS_NAME.fullmatch(name) is None:
        return False
    # A dotted name that ends in a number is an IPv4 address to most parsers (WHATWG URL 3.5).
    return "." not in name or not name.rpartition(".")[2].isdigit()


def lint_leaf(leaf: LeafProfile, facts: IssuerFacts) -> None:
    """Refuse a profile that may not become a certificate of this issuing CA.

    Raises:
        NameNotAllowedError: At least one name is malformed or not permitted; the detail has
            every mismatch.
        CSRRejectedError: The names are fine and something else is not.
    """
    name_faults = [*_host_faults(leaf, facts), *_san_faults(leaf, facts)]
    faults = [*name_faults, *_validity_faults(leaf, facts), *_field_faults(leaf)]
    if name_faults:
        raise NameNotAllowedError("; ".join(faults))
    if faults:
        raise CSRRejectedError("; ".join(faults))


def address_of(san: str) -> Address | None:
    """Return the IP address that `san` is, or None for a name."""
    # Cheap test first: most SANs are names, and a failed parse costs an exception each.
    if not san[-1:].isdigit() and ":" not in san:
        return None
    try:
        address = ipaddress.ip_address(san)
    except ValueError:
        return None
    # A zone id ("fe80::1%eth0") means something on one machine only and has no place in DER.
    return None if "%" in san else address


def _host_faults(leaf: LeafProfile, facts: IssuerFacts) -> Iterator[str]:
    if not is_dns_name(leaf.host):
        yield f"host {_shown(leaf.host)} is not a host name"
    elif "." in leaf.host and not _permits_name(facts, leaf.host):
        yield f"host {leaf.host} is outside the domains of this mesh"
    elif "." in leaf.host and leaf.host not in leaf.sans:
        yield f"host {leaf.host} is not among its subject alternative names"


def _san_faults(leaf: LeafProfile, facts: IssuerFacts) -> Iterator[str]:
    if not leaf.sans:
        yield "no subject alternative name"
    if len(leaf.sans) > SANS_MAX:
        yield f"{len(leaf.sans)} subject alternative names, at most {SANS_MAX} are allowed"
    if len(set(leaf.sans)) != len(leaf.sans):
        yield "a subject alternative name is given twice"
    for san in leaf.sans[:SANS_MAX]:
        fault = _san_fault(_below_wildcard(san, leaf), facts)
        if fault:
            yield fault


def _below_wildcard(san: str, leaf: LeafProfile) -> str:
    """Return what has to be permitted: of `*.x`, where wildcards are allowed, x (RFC 6125 6.4.3).

    Of a wildcard with nothing, or with an address, below it the whole: that is a fault.
    """
    base = san.removeprefix("*.")
    return base if leaf.wildcards and address_of(base) is None else san


def _san_fault(san: str, facts: IssuerFacts) -> str:
    address = address_of(san)
    if address is not None:
        permitted = any(address in network for network in facts.networks)
        return "" if permitted else f"address {address} is outside the networks of this mesh"
    if "*" in san:
        return f"{_shown(san)} is a wildcard, which is not allowed here"
    if not is_dns_name(san):
        return f"{_shown(san)} is neither a DNS name nor an IP address"
    if "." not in san:
        return f"{san} has a single label; a DNS name in a certificate needs a domain"
    return "" if _permits_name(facts, san) else f"{san} is outside the domains of this mesh"


def _permits_name(facts: IssuerFacts, name: str) -> bool:
    return any(name == base or name.endswith(f".{base}") for base in facts.names)


def _validity_faults(leaf: LeafProfile, facts: IssuerFacts) -> Iterator[str]:
    if leaf.not_before >= leaf.not_after:
        yield "the validity ends before it starts"
    if leaf.not_after > facts.not_after:
        yield "the validity ends after that of the issuing CA"


def _field_faults(leaf: LeafProfile) -> Iterator[str]:
    if not 0 < leaf.serial < SERIAL_LIMIT:
        yield "the serial number is not a positive number of 128 bits"
    if leaf.crl_url and (len(leaf.crl_url) > URL_LENGTH_MAX or not _URL.fullmatch(leaf.crl_url)):
        yield "the CRL distribution point is not an http or https address"
    if len(leaf.mesh_id) > MESH_ID_LENGTH_MAX or not _HEX.fullmatch(leaf.mesh_id):
        yield "the mesh id is not hexadecimal"
    if len(leaf.member_id) > MEMBER_ID_LENGTH_MAX or not _HEX.fullmatch(leaf.member_id):
        yield "the member id is not hexadecimal"


def _shown(text: str) -> str:
    """Return hostile text fit for one line of a message."""
    return ascii(text[:80])
