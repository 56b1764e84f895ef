"""Ways in over HTTP: the route tables of the three doors, with an asker that always answers.

The octets are a request line, such as `POST /v1/join?a=b`, then a line feed, then the body.
"""

import functools
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from broker.errors import MeshError
from broker.runtime.settings import Settings
from broker.units import UnixSeconds
from broker.wire.base import Reply, Request
from broker.wire.codec import encode
from broker.wire.console_api import UnlockBody
from broker.wire.messages import Call
from broker.wire.roster import Peer
from tests.fuzz.target import Target
from tests.fuzz.targets_node import paths
from tests.wire.samples import sample
from workers.console.dashboard import TOKEN_PREFIX, TokenGuard
from workers.console.service import console_routes
from workers.gateway.routes import ENROLL_ROUTES, MESH_ROUTES
from workers.health import HealthDesk
from workers.idempotency import request_id_of
from workers.problem import RefusedError
from workers.query import read_query
from workers.route import Caller, Route, RouteTable, Visit, checked, decode_content, named
from workers.web import EMPTY_OBJECT, Knock

R = TypeVar("R", bound=Reply)
PEER = Peer("0a", "birch", "0b" * 32, UnixSeconds(1_790_000_000), "10.0.0.9")


class Yes:
    """A broker that has an answer to everything, once the question is a message at all."""

    async def ask(
        self,
        request: Request,
        kind: type[R],
        *,
        timeout_ms: int = 0,
        request_id: bytes | None = None,
    ) -> R:
        """Return the sample answer, for what can be sent."""
        del timeout_ms
        encode(Call(request_id or bytes(16), 1, request))  # type: ignore[arg-type]  # one of them
        return sample(kind)


def finish(work: Awaitable[Any]) -> Any:
    """Return what a coroutine returns that never has to wait."""
    try:
        next(work.__await__())
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


class Entrance:
    """One door, without its transport.

    Args:
        routes: Its table.
        caller: Who stands before it.
    """

    def __init__(self, routes: Sequence[Route], caller: Caller) -> None:
        self._table = RouteTable([*routes, *HealthDesk(lambda: None).routes()])
        self._caller = caller

    def visit(self, octets: bytes) -> None:
        """Go the way that `workers.web` goes."""
        head, _, raw = octets.partition(b"\n")
        line = head.decode("latin-1")
        method, _, target = line.partition(" ")
        path, _, query = target.partition("?")
        route, parameters = self._table.find(method, path)
        caller = named(self._caller, line[-40:])
        given = dict(parse_qsl(query, keep_blank_values=True, errors="replace"))
        visit = Visit(
            caller=caller,
            parameters=parameters,
            query=read_query(route.query, given),
            body=decode_content(raw or EMPTY_OBJECT, route.body) if route.body else None,
            bearer=line[-60:],
            etag=line[-30:],
            request_id=request_id_of("key", "ann", target.encode().hex(), raw),
        )
        self._serve(route, visit)

    def _serve(self, route: Route, visit: Visit) -> None:
        if route.serve is not None:
            finish(route.serve(visit, Yes()))
            return
        assert route.make is not None
        question = checked(route.make(visit))
        if route.defer is not None:
            route.defer(visit)
        route.show(finish(Yes().ask(question, route.reply)), visit)

    def seeds(self) -> tuple[bytes, ...]:
        """Return one visit to each route."""
        return tuple(self._seed(route) for route in self._table.routes)

    def _seed(self, route: Route) -> bytes:
        path = "/".join("0a" if part.startswith("{") else part for part in route.path.split("/"))
        query = "&".join(f"{one.name}={one.default or ''}" for one in route.query)
        body = msgspec.json.encode(sample(route.body)) if route.body else b"{}"
        if route.body is UnlockBody:
            body = b'{"passphrase":"x"}'
        return f"{route.method} {path}{'?' + query if query else ''}\n".encode() + body


@functools.cache
def enroll() -> Entrance:
    """Return the door of strangers."""
    return Entrance(ENROLL_ROUTES, Caller("10.0.0.9"))


@functools.cache
def mesh() -> Entrance:
    """Return the door of members."""
    return Entrance(MESH_ROUTES, Caller("10.0.0.9", PEER))


@functools.cache
def console() -> Entrance:
    """Return the door of this machine."""
    caller = Caller("uid 0", operator="ann", account="root")
    routes = [one for one in console_routes(Settings(), paths()) if "healthz" not in one.path]
    return Entrance([one for one in routes if "readyz" not in one.path], caller)


def _token(octets: bytes) -> None:
    host, _, bearer = octets.decode("latin-1").partition("\n")
    finish(TokenGuard(Yes())(Caller("10.0.0.9"), Knock("any", host, bearer)))


REFUSALS = (MeshError, RefusedError)

HTTP_TARGETS = (
    Target(
        "http-enroll", lambda raw: enroll().visit(raw), lambda: enroll().seeds(), "http", REFUSALS
    ),
    Target("http-mesh", lambda raw: mesh().visit(raw), lambda: mesh().seeds(), "http", REFUSALS),
    Target(
        "http-console",
        lambda raw: console().visit(raw),
        lambda: console().seeds(),
        "http",
        REFUSALS,
    ),
    Target(
        "token",
        _token,
        lambda: (b"localhost:7641\n" + TOKEN_PREFIX.encode() + b"A" * 43,),
        "text",
        bytes_max=16_384,
    ),
)
