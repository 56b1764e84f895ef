"""Decisions of the gateway and the parts it shares with the console, on plain values."""

import pytest

from broker.errors import (
    BusyError,
    ErrorCode,
    MalformedMessageError,
    NotAMemberError,
    SettingsError,
    error_classes,
)
from broker.units import UnixSeconds
from broker.wire.roster import Peer
from tests.stub_broker import idle_node
from workers.gateway.identity import peer_from
from workers.gateway.logic import known_version, refuse_expired
from workers.gateway.routes import ENROLL_ROUTES, MESH_ROUTES
from workers.health import Verdict, readiness, readiness_as_primary
from workers.listener import parse_address
from workers.problem import RefusedError, bug_refusal, problem_of, refusal_of, status_of
from workers.route import Caller, RouteTable, Visit

NOW = UnixSeconds(1_000_000)


def visit(**fields: object) -> Visit:
    """Return a visit of a stranger."""
    return Visit(caller=Caller(source="192.0.2.1"), **fields)  # type: ignore[arg-type]  # test


def test_every_code_has_a_status_and_only_bugs_are_500() -> None:
    """A code without a row would end as a crash in the middle of an answer."""
    statuses = {code: status_of(code) for code in ErrorCode}
    assert set(statuses.values()) <= {
        400, 401, 403, 404, 409, 410, 413, 429, 500, 502, 503, 504, 507
    }  # fmt: skip
    assert set(error_classes()) == set(statuses)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (ErrorCode.BAD_CREDENTIAL, 401),
        (ErrorCode.ENROLLMENT_CLOSED, 403),
        (ErrorCode.REVOKED, 403),
        (ErrorCode.ALREADY_ENROLLED, 409),
        (ErrorCode.INVITE_USED, 410),
        (ErrorCode.CA_LOCKED, 503),
        (ErrorCode.NOT_PRIMARY, 503),
        (ErrorCode.STORAGE, 507),
        (ErrorCode.TIMEOUT, 504),
    ],
)
def test_status_by_code(code: ErrorCode, status: int) -> None:
    """Callers act on the status; the table is part of the interface."""
    assert status_of(code) == status


def test_busy_always_says_when_to_come_back() -> None:
    """A 429 without Retry-After is an invitation to hammer."""
    assert refusal_of(BusyError("full")).headers["Retry-After"] == "1"
    assert refusal_of(BusyError("full", retry_after_ms=1001)).headers["Retry-After"] == "2"


def test_a_bug_tells_the_caller_nothing_about_itself() -> None:
    """Stack traces and exception texts stay in the log."""
    problem = problem_of(bug_refusal(), "id")
    assert (problem.status, problem.code) == (500, "internal")
    assert problem.detail == "this node failed to answer"


def test_a_certificate_is_valid_to_its_last_second() -> None:
    """RFC 5280 4.1.2.5: not_after itself is included."""
    peer = Peer(serial="1", host="a", fingerprint="f", not_after=NOW)
    refuse_expired(peer, NOW)
    with pytest.raises(NotAMemberError):
        refuse_expired(peer, UnixSeconds(NOW + 1))


def test_a_certificate_that_cannot_be_read_is_no_member() -> None:
    """Whatever a peer sends ends in a typed refusal."""
    with pytest.raises(NotAMemberError):
        peer_from(b"\x30\x03garbage", "192.0.2.1")


def test_routes_are_found_by_method_and_path() -> None:
    """A literal segment wins over a parameter; slashes inside one do not split it."""
    table = RouteTable(ENROLL_ROUTES)
    route, parameters = table.find("GET", "/v1/join/a%2Fb")
    assert (route.path, parameters) == ("/v1/join/{ticket}", {"ticket": "a/b"})
    assert table.find("HEAD", "/v1/mesh")[0].path == "/v1/mesh"
    for path in ("/v1/join/", "/v1/join/%ff", "/v1/mesh/", "//v1/mesh", "", "/" * 2000):
        with pytest.raises(RefusedError) as refused:
            table.find("GET", path)
        assert refused.value.status in (404, 405)


def test_every_route_says_what_it_asks_and_answers() -> None:
    """The tables are also the source of the interface's documentation."""
    for route in ENROLL_ROUTES + MESH_ROUTES:
        assert route.summary.endswith(".")
        assert route.make is not None
        assert (route.body is None) or route.method == "POST"
    paths = [(route.method, route.path) for route in MESH_ROUTES]
    assert len(paths) == len(set(paths))


@pytest.mark.parametrize("text", ["", "x", "1.5", "--1", "9" * 16, "0x1", "1e3", "१"])
def test_a_query_number_is_a_plain_number(text: str) -> None:
    """Odd digits and giants are refused by the name of their parameter."""
    with pytest.raises(MalformedMessageError, match="after"):
        visit(query={"after": text}).number("after", 0)


@pytest.mark.parametrize(
    ("etag", "query", "known"),
    [
        ('"3.7"', {}, (3, 7)),
        ('W/"3.7"', {}, (3, 7)),
        ('"3.7"', {"after": "9", "term": "4"}, (4, 9)),
        ("", {}, (0, 0)),
        ("*", {}, (0, 0)),
        ('"3.\u0667"', {}, (0, 0)),
        ('"3.' + "9" * 16 + '"', {}, (0, 0)),
    ],
)
def test_the_known_bundle_comes_from_the_query_or_the_tag(
    etag: str, query: dict[str, str], known: tuple[int, int]
) -> None:
    """A caller may say it either way; what is no version of ours is none at all."""
    assert known_version(visit(etag=etag, query=query)) == known


def test_a_sequence_without_a_term_is_older_than_every_bundle() -> None:
    """After a fork the next primary uses the same numbers again for something else."""
    assert known_version(visit(query={"after": "9"})) == (0, 9)
    assert known_version(visit(etag='"9"')) == (0, 0)


@pytest.mark.parametrize(
    ("role", "ca", "expires", "verdict"),
    [
        ("none", "absent", 1, Verdict(503, "no_mesh")),
        ("member", "absent", 1, Verdict()),
        ("member", "absent", -1, Verdict(503, "certificate_expired")),
        ("member", "absent", None, Verdict(503, "certificate_expired")),
        ("primary", "locked", 1, Verdict(503, "ca_locked")),
        ("primary", "unlocked", 1, Verdict()),
    ],
)
def test_readiness_is_the_ability_to_do_ones_role(
    role: str, ca: str, expires: int | None, verdict: Verdict
) -> None:
    """A balancer takes a node out for one of these reasons and no other."""
    node = idle_node(role=role, ca=ca)
    until = None if expires is None else UnixSeconds(NOW + expires)
    assert readiness(node, until, NOW) == verdict
    assert readiness(None, until, NOW) == Verdict(503, "broker_down")


@pytest.mark.parametrize(
    ("role", "ca", "status"),
    [
        ("primary", "unlocked", 200),
        ("primary", "locked", 503),
        ("standby", "locked", 429),
        ("member", "absent", 503),
        ("none", "absent", 501),
    ],
)
def test_readiness_as_primary_speaks_vaults_codes(role: str, ca: str, status: int) -> None:
    """429 standby, 501 no mesh, 503 locked."""
    assert readiness_as_primary(idle_node(role=role, ca=ca)).status == status
    assert readiness_as_primary(None).status == 503


@pytest.mark.parametrize("text", ["7643", "host", ":1", "a:b", "a:70000", "a:", "[::1]"])
def test_a_bad_listen_address_is_a_settings_error(text: str) -> None:
    """It will not heal by trying again."""
    with pytest.raises(SettingsError, match="host:port"):
        parse_address(text)
    assert parse_address("[::1]:7643") == ("::1", 7643)
