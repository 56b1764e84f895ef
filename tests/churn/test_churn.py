"""Hours of comings and goings in seconds: what was for somebody who is gone is gone as well."""

from collections.abc import Iterator

import pytest

from broker.core.renewal import Backoff
from tests.churn.census import Census
from tests.churn.day import Day
from tests.churn.verdict import leaks, left_over, unknown_tables
from tests.shell.mesh_room import pushed_clock

HOURS, MARKS = 1.5, 3
OFTEN = {"beat", "join", "code", "knock: bad_credential", "revoke", "leave", "rename", "rejoin"}
SELDOM = {"void", "token", "rekey", "lists", "backup", "cut", "step down", "restart atlas", "pull"}
SELDOM |= {"gone while failing"}
pytestmark = [
    pytest.mark.timeout(600),
    # The thread of a broker that is started anew ends as its process would.
    pytest.mark.filterwarnings("ignore:Exception in thread offloop"),
]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """An hour and a half of everything, and a quiet day after it."""
    with pushed_clock() as clock:
        played = Day.open(tmp_path_factory.mktemp("churn"), clock)
        played.run(HOURS, MARKS)
        played.quiet_day()
        yield played
        played.close()


def test_everything_that_can_happen_to_a_member_happened(day: Day) -> None:
    """Otherwise the others prove nothing."""
    happened = set(day.crowd.done) | set(day.crowd.refused)
    assert happened >= OFTEN | SELDOM
    internal = [name for name in day.crowd.refused if name.endswith(": internal")]
    assert internal == []


def test_no_table_outgrows_the_members_it_is_about(day: Day) -> None:
    """Tables, rows, files, descriptors and threads, found without knowing them."""
    first, last = day.marks[0], day.marks[-2]
    assert leaks(first, last) == {}


def test_a_day_later_nothing_is_left_of_those_who_went(day: Day) -> None:
    """Remembered replies, presence and pauses end with the day."""
    assert left_over(day.marks[-1], day.live) == {}
    for host in ("atlas", "birch"):
        state = day.room[host].office.desk.state
        paused = {key[1] for key in state.backoff if isinstance(key, tuple) and key[0] == "member"}
        active = {member_id for member_id, _ in state.ledger.active_members()}
        assert {*paused, *state.presence.ids()} <= active
        assert state.presence.ids() & active, "who lives is not forgotten"


def test_every_table_of_the_ledger_has_a_bound_or_is_history(day: Day) -> None:
    """Whoever adds one says which."""
    assert unknown_tables(day.marks[-1]) == set()


def test_the_ledger_of_each_node_is_whole_after_all_that(day: Day) -> None:
    """Cuts, crashes and hand-overs at once: the chain holds and the tables are its fold (P1)."""
    for node in day.room.nodes.values():
        assert node.office.ledger.verify_chain()[2] is None
        assert node.office.ledger.differing_projections() == ()


def test_the_walk_finds_a_table_that_nobody_told_it_of(day: Day) -> None:
    """A leak in an attribute of tomorrow is counted as well."""
    state = day.room["atlas"].office.desk.state
    before = Census().of(state, "state").sizes.get("state.backoff", 0)
    strangers: dict[object, Backoff] = {("member", str(number)): Backoff() for number in range(50)}
    state.backoff.update(strangers)
    assert Census().of(state, "state").sizes["state.backoff"] == before + len(strangers)
    for key in strangers:
        del state.backoff[key]
