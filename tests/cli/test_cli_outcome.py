"""Every error code has one exit status, and every error has three parts."""

import pytest

from broker.cli.outcome import EXITS, exit_of
from broker.errors import (
    CALockedError,
    ErrorCode,
    MeshError,
    NotPrimaryError,
    ThrottledError,
    error_classes,
)
from broker.runtime.exits import Exit
from tests.cli.command import Certmesh
from tests.cli.fake_console import FakeConsole

PROMISED = {
    "ca_locked": 5,
    "no_mesh": 6,
    "not_a_member": 6,
    "unavailable": 4,
    "timeout": 4,
    "bad_passphrase": 7,
    "bad_credential": 7,
    "enrollment_closed": 7,
    "name_not_allowed": 7,
    "approval_denied": 7,
    "revoked": 7,
    "pin_mismatch": 7,
    "not_primary": 9,
    "conflict": 9,
    "withheld": 9,
    "forked": 9,
    "stale_term": 9,
    "claim_rejected": 7,
    "key_rejected": 7,
    "mesh_exists": 9,
    "invite_malformed": 2,
    "settings": 78,
    "internal": 1,
}


def test_every_error_code_has_an_exit_status() -> None:
    """A code without one would silently become 1, which tells a script nothing."""
    assert set(EXITS) == set(ErrorCode)


@pytest.mark.parametrize(("code", "status"), PROMISED.items())
def test_the_exit_statuses_are_the_promised_ones(code: str, status: int) -> None:
    """Scripts are written against these numbers."""
    assert exit_of(ErrorCode(code)) == status


@pytest.mark.parametrize("code", list(ErrorCode))
def test_a_problem_of_the_console_ends_in_the_status_of_its_code(
    code: ErrorCode, console: FakeConsole, certmesh: Certmesh
) -> None:
    """The same refusal gives the same status, whoever noticed it."""
    console.refuse("GET", "/v1/ca", error_classes()[code]("so it is", hint="do this"))
    said = certmesh("--json", "ca", "show")
    assert said.status == exit_of(code)
    assert said.body == {
        "schema": "certmesh.error/1",
        "code": code.value,
        "detail": "so it is",
        "hint": "do this",
    }


def test_an_error_says_what_failed_why_and_what_to_do(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """On stderr, so that stdout stays an answer or nothing."""
    console.refuse("POST", "/v1/ca/lock", CALockedError("the key is locked", hint="unlock it"))
    said = certmesh("ca", "lock")
    assert said.out == ""
    assert said.err.splitlines() == [
        "certmesh ca lock: failed (ca_locked)",
        "    why   the key is locked",
        "    do    unlock it",
    ]


def test_a_hostile_error_text_cannot_steer_the_terminal(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Details may quote names that other machines chose."""
    console.refuse("GET", "/v1/ca", MeshErrorOf("\x1b[2J\u202ename"))
    said = certmesh("ca", "show")
    assert "\x1b" not in said.err
    assert "\u202e" not in said.err
    assert r"\x1b[2J\u202ename" in said.err


def MeshErrorOf(detail: str) -> MeshError:  # noqa: N802 (reads as a class)
    """Return some refusal with this detail."""
    return NotPrimaryError(detail)


def test_a_throttled_caller_is_told_when_to_come_back(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Retry-After is the only useful part of that answer."""
    console.refuse("GET", "/v1/ca", ThrottledError("slow down"), 429, Retry_After="30")
    assert "try again in 30 s" in certmesh("ca", "show").err


@pytest.mark.parametrize(
    "raw", [b"", b"<html>", b"[]", b'{"code": "new"}', b"\xff\xfe", b"[" * 9999]
)
def test_an_answer_that_is_no_problem_document_is_still_a_clean_failure(
    raw: bytes, console: FakeConsole, certmesh: Certmesh
) -> None:
    """Whatever answers on the socket, the command does not show a traceback."""
    console.say("GET", "/v1/ca", raw, 500)
    said = certmesh("ca", "show")
    assert said.status == Exit.FAILED
    assert "Traceback" not in said.err


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"kind": "status-view"}', b"\xff", b"[" * 9999])
def test_an_answer_of_another_shape_is_a_clean_failure(
    raw: bytes, console: FakeConsole, certmesh: Certmesh
) -> None:
    """A node of another release must not crash the command."""
    console.say("GET", "/v1/status?limit=500", raw)
    said = certmesh("status")
    assert said.status == Exit.FAILED
    assert "failed (malformed)" in said.err
