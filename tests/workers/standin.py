"""Members of a mesh, as many as asked for, behind one port: real TLS, real keys, real messages.

    standin = StandIn(root_der, manner=lambda host: HUNG if host in stuck else GOOD)
    with standin:
        standin.join(paths, ["m0001", "m0002"])   # through the broker's own sockets

Which member is meant, the caller says by SNI; its context is made when it is called. A member makes
a key for `/v1/renewal/csr`, and takes at `/v1/renewal/install` what belongs to that key and chains
to the root. What happened to each is in `members`. One thread serves them all, so `members` is for
looking at.
"""

import asyncio
import hashlib
import os
import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.client import Link
from broker.clock import wall_s
from broker.errors import CSRRejectedError, ErrorCode, MeshError, UnavailableError
from broker.runtime.paths import Paths
from broker.wire.enrollment import CreateInvite, InviteView, Issued, Join, JoinAnswer
from broker.wire.ids import Service
from broker.wire.mesh_api import REPLY_JSON, InstallBody, Problem, RekeyBody
from broker.wire.node import Endpoint, Membership
from broker.wire.renewal import InstallAnswer, RekeyAnswer
from workers.keypair import make_key_and_csr
from workers.keyproof import prove
from workers.leaf import check_leaf, check_pair, read_certificate

ADDRESS = "127.0.0.1"
CONTEXTS_MAX = 64
DRIP_S = 0.2
NEVER_S = 3600.0
CSR, INSTALL = "/v1/renewal/csr", "/v1/renewal/install"
_STATUS = {ErrorCode.CSR_REJECTED: 422}


@dataclass(frozen=True)
class Manner:
    """How a member behaves.

    Attributes:
        latency_ms: Before every answer.
        silent: Paths that never get an answer.
        cuts: Paths at which the connection is closed instead.
        drip: `head` or `body` of an answer comes one octet at a time, and never ends.
        refuses: Every request is turned down.
        mute: The port takes connections, and that is all; effective for members that join.
    """

    latency_ms: int = 0
    silent: frozenset[str] = frozenset()
    cuts: frozenset[str] = frozenset()
    drip: Literal["", "head", "body"] = ""
    refuses: bool = False
    mute: bool = False


GOOD = Manner()
HUNG = Manner(silent=frozenset({CSR, INSTALL}))
HALF = Manner(silent=frozenset({INSTALL}))
DRIPPING = Manner(drip="head")
REFUSING = Manner(refuses=True)
MUTE = Manner(mute=True)


@dataclass
class Member:
    """One member: its live pair, its pending key, and what happened to it."""

    host: str
    key: bytes
    chain: bytes
    serial: str
    pending: tuple[bytes, bytes] | None = None
    asked: int = 0
    installed: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    terms: set[int] = field(default_factory=set)


class StandIn:
    """Serves from a thread between `__enter__` and `__exit__`.

    Args:
        root: The mesh's root (DER); callers have to show a certificate below it.
        manner: How the member of that name behaves; may change while it serves.
    """

    def __init__(self, root: bytes, manner: Callable[[str], Manner] = lambda _: GOOD) -> None:
        self.root = root
        self.manner = manner
        self.members: dict[str, Member] = {}
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._mesh_id = ""
        self._names: dict[str, str] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._mute = socket.create_server((ADDRESS, 0), backlog=1024)
        self._loop = asyncio.new_event_loop()
        self._bound = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stand-in", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._bound.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._mute.close()

    def endpoint(self, host: str, server_name: str) -> Endpoint:
        """Return the doors of one member."""
        return Endpoint(host, (ADDRESS,), self._port_of(host), self._port_of(host), server_name)

    def join(self, paths: Paths, hosts: Iterable[str]) -> None:
        """Enroll members at the broker of `paths`, by invite, as console and gateway do it."""
        name = f"stand-in-{os.getpid()}"
        membership = msgspec.json.decode(paths.membership.read_bytes(), type=Membership)
        self._mesh_id = membership.mesh_id
        with (
            Link(paths, Service.CONSOLE, name) as console,
            Link(paths, Service.GATEWAY, name) as gateway,
        ):
            for host in hosts:
                secret = secrets.token_urlsafe(16)
                digest = hashlib.sha256(secret.encode()).hexdigest()
                console.ask(CreateInvite(digest, host, (), 3600, "stand-in"), InviteView)
                key, csr = make_key_and_csr(host)
                answer = gateway.ask(self._join_of(host, csr, secret), JoinAnswer)
                assert answer.issued is not None, "joins of the stand-in are not approved by people"
                self.add(host, answer.server_name, key, answer.issued)

    def add(self, host: str, server_name: str, key: bytes, issued: Issued) -> None:
        """Be a member that got its first certificate somewhere else."""
        chain = _pem(issued.leaf) + _pem(issued.issuing)
        self._names[server_name] = host
        self.members[host] = Member(host, key, chain, issued.serial)

    def renewed(self) -> list[str]:
        """Return the members that were brought a certificate, in order of their names."""
        return sorted(member.host for member in self.members.values() if member.installed)

    def _join_of(self, host: str, csr: bytes, secret: str) -> Join:
        return Join(
            host=host,
            csr=csr,
            sans=(),
            invite_secret=secret,
            totp_code="",
            ticket_hash=hashlib.sha256(host.encode()).hexdigest(),
            nonce="00" * 16,
            addresses=(ADDRESS,),
            mesh_port=self._port_of(host),
            enroll_port=self._port_of(host),
            source=ADDRESS,
        )

    def _port_of(self, host: str) -> int:
        return int(self._mute.getsockname()[1]) if self.manner(host).mute else self.port

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(
                self._serve, ADDRESS, 0, ssl=self._door(), backlog=1024, ssl_handshake_timeout=30
            )
        )
        self.port = int(server.sockets[0].getsockname()[1])
        self._bound.set()
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(self._hang_up())
        self._loop.close()

    async def _hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)  # transports close in turns of the loop of their own

    def _door(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.root)
        context.sni_callback = self._named
        return context

    def _named(self, connection: Any, name: str | None, _: ssl.SSLContext) -> int | None:
        """Become the member that is asked for."""
        host = self._names.get(name or "")
        if host is None:
            return int(ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME)
        connection.context = self._context_of(self.members[host])
        connection.member = host
        return None

    def _context_of(self, member: Member) -> ssl.SSLContext:
        """Return a context with the member's live pair; few are kept, they are heavy."""
        pair = member.chain + member.key
        context = self._contexts.pop(member.serial, None) or _context(pair, self.root)
        self._contexts[member.serial] = context
        if len(self._contexts) > CONTEXTS_MAX:
            del self._contexts[next(iter(self._contexts))]
        return context

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            host = writer.get_extra_info("ssl_object").member
            while await self._answer(self.members[host], reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass  # the caller has gone
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(
        self, member: Member, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; return whether another one may follow."""
        path, body = await _request(reader)
        manner = self.manner(member.host)
        member.asked += 1
        if manner.latency_ms:
            await asyncio.sleep(manner.latency_ms / 1000)
        if path in manner.silent:
            await asyncio.sleep(NEVER_S)
        if path in manner.cuts:
            return False
        status, text = self._reply(member, path, body, manner)
        head = f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\n"
        if manner.drip:
            await _drip(writer, head, manner.drip)
        writer.write(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text)
        await writer.drain()
        return True

    def _reply(self, member: Member, path: str, body: bytes, manner: Manner) -> tuple[int, bytes]:
        try:
            if manner.refuses:
                raise UnavailableError(f"{member.host} takes nothing")
            answer = (
                _rekey(member, body, self._mesh_id) if path == CSR else self._install(member, body)
            )
        except MeshError as error:
            status = _STATUS.get(error.code, 503)
            member.refused.append(error.detail)
            title = error.code.value
            problem = Problem("about:blank", title, status, title, error.detail, error.hint)
            return status, msgspec.json.encode(problem)
        return 200, REPLY_JSON.encode(answer)

    def _install(self, member: Member, raw: bytes) -> InstallAnswer:
        body = msgspec.json.decode(raw, type=InstallBody)
        member.terms.add(body.term)
        leaf, issuing = (read_certificate(der, "certificate") for der in (body.leaf, body.issuing))
        serial = format(leaf.serial_number, "x")
        if serial != member.serial:
            if member.pending is None:
                raise CSRRejectedError(f"no key of {member.host} waits for a certificate")
            check_pair(leaf, member.pending[0])
            root = x509.load_der_x509_certificate(self.root)
            check_leaf(leaf, (issuing, root), member.host, wall_s())
            member.key, member.pending = member.pending[0], None
            member.chain = _pem(body.leaf) + _pem(body.issuing)
            member.serial = serial
        member.installed.append(serial)
        return InstallAnswer(serial, "served", "")


def _rekey(member: Member, raw: bytes, mesh_id: str) -> RekeyAnswer:
    member.terms.add(msgspec.json.decode(raw, type=RekeyBody).term)
    member.pending = member.pending or make_key_and_csr(member.host)
    leaf = x509.load_pem_x509_certificate(member.chain).public_bytes(Encoding.DER)
    proof = prove(member.key, leaf, mesh_id, member.pending[1])
    return RekeyAnswer(member.pending[1], proof)


async def _request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    lengths = [line.split(":")[1] for line in lines if line.lower().startswith("content-length:")]
    return first.split()[1], await reader.readexactly(int(lengths[0]) if lengths else 0)


async def _drip(writer: asyncio.StreamWriter, head: str, part: str) -> None:
    """Send an answer that never ends, slowly."""
    writer.write(f"{head}X-Slow: ".encode() if part == "head" else f"{head}\r\n".encode())
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(DRIP_S)


def _context(pair: bytes, root: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # OpenSSL verifies the caller with the store of the context that it was moved to.
    context.load_verify_locations(cadata=root)
    descriptor = os.memfd_create("pair")  # ssl reads files only
    try:
        os.write(descriptor, pair)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context


def _pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
