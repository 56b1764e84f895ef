"""API tokens at the broker: who may make one, what one proves, what a fork makes of them."""

import hashlib
import secrets
from pathlib import Path

import pytest

from broker.errors import (
    BadCredentialError,
    ConflictError,
    ForbiddenError,
    MalformedMessageError,
    NotFoundError,
    NotPrimaryError,
    ThrottledError,
)
from broker.ledger.rows import JournalRow
from broker.wire.control import Ack
from broker.wire.ids import Service
from broker.wire.token import (
    CheckToken,
    CreateToken,
    ListTokens,
    RevokeToken,
    Scope,
    TokensView,
    TokenView,
)
from tests.shell.mesh_room import Node, Room, pushed_clock
from tests.shell.office import Office
from tests.shell.scenes import Make, fail_over

Desk = Office | Node
SOURCE = "127.0.0.1"


def hash_of(secret: str) -> str:
    """Return what the broker knows of a token."""
    return hashlib.sha256(secret.encode()).hexdigest()


def create(
    desk: Desk,
    name: str = "grafana",
    secret: str = "s1",
    ttl_s: int = 0,
    scopes: tuple[Scope, ...] = ("read",),
) -> TokenView:
    """Make a token."""
    wish = CreateToken(hash_of(secret), name, scopes, ttl_s, "ann")
    return desk.ask(Service.CONSOLE, wish, TokenView)


def check(desk: Desk, secret: str = "s1", source: str = SOURCE) -> TokenView:
    """Show a token."""
    return desk.ask(Service.CONSOLE, CheckToken(hash_of(secret), source), TokenView)


def revoke(desk: Desk, word: str = "grafana") -> None:
    """Make a token worthless."""
    desk.ask(Service.CONSOLE, RevokeToken(word, "ann"), Ack)


def listed(desk: Desk) -> list[tuple[str, str]]:
    """Return name and state of every token, newest first."""
    view = desk.ask(Service.CONSOLE, ListTokens(), TokensView)
    return [(line.name, line.state) for line in view.tokens]


def rows(office: Office, event: str) -> list[JournalRow]:
    """Return the rows of one kind."""
    return [row for row in office.ledger.audit(0, 1000) if row.event == event]


def test_a_token_is_good_until_it_is_revoked(home: Path) -> None:
    """And its revocation holds at the very next check."""
    office = Office.create(home)
    made = create(office, scopes=("read", "audit", "read"))
    assert (made.state, made.scopes, made.created_by) == ("active", ("read", "audit"), "ann")
    assert check(office) == made
    revoke(office)
    with pytest.raises(BadCredentialError, match="was revoked"):
        check(office)
    assert listed(office) == [("grafana", "revoked")]


def test_a_token_outlives_the_broker_and_so_does_its_revocation(home: Path) -> None:
    """Both are rows of the journal."""
    office = Office.create(home)
    create(office)
    create(office, "ci", "s2")
    revoke(office)
    office.crash()
    assert check(office, "s2").name == "ci"
    with pytest.raises(BadCredentialError):
        check(office)


def test_the_journal_holds_no_secret(home: Path) -> None:
    """Who reads a standby's disk or the audit trail learns no token."""
    office = Office.create(home)
    create(office, secret="cmt_very-secret")
    for row in office.ledger.audit(0, 1000):
        assert b"very-secret" not in row.payload
    assert rows(office, "token.created")[0].actor == "ann"


def test_a_token_expires(home: Path) -> None:
    """The last second is still good, the next one is not."""
    with pushed_clock() as clock:
        office = Office.create(home)
        made = create(office, ttl_s=60)
        assert made.expires_at - made.created_at == 60
        clock.jump_s = 59
        assert check(office).name == "grafana"
        clock.jump_s = 60
        with pytest.raises(BadCredentialError, match="has expired"):
            check(office)
        assert listed(office) == [("grafana", "expired")]
        create(office, secret="s2")  # the name is free again


def test_a_name_in_use_is_not_given_twice(home: Path) -> None:
    """The audit trail says `token:grafana`; two programs behind one name would hide each other."""
    office = Office.create(home)
    create(office)
    with pytest.raises(ConflictError, match="in use"):
        create(office, secret="s2")
    with pytest.raises(ConflictError, match="exists already"):
        create(office, "other", "s1")
    revoke(office)
    assert create(office, secret="s2").state == "active"


@pytest.mark.parametrize("name", ["", "Grafana", "a b", "-x", "x" * 65, "x\ny", "../x"])
def test_a_name_that_could_forge_a_line_is_refused(home: Path, name: str) -> None:
    """Defect 25: names end up in logs, rows and screens."""
    office = Office.create(home)
    with pytest.raises(MalformedMessageError):
        create(office, name)


def test_what_is_no_hash_is_refused(home: Path) -> None:
    """An empty one would be found by whoever shows nothing."""
    office = Office.create(home)
    with pytest.raises(MalformedMessageError):
        office.ask(Service.CONSOLE, CreateToken("", "x", ("read",), 0, "ann"), TokenView)


def test_a_token_lives_a_year_at_most_and_thirty_days_if_nobody_says(home: Path) -> None:
    """Whatever is asked for."""
    office = Office.create(home)
    made = create(office)
    long = create(office, "long", "s2", ttl_s=10**9)
    assert made.expires_at - made.created_at == 30 * 86_400
    assert long.expires_at - long.created_at == 366 * 86_400


def test_revoking_what_is_not_in_use_says_so(home: Path) -> None:
    """A typo must not look like a revocation; an id names one token exactly."""
    office = Office.create(home)
    made = create(office)
    with pytest.raises(NotFoundError):
        revoke(office, "grafan")
    revoke(office, made.token_id)
    with pytest.raises(NotFoundError):
        revoke(office)


def test_only_the_console_may_speak_of_tokens(home: Path) -> None:
    """A gateway that was broken into mints itself no rights."""
    office = Office.create(home)
    for request in (
        CreateToken(hash_of("x"), "x", ("admin",), 0, "mallory"),
        RevokeToken("grafana", "mallory"),
        ListTokens(),
        CheckToken(hash_of("x"), SOURCE),
    ):
        with pytest.raises(ForbiddenError):
            office.ask(Service.GATEWAY, request, Ack)


def test_who_guesses_has_to_wait_and_nobody_else_does(home: Path) -> None:
    """Defect 23: bad attempts of anybody locked out everybody."""
    office = Office.create(home)
    create(office)
    for number in range(20):
        with pytest.raises(BadCredentialError):
            check(office, f"guess {number}")
    with pytest.raises(ThrottledError) as refused:
        check(office, "guess")
    assert refused.value.retry_after_ms > 0
    assert check(office).name == "grafana"
    with pytest.raises(BadCredentialError):
        check(office, "guess", "127.0.0.2")


def test_refused_tokens_leave_few_rows(home: Path) -> None:
    """The trail tells of the attempts; a flood of them does not fill the disk."""
    with pushed_clock() as clock:
        office = Office.create(home)
        for number in range(10):
            with pytest.raises(BadCredentialError):
                check(office, f"guess {number}")
        assert len(rows(office, "auth.failed")) == 1
        clock.push(10_000)
        with pytest.raises(BadCredentialError):
            check(office, "guess")
        assert len(rows(office, "auth.failed")) == 2


def test_a_repeated_request_makes_one_token(home: Path) -> None:
    """The reply to a lost answer is the first one, also after a crash."""
    office = Office.create(home)
    request_id = secrets.token_bytes(16)
    wish = CreateToken(hash_of("s1"), "grafana", ("read",), 0, "ann")
    worker = office.introduce(Service.CONSOLE)
    first = office.send(worker, wish, TokenView, request_id)
    office.crash()
    worker = office.introduce(Service.CONSOLE)
    assert office.send(worker, wish, TokenView, request_id) == first
    assert len(rows(office, "token.created")) == 1


def test_a_standby_knows_the_tokens_and_a_member_knows_none(room: Room) -> None:
    """Whoever holds the journal can check; making one is for the primary."""
    create(room["atlas"])
    room.run(2_000, until=lambda: room.lag("birch") == 0)
    assert check(room["birch"]).name == "grafana"
    with pytest.raises(NotPrimaryError):
        check(room["cedar"])
    with pytest.raises(NotPrimaryError):
        create(room["birch"], "other", "s2")
    with pytest.raises(BadCredentialError):
        check(room["birch"], "guess")


def test_tokens_survive_a_failover(room: Room) -> None:
    """Monitoring goes on without a person."""
    create(room["atlas"])
    room.run(1_000)
    fail_over(room)
    assert check(room["birch"]).name == "grafana"
    revoke(room["birch"])
    with pytest.raises(BadCredentialError):
        check(room["birch"])


def test_a_token_revoked_on_one_side_of_a_partition_is_worthless_on_both(make: Make) -> None:
    """Revocation absorbs; what either side made works on both, under one name twice if need be."""
    room = make("birch", "cedar")
    room.nominate("birch")
    create(room["atlas"], "old", "s0")
    room.run(1_000, until=lambda: room.lag("birch") == 0)
    room.cut("atlas", "birch")
    room.cut("atlas", "cedar")
    room.run(12_000, until=lambda: room.serves(room["birch"]))
    revoke(room["atlas"], "old")
    create(room["atlas"], "both", "s1")
    create(room["birch"], "both", "s2")
    assert check(room["birch"], "s0").state == "active"
    room.cuts.clear()
    room.run(8_000, until=lambda: room["atlas"].role == "standby" and room.lag("atlas") == 0)
    room.run(1_000)
    for host in ("atlas", "birch"):
        with pytest.raises(BadCredentialError, match="was revoked"):
            check(room[host], "s0")
        assert check(room[host], "s1").name == check(room[host], "s2").name == "both"
        assert room[host].office.ledger.differing_projections() == ()
    revoke(room["birch"], "both")
    assert {state for _, state in listed(room["birch"])} == {"revoked"}
