"""The audit trail: complete, exportable, and every change in it found; also away from the mesh."""

import threading
from pathlib import Path

import msgspec
import pytest

from broker.clock import wall_s
from broker.errors import BadPassphraseError, BusyError, ConflictError, StorageError
from broker.shell.verbs.audit import TRAIL
from broker.wire.audit import (
    AuditLine,
    AuditVerdict,
    AuditView,
    GetCompliance,
    ListAudit,
    VerifyAudit,
)
from broker.wire.authority import AuthorityView, LockAuthority, UnlockAuthority
from broker.wire.base import Request
from broker.wire.chain import check_trail, row_hash
from broker.wire.enrollment import EnrollmentView, SetEnrollment
from broker.wire.facts import MemberJoined, MemberRevoked
from broker.wire.ids import Service
from broker.wire.node import Endpoint
from broker.wire.roster import RevocationAnswer, RevokeMember
from tests.shell.backup_desk import settle
from tests.shell.office import PASSPHRASE, Office
from tests.shell.settled import settled
from tests.support import eventually


@pytest.fixture
def office(home: Path) -> Office:
    """Return a primary with some history."""
    office = Office.create(home)
    for number in range(8):
        is_open = bool(number % 2)
        office.ask(Service.CONSOLE, SetEnrollment(is_open, "ann"), EnrollmentView)
    return office


def exported(office: Office, after: int = 0, limit: int = 3) -> list[AuditLine]:
    """Return the rows of an export, fetched page by page."""
    lines: list[AuditLine] = []
    while True:
        ask = ListAudit(after, limit, full=True)
        page = office.ask(Service.CONSOLE, ask, AuditView).rows
        if not page:
            return lines
        lines.extend(page)
        after = page[-1].sequence


def test_an_export_is_the_whole_chain(office: Office) -> None:
    """Anybody can recompute it, with nothing of this mesh at hand."""
    found = check_trail(exported(office))
    head = office.ledger.head
    assert (found.first_bad, found.first, found.last) == (None, 1, head.sequence)
    assert found.head_hash == head.hash


def test_a_part_of_the_trail_is_checked_from_its_first_row_on(office: Office) -> None:
    """What was exported last month need not be exported again."""
    found = check_trail(exported(office, after=4))
    assert (found.first_bad, found.first) == (None, 5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"actor": "nobody"}, "hash"),
        ({"at": 1}, "hash"),
        ({"term": 7}, "hash"),
        ({"payload": b"\x80"}, "hash"),
        ({"hash": "ab" * 32}, "hash"),
        ({"node": "elsewhere"}, "hash"),
        ({"event": "mesh.destroyed"}, "hash"),
        ({"fields": {"host": "innocent"}}, "shows"),
        ({"previous_hash": "ab" * 32}, "continue"),
    ],
)
def test_every_change_of_a_row_is_found_and_the_row_is_named(
    change: dict[str, object], said: str, office: Office
) -> None:
    """Also in what a person reads and the hash does not cover (row 60)."""
    lines = exported(office)
    lines[4] = msgspec.structs.replace(lines[4], **change)
    found = check_trail(lines)
    assert found.first_bad == 5
    assert said in found.detail
    assert (found.rows, found.last) == (4, 4)


def test_a_row_taken_out_or_put_in_is_found(office: Office) -> None:
    """By its number, and by what it follows."""
    lines = exported(office)
    without = check_trail(lines[:3] + lines[4:])
    assert (without.first_bad, without.detail) == (4, "row 4 is missing, row 5 follows")
    again = check_trail([*lines[:4], lines[3], *lines[4:]])
    assert again.first_bad == 5


def test_a_first_row_follows_nothing(office: Office) -> None:
    """Or the end of a long journal, numbered anew, would pass for a whole one."""
    first = exported(office)[0]
    before = b"\xab" * 32
    hashed = (1, first.term, first.at, first.node, first.incarnation, first.actor, first.event)
    digest = row_hash(before, (*hashed, first.payload))
    forged = msgspec.structs.replace(first, previous_hash=before.hex(), hash=digest.hex())
    assert check_trail([forged]).first_bad == 1


def test_a_page_ends_where_it_would_be_too_large(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message has a bound, and a row is never left out: the next page begins with it."""
    monkeypatch.setattr("broker.shell.verbs.audit.PAGE_BYTES_MAX", 1_000)
    page = office.ask(Service.CONSOLE, ListAudit(0, 500, full=True), AuditView)
    assert 0 < len(page.rows) < page.head_sequence
    assert check_trail(exported(office, limit=500)).last == page.head_sequence
    newest = office.ask(Service.CONSOLE, ListAudit(-1, 500), AuditView)
    assert newest.rows[-1].sequence == page.head_sequence
    assert [row.sequence for row in newest.rows] == sorted(row.sequence for row in newest.rows)


def test_a_page_for_people_carries_no_octets(office: Office) -> None:
    """What the hash covers is for whoever asks for it."""
    rows = office.ask(Service.CONSOLE, ListAudit(0, 5), AuditView).rows
    assert all(row.payload == b"" and row.previous_hash == "" for row in rows)


def test_audit_verify_names_the_first_bad_row(office: Office) -> None:
    """The chain is recomputed from the file, not from what the broker remembers (row 60)."""
    assert settled(office, VerifyAudit(), AuditVerdict).first_bad is None
    office.ledger._connection.execute("DROP TRIGGER journal_is_append_only")
    office.ledger._connection.execute("UPDATE journal SET actor = 'nobody' WHERE sequence = 4")
    found = settled(office, VerifyAudit(), AuditVerdict)
    assert found.first_bad == 4
    assert "hash" in found.detail


def test_defect_35_failures_are_in_the_trail_like_successes(office: Office) -> None:
    """The reference logged no failure: nobody could see that somebody had tried."""
    with pytest.raises(ConflictError):
        office.ask(Service.CONSOLE, RevokeMember("atlas", "x", "eve"), RevocationAnswer)
    events = [row.event for row in office.ledger.audit(0, 1000)]
    assert events[-1] == "action.refused"


def test_defect_35_a_failed_unlock_is_in_the_trail(office: Office) -> None:
    """A locked lone primary still writes its journal."""
    office.ask(Service.CONSOLE, LockAuthority("ann"), AuthorityView)
    with pytest.raises(BadPassphraseError):
        settled(office, UnlockAuthority(b"not the passphrase", "eve"), AuthorityView)
    row = office.ledger.audit(-1, 1)[0]
    assert (row.event, row.actor) == ("ca.unlock_failed", "eve")


def test_defect_35_free_text_is_a_field_and_never_a_line(office: Office) -> None:
    """The reference wrote unescaped lines: a newline in a reason forged the next one."""
    forged = 'lost"}\n{"event": "mesh.destroyed"'
    member = office.ledger.member_by_host("atlas")
    assert member is not None
    office.ledger.begin()
    fact = MemberRevoked("ab" * 16, "atlas", forged)
    office.ledger.append(fact, actor="ann\n", now=member.joined_at)
    office.ledger.commit()
    line = exported(office)[-1]
    raw = msgspec.json.encode(line)
    assert b"\n" not in raw
    back = msgspec.json.decode(raw, type=AuditLine)
    assert (back.fields["reason"], back.actor) == (forged, "ann\n")
    assert check_trail(exported(office)).first_bad is None


def test_defect_35_a_row_that_cannot_be_written_is_no_success(office: Office) -> None:
    """The reference ignored errors of its log; here the change is void together with its row.

    (row 60)
    """
    before = office.ledger.head
    office.ledger._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StorageError):
        office.ask(Service.CONSOLE, SetEnrollment(False, "ann"), EnrollmentView)
    office.ledger._connection.execute("PRAGMA query_only = OFF")
    assert office.ledger.head == before
    mesh = office.ledger.mesh()
    assert mesh is not None
    assert mesh.enrollment_open


def test_defect_29_two_changes_of_one_drain_are_both_kept(office: Office) -> None:
    """The reference cloned, changed and wrote back: of two at once one was lost."""
    identity = office.introduce(Service.CONSOLE)
    calls: list[tuple[bytes, Request, bytes]] = [
        (identity, SetEnrollment(False, "ann"), b"a" * 16),
        (identity, RevokeMember("nobody", "x", "ann"), b"b" * 16),
        (identity, SetEnrollment(True, "bob"), b"c" * 16),
    ]
    office.turn(calls)
    told = [(row.event, row.actor) for row in office.ledger.audit(-1, 3)]
    assert told == [
        ("enrollment.closed", "ann"),
        ("action.refused", "ann"),
        ("enrollment.opened", "bob"),
    ]


def test_defect_29_a_revocation_among_many_writers_of_one_drain_is_never_lost(
    office: Office,
) -> None:
    """One writer, one journal: what comes before and after it in the same drain stays, on disk."""
    office.ledger.begin()
    joined = member_joined("nas")
    office.ledger.append(joined, actor="ann", now=wall_s())
    office.ledger.commit()
    before = office.ledger.head.sequence
    identity = office.introduce(Service.CONSOLE)
    calls: list[tuple[bytes, Request, bytes]] = [
        (identity, SetEnrollment(bool(number % 2), "ann"), bytes([number]) * 16)
        for number in range(40)
    ]
    calls.insert(20, (identity, RevokeMember("nas", "stolen", "bob"), b"r" * 16))
    office.turn(calls)
    assert office.ledger.head.sequence == before + 41
    office.crash()
    member = office.ledger.latest_member_of_host("nas")
    assert member is not None
    assert member.state == "revoked"


def member_joined(host: str) -> MemberJoined:
    """Return the row of a member."""
    doors = Endpoint(host, ("127.0.0.200",), 7642, 7643, f"{host}.home.internal")
    return MemberJoined("cd" * 16, host, (host,), "member", doors, "invite")


def test_nobody_who_may_read_the_trail_keeps_the_ca_from_being_unlocked(office: Office) -> None:
    """A long journal takes a minute to verify, and a token with scope `audit` may ask at will."""
    state, held = office.desk.state, threading.Event()
    office.ask(Service.CONSOLE, LockAuthority("ann"), AuthorityView)
    assert state.offloop.alone(TRAIL, held.wait, lambda _batch, _outcome: None)
    try:
        for request in (VerifyAudit(), GetCompliance()):
            with pytest.raises(BusyError):
                office.ask(Service.CONSOLE, request, AuditVerdict)
        view = settled(office, UnlockAuthority(PASSPHRASE.encode(), "ann"), AuthorityView)
        assert view.state == "unlocked"
    finally:
        held.set()
    eventually(lambda: settle(office) is not None and _is_free(office), within_s=5)


def _is_free(office: Office) -> bool:
    return office.desk.state.offloop.alone(TRAIL, lambda: None, lambda _batch, _outcome: None)
