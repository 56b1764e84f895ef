"""Joining step by step; killed at any of them, the next run takes up where this one stopped.

What is durable, in this order: the key in the pending directory, `ticket.json`, the answer in it,
the installed certificate, `membership.json`; only then the ticket goes.
"""

import secrets
import socket
from collections.abc import Callable
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.clock import boottime_ms, wall_s
from broker.errors import EnrollmentClosedError, MeshError, MeshExistsError, PinMismatchError
from broker.runtime.exits import Exit
from broker.runtime.files import private_directory, write_atomic
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.runtime.wordlist import words
from broker.wire.checked import encode_checked
from broker.wire.enrollment import JoinAnswer
from broker.wire.node import Endpoint, Membership
from broker.wire.roster import WhoAmIAnswer
from workers.certstore import CertificateStore, check_host
from workers.enroll.ca import CA, find_ca, source_address
from workers.enroll.logic import (
    ENROLL_PORT,
    MESH_PORT,
    Order,
    Target,
    Ticket,
    address_of,
    comparison_words,
    continues,
    ends_ticket,
    is_final,
    join_body,
    membership_of,
    own_addresses,
    passes,
    poll_ms,
    port_of,
    target_of,
)
from workers.enroll.ticket import TicketFile
from workers.leaf import spki_of
from workers.membership import load_membership
from workers.peer import PeerSession, fingerprint, probe_root, urls_of

KEY_REUSE_S = 10 * 365 * 86_400
"""A key goes with its ticket, however old; without a ticket a fresh one is made."""

PROOF_TIMEOUT_S = 3.0
TICKET_SECRET_BYTES = 32
NONCE_BYTES = 16

Emit = Callable[[dict[str, Any]], None]
Wait = Callable[[int], bool]
"""Wait so many milliseconds; True means that a stop was asked."""


class Joining:
    """One attempt to make this host a member.

    Args:
        settings: Of this node.
        paths: Of this node.
        emit: Takes each line of the answer.
        wait: How to wait between polls.
    """

    def __init__(self, settings: Settings, paths: Paths, emit: Emit, wait: Wait) -> None:
        self._settings = settings
        self._paths = paths
        self._emit = emit
        self._wait = wait
        self._tickets = TicketFile(paths)

    def run(self, order: Order) -> int:
        """Carry out the order and return the exit status.

        Raises:
            MeshError: It failed.
        """
        if order.probe and not order.invite:
            return self._probe(order)
        if load_membership(self._paths) is not None:
            self._tickets.remove()
            raise MeshExistsError(
                "this node already belongs to a mesh", hint="see `certmesh status`"
            )
        host = check_host(order.host or self._settings.node.name or short_host_name())
        target = target_of(order, host, wall_s())
        ca = find_ca(target)
        self._emit({"kind": "fingerprint", "pin": fingerprint(ca.root)})
        if order.probe:
            return Exit.OK
        mesh = ca.mesh()
        if order.dry_run:
            line = {"kind": "checked", "host": host, "mesh_id": mesh.mesh_id, "open": mesh.open}
            self._emit({**line, "pin": target.pin})
            return Exit.OK
        ticket = self._tickets.load()
        if not continues(ticket, target):
            ticket = None
        if ticket is None and target.method == "totp":
            _check_door(mesh.open, target)
        return self._join(ca, ticket, order.wait_s)

    def _probe(self, order: Order) -> int:
        address, port = address_of(order.url)
        (url,) = urls_of((address,), port, "")
        self._emit({"kind": "fingerprint", "pin": fingerprint(probe_root(url))})
        return Exit.OK

    def _join(self, ca: CA, ticket: Ticket | None, wait_s: float) -> int:
        private_directory(self._paths.data)
        store = CertificateStore(
            self._paths.certificates, ca.target.host, self._settings.renewal.keep_versions
        )
        if ticket is not None and ticket.answer is not None:
            return self._finish(ca, store, ticket.answer)
        csr = store.prepare(ca.target.sans, reuse_s=0 if ticket is None else KEY_REUSE_S)
        if ticket is None:
            ticket = _new_ticket(ca.target)
            self._tickets.save(ticket)
        answer = self._ask(ca, ticket, csr)
        if answer.issued is None:
            ticket = msgspec.structs.replace(ticket, ticket_id=answer.ticket_id)
            self._tickets.save(ticket)
            self._show_pending(ticket, csr, answer)
            answer = self._await(ca, ticket, answer, wait_s)
        if answer.issued is None:
            self._emit({"kind": "waiting", "host": ticket.host, "ticket_id": ticket.ticket_id})
            return Exit.WAITING
        self._tickets.save(msgspec.structs.replace(ticket, answer=answer))
        return self._finish(ca, store, answer)

    def _ask(self, ca: CA, ticket: Ticket, csr: bytes) -> JoinAnswer:
        """Return the first answer; a ticket that is already waiting is asked about instead."""
        if ticket.ticket_id:
            return self._poll(ca, ticket)
        try:
            return ca.join(join_body(ca.target, ticket, csr, self._place(ca.target)))
        except MeshError as error:
            if is_final(error):
                self._tickets.remove()
            raise

    def _await(self, ca: CA, ticket: Ticket, answer: JoinAnswer, wait_s: float) -> JoinAnswer:
        """Ask again and again until the answer is final or the time is up."""
        deadline_ms = boottime_ms() + int(wait_s * 1000)
        while answer.issued is None:
            left_ms = deadline_ms - boottime_ms()
            if left_ms <= 0 or self._wait(min(left_ms, poll_ms(answer.retry_after_ms))):
                break
            try:
                answer = self._poll(ca, ticket)
            except MeshError as error:
                if not passes(error):
                    raise
        return answer

    def _poll(self, ca: CA, ticket: Ticket) -> JoinAnswer:
        try:
            return ca.poll(ticket.ticket_id, ticket.secret)
        except MeshError as error:
            if ends_ticket(error):
                self._tickets.remove()
            raise

    def _show_pending(self, ticket: Ticket, csr: bytes, answer: JoinAnswer) -> None:
        spki = spki_of(x509.load_der_x509_csr(csr))
        own_words = comparison_words(spki, ticket.pin, ticket.nonce, words())
        line = {"kind": "pending", "host": ticket.host, "ticket_id": ticket.ticket_id}
        self._emit({**line, "words": own_words, "retry_after_ms": poll_ms(answer.retry_after_ms)})

    def _finish(self, ca: CA, store: CertificateStore, answer: JoinAnswer) -> int:
        """Install the certificate, become a member, and prove it with a handshake."""
        issued = answer.issued
        assert issued is not None, "only an issued certificate finishes a join"
        if issued.root != ca.root:
            raise PinMismatchError("the answer names another root than the pinned one")
        store.install(issued.leaf, issued.issuing, ca.root)
        root_pem = x509.load_der_x509_certificate(ca.root).public_bytes(Encoding.PEM).decode()
        membership = membership_of(answer, ca.target, root_pem, ca.endpoint())
        write_atomic(self._paths.membership, encode_checked(membership))
        self._tickets.remove()
        self._emit(_joined(membership, answer, self._prove(membership)))
        return Exit.OK

    def _prove(self, membership: Membership) -> str:
        """Return why the mesh does not know this node yet; empty when a handshake proved it."""
        try:
            with PeerSession(self._paths, membership, timeout_s=PROOF_TIMEOUT_S) as session:
                session.call(membership.primary, "GET", "/v1/whoami", None, WhoAmIAnswer)
        except MeshError as error:
            return f"the certificate is installed, but not proven yet: {error.detail}"
        return ""

    def _place(self, target: Target) -> Endpoint:
        """Return where this host will serve."""
        listen = self._settings.listen
        addresses = own_addresses(
            self._settings.node.addresses, listen.mesh, source_address(target)
        )
        return Endpoint(
            host=target.host,
            addresses=addresses,
            enroll_port=port_of(listen.enroll, ENROLL_PORT),
            mesh_port=port_of(listen.mesh, MESH_PORT),
            server_name=target.host,
        )


def short_host_name() -> str:
    """Return the first label of this machine's name, in lower case."""
    return socket.gethostname().lower().partition(".")[0]


def _check_door(is_open: bool, target: Target) -> None:  # noqa: FBT001 (what the mesh says)
    if not is_open:
        raise EnrollmentClosedError(
            "enrollment by TOTP is closed; the code was not sent",
            hint="open it on the CA (certmesh enrollment open), or ask for an invite: "
            f"certmesh invite create {target.host}",
        )


def _new_ticket(target: Target) -> Ticket:
    return Ticket(
        pin=target.pin,
        host=target.host,
        method=target.method,
        credential=target.credential,
        secret=secrets.token_hex(TICKET_SECRET_BYTES),
        nonce=secrets.token_hex(NONCE_BYTES),
    )


def _joined(membership: Membership, answer: JoinAnswer, warning: str) -> dict[str, Any]:
    assert answer.issued is not None, "checked by the caller"
    line = {
        "kind": "joined",
        "host": membership.host,
        "serial": answer.issued.serial,
        "not_after": answer.issued.not_after,
        "member_id": membership.member_id,
        "mesh": membership.mesh_name,
        "pin": membership.pin,
        "server_name": membership.server_name,
    }
    return {**line, "warning": warning} if warning else line
