"""The policy engine: what a policy may be, and which names get a certificate under it.

One place for issue and renewal alike: whoever asks, whatever door they came through, the same
function says which names lie outside. `broker.core.names` has the arithmetic of names and networks,
this module the rules.

Invariants: a policy never permits what the issuing certificate does not, or clients would refuse
what the mesh issues; a wildcard stands for one label, never for a name of the mesh's own domain,
so that no member can pass for another.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from msgspec.structs import asdict, replace

from broker.core.names import (
    addresses_in,
    check_host,
    granted_sans,
    is_permitted,
)
from broker.core.outage import plan_advice
from broker.core.spans import span_down
from broker.errors import CSRRejectedError, MeshError, NameNotAllowedError, PolicyRefusedError
from broker.units import UnixSeconds
from broker.wire.policy import Policy, PolicyPatch
from broker.wire.profiles import PROFILES

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

SHOWN_MAX = 8
NOTE_LENGTH_MAX = 1024
"""Bound of `Text`: a longer note would void the row it stands in."""
WILDCARD = "*."


def policy_note(policy: Policy, source: str, sans: Iterable[str]) -> str:
    """Return what the policy says of a request, one sentence for the person who decides.

    Args:
        policy: In force.
        source: Address the request came from, as the gateway saw it.
        sans: Names the certificate would have.
    """
    remarks = []
    if not addresses_in([source], policy.networks):
        remarks.append(
            f"the source {source[:64]} is outside the networks of the policy, "
            "so its address is not in the certificate"
        )
    names = tuple(sans)
    outside = [san for san in names if not _is_inside(policy, "", san)]
    if outside:
        remarks.append("outside the policy: " + _listed(outside))
    wild = [san for san in names if san.startswith(WILDCARD)]
    if wild:
        remarks.append("covers every host directly below " + _listed([s[2:] for s in wild]))
    note = "; ".join(remarks) or "source and names are inside the policy"
    return note[:NOTE_LENGTH_MAX]


def outside_of(policy: Policy, domain: str, sans: Iterable[str]) -> tuple[str, ...]:
    """Return those of `sans` that no certificate may have under `policy`.

    Args:
        policy: In force, or thought of.
        domain: The mesh's own domain, in which no wildcard is allowed.
        sans: DNS names, wildcards and IP addresses as text.
    """
    return tuple(san for san in sans if not _is_inside(policy, domain, san))


def check_names(policy: Policy, domain: str, sans: Iterable[str]) -> None:
    """Refuse names that no certificate may have under `policy`.

    Raises:
        NameNotAllowedError: Lists every name that falls outside, once.
    """
    outside = outside_of(policy, domain, sans)
    if not outside:
        return
    allowed = f"names under {', '.join(policy.names)}; addresses in {', '.join(policy.networks)}"
    if any(san.startswith(WILDCARD) for san in outside):
        allowed += f"; wildcards {_wildcard_rule(policy, domain)}"
    raise NameNotAllowedError(
        f"outside the policy of this mesh: {_listed(outside)}",
        hint=f"{allowed} (certmesh ca policy show)",
    )


def host_sans(
    policy: Policy,
    host: str,
    domain: str,
    addresses: Iterable[str],
    extra: Iterable[str] = (),
) -> tuple[str, ...]:
    """Return the names a host gets: its own, its addresses inside the networks, and extras.

    What the host did not ask for is left out where the policy does not permit it: the mDNS name in
    a mesh without `.local`, an address outside the networks. Its server name and the extras stay,
    for `check_names` to refuse.
    """
    sans = granted_sans(host, domain, addresses_in(addresses, policy.networks), extra)
    mdns, wanted = f"{host}.local", frozenset(extra)
    return tuple(
        san
        for san in sans
        if san != mdns or san in wanted or is_permitted(san, names=policy.names, networks=())
    )


def lifetime_end(policy: Policy, now: UnixSeconds, issuing_not_after: int) -> UnixSeconds:
    """Return the last second of a leaf issued now; it never outlives the issuing certificate.

    Raises:
        CSRRejectedError: The issuing certificate has ended, so nothing useful can be issued.
    """
    if issuing_not_after <= now:
        raise CSRRejectedError(
            "the issuing certificate of this mesh has expired, nothing can be issued with it",
            hint="certmesh ca rollover start",
        )
    return UnixSeconds(min(now + policy.leaf_lifetime_s, issuing_not_after))


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the issuing certificate is constrained to.

    `names` are domains without wildcard, `networks` in CIDR form, `not_after` its last second.
    """

    names: tuple[str, ...]
    networks: tuple[str, ...]
    not_after: int


def changed_fields(before: Policy, after: Policy) -> tuple[str, ...]:
    """Return the names of the fields that differ, in their order."""
    old, new = asdict(before), asdict(after)
    return tuple(name for name in new if new[name] != old[name])


def patched(policy: Policy, patch: PolicyPatch) -> Policy:
    """Return the policy after `patch`, in canonical form.

    A new profile brings its row of the table with it, except for what the patch says otherwise.

    Raises:
        PolicyRefusedError: A name or network is malformed, or none would be left.
    """
    given = {name: value for name, value in asdict(patch).items() if value is not None}
    if "profile" in given:
        row = PROFILES[given["profile"]]
        given = {
            "approval": row.approval,
            "operator_required": row.operator_required,
            "unattended": row.unattended,
        } | given
    if "names" in given:
        given["names"] = _canonical_names(given["names"])
    if "networks" in given:
        given["networks"] = _canonical_networks(given["networks"])
    return replace(policy, **given)


def check_bounds(policy: Policy, bounds: Bounds) -> None:
    """Refuse a policy beyond what the issuing certificate permits.

    Raises:
        PolicyRefusedError: Lists every name and network that lies beyond, once.
    """
    beyond = [name for name in policy.names if not _within_names(name, bounds.names)]
    beyond += [text for text in policy.networks if not _within_networks(text, bounds.networks)]
    if beyond:
        raise PolicyRefusedError(
            f"beyond what the issuing certificate permits: {_listed(beyond)}",
            hint="it permits names under "
            f"{', '.join(bounds.names) or 'nothing'} and addresses in "
            f"{', '.join(bounds.networks) or 'nothing'}; "
            "a CA that permits more: certmesh ca rollover start --name NAME --network NET",
        )


def warnings_about(policy: Policy, bounds: Bounds, now: UnixSeconds) -> tuple[str, ...]:
    """Return what a person should know about a policy that is allowed, in full sentences."""
    found = []
    if advice := plan_advice(policy):
        found.append(advice)
    if now + policy.leaf_lifetime_s > bounds.not_after:
        left_s = max(0, bounds.not_after - now)
        found.append(
            f"certificates end with the issuing certificate, in {span_down(left_s)}, before their "
            f"{span_down(policy.leaf_lifetime_s)} (leaf_lifetime) are over: "
            "certmesh ca rollover start"
        )
    if policy.expired_grace_s > policy.leaf_lifetime_s:
        found.append(
            f"with expired_grace the key of a lost disk can renew for "
            f"{span_down(policy.expired_grace_s)} after its certificate has ended, longer than the "
            "certificate itself was good for: revoke hosts that are gone (certmesh member revoke)"
        )
    return tuple(found)


def _is_inside(policy: Policy, domain: str, san: str) -> bool:
    if not san.startswith(WILDCARD):
        return is_permitted(san, names=policy.names, networks=policy.networks)
    base = san.removeprefix(WILDCARD)
    # `*.x` matches one label below x: in the mesh's own domain that is every member.
    if not policy.wildcards or base == domain:
        return False
    return is_permitted(base, names=policy.names, networks=())


def _wildcard_rule(policy: Policy, domain: str) -> str:
    if not policy.wildcards:
        return "are off (certmesh ca policy set wildcards=yes)"
    return f"cover one level, below a name with a dot, and never {domain}"


def _canonical_names(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        raise PolicyRefusedError(
            "a policy without names permits no certificate at all",
            hint='name at least one domain, such as "*.home.arpa"',
        )
    canonical = []
    for name in names:
        base = name.strip().lower().removeprefix(WILDCARD)
        try:
            check_host(base)
        except MeshError:
            raise PolicyRefusedError(
                f"{name[:80]!r} is not a domain", hint='write it like "*.home.arpa"'
            ) from None
        if base.rpartition(".")[2].isdigit():
            raise PolicyRefusedError(
                f"{name[:80]!r} is a number, not a domain", hint="addresses go into networks"
            )
        canonical.append(f"{WILDCARD}{base}")
    return tuple(dict.fromkeys(canonical))


def _canonical_networks(networks: Sequence[str]) -> tuple[str, ...]:
    canonical = []
    for text in networks:
        try:
            canonical.append(str(ipaddress.ip_network(text.strip())))
        except ValueError:
            raise PolicyRefusedError(
                f"{text[:80]!r} is not a network", hint=_network_hint(text.strip())
            ) from None
    return tuple(dict.fromkeys(canonical))


def _network_hint(text: str) -> str:
    """Return how the network was probably meant: host bits set are the usual slip."""
    try:
        return f"write it as {ipaddress.ip_network(text, strict=False)}"
    except ValueError:
        return 'write it like "192.168.0.0/16"'


def _within_names(pattern: str, permitted: Iterable[str]) -> bool:
    base = pattern.removeprefix(WILDCARD)
    return any(base == name or base.endswith(f".{name}") for name in permitted)


def _within_networks(text: str, permitted: Iterable[str]) -> bool:
    inner = ipaddress.ip_network(text)
    return any(_is_part(inner, ipaddress.ip_network(outer)) for outer in permitted)


def _is_part(inner: Network, outer: Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network):
        return isinstance(outer, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, ipaddress.IPv6Network) and inner.subnet_of(outer)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:SHOWN_MAX])
    return shown if len(names) <= SHOWN_MAX else f"{shown} and {len(names) - SHOWN_MAX} more"
