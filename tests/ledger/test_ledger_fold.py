"""The projections are the fold of the journal, whatever happened, crashes included."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.ledger import projection
from broker.units import UnixSeconds
from broker.wire.codec import decode_fact
from broker.wire.facts import (
    AnyFact,
    FailoverPromoted,
    MemberJoined,
    MemberRevoked,
    StandbyNominated,
    StandbyReady,
    StandbyRemoved,
)
from tests.ledger.ledger_facts import NOW, any_fact, direct_fact, issued, joined, mesh, revoked
from tests.ledger.ledger_room import opened, write, write_what_fits

WORLDS = settings(max_examples=60, deadline=None)
Groups = list[list[AnyFact]]
groups = st.lists(st.lists(any_fact, max_size=12), max_size=5)


@contextmanager
def _fresh_home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="cm-"))
    try:
        yield home
    finally:
        shutil.rmtree(home)


def test_every_fact_has_a_fold_or_is_history_alone() -> None:
    """A new fact must not be forgotten here."""
    folded, silent = set(projection.FOLDS), set(projection.JOURNAL_ONLY)
    assert folded | silent == set(get_args(AnyFact))
    assert not folded & silent


@WORLDS
@given(groups)
def test_live_projections_are_the_fold_of_the_journal(world: Groups) -> None:
    """After every group, after a rebuild, and after an abrupt end and a new start."""
    with _fresh_home() as home:
        ledger = opened(home)
        for group in world:
            write_what_fits(ledger, group)
            assert ledger.differing_projections() == ()
        live = projection.dump(ledger._connection)
        ledger.rebuild_projections()
        assert projection.dump(ledger._connection) == live
        # A copy taken without closing is what a crash leaves: file and log as they lie.
        crashed = home / "crashed"
        crashed.mkdir()
        for name in ("ledger.db", "ledger.db-wal"):
            shutil.copy(home / name, crashed / name)
        again = opened(crashed)
        assert projection.dump(again._connection) == live
        assert again.head == ledger.head
        assert again.verify_chain()[2] is None
        again.close()
        ledger.close()


@WORLDS
@given(st.lists(any_fact, max_size=30), st.lists(any_fact, max_size=10))
def test_a_rolled_back_group_leaves_no_trace(kept: list[AnyFact], dropped: list[AnyFact]) -> None:
    """Refusals inside a group and the end of the whole group both leave nothing."""
    with _fresh_home() as home:
        ledger = opened(home)
        write_what_fits(ledger, kept)
        before = (ledger.head, projection.dump(ledger._connection))
        ledger.begin()
        for fact in dropped:
            try:
                ledger.append(fact, actor="test", now=ledger_now(ledger.head.sequence))
            except ValueError:
                continue
        ledger.rollback()
        assert (ledger.head, projection.dump(ledger._connection)) == before
        ledger.close()


@WORLDS
@given(st.lists(direct_fact, max_size=40))
def test_the_roster_agrees_with_a_reading_of_the_journal(world: list[AnyFact]) -> None:
    """A naive second reader finds the same active members, revocations and count."""
    with _fresh_home() as home:
        ledger = opened(home)
        write_what_fits(ledger, world)
        history = [decode_fact(row.payload) for row in ledger.audit(0, 1000)]
        gone = {fact.member_id for fact in history if isinstance(fact, MemberRevoked)}
        came = {fact.member_id: fact for fact in history if isinstance(fact, MemberJoined)}
        active = {member for member in came if member not in gone}
        assert ledger.member_count() == len(active)
        assert set(ledger.revoked_members()) == gone
        for member_id in came:
            row = ledger.member(member_id)
            assert row is not None
            assert row.state == ("revoked" if member_id in gone else "active")
        roles = _last_roles(history)
        holders = {row.member_id for row in ledger.key_holders()}
        assert holders == {member for member in active if roles[member] in {"primary", "standby"}}
        offered = {row.member_id for row in ledger.nominated()}
        assert offered == {member for member in active if roles[member] == "nominated"}
        for host in {fact.host for fact in came.values()}:
            owners = [member for member in came if member in active and came[member].host == host]
            owner = ledger.member_by_host(host)
            assert (owner.member_id if owner else None) == (owners[0] if owners else None)
        lines = [member.host for member, _ in ledger.members_page("", 100)]
        assert lines == sorted({fact.host for fact in came.values()})
        ledger.close()


def _last_roles(history: list[AnyFact]) -> dict[str, str]:
    """Return what each member was made last; promotions of others leave a primary a standby."""
    roles: dict[str, str] = {}
    words = {StandbyNominated: "nominated", StandbyReady: "standby", StandbyRemoved: "member"}
    for fact in history:
        if isinstance(fact, MemberJoined):
            roles[fact.member_id] = fact.role
        elif isinstance(fact, StandbyNominated | StandbyReady | StandbyRemoved):
            roles[fact.member_id] = words[type(fact)]
        elif isinstance(fact, FailoverPromoted):
            roles[fact.member_id] = "primary"
    return roles


def ledger_now(sequence: int) -> UnixSeconds:
    """Return a moment that differs from row to row."""
    return UnixSeconds(NOW + sequence)


def test_a_rotten_projection_shows_although_the_chain_holds(home: Path) -> None:
    """The chain protects the journal alone; a flipped state is found by folding again (row 18)."""
    ledger = opened(home)
    write(ledger, mesh(), joined("web1", "a1"), issued("a1", "01"), revoked("a1"))
    ledger._connection.execute("UPDATE members SET state = 'active'")
    assert ledger.verify_chain()[2] is None
    assert ledger.differing_projections() == ("members",)
    ledger.rebuild_projections()
    assert ledger.differing_projections() == ()
    assert ledger.member_by_host("web1") is None
    ledger.close()
