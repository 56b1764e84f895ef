"""What failover believes: nothing that mDNS says, everything that mutual TLS proves.

Records of the LAN become `Hint`s here, cleaned and bounded. A hint may add an address at which a
key holder *that the roster already names* is probed; it never adds a key holder and never becomes
a sighting by itself. Only a claim made under the expected name, over a verified connection, counts.
"""

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from broker.errors import MeshError, PeerUnreachableError
from broker.wire.failover import FailoverPlan, HelloAnswer, Hint, Sighting
from broker.wire.mesh_api import HelloBody
from broker.wire.node import Endpoint

HINTS_MAX = 64
HINT_ADDRESSES_MAX = 4
HINTED_PROBES_MAX = 2
"""Probes that hints may add per key holder: an announcer of rubbish costs two connections."""

TARGETS_MAX = 16
LABEL_BYTES_MAX = 63
"""Longest DNS label (RFC 1035 2.3.4); an mDNS instance is one label."""

TEXT_MAX = 64
_INSTANCE = "certmesh-ca-"
_ROLES = frozenset({"primary", "standby", "member", "client"})
_HEXADECIMAL = frozenset("0123456789abcdef")


def instance_label(instance: str) -> str:
    """Return `instance` as one DNS label: long ones are cut and made unique by a digest."""
    raw = instance.encode()
    if len(raw) <= LABEL_BYTES_MAX:
        return instance
    mark = hashlib.sha256(raw).hexdigest()[:8]
    return raw[: LABEL_BYTES_MAX - 9].decode(errors="ignore") + "-" + mark


def clean(text: str, limit: int = TEXT_MAX) -> str:
    """Return `text` with everything unprintable removed, cut to `limit` characters."""
    return "".join(letter for letter in text if letter.isprintable())[:limit]


def hint_of(
    instance: str, addresses: Iterable[str], port: int | None, txt: Mapping[bytes, bytes | None]
) -> Hint | None:
    """Return what a resolved record suggests, or None when nobody could be asked there."""
    dialable = tuple(a for a in addresses if _is_local(a))[:HINT_ADDRESSES_MAX]
    if not dialable or port is None or not 0 < port < 65536:  # noqa: PLR2004 (a port)
        return None
    role, term = _text(txt, b"role"), _text(txt, b"term")
    fingerprint = _text(txt, b"fingerprint")
    return Hint(
        instance=clean(instance, LABEL_BYTES_MAX),
        addresses=dialable,
        port=port,
        role=role if role in _ROLES else "",
        fingerprint=fingerprint if set(fingerprint) <= _HEXADECIMAL else "",
        term=term if term.isascii() and term.isdigit() else "",
    )


def keep(hints: dict[str, Hint], name: str, hint: Hint, pin: str) -> dict[str, Hint]:
    """Return `hints` with `hint` under `name`, never more than `HINTS_MAX`.

    When it is full, a record of another CA makes room first; a flood that claims our CA is left
    out, so that it cannot push out what was there before.
    """
    kept = {**hints, name: hint}
    if len(kept) <= HINTS_MAX:
        return kept
    foreign = next((key for key, value in kept.items() if not claims_pin(value, pin)), name)
    return {key: value for key, value in kept.items() if key != foreign}


def claims_pin(hint: Hint, pin: str) -> bool:
    """Return whether the record repeats our CA's fingerprint, which anybody can."""
    return bool(pin) and hmac.compare_digest(hint.fingerprint.encode(), pin.encode())


def probes(plan: FailoverPlan, hints: Sequence[Hint]) -> tuple[Endpoint, ...]:
    """Return where to ask: every other key holder at its known doors, then where hints point."""
    found: list[Endpoint] = []
    for target in others(plan):
        found.extend((target,) if target.addresses else ())
        found.extend(_hinted(target, hints, plan.pin))
    return tuple(found)


def others(plan: FailoverPlan) -> tuple[Endpoint, ...]:
    """Return the key holders of the plan without this node, each once."""
    unique: dict[str, Endpoint] = {}
    for target in plan.targets:
        unique.setdefault(target.host.lower(), target)
    unique.pop(plan.host.lower(), None)
    return tuple(unique.values())[:TARGETS_MAX]


def sighting(target: Endpoint, answer: HelloAnswer | Exception) -> Sighting:
    """Return the outcome of one probe; a claim under another name is no claim.

    Args:
        target: Whom the connection was verified to be.
        answer: The decoded hello, or why there is none.
    """
    address = target.addresses[0] if target.addresses else ""
    match answer:
        case HelloAnswer(claim=claim) if claim.host.lower() == target.host.lower():
            return Sighting(target.host, address, claim, gossip=answer.gossip)
        case HelloAnswer(claim=claim):
            why: Exception = PeerUnreachableError(f"answered as {clean(claim.host)}")
        case _:
            why = answer
    return Sighting(host=target.host, address=address, claim=None, error=reason_of(why))


def reason_of(error: Exception) -> str:
    """Return one line about a failed probe."""
    detail = error.detail if isinstance(error, MeshError) else f"{type(error).__name__}: {error}"
    return clean(detail, 300)


def hello(plan: FailoverPlan) -> HelloBody | None:
    """Return what this node says of itself; None: it has nothing to claim, so it asks nobody."""
    return None if plan.claim is None else HelloBody(claim=plan.claim, gossip=plan.gossip)


def best(sightings: Iterable[Sighting]) -> tuple[Sighting, ...]:
    """Return one sighting per host: a verified claim beats any number of failures."""
    chosen: dict[str, Sighting] = {}
    for seen in sightings:
        if seen.host not in chosen or (chosen[seen.host].claim is None and seen.claim is not None):
            chosen[seen.host] = seen
    return tuple(chosen.values())


def _hinted(target: Endpoint, hints: Sequence[Hint], pin: str) -> list[Endpoint]:
    """Return the target at addresses that only hints know; its port and name stay the roster's."""
    label = instance_label(_INSTANCE + target.host).lower()
    found: list[Endpoint] = []
    for hint in hints:
        fresh = tuple(a for a in hint.addresses if a not in target.addresses)
        if fresh and hint.instance.lower() == label and claims_pin(hint, pin):
            found.append(msgspec.structs.replace(target, addresses=fresh))
    return found[:HINTED_PROBES_MAX]


def _is_local(address: str) -> bool:
    """Return whether an address may be dialed because a stranger said so: LAN only."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    # A zone id is free text to the parser: one that steers a terminal, or fills a message.
    if not (address.isprintable() and len(address) <= TEXT_MAX):
        return False
    return parsed.is_private and not (parsed.is_unspecified or parsed.is_multicast)


def _text(txt: Mapping[bytes, bytes | None], key: bytes) -> str:
    return clean((txt.get(key) or b"").decode("utf-8", "replace"))
