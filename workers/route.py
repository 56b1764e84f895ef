"""Routes as a table, and the plain values that go in and out of them. Sans-IO.

One `Route` says everything about one method and path: what body it takes, which request it puts
to the broker, which reply it expects and how that is shown. Doors only look routes up here.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeVar
from urllib.parse import unquote

import msgspec

from broker.errors import ErrorCode, ForbiddenError, MalformedMessageError, NotFoundError
from broker.wire.base import Body, Message, Reply, Request
from broker.wire.mesh_api import REPLY_JSON
from broker.wire.operator import operator_of
from broker.wire.roster import Peer
from broker.wire.token import Scope
from workers.problem import RefusedError, status_of
from workers.query import Parameter

JSON_TYPE = "application/json"
PATH_LENGTH_MAX = 1024
_NUMBER = re.compile(r"-?[0-9]{1,15}")
METHOD_NOT_ALLOWED = 405

RouteScope = Scope | Literal["none", "any", "uid"]
"""`none`: anybody, `any`: every valid token, `uid`: no token at all, only the local user."""

R = TypeVar("R", bound=Reply)
B = TypeVar("B", bound=Body)


class Asker(Protocol):
    """Whoever puts requests to the broker: an `AsyncLink`, or a fake."""

    async def ask(
        self,
        request: Request,
        kind: type[R],
        *,
        timeout_ms: int = ...,
        request_id: bytes | None = ...,
    ) -> R:
        """Return the broker's reply; raises a `MeshError` for a fault.

        With the same `request_id` a change is made once, and its first reply is the answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the transport proved it: an address, a certificate, or a local user.

    `account` is set for a local account that several people share: its user has to say a name.
    """

    source: str
    peer: Peer | None = None
    operator: str = ""
    account: str = ""


def named(caller: Caller, claimed: str) -> Caller:
    """Return the caller with the name its user claims, which counts for shared accounts alone.

    Raises:
        MalformedMessageError: That is no name.
    """
    if not caller.account:
        return caller
    return replace(caller, operator=operator_of(caller.account, claimed))


@dataclass(frozen=True, slots=True)
class Visit:
    """One request, decoded; `request_id` is set when the caller wants a retry to be safe."""

    caller: Caller
    parameters: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    bearer: str = ""
    etag: str = ""
    request_id: bytes | None = None

    @property
    def peer(self) -> Peer:
        """The caller's certificate.

        Raises:
            ForbiddenError: This door asks nobody for one.
        """
        if self.caller.peer is None:
            raise ForbiddenError("this needs a certificate of the mesh")
        return self.caller.peer

    def content(self, kind: type[B]) -> B:
        """Return the body as what the route declared."""
        assert isinstance(self.body, kind), f"the route takes no {kind.__name__}"
        return self.body

    def number(self, name: str, default: int = 0, lowest: int = 0) -> int:
        """Return a whole number of the query, its declared default when it was not given.

        Raises:
            MalformedMessageError: It is not one, or below `lowest`.
        """
        text = self.query.get(name)
        if text is None:
            return default
        if _NUMBER.fullmatch(text) is None:
            raise MalformedMessageError(f"query parameter {name}: expected a whole number")
        if int(text) < lowest:
            raise MalformedMessageError(f"query parameter {name}: at least {lowest}")
        return int(text)


@dataclass(frozen=True, slots=True)
class Page:
    """One answer, ready to send."""

    body: bytes = b""
    status: int = 200
    content_type: str = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)


Make = Callable[[Visit], Request]
Show = Callable[[Any, Visit], Page]
Serve = Callable[[Visit, Asker], Awaitable[Page]]
Defer = Callable[[Visit], int]


def as_json(answer: Message | Body, _visit: Visit | None = None) -> Page:
    """Show an answer as the JSON of its struct."""
    return Page(REPLY_JSON.encode(answer))


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One line of a route table; `serve` is for the few that are more than one question.

    Attributes:
        scope: What a token needs to come in here; the local user may do everything. A route that
            says nothing is for the local user alone.
        query: What may follow the `?`.
        statuses: Of the answers that have the shape of `reply`.
        media: Content type of those answers.
        once: Whether a POST that is sent again under the same `Idempotency-Key` is done once. It is
            not where the broker's reply comes late and so is not kept.
        body_bytes: Bodies up to this size are taken, also where the door's limit is lower.
        defer: For how many more milliseconds than `timeout_ms` the broker may hold its answer to
            this visit back. Such a wait ends with the connection and with the door.
    """

    method: str
    path: str
    summary: str
    reply: type[Message] | type[Body]
    body: type[Body] | None = None
    make: Make | None = None
    show: Show = as_json
    timeout_ms: int = 5_000
    serve: Serve | None = None
    body_bytes: int = 0
    defer: Defer | None = None
    scope: RouteScope = "uid"
    query: tuple[Parameter, ...] = ()
    statuses: tuple[int, ...] = (200,)
    media: str = JSON_TYPE
    once: bool = True


class RouteTable:
    """Finds routes; a path segment in braces matches any one non-empty segment."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        self._by_length: dict[int, list[tuple[tuple[str, ...], Route]]] = {}
        for route in routes:
            segments = tuple(route.path.split("/"))
            self._by_length.setdefault(len(segments), []).append((segments, route))

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """Return the route for a still percent-encoded path, and its parameters.

        Raises:
            RefusedError: 404 for an unknown path, 405 with `Allow` for a known one.
        """
        matches = self._matches(path)
        wanted = "GET" if method == "HEAD" else method
        for route, parameters in matches:
            if route.method == wanted:
                return route, parameters
        if matches:
            raise _method_not_allowed({route.method for route, _ in matches})
        error = NotFoundError("no such path", hint="see the list of routes in the documentation")
        raise RefusedError(error, status_of(ErrorCode.NOT_FOUND))

    def _matches(self, path: str) -> list[tuple[Route, dict[str, str]]]:
        if len(path) > PATH_LENGTH_MAX:
            return []
        given = path.split("/")
        candidates = self._by_length.get(len(given), [])
        found = ((route, _parameters(segments, given)) for segments, route in candidates)
        return sorted(
            ((route, parameters) for route, parameters in found if parameters is not None),
            key=lambda match: len(match[1]),  # a literal segment wins over a parameter
        )


def _parameters(segments: Sequence[str], given: Sequence[str]) -> dict[str, str] | None:
    parameters: dict[str, str] = {}
    for segment, text in zip(segments, given, strict=True):
        if not segment.startswith("{"):
            if segment != text:
                return None
            continue
        try:
            parameters[segment[1:-1]] = unquote(text, errors="strict")
        except UnicodeDecodeError:
            return None
        if not text:
            return None
    return parameters


def _method_not_allowed(methods: set[str]) -> RefusedError:
    allowed = methods | {"HEAD"} if "GET" in methods else methods
    error = ForbiddenError("this path does not take that method")
    return RefusedError(error, METHOD_NOT_ALLOWED, {"Allow": ", ".join(sorted(allowed))})


def decode_content(raw: bytes, kind: type[B]) -> B:
    """Return the JSON body in `raw`; unknown fields are tolerated.

    Raises:
        MalformedMessageError: Not JSON, or a field is missing or wrong; the detail names it.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise MalformedMessageError(f"request body: {error}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
        raise MalformedMessageError("request body: not JSON") from None


def checked(request: Request) -> Request:
    """Return `request` if it is within the bounds of the wire contract.

    Structs check nothing when they are made, and the broker could only answer that the whole
    message is malformed.

    Raises:
        MalformedMessageError: A parameter is too long or of the wrong shape; the detail names it.
    """
    try:
        return msgspec.json.decode(msgspec.json.encode(request), type=type(request))
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise MalformedMessageError(f"request: {error}") from None
