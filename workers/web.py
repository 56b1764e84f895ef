"""From an HTTP request to the broker and back: the same for every door.

Order of the checks, cheapest and most telling first: who is it, is there such a route, may the
caller come in there, does the body have its shape, is there room. Only then does the broker hear
of it. Where callers show tokens, one without a token does not even learn which routes there are.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from aiohttp import hdrs, web

from broker.errors import (
    BusyError,
    DeadlineError,
    ErrorCode,
    MalformedMessageError,
    MeshError,
    OversizedMessageError,
)
from broker.wire.base import Reply
from broker.wire.node import Endpoint, GetNode, NodeView
from broker.wire.operator import OPERATOR_HEADER
from workers.connection import Connection, Limits, respond, respond_refusal
from workers.idempotency import IDEMPOTENCY_HEADER, request_id_of
from workers.problem import RefusedError, refusal_of
from workers.query import read_query
from workers.route import (
    Asker,
    Caller,
    Page,
    Route,
    RouteScope,
    RouteTable,
    Visit,
    checked,
    decode_content,
    named,
)

REQUEST_TIMEOUT = 408
UNSUPPORTED_MEDIA_TYPE = 415
BUSY_RETRY_MS = 1000
LARGE_BODY_BYTES = 131_072
LARGE_AT_ONCE = 4
"""Bodies beyond the usual size in memory at a time, whoever sends them."""

PRIMARY_TIMEOUT_MS = 1000
EMPTY_OBJECT = b"{}"
"""No body at all is one without fields; those that are required are then named."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Knock:
    """What a caller shows at a route, and what the route asks for."""

    scope: RouteScope
    host: str
    bearer: str = field(repr=False)


Meet = Callable[[Connection], Caller]
Guard = Callable[[Caller, Knock], Awaitable[Caller]]
Refused = Callable[[Caller | None, MeshError], None]


class Front:
    """Answers the requests of one door."""

    def __init__(  # noqa: PLR0913 (what one door is made of)
        self,
        table: RouteTable,
        asker: Asker,
        meet: Meet,
        limits: Limits,
        refused: Refused = lambda _caller, _error: None,
        *,
        guard: Guard | None = None,
    ) -> None:
        self._table = table
        self._asker = asker
        self._meet = meet
        self._limits = limits
        self._refused = refused
        self._guard = guard
        self._in_flight = 0
        self._large = 0

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; every expected trouble becomes a problem document."""
        connection = request.protocol
        assert isinstance(connection, Connection), "doors make connections of their own"
        connection.begin()
        request_id = secrets.token_hex(8)
        try:
            response = await self._answer(connection, request, request_id)
        finally:
            connection.finish()
        if connection.is_ending or not request.content.is_eof():
            # The other end closes at once when it knows; what is left of a body is no new request.
            response.force_close()
        return response

    async def _answer(
        self, connection: Connection, request: web.BaseRequest, request_id: str
    ) -> web.Response:
        caller = None
        try:
            connection.check(request)
            caller = self._meet(connection)
            page = await self._page(caller, connection, request)
        except RefusedError as refusal:
            return respond_refusal(refusal, request_id)
        except MeshError as error:
            self._refused(caller, error)
            return respond_refusal(refusal_of(error), request_id, await self._primary(error))
        response = respond(page.body, page.status, page.content_type, request_id)
        response.headers.update(page.headers)
        return response

    async def _page(self, caller: Caller, connection: Connection, request: web.BaseRequest) -> Page:
        route, parameters = await self._find(caller, request)
        caller = named(
            await self._enter(caller, request, route.scope),
            request.headers.get(OPERATOR_HEADER, ""),
        )
        with self._room_for(max(self._limits.body_bytes, route.body_bytes)) as body_bytes:
            raw = await self._read(request, body_bytes)
            visit = Visit(
                caller=caller,
                parameters=parameters,
                query=read_query(route.query, request.query),
                body=decode_content(raw or EMPTY_OBJECT, route.body) if route.body else None,
                bearer=_bearer(request),
                etag=request.headers.get(hdrs.IF_NONE_MATCH, ""),
                request_id=_named_request(request, caller, raw) if route.once else None,
            )
            return await self._admit(route, visit, connection)

    async def _find(self, caller: Caller, request: web.BaseRequest) -> tuple[Route, dict[str, str]]:
        try:
            return self._table.find(request.method, request.rel_url.raw_path)
        except RefusedError:
            await self._enter(caller, request, "any")
            raise

    async def _enter(self, caller: Caller, request: web.BaseRequest, scope: RouteScope) -> Caller:
        if self._guard is None:
            return caller
        host = request.headers.get(hdrs.HOST, "")
        return await self._guard(caller, Knock(scope, host, _bearer(request)))

    @contextlib.contextmanager
    def _room_for(self, body_bytes: int) -> Iterator[int]:
        """Hold a place for a body that may be as large as this."""
        is_large = body_bytes > LARGE_BODY_BYTES
        if is_large and self._large >= LARGE_AT_ONCE:
            raise BusyError("too many large requests at once", retry_after_ms=BUSY_RETRY_MS)
        self._large += is_large
        try:
            yield body_bytes
        finally:
            self._large -= is_large

    async def _admit(self, route: Route, visit: Visit, connection: Connection) -> Page:
        if self._in_flight >= self._limits.in_flight:
            raise BusyError("too many requests at once", retry_after_ms=BUSY_RETRY_MS)
        self._in_flight += 1
        try:
            return await self._ask(route, visit, connection)
        finally:
            self._in_flight -= 1

    async def _ask(self, route: Route, visit: Visit, connection: Connection) -> Page:
        if route.serve is not None:
            return await route.serve(visit, self._asker)
        assert route.make is not None
        assert issubclass(route.reply, Reply), f"{route.path} asks the broker"
        question = checked(route.make(visit))
        defer_ms = route.defer(visit) if route.defer is not None else 0
        ask = partial(
            self._asker.ask,
            question,
            route.reply,
            timeout_ms=route.timeout_ms + defer_ms,
            request_id=visit.request_id,
        )
        reply = await (ask() if route.defer is None else connection.while_open(ask))
        return route.show(reply, visit)

    async def _read(self, request: web.BaseRequest, body_bytes: int) -> bytes:
        _refuse_encodings(request)
        if (request.content_length or 0) > body_bytes:
            raise _too_large(body_bytes)
        if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
            await request.writer.write(CONTINUE)
            request.writer.output_size = 0  # the answer itself has not begun
        try:
            async with asyncio.timeout(self._limits.body_s):
                return await _gather(request, body_bytes)
        except TimeoutError:
            error = DeadlineError("the request body did not arrive in time")
            raise RefusedError(error, REQUEST_TIMEOUT, close=True) from None

    async def _primary(self, error: MeshError) -> Endpoint | None:
        if error.code is not ErrorCode.NOT_PRIMARY:
            return None
        try:
            node = await self._asker.ask(GetNode(), NodeView, timeout_ms=PRIMARY_TIMEOUT_MS)
        except MeshError:
            return None
        return node.mesh.primary if node.mesh else None


async def _gather(request: web.BaseRequest, body_bytes: int) -> bytes:
    chunks = bytearray()
    try:
        async for chunk in request.content.iter_any():
            chunks += chunk
            if len(chunks) > body_bytes:
                raise _too_large(body_bytes)
    except (web.RequestPayloadError, ConnectionError):  # gone in the middle is no bug of ours
        raise MalformedMessageError("the request body is damaged") from None
    return bytes(chunks)


def _too_large(body_bytes: int) -> RefusedError:
    refusal = refusal_of(
        OversizedMessageError(f"the request body is larger than {body_bytes} bytes")
    )
    refusal.close = True
    return refusal


def _refuse_encodings(request: web.BaseRequest) -> None:
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        error = MalformedMessageError("compressed request bodies are not taken")
        raise RefusedError(error, UNSUPPORTED_MEDIA_TYPE, close=True)


def _named_request(request: web.BaseRequest, caller: Caller, raw: bytes) -> bytes | None:
    """Return the id of a POST whose caller wants to be able to repeat it."""
    key = request.headers.get(IDEMPOTENCY_HEADER)
    if key is None or request.method != hdrs.METH_POST or not caller.operator:
        return None
    target = f"{request.method} {request.rel_url.raw_path_qs}"
    return request_id_of(key, f"{caller.source} {caller.operator}", target, raw)


def _bearer(request: web.BaseRequest) -> str:
    scheme, _, secret = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""
