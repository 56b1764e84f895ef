"""What joining decides, on plain values: whom to ask, with what, and what an answer means.

Order rule: the CA is pinned by what the operator brought (the invite, or a fingerprint compared by
eye) before any credential is sent; an invite for another host or out of time is not sent at all.
"""

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from broker.errors import (
    ErrorCode,
    InviteExpiredError,
    MalformedMessageError,
    MeshError,
    NameNotAllowedError,
)
from broker.runtime.exits import Exit
from broker.units import UnixSeconds
from broker.wire.enrollment import JoinAnswer
from broker.wire.invite import decode_invite
from broker.wire.mesh_api import InviteTicket, JoinBody
from broker.wire.node import Endpoint, Membership

ENROLL_PORT = 7642
MESH_PORT = 7643
UNKNOWN_SERVER = "ca"
"""Placeholder of an invite that does not name its server."""

WORD_BYTES = 2
WORD_COUNT = 4
POLL_MS_MIN = 200
POLL_MS_MAX = 10_000
POLL_MS = 1000

Method = Literal["invite", "totp"]

REFUSALS = frozenset(
    {
        ErrorCode.BAD_CREDENTIAL,
        ErrorCode.INVITE_EXPIRED,
        ErrorCode.INVITE_USED,
        ErrorCode.INVITE_MALFORMED,
        ErrorCode.ENROLLMENT_CLOSED,
        ErrorCode.NAME_NOT_ALLOWED,
        ErrorCode.ALREADY_ENROLLED,
        ErrorCode.CSR_REJECTED,
        ErrorCode.APPROVAL_DENIED,
        ErrorCode.APPROVAL_EXPIRED,
        ErrorCode.FORBIDDEN,
        ErrorCode.REVOKED,
        ErrorCode.PIN_MISMATCH,
    }
)
"""Trying the same again cannot help."""

PASSING = frozenset({ErrorCode.CA_LOCKED, ErrorCode.NOT_PRIMARY, ErrorCode.STORAGE})
"""Waiting for approval goes on over these, besides everything retryable."""


class Order(msgspec.Struct, frozen=True):
    """What the command wants; comes as JSON on standard input.

    Either `invite`, or `url` with `pin` and `totp`. With `probe` only the fingerprint of the CA
    behind `url` is told; with `dry_run` everything is checked and nothing is sent or written.
    With `leave` this host gives its membership back, to `primary` if that is known.
    """

    invite: str = ""
    url: str = ""
    totp: str = ""
    pin: str = ""
    host: str = ""
    sans: tuple[str, ...] = ()
    wait_s: float = 0.0
    probe: bool = False
    dry_run: bool = False
    leave: bool = False
    primary: Endpoint | None = None


class Ticket(msgspec.Struct, frozen=True):
    """A join on its way, kept in `ticket.json` from before the first request until it ends.

    `credential` is the SHA-256 of the invite secret, empty for a TOTP join. `answer` is the
    certificate once it was issued: a kill before it is installed loses nothing.
    """

    pin: str
    host: str
    method: Method
    credential: str
    secret: str
    nonce: str
    ticket_id: str = ""
    answer: JoinAnswer | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to ask, for whom, and by which right.

    Attributes:
        addresses: Of the CA's enrol port, best first.
        port: That port.
        pin: Hex SHA-256 of the root.
        server_name: Name the CA must prove, None while it is not known.
        host: The name this host asks for.
        sans: Further names.
        method: Kind of credential.
        secret: The credential itself; may be empty when a ticket is already waiting.
    """

    addresses: tuple[str, ...]
    port: int
    pin: str
    server_name: str | None
    host: str
    sans: tuple[str, ...]
    method: Method
    secret: str

    @property
    def credential(self) -> str:
        """What a ticket remembers of the credential."""
        return hashlib.sha256(self.secret.encode()).hexdigest() if self.method == "invite" else ""


def read_order(raw: bytes) -> Order:
    """Return the order in `raw`.

    Raises:
        MalformedMessageError: Not one.
    """
    try:
        return msgspec.json.decode(raw, type=Order)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise MalformedMessageError(f"standard input is no join order: {error}") from None


def target_of(order: Order, host: str, now: UnixSeconds) -> Target:
    """Return whom to ask for what.

    Args:
        order: What the command wants.
        host: This host's name.
        now: Wall time; an invite that is over is not sent.

    Raises:
        InviteMalformedError: The invite is damaged.
        InviteExpiredError: Its time is over.
        NameNotAllowedError: It is for another host.
        MalformedMessageError: Neither an invite nor a URL with a pin.
    """
    if order.invite:
        return _invited(decode_invite(order.invite), order, host, now)
    if not order.pin:
        raise MalformedMessageError(
            "a join by TOTP needs the fingerprint of the CA",
            hint="compare it with what `certmesh ca show` prints on the CA, then give it as pin",
        )
    address, port = address_of(order.url)
    return Target((address,), port, order.pin, None, host, order.sans, "totp", order.totp)


def _invited(ticket: InviteTicket, order: Order, host: str, now: UnixSeconds) -> Target:
    if now >= ticket.expires_at:
        raise InviteExpiredError(
            f"this invite for {ticket.host} ended {now - ticket.expires_at} s ago",
            hint=f"make a new one on the CA: certmesh invite create {ticket.host}",
        )
    if ticket.host != host:
        raise NameNotAllowedError(
            f"this invite is for {ticket.host}, and this host is {host}; it was not sent",
            hint=f"use --host {ticket.host}, or make one: certmesh invite create {host}",
        )
    name = None if ticket.server_name in {"", UNKNOWN_SERVER} else ticket.server_name
    sans = order.sans or ticket.sans
    secret = ticket.secret
    return Target(
        ticket.addresses, ticket.enroll_port, ticket.pin, name, host, sans, "invite", secret
    )


def address_of(url: str) -> tuple[str, int]:
    """Return address and port of a CA's URL; a bare `HOST[:PORT]` is one too.

    Raises:
        MalformedMessageError: Not `https://HOST:PORT`.
    """
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        port = parts.port or ENROLL_PORT
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme != "https" or not parts.hostname or parts.path not in {"", "/"}:
        raise MalformedMessageError(
            f"{url!r} is not the address of a CA", hint="write it as https://HOST:7642"
        )
    return parts.hostname, port


def port_of(listen: str, default: int) -> int:
    """Return the port in `host:port`."""
    text = listen.rpartition(":")[2]
    return int(text) if text.isascii() and text.isdigit() else default


def own_addresses(configured: Sequence[str], listen: str, source: str) -> tuple[str, ...]:
    """Return where other nodes find this one.

    Args:
        configured: `node.addresses`; taken as they are.
        listen: `listen.mesh`; a definite address in it is the only one there is.
        source: The address this host has towards the CA; may be empty.
    """
    if configured:
        return tuple(configured)
    bound = listen.rpartition(":")[0].strip("[]")
    try:
        definite = not ipaddress.ip_address(bound).is_unspecified
    except ValueError:
        definite = False
    if definite:
        return (bound,)
    return (source,) if source else ()


def continues(ticket: Ticket | None, target: Target) -> bool:
    """Return whether `ticket` belongs to the same join."""
    return ticket is not None and (
        (ticket.pin, ticket.host, ticket.method, ticket.credential)
        == (target.pin, target.host, target.method, target.credential)
    )


def join_body(target: Target, ticket: Ticket, csr: bytes, place: Endpoint) -> JoinBody:
    """Return the request; `place` says where this host will serve."""
    return JoinBody(
        host=target.host,
        csr=csr,
        ticket_hash=hashlib.sha256(ticket.secret.encode()).hexdigest(),
        nonce=ticket.nonce,
        invite=target.secret if target.method == "invite" else "",
        totp=target.secret if target.method == "totp" else "",
        sans=target.sans,
        addresses=place.addresses,
        mesh_port=place.mesh_port,
        enroll_port=place.enroll_port,
    )


def comparison_words(spki: bytes, pin: str, nonce: str, wordlist: Sequence[str]) -> tuple[str, ...]:
    """Return the four words that must stand on both screens.

    They are made here from what this side knows and never taken from the other side: that is what
    makes comparing them worth anything.
    """
    digest = hashlib.sha256(spki + bytes.fromhex(pin) + bytes.fromhex(nonce)).digest()
    starts = range(0, WORD_COUNT * WORD_BYTES, WORD_BYTES)
    numbers = (int.from_bytes(digest[start : start + WORD_BYTES], "big") for start in starts)
    return tuple(wordlist[number % len(wordlist)] for number in numbers)


def poll_ms(retry_after_ms: int) -> int:
    """Return how long to wait before asking again."""
    return max(POLL_MS_MIN, min(retry_after_ms or POLL_MS, POLL_MS_MAX))


def passes(error: MeshError) -> bool:
    """Return whether waiting for approval goes on after `error`."""
    return error.retryable or error.code in PASSING


def ends_ticket(error: MeshError) -> bool:
    """Return whether the answer to a poll means that the ticket is worth nothing any more."""
    return error.code in {
        ErrorCode.APPROVAL_DENIED,
        ErrorCode.APPROVAL_EXPIRED,
        ErrorCode.NOT_FOUND,
    }


def is_final(error: MeshError) -> bool:
    """Return whether the CA refused for good, so that the same request is not worth keeping."""
    return error.code in REFUSALS - {ErrorCode.PIN_MISMATCH}


def exit_of(error: MeshError) -> int:
    """Return the exit status of a join that failed."""
    return Exit.REFUSED if error.code in REFUSALS else Exit.FAILED


def membership_of(
    answer: JoinAnswer, target: Target, root_pem: str, primary: Endpoint
) -> Membership:
    """Return what this node keeps of its mesh; `primary` is used when the answer names none."""
    return Membership(
        mesh_id=answer.mesh_id,
        mesh_name=answer.mesh_name,
        pin=target.pin,
        root_pem=root_pem,
        host=target.host,
        member_id=answer.member_id,
        server_name=answer.server_name,
        primary=answer.primary or primary,
        term=answer.term,
    )
