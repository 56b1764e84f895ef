"""The console keeps the promises of its OpenAPI document, whatever a caller makes up.

A generator of requests reads the document and asks a real console before a real broker: nothing
may end in a status that is not documented, and every answer has the shape it was promised.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from tests.openapi_files import doors
from tests.support import eventually
from tests.workers.live_console import LiveConsole, live_console
from workers.openapi import document

FACE, ROUTES = doors()["openapi.json"]
SCHEMA: Any = schemathesis.openapi.from_dict(document(FACE, ROUTES))
LAST = ("POST /v1/ca/lock", "POST /v1/standby/step-down")
"""What closes the doors that the others go through."""
OPERATIONS: list[Any] = sorted(
    (found.ok() for found in SCHEMA.get_all_operations()),
    key=lambda operation: operation.label in LAST,
)
DOCUMENTED = frozenset({501, 503, 504, 507})
"""501: `/readyz` where there is no mesh."""
PROMISES = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]
BOUNDS = hypothesis.settings(
    max_examples=4,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)


@pytest.fixture(scope="module")
def live() -> Iterator[LiveConsole]:
    """One console for all requests: what one of them broke, another would find."""
    home = Path(tempfile.mkdtemp(prefix="cm-", dir="/tmp"))
    try:
        with live_console(home) as console:
            yield console
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """One connection for many requests."""
    with requests.Session() as kept:
        yield kept


def probe(
    operation: Any, mode: GenerationMode, base: str, kept: requests.Session, **shown: str
) -> None:
    """Send made-up requests to one operation and hold the answers against the document."""

    @BOUNDS
    @hypothesis.given(operation.as_strategy(mode))
    def ask(case: Any) -> None:
        answer = case.call(base_url=base, session=kept, headers=shown, timeout=20)
        assert answer.status_code < 500 or answer.status_code in DOCUMENTED, answer.text
        case.validate_response(answer, checks=PROMISES)

    ask()


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_the_user_gets_what_the_document_promises(
    live: LiveConsole, session: requests.Session, operation: Any
) -> None:
    """On the local door, with requests that keep to the document."""
    probe(operation, GenerationMode.POSITIVE, live.local, session)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_nonsense_gets_a_documented_refusal(
    live: LiveConsole, session: requests.Session, operation: Any
) -> None:
    """Requests that break the document never break the node."""
    with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # nothing can be wrong with some
        probe(operation, GenerationMode.NEGATIVE, live.local, session)


def test_a_program_with_a_token_gets_what_the_document_promises(
    live: LiveConsole, session: requests.Session
) -> None:
    """On the dashboard port: every scope opens its routes, and what is not for it says so."""
    shown = {"Authorization": f"Bearer {live.token('admin')}"}
    scopes = {(route.method, route.path): route.scope for route in ROUTES}
    for operation in OPERATIONS:
        method = operation.method.upper()
        if method == "GET":
            probe(operation, GenerationMode.POSITIVE, live.dashboard, session, **shown)
        path = operation.path.replace("{", "").replace("}", "")
        bare = session.request(method, live.dashboard + path, timeout=20)
        said = session.request(method, live.dashboard + path, headers=shown, timeout=20)
        scope = scopes[method, operation.path]
        assert (bare.status_code == 401) == (scope != "none"), operation.label
        assert (said.status_code == 403) >= (scope == "uid"), operation.label


def test_a_revoked_token_is_refused_by_the_port_within_a_second(live: LiveConsole) -> None:
    """From the operator's word to the refused request, over the real broker."""
    token = live.token("read", name="short")
    shown = {"Authorization": f"Bearer {token}"}

    def status() -> int:
        return requests.get(f"{live.dashboard}/v1/status", headers=shown, timeout=10).status_code

    assert status() == 200
    gone = requests.delete(f"{live.local}/v1/tokens/short", timeout=10)
    assert gone.status_code == 200, gone.text
    eventually(lambda: status() == 401, 3)


def test_a_post_that_is_sent_again_makes_one_token(live: LiveConsole) -> None:
    """The whole way: same key, same answer, one row in the journal."""
    key = {"Idempotency-Key": "5e0f6a8c"}
    wish = {"name": "again", "scopes": ["read"]}
    first, second = (
        requests.post(f"{live.local}/v1/tokens", json=wish, headers=key, timeout=10)
        for _ in range(2)
    )
    assert (first.status_code, second.content) == (201, first.content)
    listed = requests.get(f"{live.local}/v1/tokens", timeout=10).json()["tokens"]
    assert [line["name"] for line in listed].count("again") == 1
