"""OpenAPI 3.1 out of the route tables: what a door takes and answers, told by the doors themselves.

Sans-IO. Nothing is written twice: paths, parameters, bodies, replies and scopes are those of the
routes, shapes those of the wire structs. One document per door, because two doors may answer
differently on the same path.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from broker.wire.base import Body
from broker.wire.mesh_api import Problem
from broker.wire.operator import NAME_LENGTH_MAX, OPERATOR_HEADER
from workers.idempotency import IDEMPOTENCY_HEADER, KEY_LENGTH_MAX
from workers.problem import PROBLEM_TYPE
from workers.query import TEXT_LENGTH_MAX, Number, Parameter
from workers.route import JSON_TYPE, Asker, Page, Route, Visit

VERSION = "3.1.0"
API_VERSION = "1"
"""Within it fields are only added."""
DOCUMENT_PATH = "/openapi.json"
REFUSALS = ("4XX", "503", "504", "507")
"""Statuses of problem documents. 503: not now or not here, 504: the outcome is unknown, 507: the
disk is full. Any other 5XX is a bug of ours."""
WITHOUT_CONTENT = frozenset({204, 304})
_SCHEMAS = "#/components/schemas/"
_PARAMETER = re.compile(r"\{([a-z_]+)\}")

Json = dict[str, Any]
Secure = Callable[[Route], list[Json]]


class OpenAPIDocument(Body, frozen=True):
    """GET /openapi.json: this document."""


@dataclass(frozen=True, slots=True)
class DoorFace:
    """What a door's document says besides its routes.

    Attributes:
        title: Which door it is.
        description: Who may ask there, and how they prove it.
        schemes: Security schemes by name, as OpenAPI writes them.
        secure: Which of them a route wants, any one of the list.
        headers: Request headers that a method takes.
    """

    title: str
    description: str
    schemes: Mapping[str, Json]
    secure: Secure
    headers: Mapping[str, tuple[Json, ...]]


def _header(name: str, summary: str, length_max: int) -> Json:
    schema = {"type": "string", "minLength": 1, "maxLength": length_max, "pattern": "^[!-~]+$"}
    return {"name": name, "in": "header", "description": summary, "schema": schema}


_IDEMPOTENCY = _header(
    IDEMPOTENCY_HEADER,
    "A fresh UUID for each new request, the same one with a retry: it is done once, and the retry "
    "gets the first answer.",
    KEY_LENGTH_MAX,
)
_OPERATOR = {
    **_header(
        OPERATOR_HEADER,
        "Who uses a shared account; counts on the Unix socket alone.",
        NAME_LENGTH_MAX,
    ),
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._@-]{1,64}$"},
}


def _secure_console(route: Route) -> list[Json]:
    user: Json = {"user": []}
    if route.scope == "none":
        return []
    if route.scope == "uid":
        return [user]
    return [{"token": [] if route.scope == "any" else [route.scope]}, user]


def _secure_enroll(route: Route) -> list[Json]:
    return [{"ticket": []}] if "{ticket}" in route.path else []


def _secure_mesh(route: Route) -> list[Json]:
    return [] if route.scope == "none" else [{"member": []}]


LOCAL = DoorFace(
    title="certmesh: local API",
    description="On the Unix socket `run/api.sock` for the user who runs the node (the kernel says "
    "who calls), and on the loopback address `listen.dashboard` for programs with an API token. A "
    "route names the scope its token needs; the scope `admin` may do all that a token can.",
    schemes={
        "token": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "cmt_...",
            "description": "`certmesh token create NAME --scope SCOPE`; loopback port only.",
        },
        "user": {
            "type": "http",
            "scheme": "unix-peer",
            "description": "The user who runs the node, or root, on the Unix socket.",
        },
    },
    secure=_secure_console,
    headers={
        "POST": (_IDEMPOTENCY, _OPERATOR),
        "PUT": (_OPERATOR,),
        "DELETE": (_OPERATOR,),
    },
)

ENROLL = DoorFace(
    title="certmesh: enrol port",
    description="TLS 1.3 with a server certificate of the mesh, for strangers: compare the pin of "
    "the root before you send anything. An invite or a TOTP code in the body is the credential.",
    schemes={
        "ticket": {
            "type": "http",
            "scheme": "bearer",
            "description": "The secret whose hash the join carried.",
        }
    },
    secure=_secure_enroll,
    headers={},
)

MESH = DoorFace(
    title="certmesh: mesh port",
    description="Mutual TLS 1.3 between the nodes of a mesh; the roster is asked on every request.",
    schemes={
        "member": {"type": "mutualTLS", "description": "The certificate of an active member."}
    },
    secure=_secure_mesh,
    headers={},
)


def document(face: DoorFace, routes: Sequence[Route]) -> Json:
    """Return the OpenAPI document of one door."""
    kinds = {Problem, *(route.reply for route in routes)}
    kinds |= {route.body for route in routes if route.body is not None}
    ordered = sorted(kinds, key=lambda kind: kind.__name__)
    _, schemas = msgspec.json.schema_components(
        ordered, ref_template=_SCHEMAS + "{name}", schema_hook=_anything
    )
    paths: dict[str, Json] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(face, route)
    return {
        "openapi": VERSION,
        "info": {"title": face.title, "version": API_VERSION, "description": face.description},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "securitySchemes": dict(face.schemes),
            "responses": {"Problem": _content(PROBLEM_TYPE, Problem, "Refused, and why.")},
            "schemas": {name: _tidied(schemas[name]) for name in sorted(schemas)},
        },
    }


def as_text(content: Json) -> bytes:
    """Return a document as it is served and kept: indented, with a last newline."""
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def described(routes: Sequence[Route]) -> tuple[Route, ...]:
    """Return the routes of the console and one more, which describes them all."""

    @cache
    def text() -> bytes:
        return as_text(document(LOCAL, every))

    async def serve(_visit: Visit, _asker: Asker) -> Page:
        return Page(text())

    own = Route(
        method="GET",
        path=DOCUMENT_PATH,
        summary="This API as an OpenAPI document.",
        reply=OpenAPIDocument,
        serve=serve,
        scope="any",
    )
    every = (*routes, own)
    return every


def _operation(face: DoorFace, route: Route) -> Json:
    secure = face.secure(route)
    operation: Json = {
        "operationId": _name(route),
        "tags": [_tag(route)],
        "summary": route.summary,
        "security": secure,
        "parameters": [
            *(_in_path(name) for name in _PARAMETER.findall(route.path)),
            *(_in_query(parameter) for parameter in route.query),
            *(header for header in _headers(face, route) if secure),
        ],
        "responses": _responses(route),
    }
    if route.body is not None:
        required = any(field.required for field in msgspec.structs.fields(route.body))
        content = _content(JSON_TYPE, route.body, "")["content"]
        operation["requestBody"] = {"content": content, "required": required}
    return operation


def _headers(face: DoorFace, route: Route) -> list[Json]:
    taken = face.headers.get(route.method, ())
    return [header for header in taken if route.once or header is not _IDEMPOTENCY]


def _responses(route: Route) -> Json:
    answers: Json = {status: {"$ref": "#/components/responses/Problem"} for status in REFUSALS}
    for status in route.statuses:
        if status in WITHOUT_CONTENT:
            answers[str(status)] = {"description": "Nothing new."}
        else:
            answers[str(status)] = _content(route.media, route.reply, _first_line(route.reply))
    return dict(sorted(answers.items()))


def _content(media: str, kind: type[Any], description: str) -> Json:
    schema = {"$ref": _SCHEMAS + kind.__name__} if "json" in media else {"type": "string"}
    return {"description": description, "content": {media: {"schema": schema}}}


def _in_path(name: str) -> Json:
    schema = {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(parameter: Parameter) -> Json:
    return {
        "name": parameter.name,
        "in": "query",
        "description": parameter.summary,
        "schema": _of_parameter(parameter),
    }


def _of_parameter(parameter: Parameter) -> Json:
    if isinstance(parameter, Number):
        schema: Json = {
            "type": "integer",
            "minimum": parameter.lowest,
            "maximum": parameter.highest,
        }
        return schema if parameter.default is None else {**schema, "default": parameter.default}
    if parameter.choices:
        return {"type": "string", "enum": ["", *parameter.choices]}
    return {"type": "string", "maxLength": TEXT_LENGTH_MAX}


def _name(route: Route) -> str:
    words = re.findall(r"[a-z0-9_]+", route.path.removeprefix("/v1"))
    return "_".join([route.method.lower(), *words])


def _tag(route: Route) -> str:
    segments = route.path.removeprefix("/v1").split("/")
    return segments[1].partition(".")[0]


def _anything(kind: type[Any]) -> Json:
    """Return the schema of what a reply leaves open: the fields of a fact in the audit trail."""
    assert kind is object, f"{kind.__name__} has no shape in JSON"
    return {"description": "Any JSON value."}


def _first_line(kind: type[Any]) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]


def _tidied(schema: Json) -> Json:
    if "description" not in schema:
        return schema
    return {**schema, "description": inspect.cleandoc(schema["description"])}
