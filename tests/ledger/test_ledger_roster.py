"""What the roster answers: current certificates, due dates, revocation that absorbs."""

import hashlib
from pathlib import Path

import pytest

from broker.ledger import roster_reads
from broker.ledger.sqlite import Ledger
from broker.wire import facts
from tests.ledger.ledger_facts import (
    DAY_S,
    NOW,
    endpoint,
    issued,
    joined,
    mesh,
    renewed,
    revoked,
)
from tests.ledger.ledger_room import opened, write


def _plan(ledger: Ledger, statement: str) -> str:
    distinct = (
        4
        if "?4" in statement
        else 2
        if "?2" in statement
        else 1
        if "?1" in statement
        else statement.count("?")
    )
    numbers = (0,) * distinct
    rows = ledger._connection.execute(f"EXPLAIN QUERY PLAN {statement}", numbers).fetchall()
    return "\n".join(row[3] for row in rows)


def test_a_member_reads_back_as_it_joined(home: Path) -> None:
    """Every field, lists and doors included."""
    ledger = opened(home)
    fact = joined("web1", "a1", "standby")
    write(ledger, mesh(), fact)
    row = ledger.member("a1")
    assert row is not None
    assert (row.host, row.role, row.sans, row.endpoint) == (
        "web1",
        "standby",
        fact.sans,
        fact.endpoint,
    )
    assert (row.state, row.joined_at, row.method, row.revoked_at) == ("active", NOW, "invite", None)
    assert (row.current_serial, row.served, row.last_error) == ("", "unknown", "")
    assert ledger.member("zz") is None
    assert ledger.member_by_host("web2") is None
    ledger.close()


def test_a_renewal_supersedes_the_certificate_before_it(home: Path) -> None:
    """One current certificate, the old one still known, DER kept as it was."""
    ledger = opened(home)
    write(ledger, joined("web1", "a1"), issued("a1", "01"), renewed("a1", "02", "01", NOW + 60))
    first, second = ledger.certificate("01"), ledger.certificate("02")
    assert first is not None
    assert second is not None
    assert (first[1].state, second[1].state) == ("superseded", "active")
    assert first[0] == second[0]
    assert second[0].current_serial == "02"
    assert second[1].certificate == b"der of 02"
    assert second[1].fingerprint == hashlib.sha256(b"der of 02").hexdigest()
    assert (second[1].host, second[1].not_before) == ("web1", NOW + 60)
    assert ledger.certificate("03") is None
    ledger.close()


def test_certificates_are_listed_newest_first_and_found_by_key(home: Path) -> None:
    """A retry with the same key gets the certificate it got before."""
    ledger = opened(home)
    serials = [f"{number:02x}" for number in range(1, 80)]
    write(ledger, joined("web1", "a1"), joined("db", "a2"), issued("a2", "f0"))
    write(ledger, *(issued("a1", serial) for serial in serials))
    listed = [row.serial for row in ledger.certificates_of("a1", 100)]
    assert listed == serials[::-1]
    assert [row.serial for row in ledger.certificates_of("a1", 2)] == ["4f", "4e"]
    assert ledger.certificates_of("a3", 5) == []
    found = ledger.certificate_by_key("a1", issued("a1", "4e").key_hash)
    assert found is not None
    assert found.serial == "4e"
    assert ledger.certificate_by_key("a2", issued("a1", "4e").key_hash) is None
    ledger.close()


def test_revocation_takes_the_member_and_every_certificate(home: Path) -> None:
    """Identity first: all serials, old and current."""
    ledger = opened(home)
    write(ledger, joined("web1", "a1"), issued("a1", "01"), renewed("a1", "02", "01"))
    write(ledger, revoked("a1"), now=NOW + 5)
    member = ledger.member("a1")
    assert member is not None
    assert (member.state, member.revoked_at) == ("revoked", NOW + 5)
    assert {row.state for row in ledger.certificates_of("a1", 9)} == {"revoked"}
    assert (ledger.member_by_host("web1"), ledger.member_count()) == (None, 0)
    assert ledger.latest_member_of_host("web1") == member
    assert ledger.revoked_members() == ["a1"]
    assert (ledger.due(NOW + 99 * DAY_S, 9), ledger.next_renew_at()) == ([], None)
    ledger.close()


def test_revocation_absorbs_whatever_comes_later(home: Path) -> None:
    """No later fact about the member brings it back, not even a second join."""
    ledger = opened(home)
    write(ledger, joined("web1", "a1", "standby"), issued("a1", "01"), revoked("a1"))
    write(
        ledger,
        renewed("a1", "02", "01", NOW + 9),
        facts.CertificateServed("a1", "02", "served", ""),
        facts.MemberMoved("a1", endpoint("web1", 9000)),
        revoked("a1"),
        now=NOW + 9,
    )
    member = ledger.member("a1")
    assert member is not None
    assert (member.state, member.revoked_at) == ("revoked", NOW)
    assert {row.state for row in ledger.certificates_of("a1", 9)} == {"revoked"}
    assert sorted(ledger.revoked_serials(NOW)) == [("01", NOW), ("02", NOW)]
    assert (ledger.key_holders(), ledger.next_renew_at(), ledger.member_count()) == ([], None, 0)
    ledger.close()


def test_a_revocation_ahead_of_the_join_holds(home: Path) -> None:
    """Facts from another node may arrive in any order; revoked anywhere is revoked for ever."""
    ledger = opened(home)
    write(ledger, revoked("a1"), joined("web1", "a1", "standby"), issued("a1", "01"))
    member = ledger.member("a1")
    assert member is not None
    assert (member.state, member.revoked_at) == ("revoked", NOW)
    assert (ledger.member_count(), ledger.key_holders()) == (0, [])
    assert ledger.revoked_serials(NOW) == [("01", NOW)]
    ledger.close()


def test_a_comeback_is_a_new_enrollment(home: Path) -> None:
    """Same name, new id; the old one stays revoked and stays off the page."""
    ledger = opened(home)
    write(ledger, joined("web1", "a1"), issued("a1", "01"), revoked("a1"))
    write(ledger, joined("web1", "a2"), issued("a2", "02"))
    owner, latest = ledger.member_by_host("web1"), ledger.latest_member_of_host("web1")
    assert owner is not None
    assert owner == latest
    assert owner.member_id == "a2"
    [(line, certificate)] = ledger.members_page("", 10)
    assert line.member_id == "a2"
    assert certificate is not None
    assert certificate.serial == "02"
    ledger.close()


def test_of_two_active_enrollments_the_older_owns_the_name(home: Path) -> None:
    """Two halves of a partition may have enrolled the same name."""
    ledger = opened(home)
    write(ledger, joined("web1", "a1"), joined("web1", "a2"))
    owner, latest = ledger.member_by_host("web1"), ledger.latest_member_of_host("web1")
    assert owner is not None
    assert latest is not None
    assert (owner.member_id, latest.member_id) == ("a1", "a2")
    assert [line.member_id for line, _ in ledger.members_page("", 10)] == ["a1"]
    write(ledger, revoked("a1"))
    assert [line.member_id for line, _ in ledger.members_page("", 10)] == ["a2"]
    write(ledger, revoked("a2"))
    assert [line.member_id for line, _ in ledger.members_page("", 10)] == ["a2"]
    ledger.close()


def test_pages_follow_each_other_in_host_order(home: Path) -> None:
    """Revoked hosts are on them, a member without certificate too."""
    ledger = opened(home)
    for number, host in enumerate(("mail", "db", "web1", "atlas")):
        write(ledger, joined(host, f"{number:02x}"))
    write(ledger, issued("01", "aa"), revoked("02"))
    first = ledger.members_page("", 2)
    assert [member.host for member, _ in first] == ["atlas", "db"]
    assert [certificate.serial if certificate else None for _, certificate in first] == [None, "aa"]
    rest = ledger.members_page("db", 9)
    assert [(member.host, member.state) for member, _ in rest] == [
        ("mail", "active"),
        ("web1", "revoked"),
    ]
    ledger.close()


def test_due_members_come_most_overdue_first_and_only_once_they_are_due(home: Path) -> None:
    """The current certificate counts, not the ones before it."""
    ledger = opened(home)
    for number, host in enumerate(("db", "mail", "web1", "web2")):
        write(ledger, joined(host, f"a{number}"), issued(f"a{number}", f"0{number}", NOW - number))
    due = NOW + 20 * DAY_S
    assert ledger.next_renew_at() == due - 3
    assert [member.host for member, _ in ledger.due(due, 9)] == ["web2", "web1", "mail", "db"]
    assert [member.host for member, _ in ledger.due(due - 2, 9)] == ["web2", "web1"]
    assert [member.host for member, _ in ledger.due(due, 1)] == ["web2"]
    write(ledger, renewed("a3", "13", "03", NOW + DAY_S))
    assert [member.host for member, _ in ledger.due(due, 9)] == ["web1", "mail", "db"]
    assert ledger.next_renew_at() == due - 2
    write(ledger, revoked("a2"))
    assert [certificate.serial for _, certificate in ledger.due(due, 9)] == ["01", "00"]
    ledger.close()


@pytest.mark.parametrize("statement", roster_reads.PartialIndexed)
def test_what_the_sweep_asks_walks_a_partial_index(home: Path, statement: str) -> None:
    """A scan or a sort would make every tick grow with the mesh."""
    ledger = opened(home)
    plan = _plan(ledger, statement)
    indexes = ledger._connection.execute("PRAGMA index_list (members)").fetchall()
    partial = {name for _, name, _, _, is_partial in indexes if is_partial}
    assert any(f" INDEX {name} " in f"{plan} ".replace("\n", " \n") for name in partial)
    assert "SCAN m\n" not in f"{plan}\n"
    if "renew_at" in statement:
        assert "TEMP B-TREE" not in plan
    ledger.close()


def test_pages_and_lookups_never_sort_the_roster(home: Path) -> None:
    """Cost per page, not per member."""
    ledger = opened(home)
    page = _plan(ledger, roster_reads._PAGE)
    assert "SEARCH m USING INDEX members_by_host (host>?)" in page
    assert "TEMP B-TREE" not in page
    for statement in (
        roster_reads._BY_SERIAL,
        roster_reads._OF_MEMBER,
        roster_reads._LATEST_OF_HOST,
    ):
        assert "SEARCH" in _plan(ledger, statement)
        assert "TEMP B-TREE" not in _plan(ledger, statement)
    ledger.close()


def test_serials_of_the_revoked_are_told_until_they_expire(home: Path) -> None:
    """The last second of validity is itself valid."""
    ledger = opened(home)
    write(ledger, joined("web1", "a1"), issued("a1", "01"), renewed("a1", "02", "01", NOW + DAY_S))
    write(ledger, joined("db", "a2"), issued("a2", "03"))
    assert ledger.revoked_serials(NOW) == []
    write(ledger, revoked("a1"))
    end = NOW + 30 * DAY_S
    assert ledger.revoked_serials(end) == [("01", NOW), ("02", NOW)]
    assert ledger.revoked_serials(end + 1) == [("02", NOW)]
    assert ledger.revoked_serials(end + DAY_S + 1) == []
    ledger.close()


def test_the_closed_loop_is_told_and_a_served_certificate_ends_the_error(home: Path) -> None:
    """An installed but unproven certificate does not clear what went wrong."""
    ledger = opened(home)
    write(ledger, joined("web1", "a1"), issued("a1", "01"), facts.RenewalFailed("a1", "timeout"))
    write(ledger, facts.CertificateServed("a1", "01", "stale", "port shows 00"))
    row = ledger.member("a1")
    assert row is not None
    assert (row.served, row.served_serial, row.served_detail, row.last_error) == (
        "stale",
        "01",
        "port shows 00",
        "timeout",
    )
    write(ledger, facts.CertificateServed("a1", "01", "served", ""))
    row = ledger.member("a1")
    assert row is not None
    assert (row.served, row.last_error) == ("served", "")
    ledger.close()


def test_the_bundle_moves_only_with_rows_that_change_what_it_says(home: Path) -> None:
    """Members fetch it again when its number grows: neither too often nor too late."""
    ledger = opened(home)

    def after(*rows: facts.AnyFact) -> bool:
        before = ledger.bundle_sequence()
        write(ledger, *rows)
        assert ledger.bundle_sequence() in {before, ledger.head.sequence}
        return ledger.bundle_sequence() > before

    assert after(mesh())
    assert after(joined("atlas", "a0", "primary"))
    assert after(joined("borea", "a1", "standby"))
    assert not after(joined("web1", "a2"))
    assert not after(issued("a2", "02"))
    assert not after(renewed("a2", "03", "02"))
    assert not after(facts.MemberMoved("a2", endpoint("web1", 9000)))
    assert after(facts.MemberMoved("a1", endpoint("borea", 9000)))
    assert not after(facts.EnrollmentOpened())
    assert after(revoked("a2"))
    assert not after(revoked("a2"))
    assert after(renewed("a2", "04", "03"))
    assert after(revoked("a1"))
    assert not after(facts.MemberMoved("a1", endpoint("borea", 9001)))
    assert [row.host for row in ledger.key_holders()] == ["atlas"]
    ledger.close()
