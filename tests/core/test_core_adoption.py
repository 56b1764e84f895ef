"""What a primary appends for orphans: each rule as an attack or an accident after a fork."""

from collections.abc import Iterable, Sequence

import pytest

from broker.core.adoption import Known, Orphan, adopt_page
from broker.core.reading import read
from broker.core.settle import settle
from broker.errors import MalformedMessageError, StaleTermError, UnknownKindError
from broker.units import UnixSeconds
from broker.wire import facts
from broker.wire.codec import decode_fact, encode_fact
from broker.wire.facts import AnyFact, FactAdopted, MemberRevoked, MergeConflict, Origin
from broker.wire.ids import Role
from broker.wire.node import Endpoint
from broker.wire.replica import JournalLine, OrphanLine
from broker.wire.stamp import Stamp, Stamped, stamp_of

NOW = UnixSeconds(1_700_000_000)


class Journal:
    """The ledger of an adopting primary, as a list: it answers with everything it has."""

    def __init__(self, term: int, *rows: AnyFact, after: int = 10) -> None:
        self.term = term
        self.rows: list[tuple[Stamp, AnyFact]] = []
        self._next = after + 1
        self.append(rows)

    def append(self, rows: Iterable[AnyFact]) -> None:
        """Write rows in the primary's own term."""
        for fact in rows:
            self.rows.append((Stamp(self.term, self._next, "boreas", "bb"), fact))
            self._next += 1

    def holds_origin(self, origin: Origin) -> bool:
        """Answer for adopted rows; nothing here ever came from elsewhere otherwise."""
        adopted = [fact for _, fact in self.rows if isinstance(fact, FactAdopted)]
        return any(fact.origin.hash == origin.hash for fact in adopted)

    def facts_about(self, _fact: AnyFact) -> list[Stamped]:
        """Return all: more than asked for is allowed."""
        return [
            (stamp_of(fact.origin), decode_fact(fact.payload))
            if isinstance(fact, FactAdopted)
            else (stamp, fact)
            for stamp, fact in self.rows
        ]

    def review_listed(self, review_id: str) -> bool:
        """Answer for conflicts listed here."""
        listed = [fact for _, fact in self.rows if isinstance(fact, MergeConflict)]
        return any(fact.review_id == review_id for fact in listed)


def adopt(one: Orphan, known: Known) -> tuple[AnyFact, ...]:
    """Adopt a page of one."""
    return adopt_page((one,), known)


def orphan(sequence: int, fact: AnyFact, term: int = 1, node: str = "atlas") -> Orphan:
    """Return a fact that another primary wrote."""
    return Orphan.from_fact(
        Origin(term, sequence, node, "aa", NOW, "ann", f"{term:04x}{sequence:04x}"), fact
    )


def line(sequence: int, fact: AnyFact, payload: bytes = b"") -> OrphanLine:
    """Return a row as a former primary brings it."""
    tag = str(fact.__struct_config__.tag)
    row = JournalLine(1, NOW, "atlas", "aa", "ann", tag, payload or encode_fact(fact))
    return OrphanLine(sequence, f"{sequence:04x}", row)


def join(member_id: str, host: str = "db", role: Role = "member") -> facts.MemberJoined:
    """Return an enrollment."""
    doors = Endpoint(host, ("127.0.0.1",), 7642, 7643, f"{host}.lab.internal")
    return facts.MemberJoined(member_id, host, (), role, doors, "invite")


def used(member_id: str, invite_id: str = "b1") -> facts.InviteUsed:
    """Return the redemption of an invite."""
    return facts.InviteUsed(invite_id, member_id, "")


def certified(member_id: str, key: str) -> facts.CertificateIssued:
    """Return a first certificate for that key."""
    ends = (UnixSeconds(NOW + 100), UnixSeconds(NOW + 60))
    return facts.CertificateIssued(member_id, f"{key}0{member_id[1:]}", key, NOW, *ends, b"der")


def revocations(appended: Sequence[AnyFact]) -> list[str]:
    """Return who is revoked by these rows."""
    return [fact.member_id for fact in appended if isinstance(fact, MemberRevoked)]


def adopted(appended: Sequence[AnyFact]) -> list[int]:
    """Return the rows that are adopted, by their number at home."""
    return [fact.origin.sequence for fact in appended if isinstance(fact, FactAdopted)]


def conflicts(appended: Sequence[AnyFact]) -> list[tuple[str, str]]:
    """Return rule and subject of what a person should look at."""
    return [(fact.rule, fact.subject) for fact in appended if isinstance(fact, MergeConflict)]


def test_an_orphan_nobody_contradicts_is_adopted_under_its_own_stamp() -> None:
    """Who wrote it, when and in which row stays in the audit trail, with the bytes it had."""
    fact = facts.JoinRefused("db", "10.0.0.7", "throttled")
    [row] = adopt(orphan(12, fact), Journal(2))
    assert isinstance(row, FactAdopted)
    assert (row.event, decode_fact(row.payload)) == ("join.refused", fact)
    assert stamp_of(row.origin) == Stamp(1, 12, "atlas", "aa")
    assert (row.origin.actor, row.origin.at) == ("ann", NOW)


def test_what_was_adopted_before_is_not_adopted_again() -> None:
    """A page is brought twice when its answer is lost; two lines may share an older orphan."""
    known = Journal(2)
    page = (orphan(12, join("a1")), orphan(13, facts.EnrollmentOpened()))
    known.append(adopt_page(page, known))
    assert adopt_page(page, known) == ()
    assert adopted(adopt_page((*page, orphan(14, facts.AuthorityLocked())), known)) == [14]
    assert adopted(adopt_page((page[0], page[0]), Journal(2))) == [12]


def test_a_row_adopted_on_the_other_side_counts_under_its_first_origin() -> None:
    """Else the same fact would come in twice, under two stamps."""
    first = adopt(orphan(12, join("a1")), Journal(2))[0]
    assert isinstance(first, FactAdopted)
    again = FactAdopted(orphan(5, first).origin, "merge.adopted", encode_fact(first))
    known = Journal(3)
    for nested in (first, again):
        [row] = adopt(Orphan.of(line(20, nested)), Journal(3))
        assert row == first
    known.append([first])
    assert adopt(Orphan.of(line(20, first)), known) == ()


def test_a_row_that_holds_no_fact_is_refused() -> None:
    """Also inside a wrapper; nothing of it reaches the journal."""
    wrapped = FactAdopted(orphan(1, join("a1")).origin, "member.joined", b"\xc1")
    for payload in (b"\xc1", encode_fact(wrapped)):
        with pytest.raises(MalformedMessageError):
            Orphan.of(line(12, wrapped, payload))
    with pytest.raises(UnknownKindError):
        Orphan.of(line(12, wrapped, b"\x81\xa4kind\xa9no.such.x"))


def test_rows_of_the_own_term_or_a_higher_one_are_not_adopted() -> None:
    """What this primary writes next would lose against them by stamp: a higher term comes first."""
    for term in (2, 3):
        with pytest.raises(StaleTermError):
            adopt(orphan(12, facts.EnrollmentClosed(), term), Journal(2))
    assert adopted(adopt(orphan(12, facts.EnrollmentClosed(), 2), Journal(3))) == [12]


def test_an_older_join_takes_its_name_back_from_a_younger_one() -> None:
    """The younger is revoked ahead of the join, so at no row two members own the name."""
    known = Journal(2, join("a2"))
    rows = adopt(orphan(12, join("a1")), known)
    assert [type(row).__name__ for row in rows] == ["MemberRevoked", "FactAdopted", "MergeConflict"]
    assert revocations(rows) == ["a2"]
    assert conflicts(rows) == [("hostname", "db")]
    revoked = rows[0]
    assert isinstance(revoked, MemberRevoked)
    assert (revoked.host, revoked.reason.split(":")[0]) == ("db", "merge")


def test_a_younger_join_of_a_taken_name_is_revoked_at_birth() -> None:
    """Its revocation stands before it."""
    known = Journal(3)
    known.append(adopt(orphan(12, join("a1")), known))
    rows = adopt(orphan(12, join("a2"), 2, "caldera"), known)
    assert revocations(rows) == ["a2"]
    assert isinstance(rows[0], MemberRevoked)


def test_a_name_whose_owner_is_revoked_here_is_free() -> None:
    """A comeback on the other side is a new enrollment."""
    known = Journal(2, join("a2"), facts.MemberRevoked("a2", "db", "stolen"))
    rows = adopt(orphan(12, join("a1")), known)
    assert (revocations(rows), conflicts(rows)) == ([], [])


def test_a_revocation_further_down_the_page_counts_for_the_join_before_it() -> None:
    """The page is judged as a whole: nobody loses a name to somebody who is gone."""
    page = (orphan(12, join("a1")), orphan(13, facts.MemberRevoked("a1", "db", "stolen")))
    rows = adopt_page(page, Journal(2, join("a2")))
    assert revocations(rows) == []
    assert adopted(rows) == [12, 13]


def test_a_member_revoked_here_stays_revoked_whatever_comes_home() -> None:
    """An acknowledged revocation is in every ledger for ever."""
    known = Journal(2, facts.MemberRevoked("a1", "db", "stolen"))
    rows = adopt_page((orphan(12, join("a1")), orphan(13, certified("a1", "c1"))), known)
    known.append(rows)
    assert read(known.rows).active == frozenset()


def test_an_invite_goes_to_its_older_redeemer_and_ours_is_revoked() -> None:
    """Single use also holds across a partition."""
    known = Journal(2, used("a2"), join("a2", "web1"))
    rows = adopt_page((orphan(12, used("a1")), orphan(13, join("a1"))), known)
    assert revocations(rows) == ["a2"]
    assert conflicts(rows) == [("invite", "b1")]


def test_a_younger_redeemer_is_revoked_although_its_join_is_not_here_yet() -> None:
    """The join may come with the next page."""
    known = Journal(3, join("a9", "mail"))
    known.append(adopt(orphan(12, used("a1")), known))
    rows = adopt(orphan(12, used("a2"), 2, "caldera"), known)
    assert revocations(rows) == ["a2"]
    known.append(rows)
    known.append(adopt(orphan(13, join("a2"), 2, "caldera"), known))
    assert read(known.rows).active == {"a9"}


def test_an_invite_of_a_revoked_redeemer_still_lets_nobody_else_in() -> None:
    """Revoked or not, the oldest redeemer keeps it."""
    known = Journal(2, used("a2"), join("a2", "web1"))
    page = (
        orphan(12, used("a1")),
        orphan(13, join("a1")),
        orphan(14, facts.MemberRevoked("a1", "db", "stolen")),
    )
    assert revocations(adopt_page(page, known)) == ["a2"]


def test_a_step_spent_on_both_sides_costs_the_younger_member_its_place() -> None:
    """Whichever page the certificate with the key comes on."""
    ours = (facts.TOTPStepUsed(7, "c2"), join("a2", "web1"), certified("a2", "c2"))
    page = (
        orphan(12, facts.TOTPStepUsed(7, "c1")),
        orphan(13, join("a1")),
        orphan(14, certified("a1", "c1")),
    )
    rows = adopt_page(page, Journal(2, *ours))
    assert revocations(rows) == ["a2"]
    assert conflicts(rows) == [("totp", "7")]
    known = Journal(2, *ours)
    for one in page:
        known.append(adopt(one, known))
    assert read(known.rows).active == {"a1"}


def test_a_younger_spender_is_revoked_when_its_certificate_comes_home() -> None:
    """Before that nobody knows which member the key belongs to."""
    known = Journal(3)
    known.append(adopt(orphan(12, facts.TOTPStepUsed(7, "c1")), known))
    page: tuple[AnyFact, ...] = (
        facts.TOTPStepUsed(7, "c2"),
        join("a2", "web1"),
        certified("a2", "c2"),
    )
    for number, fact in enumerate(page, start=12):
        known.append(adopt(orphan(number, fact, 2, "caldera"), known))
    assert read(known.rows).active == frozenset()
    assert [fact.member_id for _, fact in known.rows if isinstance(fact, MemberRevoked)] == ["a2"]


def test_the_window_stays_as_the_later_term_left_it_and_the_loser_is_listed() -> None:
    """An operator closed the door on the side that lost: a person has to know."""
    known = Journal(2, facts.EnrollmentOpened())
    rows = adopt(orphan(12, facts.EnrollmentClosed()), known)
    assert adopted(rows) == [12]
    assert conflicts(rows) == [("enrollment", "enrollment")]
    [conflict] = [row for row in rows if isinstance(row, MergeConflict)]
    assert conflict.kept == "open, by boreas in term 2, row 11"
    assert conflict.lost == "closed, by atlas in term 1, row 12"


def test_an_orphan_that_says_the_same_or_what_nobody_changed_is_no_conflict() -> None:
    """A review that asks for nothing teaches to ignore reviews."""
    assert conflicts(adopt(orphan(12, facts.EnrollmentOpened()), Journal(2))) == []
    same = Journal(2, facts.EnrollmentClosed())
    assert conflicts(adopt(orphan(12, facts.EnrollmentClosed()), same)) == []


def test_a_write_that_the_other_side_had_seen_is_not_lost_to_it() -> None:
    """A row was there when a term began if its number is lower than that term's first."""
    promoted = facts.FailoverPromoted("a9", "mail", "silence", "beats")
    known = Journal(1, facts.EnrollmentOpened(), after=4)
    known.term = 3
    page = (orphan(12, promoted, 2, "caldera"), orphan(13, facts.EnrollmentClosed(), 2, "caldera"))
    assert conflicts(adopt_page(page, known)) == []
    behind = Journal(1, facts.EnrollmentOpened(), after=12)
    behind.term = 3
    assert conflicts(adopt_page(page, behind)) == [("enrollment", "enrollment")]


def test_a_role_goes_to_the_last_writer_and_the_loser_is_listed_by_host() -> None:
    """The other side took a standby's role away while it became the primary here."""
    known = Journal(1, join("a2", "boreas"), facts.StandbyReady("a2", "boreas"), after=2)
    known.term = 2
    known.append([facts.FailoverPromoted("a2", "boreas", "silence", "beats")])
    rows = adopt(orphan(12, facts.StandbyRemoved("a2", "boreas", "retired")), known)
    assert conflicts(rows) == [("role", "boreas")]
    known.append(rows)
    assert read(known.rows).role("a2") == "primary"


def test_nobody_becomes_the_primary_by_being_adopted() -> None:
    """That takes a promotion, in a term of its own."""
    known = Journal(2, join("a1", "atlas", "primary"))
    known.append(adopt(orphan(2, join("a2", "web1", "primary")), known))
    value = read(known.rows)
    assert (value.primary, value.role("a2")) == ("a1", "standby")


def test_a_conflict_the_other_side_has_listed_is_not_listed_twice() -> None:
    """The list is keyed by the conflict, and comes home with the orphans."""
    other = Journal(2, join("a2"))
    judged = adopt(orphan(12, join("a1")), other)
    [conflict] = [row for row in judged if isinstance(row, MergeConflict)]
    known = Journal(3, join("a2"))
    known.rows[0] = (other.rows[0][0], known.rows[0][1])
    page = (orphan(12, join("a1")), orphan(13, conflict))
    assert conflicts(adopt_page(page, known)) == []
    assert revocations(adopt_page(page, known)) == ["a2"]


def test_after_adoption_there_is_nothing_left_to_settle() -> None:
    """Whatever came home, all at once or row by row."""
    ours = (
        facts.EnrollmentOpened(),
        *(facts.TOTPStepUsed(7, "c2"), join("a2", "web1"), certified("a2", "c2")),
        *(used("a4"), join("a4", "db")),
    )
    theirs: tuple[AnyFact, ...] = (
        facts.EnrollmentClosed(),
        *(used("a3"), join("a3", "mail")),
        *(facts.TOTPStepUsed(7, "c1"), join("a1", "db"), certified("a1", "c1")),
    )
    page = tuple(orphan(11 + number, fact) for number, fact in enumerate(theirs))
    at_once, one_by_one = Journal(2, *ours), Journal(2, *ours)
    at_once.append(adopt_page(page, at_once))
    for one in page:
        one_by_one.append(adopt(one, one_by_one))
    for known in (at_once, one_by_one):
        assert settle(read(known.rows)) == ()
        assert read(known.rows).active == {"a1", "a3"}


def renamed(member_id: str, host: str, before: str = "db") -> facts.MemberRenamed:
    """Return a new name."""
    doors = Endpoint(host, ("127.0.0.1",), 7642, 7643, f"{host}.lab.internal")
    return facts.MemberRenamed(member_id, before, host, (), doors)


def test_a_renamed_member_and_a_new_one_of_that_name_are_a_hostname_conflict() -> None:
    """One side renamed db to mail, the other let a new mail in: the older membership stays."""
    known = Journal(2)
    known.append((join("a1", "db"), join("a2", "mail")))
    rows = adopt(orphan(12, renamed("a1", "mail")), known)
    assert revocations(rows) == ["a2"]
    assert conflicts(rows) == [("hostname", "mail")]


def test_a_name_that_was_given_up_here_is_no_conflict() -> None:
    """Else whoever took the free name would be revoked for a member that is called otherwise."""
    known = Journal(2)
    known.append((join("a1", "db"), renamed("a1", "mail")))
    rows = adopt(orphan(12, join("a2", "db")), known)
    assert (revocations(rows), conflicts(rows)) == ([], [])


def test_two_names_for_one_member_are_listed_under_the_one_it_keeps() -> None:
    """Two people renamed one machine, neither knowing of the other: the later name stays."""
    known = Journal(2)
    known.append((join("a1", "db"), renamed("a1", "mail")))
    rows = adopt(orphan(12, renamed("a1", "files")), known)
    assert revocations(rows) == []
    assert conflicts(rows) == [("name", "mail")]
