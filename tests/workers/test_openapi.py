"""The OpenAPI documents: true to the route tables, and whole."""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import workers.console
import workers.gateway
from tests.openapi_files import DOCS, doors, texts
from workers.openapi import DOCUMENT_PATH
from workers.query import Number, Text, read_query
from workers.route import Route

Json = dict[str, Any]
ROUTES = [
    pytest.param(route, id=f"{name} {route.method} {route.path}")
    for name, (_face, routes) in doors().items()
    for route in routes
]


def test_the_documents_are_those_of_the_code() -> None:
    """After a change run `python -m tests.openapi_files`."""
    assert {name: (DOCS / name).read_bytes() for name in texts()} == texts()


@pytest.mark.parametrize("name", list(doors()))
def test_every_reference_leads_somewhere(name: str) -> None:
    """A generator of clients stops at the first one that does not."""
    text = texts()[name].decode()
    content = json.loads(text)
    assert content["openapi"].startswith("3.1.")
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        place = content
        for step in reference.split("/"):
            place = place[step]
    names = [operation["operationId"] for operation in operations(content)]
    assert len(names) == len(set(names))


def operations(content: Json) -> Iterator[Json]:
    """Yield every operation of a document."""
    for item in content["paths"].values():
        yield from item.values()


@pytest.mark.parametrize("route", ROUTES)
def test_a_route_answers_with_what_it_says(route: Route) -> None:
    """Every parameter of the path is used, every summary is a sentence, numbers have bounds."""
    assert route.summary.endswith(".")
    assert route.serve is not None or route.make is not None
    for parameter in route.query:
        assert parameter.summary.endswith(".")
        if isinstance(parameter, Number) and parameter.default is not None:
            parameter.check(str(parameter.default))


def test_a_parameter_of_a_query_is_declared_where_it_is_used() -> None:
    """What a route reads and the document does not tell of, nobody finds."""
    declared = {
        parameter.name
        for _face, routes in doors().values()
        for route in routes
        for parameter in route.query
    }
    used: set[str] = set()
    for package in (workers.console, workers.gateway):
        for path in sorted(package.__path__):
            used |= _read_in(path)
    assert used <= declared


def _read_in(folder: str) -> set[str]:
    calls = re.compile(r'\.(?:number\(|query\.get\(|query\[)\s*"([a-z_]+)"')
    return {name for file in Path(folder).glob("*.py") for name in calls.findall(file.read_text())}


def test_defaults_fill_in_and_wrong_values_are_named() -> None:
    """One place checks all queries of all doors."""
    declared = (
        Number(name="limit", summary="x.", default=7, highest=9),
        Text(name="state", summary="x.", choices=("open", "used")),
    )
    assert read_query(declared, {}) == {"limit": "7"}
    assert read_query(declared, {"limit": "9", "new": "x"}) == {"limit": "9", "new": "x"}
    assert read_query(declared, {"state": ""})["state"] == ""
    for wrong in ({"limit": "10"}, {"limit": "-1"}, {"limit": "x"}, {"state": "gone"}):
        with pytest.raises(Exception, match=f"query parameter {next(iter(wrong))}"):
            read_query(declared, wrong)


def test_who_may_come_in_is_said_of_every_route_of_the_console() -> None:
    """Only health is for everybody; what says nothing is for the local user alone."""
    content = {route.path: route for route in doors()["openapi.json"][1] if route.method == "GET"}
    public = {path for path, route in content.items() if route.scope == "none"}
    assert public == {"/healthz", "/readyz"}
    assert content[DOCUMENT_PATH].scope == "any"
    assert inspect.signature(Route).parameters["scope"].default == "uid"


LOCAL_ALONE = {
    ("POST", "/v1/ca/unlock"),
    ("GET", "/v1/tokens"),
    ("POST", "/v1/tokens"),
    ("DELETE", "/v1/tokens/{name}"),
    ("POST", "/v1/enrollment/totp/rotate"),
    ("POST", "/v1/ca/slots"),
    ("POST", "/v1/backups"),
    ("POST", "/v1/ca/rollover"),
}
"""What carries a secret or changes who holds one."""


def test_no_token_sees_a_secret_of_the_ca_or_makes_tokens() -> None:
    """A stolen token must not outlive its revocation, nor carry a passphrase over TCP."""
    routes = doors()["openapi.json"][1]
    scopes = {(route.method, route.path): route.scope for route in routes}
    assert {scopes[key] for key in LOCAL_ALONE} == {"uid"}


LATE = {
    ("POST", "/v1/ca/slots"),
    ("POST", "/v1/backups"),
    ("POST", "/v1/enrollment/totp/rotate"),
}


def test_what_cannot_be_repeated_safely_promises_nothing() -> None:
    """The broker keeps no reply that comes late: a retry there is a new request."""
    _face, routes = doors()["openapi.json"]
    assert {(route.method, route.path) for route in routes if not route.once} == LATE
    content = json.loads(texts()["openapi.json"])
    for path, item in content["paths"].items():
        if "post" in item:
            named = {parameter["name"] for parameter in item["post"]["parameters"]}
            assert ("Idempotency-Key" in named) == (("POST", path) not in LATE)
