"""What is kept by member ends with the member, and with nobody else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.clock import wall_s
from broker.core.presence import Presence, PresenceTable
from broker.core.renewal import Backoff
from broker.shell.departed import IDS_PER_LOOK, LAST_WORD_S, forget_departed
from broker.units import UnixSeconds
from broker.wire.ids import Service
from broker.wire.roster import HeartbeatAnswer, RevocationAnswer, RevokeMember
from tests.shell.office import peer_of
from tests.shell.paced import Paced, beat_of, paced

POLICY = {"policy": {"leaf_lifetime": "30d"}}
DAY_MS = (LAST_WORD_S + 60) * 1000


@pytest.fixture
def mesh(home: Path) -> Iterator[Paced]:
    """A primary whose members have certificates of a month."""
    with paced(home, **POLICY) as found:
        yield found


def heard(mesh: Paced, host: str) -> str:
    """Let a host join and beat; its renewals fail as well. Return its member id."""
    issued = mesh.enroll(host)
    row = mesh.office.ledger.mesh()
    assert row is not None
    beat = beat_of(peer_of(issued, host), row.pin)
    mesh.office.send(mesh.gateway, beat, HeartbeatAnswer)
    member = mesh.office.ledger.member_by_host(host)
    assert member is not None
    mesh.office.desk.state.backoff["member", member.member_id] = Backoff(1, 0)
    return member.member_id


def revoke(mesh: Paced, host: str) -> None:
    """Put a host out."""
    request = RevokeMember(host, "stolen", "ann")
    mesh.office.ask(Service.CONSOLE, request, RevocationAnswer)


def test_whoever_is_revoked_is_forgotten_a_day_later_and_nobody_else(mesh: Paced) -> None:
    """Memory and table are about who lives; how long a revoked one was seen is of use for a day."""
    gone, stays = heard(mesh, "gone"), heard(mesh, "stays")
    mesh.wait(10)
    revoke(mesh, "gone")
    mesh.wait(10)
    state, ledger = mesh.office.desk.state, mesh.office.ledger
    assert ("member", gone) not in state.backoff, "nobody waits for its next attempt"
    assert state.presence.of(gone) is not None, "its last word is still shown"
    mesh.clock.push(DAY_MS)
    mesh.wait(20)
    assert state.presence.of(gone) is None
    assert gone not in ledger.presence_load()
    assert state.presence.of(stays) is not None
    assert stays in ledger.presence_load()
    assert ("member", stays) in state.backoff


def test_a_revocation_that_was_not_written_forgets_nothing(mesh: Paced) -> None:
    """The look may fall into the drain that is lost."""
    member_id = heard(mesh, "nas")
    state = mesh.office.desk.state
    revoke(mesh, "nas")
    batch = mesh.office.desk.open_batch()
    forget_departed(state, batch, wall_s())
    batch.rollback()
    assert ("member", member_id) in state.backoff


def test_one_look_costs_the_loop_a_bounded_number_of_questions(mesh: Paced) -> None:
    """A hundred thousand members are gone through little by little, again and again."""
    state = mesh.office.desk.state
    for number in range(3 * IDS_PER_LOOK):
        state.backoff["member", f"{number:032x}"] = Backoff(1, 0)
    left = []
    for _ in range(4):
        batch = mesh.office.desk.open_batch()
        forget_departed(state, batch, wall_s())
        mesh.office.desk.finish(batch, [])
        left.append(len(state.backoff))
    assert left[:3] == [2 * IDS_PER_LOOK, IDS_PER_LOOK, 0]


def test_whoever_is_forgotten_is_not_written_down_afterwards() -> None:
    """A disk that was full for a day left rows to be flushed; some of them are of nobody now."""
    table = PresenceTable({})
    for member_id in ("ab", "cd"):
        table.note(member_id, Presence(UnixSeconds(1), "", "served", 0, 0))
    table.forget(["ab", "never seen"])
    assert list(table.take_dirty()) == ["cd"]
