"""When what is really served ends: folded from what members say, found without looking at all."""

from pathlib import Path

import pytest

from broker.ledger import serving_reads
from broker.ledger.projection import dump
from broker.ledger.sqlite import Ledger
from broker.wire import facts
from broker.wire.ids import ServedState
from tests.ledger.ledger_facts import DAY_S, NOW, issued, joined, mesh, renewed, revoked
from tests.ledger.ledger_room import opened, write

END = NOW + 30 * DAY_S


@pytest.fixture
def ledger(home: Path) -> Ledger:
    """web1 joined, its first certificate ends in thirty days."""
    found = opened(home)
    write(found, mesh(), joined("web1", "a1"), issued("a1", "01"))
    return found


def said(state: ServedState, serial: str, detail: str = "", member_id: str = "a1") -> facts.AnyFact:
    """Return a report."""
    return facts.CertificateServed(member_id, serial, state, detail)


def until(ledger: Ledger, member_id: str = "a1") -> int | None:
    """Return when a member's served certificate ends."""
    row = ledger.member(member_id)
    assert row is not None
    return row.serving_until


def test_the_first_certificate_counts_before_anybody_said_a_word(ledger: Ledger) -> None:
    """Who just joined holds it; who has none has no end."""
    assert until(ledger) == END
    write(ledger, joined("web2", "a2"))
    assert until(ledger, "a2") is None
    ledger.close()


def test_a_renewal_counts_once_its_host_says_that_it_is_in_service(ledger: Ledger) -> None:
    """Defect 13: the CA signs, and the service goes on with the old one."""
    write(ledger, renewed("a1", "02", "01", NOW + DAY_S))
    assert until(ledger) == END
    write(ledger, said("served", "02"))
    assert until(ledger) == END + DAY_S
    ledger.close()


@pytest.mark.parametrize("word", ["stale", "failed"])
def test_what_was_not_taken_keeps_the_end_of_what_is_served(
    ledger: Ledger, word: ServedState
) -> None:
    """On disk is not in service, however often it is renewed."""
    for number in (2, 3, 4):
        serial = f"0{number}"
        write(ledger, renewed("a1", serial, "", NOW + number * DAY_S), said(word, serial))
        assert until(ledger) == END
    write(ledger, said("installed", "04"))
    assert until(ledger) == END + 4 * DAY_S
    ledger.close()


def test_a_rollback_ends_with_the_pair_it_went_back_to(ledger: Ledger) -> None:
    """It may be older than the one served a moment ago."""
    write(ledger, renewed("a1", "02", "01", NOW + DAY_S), said("served", "02"))
    write(ledger, said("failed", "01", "rolled back"))
    assert until(ledger) == END
    ledger.close()


def test_a_serial_nobody_knows_moves_nothing(ledger: Ledger) -> None:
    """A row of another release or a lie that slipped through must not void an end."""
    for word in ("served", "stale"):
        write(ledger, said(word, "ff"))
        assert until(ledger) == END
    write(ledger, joined("web2", "a2"), issued("a2", "0a", NOW + 9 * DAY_S))
    write(ledger, said("served", "0a"))
    assert until(ledger) == END
    ledger.close()


def test_the_moment_of_a_report_is_kept(ledger: Ledger) -> None:
    """Since when, is what a person asks next."""
    write(ledger, said("failed", "01", "exit 1"), now=NOW + 77)
    row = ledger.member("a1")
    assert row is not None
    assert (row.served_at, row.served_detail) == (NOW + 77, "exit 1")
    ledger.close()


def test_who_ends_first_comes_first_and_the_revoked_and_bare_not_at_all(ledger: Ledger) -> None:
    """The weakest member of the mesh, and the next ones behind it."""
    for number, host in enumerate(("db", "mail", "dns"), start=2):
        write(ledger, joined(host, f"a{number}"), issued(f"a{number}", f"1{number}", NOW - number))
    write(ledger, joined("bare", "a9"))
    found = [row.host for row, _ in ledger.ending(END + 1, 9)]
    assert found == ["dns", "mail", "db", "web1"]
    assert [row.host for row, _ in ledger.ending(END, 9)] == ["dns", "mail", "db"]
    assert (ledger.ending_count(END), ledger.ending_count(END + 1)) == (3, 4)
    weakest = ledger.weakest()
    assert weakest is not None
    assert (weakest[0].host, weakest[1] and weakest[1].serial) == ("dns", "14")
    write(ledger, revoked("a4"))
    assert [row.host for row, _ in ledger.ending(END + 1, 9)] == ["mail", "db", "web1"]
    assert [row.host for row, _ in ledger.ending(END + 1, 9, (END - 2, "a2"))] == ["web1"]
    ledger.close()


def test_an_empty_mesh_has_no_weakest_member(home: Path) -> None:
    """Between its first row and the founder's certificate."""
    ledger = opened(home)
    write(ledger, mesh(), joined("web1", "a1"))
    assert ledger.weakest() is None
    assert ledger.ending_count(serving_reads.NEVER) == 0
    ledger.close()


def test_trouble_is_found_wherever_it_is_and_the_oldest_first(ledger: Ledger) -> None:
    """A failed hook, a failed renewal, and a delivery that was lost without a word."""
    for number in range(2, 8):
        write(ledger, joined(f"h{number}", f"a{number}"), issued(f"a{number}", f"1{number}"))
        write(ledger, said("served", f"1{number}", member_id=f"a{number}"))
    assert ledger.troubled(9) == []
    write(ledger, renewed("a6", "26", "16", NOW + DAY_S))
    write(ledger, facts.RenewalFailed("a3", "no route"))
    write(ledger, said("stale", "15", "443", member_id="a5"))
    assert [row.host for row, _ in ledger.troubled(9)] == ["h3", "h5", "h6"]
    assert [row.host for row, _ in ledger.troubled(1)] == ["h3"]
    write(ledger, said("served", "26", member_id="a6"), said("served", "15", member_id="a5"))
    write(ledger, revoked("a3", "h3"))
    assert ledger.troubled(9) == []
    ledger.close()


def test_a_refolded_ledger_says_the_same(ledger: Ledger, home: Path) -> None:
    """An upgrade folds the journal anew: the ends have to be in it, not in the table."""
    write(ledger, renewed("a1", "02", "01", NOW + DAY_S), said("stale", "02", "443"))
    before = dump(ledger._connection)
    ledger._connection.execute("PRAGMA user_version = 3")
    ledger.close()
    again = opened(home)
    assert dump(again._connection) == before
    assert until(again) == END
    again.close()


@pytest.mark.parametrize("statement", serving_reads.Indexed)
def test_no_question_about_the_whole_roster_looks_at_the_whole_roster(
    ledger: Ledger, statement: str
) -> None:
    """A status of a hundred thousand members costs what one of ten costs."""
    numbers = (0,) * max(n for n in range(1, 5) if f"?{n}" in statement)
    rows = ledger._connection.execute(f"EXPLAIN QUERY PLAN {statement}", numbers).fetchall()
    plan = "\n".join(row[3] for row in rows)
    assert "INDEX members_serving" in plan or "INDEX members_troubled" in plan
    assert "TEMP B-TREE" not in plan
    assert "SCAN journal" not in plan
    if "members_serving" in statement:
        assert "SEARCH m USING" in plan
    if "count(" in statement:
        assert "COVERING INDEX" in plan
    ledger.close()


def test_counting_stops_where_nobody_cares_any_more(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a budget that nobody meets, the count must not walk a million entries."""
    monkeypatch.setattr(serving_reads, "COUNTED_MAX", 2)
    for number in range(2, 6):
        write(ledger, joined(f"h{number}", f"a{number}"), issued(f"a{number}", f"1{number}"))
    assert ledger.ending_count(serving_reads.NEVER) == 2
    ledger.close()
