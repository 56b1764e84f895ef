"""Attackers of a TLS port: each is one coroutine that never stops being a nuisance.

They run in a process of their own, so that they slow down nobody but whom they attack, from source
addresses in 127.0.0.0/8, and count what became of their connections. Nothing here believes anybody:
no certificate is checked.

`python -m tests.faults.injectors.siege ORDERS` attacks until its standard input ends; then it
prints its counts as JSON.
"""

import asyncio
import contextlib
import os
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

DRIP_S = 0.5
AGAIN_S = 0.05
DEEP = b"[" * 60_000
HEAD = b"Host: a\r\n"
POST = b"POST /v1/join HTTP/1.1\r\n" + HEAD
CLIENT_HELLO_HEAD = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


@dataclass(frozen=True)
class Target:
    """One TLS port, and what to show there."""

    port: int
    context: ssl.SSLContext
    host: str = "127.0.0.1"


Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Attack = Callable[[Target, str], Awaitable[bytes]]


async def plain(target: Target, source: str) -> Pipe:
    """Connect without TLS."""
    return await asyncio.open_connection(target.host, target.port, local_addr=(source, 0))


async def secured(target: Target, source: str) -> Pipe:
    """Connect and shake hands."""
    return await asyncio.open_connection(
        target.host,
        target.port,
        local_addr=(source, 0),
        ssl=target.context,
        server_hostname="",
        ssl_shutdown_timeout=1,
    )


async def to_the_end(pipe: Pipe) -> bytes:
    """Return what still comes until the other side closes."""
    reader, writer = pipe
    try:
        with contextlib.suppress(OSError):
            return await reader.read(65_536)
        return b""
    finally:
        writer.transport.abort()


async def dripping(pipe: Pipe, first: bytes, drop: bytes) -> bytes:
    """Send `first`, then a drop now and then, until the other side has had enough."""
    reader, writer = pipe
    ended = asyncio.ensure_future(reader.read(65_536))
    try:
        writer.write(first)
        while not ended.done():
            writer.write(drop)
            await asyncio.wait([ended], timeout=DRIP_S)
        return ended.result()
    finally:
        ended.cancel()
        writer.transport.abort()


async def silence(target: Target, source: str) -> bytes:
    """Connect and say nothing, ever."""
    return await to_the_end(await plain(target, source))


async def dripped_hello(target: Target, source: str) -> bytes:
    """Send a handshake byte by byte."""
    return await dripping(await plain(target, source), CLIENT_HELLO_HEAD, b"\0")


async def noise(target: Target, source: str) -> bytes:
    """Send what is no TLS."""
    pipe = await plain(target, source)
    pipe[1].write(os.urandom(4096))
    return await to_the_end(pipe)


async def half_handshake(target: Target, source: str) -> bytes:
    """Send a good ClientHello and never answer what comes back."""
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = target.context.wrap_bio(into, out)
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    pipe = await plain(target, source)
    pipe[1].write(out.read())
    await pipe[0].read(65_536)
    return await to_the_end(pipe)


async def old_tls(target: Target, source: str) -> bytes:
    """Offer nothing newer than TLS 1.2."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return await to_the_end(await secured(Target(target.port, context, target.host), source))


async def slow_headers(target: Target, source: str) -> bytes:
    """Never end the headers."""
    pipe = await secured(target, source)
    return await dripping(pipe, b"GET /healthz HTTP/1.1\r\n", b"X-A: b\r\n")


async def slow_body(target: Target, source: str) -> bytes:
    """Promise a body and let it drip."""
    pipe = await secured(target, source)
    return await dripping(pipe, POST + b"Content-Length: 60000\r\n\r\n", b" ")


async def endless_chunks(target: Target, source: str) -> bytes:
    """Send chunks that have no end."""
    pipe = await secured(target, source)
    first = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    return await dripping(pipe, first, b"1000\r\n" + b"x" * 4096 + b"\r\n")


async def lying_length(target: Target, source: str) -> bytes:
    """Send more than was said, as if it were the next request."""
    pipe = await secured(target, source)
    pipe[1].write(POST + b"Content-Length: 2\r\n\r\n{}" + b"x" * 5000)
    return await to_the_end(pipe)


async def huge_headers(target: Target, source: str) -> bytes:
    """Send a megabyte of headers."""
    pipe = await secured(target, source)
    pipe[1].write(b"GET /healthz HTTP/1.1\r\n" + (b"X: " + b"y" * 4000 + b"\r\n") * 256)
    return await to_the_end(pipe)


async def deep_body(target: Target, source: str) -> bytes:
    """Send JSON that is nested sixty thousand deep."""
    pipe = await secured(target, source)
    pipe[1].write(POST + b"Content-Length: %d\r\n\r\n" % len(DEEP) + DEEP)
    return await to_the_end(pipe)


async def never_reading(target: Target, source: str) -> bytes:
    """Ask for ever and read nothing."""
    _reader, writer = await secured(target, source)
    _reader._transport.pause_reading()  # type: ignore[attr-defined]  # asyncio has no public way
    try:
        for _ in range(200):
            writer.write((b"GET /v1/ca.pem HTTP/1.1\r\n" + HEAD + b"\r\n") * 20)
            await asyncio.wait_for(writer.drain(), 60)
        return b""
    finally:
        writer.transport.abort()


async def other_protocol(target: Target, source: str) -> bytes:
    """Speak HTTP/2 where it was not offered."""
    pipe = await secured(target, source)
    pipe[1].write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 64)
    return await to_the_end(pipe)


async def hammering(target: Target, source: str) -> bytes:
    """Ask as fast as answers come, on one connection."""
    reader, writer = await secured(target, source)
    seen = b""
    try:
        for _ in range(2000):
            writer.write(b"GET /v1/mesh HTTP/1.1\r\n" + HEAD + b"\r\n")
            seen = await reader.readuntil(b"\r\n\r\n")
            length = int(seen.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            if b" 429 " in seen[:20]:
                return seen
        return seen
    finally:
        writer.transport.abort()


async def come_and_go(target: Target, source: str) -> bytes:
    """Shake hands and go: what costs us most and them least."""
    pipe = await secured(target, source)
    pipe[1].transport.abort()
    return b""


BARE: tuple[Attack, ...] = (silence, dripped_hello, noise, half_handshake, old_tls)
"""These need no certificate to do harm."""
SPEAKING: tuple[Attack, ...] = (
    slow_headers,
    slow_body,
    endless_chunks,
    lying_length,
    huge_headers,
    deep_body,
    never_reading,
    other_protocol,
    hammering,
    come_and_go,
)
"""These come as far as HTTP."""


class Order(msgspec.Struct, frozen=True):
    """Attack one port from each of `sources`, with `each` attackers of every kind.

    `identity` is a directory with `fullchain.pem` and `key.pem` to show; empty for none.
    """

    port: int
    attacks: tuple[str, ...]
    sources: tuple[str, ...]
    each: int = 1
    identity: str = ""


ATTACKS = {attack.__name__: attack for attack in (*BARE, *SPEAKING)}
BARE_NAMES = tuple(attack.__name__ for attack in BARE)
SPEAKING_NAMES = tuple(attack.__name__ for attack in SPEAKING)


class Siege:
    """Attackers at work from entering to leaving the context.

    Attributes:
        seen: How often each outcome of each attack was seen, such as `slow_body 408`; after it.
    """

    def __init__(self, *orders: Order) -> None:
        self.seen: dict[str, int] = {}
        self._orders = msgspec.json.encode(orders).decode()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.injectors.siege", self._orders],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        try:
            out, _err = self._process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            out, _err = self._process.communicate()
        self.seen = msgspec.json.decode(out or b"{}")


async def keep_on(target: Target, attack: Attack, source: str, seen: "Counter[str]") -> None:
    """Attack again and again; count what came of it."""
    name = getattr(attack, "__name__", "attack")
    while True:
        try:
            answer = await attack(target, source)
        except (OSError, EOFError, TimeoutError):  # ssl.SSLError is an OSError
            seen[f"{name} refused"] += 1
        else:
            status = answer.split(b" ", 2)[1].decode() if answer[:5] == b"HTTP/" else "ended"
            seen[f"{name} {status}"] += 1
        await asyncio.sleep(AGAIN_S)


async def besiege(orders: Sequence[Order]) -> "Counter[str]":
    """Carry out the orders until standard input ends; return what was seen."""
    seen: Counter[str] = Counter()
    work = [
        asyncio.ensure_future(keep_on(target_of(order), ATTACKS[name], source, seen))
        for order in orders
        for source in order.sources
        for name in order.attacks
        for _ in range(order.each)
    ]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    for task in work:
        task.cancel()
    return seen


def target_of(order: Order) -> Target:
    """Return the port of an order, with a context that believes anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if order.identity:
        place = Path(order.identity)
        context.load_cert_chain(place / "fullchain.pem", place / "key.pem")
    return Target(order.port, context)


if __name__ == "__main__":
    orders = msgspec.json.decode(sys.argv[1].encode(), type=tuple[Order, ...])
    # No `asyncio.run`: connections that are being closed politely would hold the end up.
    counts = asyncio.new_event_loop().run_until_complete(besiege(orders))
    sys.stdout.buffer.write(msgspec.json.encode(dict(counts)))
    sys.stdout.buffer.flush()
    os._exit(0)
