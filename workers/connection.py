"""One HTTP connection: where it comes from, its deadlines, and errors as problem documents."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from broker.errors import MalformedMessageError, OversizedMessageError, UnavailableError
from broker.wire.mesh_api import REPLY_JSON
from broker.wire.node import Endpoint
from workers.problem import PROBLEM_TYPE, RefusedError, bug_refusal, problem_of

if TYPE_CHECKING:
    from broker.wire.roster import Peer

BAD_REQUEST = 400
HEADER_LINE_BYTES = 8190
HEADER_COUNT = 64
HEADER_BYTES_MAX = 32_768
"""Request line and all header lines of one request: clients of this project send under 1 KiB."""
HEADERS_TOO_LARGE = 431
BUFFERED_BYTES = 65_536
"""As the event loop holds for a plain connection; under TLS it would be half a megabyte more."""
FAREWELL_S = 0.25
"""How long an idle peer has to answer the end of the TLS session: one that keeps a connection for
later does not look at it, and would hold the stop up."""
LINGER_S = 1.0
"""How long the rest of a refused body is read, so that the answer is not lost in a reset."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What strangers may cost. Times in seconds, sizes in bytes; a rate of 0 is none.

    Rates are for each source: `arrivals` are new connections, whose handshakes cost most. `end_s`
    is how long the end of a connection may take, that of its TLS session included: asyncio has no
    such bound when the other side ended first while nothing was read.
    """

    body_bytes: int = 65_536
    per_source: int = 64
    connections: int = 512
    in_flight: int = 128
    backlog: int = 256
    handshake_s: float = 10.0
    header_s: float = 10.0
    body_s: float = 30.0
    answer_s: float = 30.0
    end_s: float = 5.0
    keepalive_s: float = 75.0
    drain_s: float = 3.0
    arrivals_per_s: float = 0.0
    arrivals_burst: int = 128
    requests_per_s: float = 0.0
    requests_burst: int = 400


@dataclass(frozen=True, slots=True)
class Origin:
    """The other end of a connection; `uid` is set on local sockets only."""

    source: str
    uid: int | None = None


class Connection(web.RequestHandler):
    """One HTTP connection.

    aiohttp bounds the idle time between requests but not the time a request line and its headers
    take; the deadline here runs from the first byte (or the accept) to the last header.
    """

    def __init__(
        self,
        server: web.Server,
        origin: Origin,
        limits: Limits,
        gone: Callable[[], None],
        check_pace: Callable[[Origin], None] = lambda _origin: None,
    ) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=limits.keepalive_s,
            access_log=None,  # type: ignore[arg-type]  # aiohttp's word for "no access log"
            max_line_size=HEADER_LINE_BYTES,
            max_field_size=HEADER_LINE_BYTES,
            max_headers=HEADER_COUNT,
            lingering_time=LINGER_S,
            auto_decompress=False,  # a compressed body could grow past the limit on its size
        )
        self.origin = origin
        self.peer: Peer | None = None
        self._limits = limits
        self._gone = gone
        self._check_pace = check_pace
        self._answering = False
        self._header_bytes = 0
        self._wire: asyncio.Transport | None = None
        self._end: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._deferred: asyncio.Future[Any] | None = None
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Start the deadline for the first request's headers."""
        super().connection_made(transport)
        self._wire = self.transport
        _hold_little(transport)
        if self._task_handler is not None:  # it leaves when this connection serves no more
            self._task_handler.add_done_callback(lambda _done: self._bound_end())
        self._expect_headers()

    def data_received(self, data: bytes) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Pass bytes to the parser; the first ones of a request start its deadline."""
        super().data_received(data)
        if not self._answering and self._deadline is None:
            self._expect_headers()
        if self._messages or self._waiter is None:
            self._header_bytes = 0  # a request is here, or what came is the rest of a refused body
            return
        self._header_bytes += len(data)
        if self._header_bytes > HEADER_BYTES_MAX:  # and still no end of them
            self.cut()

    def connection_lost(self, exc: BaseException | None) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Count the connection out."""
        self._wire = None
        if self._end is not None:
            self._end.cancel()
        self._headers_are_here()
        self._end_waiting()
        super().connection_lost(exc)
        self._gone()

    @property
    def is_made(self) -> bool:
        """Whether its handshake is over and its end has not come."""
        return self._wire is not None

    @property
    def is_ending(self) -> bool:
        """Whether nothing more is answered here after the answer under way."""
        return self._ended

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered here."""
        return not (self._answering or self._request_in_progress or self._messages)

    def cut(self) -> None:
        """End the connection now, whatever is still to be sent."""
        wire = self._wire
        self.force_close()
        if wire is not None:
            wire.abort()

    def force_close(self) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Close, for at most `end_s`."""
        super().force_close()
        self._bound_end()

    def check(self, request: web.BaseRequest) -> None:
        """Let one request pass whose headers are here.

        Raises:
            RefusedError: They are more than anybody needs, or this source asks too fast.
        """
        if sum(len(name) + len(value) for name, value in request.raw_headers) > HEADER_BYTES_MAX:
            raise _headers_too_large()
        self._check_pace(self.origin)

    def begin(self) -> None:
        """Note that a request's headers are complete and it is being answered."""
        self._answering = True
        self._headers_are_here()

    def finish(self) -> None:
        """Note that the answer is ready."""
        self._answering = False

    async def finish_response(  # type: ignore[explicit-override]  # typing.override is 3.12
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; one that nobody reads ends the connection at its deadline."""
        deadline = self._loop.call_later(self._limits.answer_s, self.cut)
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            deadline.cancel()

    def leave(self) -> None:
        """End after the answer that is under way, or now if there is none.

        A deferred answer is not waited for. aiohttp's own `close` leaves the transport of an idle
        connection open.
        """
        self._end_waiting()
        if self._request_in_progress or self._messages:
            self.close()
            return
        wire = self._wire
        self.force_close()
        if wire is not None:
            self._loop.call_later(FAREWELL_S, wire.abort)

    async def while_open(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Return what `ask` returns, for as long as this connection and its door stay.

        Raises:
            UnavailableError: One of them ended first; the question is given up.
        """
        if self._ended:
            raise _closing()
        waiting: asyncio.Future[T] = asyncio.ensure_future(ask())
        self._deferred = waiting
        try:
            return await waiting
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # not the question is given up, but the one who asks
            raise _closing() from None
        finally:
            self._deferred = None

    def handle_error(  # type: ignore[explicit-override]  # typing.override is 3.12
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 (quotes the caller's bytes: never repeated)
    ) -> web.StreamResponse:
        """Answer what is no HTTP request, or what our own bug left unanswered."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun, no other can follow")
        if isinstance(exc, LineTooLong):
            return respond_refusal(_headers_too_large(), "")
        if status == BAD_REQUEST:
            error = MalformedMessageError("not an HTTP request this server can read")
            return respond_refusal(RefusedError(error, status, close=True), "")
        _log.error("request failed", exc_info=exc)
        return respond_refusal(bug_refusal(), "")

    def _bound_end(self) -> None:
        if self._wire is not None and self._end is None:
            self._end = self._loop.call_later(self._limits.end_s, self._wire.abort)

    def _end_waiting(self) -> None:
        self._ended = True
        if self._deferred is not None:
            self._deferred.cancel()

    def _expect_headers(self) -> None:
        self._deadline = self._loop.call_later(self._limits.header_s, self.force_close)

    def _headers_are_here(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _hold_little(transport: asyncio.BaseTransport) -> None:
    """Bound what waits in memory for a peer that does not read, or that sends ahead."""
    assert isinstance(transport, asyncio.WriteTransport)
    transport.set_write_buffer_limits(high=BUFFERED_BYTES)
    limit_reading = getattr(transport, "set_read_buffer_limits", None)  # transports of TLS have it
    if limit_reading is not None:
        limit_reading(high=BUFFERED_BYTES)


def _headers_too_large() -> RefusedError:
    detail = f"a header is longer than {HEADER_LINE_BYTES} bytes, or all of them are too long"
    error = OversizedMessageError(detail, hint=f"send less than {HEADER_BYTES_MAX} bytes of them")
    return RefusedError(error, HEADERS_TOO_LARGE, close=True)


def _closing() -> UnavailableError:
    return UnavailableError("this door is closing", hint="ask again in a moment")


def respond_refusal(
    refusal: RefusedError, request_id: str, primary: Endpoint | None = None
) -> web.Response:
    """Return a refusal as a problem document."""
    body = REPLY_JSON.encode(problem_of(refusal, request_id, primary))
    response = respond(body, refusal.status, PROBLEM_TYPE, request_id)
    response.headers.update(refusal.headers)
    if refusal.close:
        response.force_close()
    return response


def respond(body: bytes, status: int, content_type: str, request_id: str) -> web.Response:
    """Return an answer with the headers every answer has."""
    headers = {
        "Content-Type": content_type,
        "Cache-Control": "no-store",
        "Server": "certmesh",
        "X-Content-Type-Options": "nosniff",
    }
    if request_id:
        headers["X-Request-Id"] = request_id
    return web.Response(body=body, status=status, headers=headers)
