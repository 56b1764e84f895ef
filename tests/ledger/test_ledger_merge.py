"""After a fork: what the ledger of the adopting primary says is what the merge rules say."""

from collections.abc import Iterable, Iterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.adoption import Orphan
from broker.core.merge import FactSet, merge
from broker.core.reading import read
from broker.core.settle import rulings, settle
from broker.ledger import projection
from broker.wire.facts import FactAdopted
from broker.wire.stamp import Stamp, stamp_of
from tests.ledger.ledger_pair import copy_all
from tests.ledger.ledger_sides import INVITES, Op, Side, ops, two_sides

FORKS = settings(max_examples=60, deadline=None)
LAST = Stamp(9, 99, "zz", "ff")
sizes = st.lists(st.integers(1, 6), min_size=1, max_size=6)
"""How many rows are on each page, over and over."""


def fork(one: Side, other: Side, shared: list[Op], theirs: list[Op], ours: list[Op]) -> None:
    """Let `one` write alone in term 1 while `other` is promoted; then `one` follows again."""
    one.do(shared)
    copy_all(one.ledger, other.ledger)
    one.do(theirs)
    other.promote(2, "f2")
    other.do(ours)
    copy_all(other.ledger, one.ledger)


def pages(orphans: Sequence[Orphan], counts: Iterable[int]) -> Iterator[Sequence[Orphan]]:
    """Yield the orphans in pages of these sizes."""
    at = 0
    for count in counts:
        if at >= len(orphans):
            return
        yield orphans[at : at + count]
        at += count
    yield orphans[at:]


def check(side: Side, value: FactSet) -> None:
    """Compare the projections of a ledger with a reading of facts."""
    ledger = side.ledger
    tables = projection.dump(ledger._connection)
    members = {row[0]: ledger.member(row[0]) for row in tables["members"]}
    assert set(members) == set(value.joins)
    assert {name for name, row in members.items() if row and row.state == "active"} == value.active
    assert {row[1]: row[4] for row in tables["revocations"]} == {
        member_id: stamp.text for member_id, stamp in value.revoked.items()
    }
    assert ledger.member_count() == len(value.active)
    _check_names_and_credentials(side, value)
    _check_certificates(side, value)
    _check_roles(side, value)


def _check_names_and_credentials(side: Side, value: FactSet) -> None:
    ledger = side.ledger
    for host, members in value.hosts.items():
        owner = ledger.member_by_host(host)
        assert owner is not None
        assert [owner.member_id] == list(members)
    for member_id in value.joins:
        member = ledger.member(member_id)
        assert member is not None
        assert {member.host, member.endpoint.host} == {value.host(member_id)}
        assert member.sans == (member.endpoint.server_name,)
    for invite_id in INVITES:
        invite = ledger.invite(invite_id)
        uses = value.invites.get(invite_id, ())
        assert (invite.member_id if invite else "") == (uses[0].member_id if uses else "")
        assert len({use.member_id for use in uses} & value.active) <= 1
    tables = projection.dump(ledger._connection)
    spent = {row[0]: (row[3], row[4]) for row in tables["totp_steps"]}
    assert spent == {
        step: (uses[0].stamp.text, uses[0].key_hash) for step, uses in value.steps.items()
    }
    for spendings in value.steps.values():
        assert len({value.spender(each) for each in spendings} & value.active) <= 1


def _check_certificates(side: Side, value: FactSet) -> None:
    ledger = side.ledger
    for member_id in value.joins:
        rows = ledger.certificates_of(member_id, 1000)
        assert {row.serial for row in rows} == set(value.certificates.get(member_id, {}))
        assert all(row.certificate == b"der of " + row.serial.encode() for row in rows)
        member = ledger.member(member_id)
        assert member is not None
        assert member.current_serial == value.current.get(member_id, "")
        assert [row.serial for row in rows[:1]] == [member.current_serial][: len(rows)]
    gone = {serial for name in value.revoked for serial in value.certificates.get(name, ())}
    assert {serial for serial, _ in ledger.revoked_serials(0)} == gone


def _check_roles(side: Side, value: FactSet) -> None:
    ledger = side.ledger
    mesh = ledger.mesh()
    assert mesh is not None
    assert mesh.enrollment_open == value.enrollment_open
    holders = {row.member_id: row.role for row in ledger.key_holders()}
    roles = {member_id: value.role(member_id) for member_id in value.active}
    words = {"primary", "standby"}
    assert holders == {name: role for name, role in roles.items() if role in words}
    offered = {row.member_id for row in ledger.nominated()}
    assert offered == {name for name, role in roles.items() if role == "nominated"}
    assert {row.role for row in ledger.nominated()} <= {"member"}


@FORKS
@given(ops, ops, ops)
def test_a_whole_page_is_merged_exactly_as_the_rules_say(
    shared: list[Op], theirs: list[Op], ours: list[Op]
) -> None:
    """Nobody is revoked but whom the rules revoke, and the tables say the same as the facts."""
    with two_sides() as (one, other):
        fork(one, other, shared, theirs, ours)
        page = one.orphans()
        before = read(other.rows(), ((stamp_of(each.origin), each.fact) for each in page))
        after = merge(before, rulings(settle(before), LAST))
        other.adopt(page)
        merged = other.journal()
        assert (merged.active, merged.hosts) == (after.active, after.hosts)
        assert set(merged.revoked) == set(after.revoked)
        assert merged.certificates == after.certificates
        assert merged.enrollment_open == after.enrollment_open
        check(other, merged)
        assert settle(merged) == ()
        _check_at_rest(other)


@FORKS
@given(ops, ops, ops, sizes, st.integers(0, 3))
def test_pages_of_any_size_brought_more_than_once_end_in_a_merged_roster(
    shared: list[Op], theirs: list[Op], ours: list[Op], counts: list[int], again: int
) -> None:
    """A page is cut where it is full, and brought again when its answer was lost."""
    with two_sides() as (one, other):
        fork(one, other, shared, theirs, ours)
        brought: list[Sequence[Orphan]] = []
        for page in pages(one.orphans(), counts):
            other.adopt(page)
            brought.append(page)
            assert other.adopt(brought[again % len(brought)]) == ()
            check(other, other.journal())
        copy_all(other.ledger, one.ledger)
        assert one.orphans() == []
        assert settle(other.journal()) == ()
        _check_at_rest(other)
        _check_nothing_lost(one, other)


@FORKS
@given(st.lists(st.tuples(ops, ops, st.integers(0, 12)), min_size=2, max_size=4), sizes)
def test_forks_upon_half_merged_forks_end_in_one_roster(
    rounds: list[tuple[list[Op], list[Op], int]], counts: list[int]
) -> None:
    """The adopting primary is cut off half way, and what it adopted is an orphan itself."""
    with two_sides() as (one, other):
        ruling, waiting = (one, "f1"), (other, "f2")
        for number, (alone, after, brought) in enumerate(rounds):
            ruling[0].do(alone)
            ruling, waiting = waiting, ruling
            ruling[0].promote(2 + number, ruling[1])
            ruling[0].adopt(ruling[0].orphans())
            copy_all(ruling[0].ledger, waiting[0].ledger)
            ruling[0].adopt(waiting[0].orphans()[:brought])
            ruling[0].do(after)
        last, first = ruling[0], waiting[0]
        copy_all(last.ledger, first.ledger)
        for page in pages(first.orphans(), counts):
            last.adopt(page)
        copy_all(last.ledger, first.ledger)
        assert (first.orphans(), last.orphans()) == ([], [])
        check(last, last.journal())
        _check_at_rest(last)
        _check_nothing_lost(first, last)


def _check_at_rest(side: Side) -> None:
    """Nobody is left to be revoked, and the tables are the fold of the journal.

    What one side had adopted before it lost its place is not in the other's journal twice, so a
    reader of the whole journal may take a write for unseen that was seen; it revokes nobody.
    """
    assert [verdict.loser for verdict in settle(side.journal()) if verdict.loser] == []
    assert side.ledger.differing_projections() == ()
    live = projection.dump(side.ledger._connection)
    side.ledger.rebuild_projections()
    assert projection.dump(side.ledger._connection) == live
    assert side.ledger.verify_chain()[2] is None


def _check_nothing_lost(one: Side, other: Side) -> None:
    """Revoked is revoked, a serial once handed out is known, a fact has one origin."""
    value = other.journal()
    assert one.revoked | other.revoked <= set(value.revoked)
    known = {serial for held in value.certificates.values() for serial in held}
    assert one.serials | other.serials <= known
    adopted = [fact.origin.hash for _, fact in other.rows() if isinstance(fact, FactAdopted)]
    assert len(adopted) == len(set(adopted))
