"""Policy and enrollment secret after a fork: the last writer has them, a person hears of the rest.

The ledger's own table and the merge rules have to agree, so each case is asked of both.
"""

from pathlib import Path

import pytest
from msgspec.structs import replace

from broker.core.adoption import Orphan, adopt_page
from broker.ledger.sqlite import Ledger
from broker.units import UnixSeconds
from broker.wire import facts
from broker.wire.facts import AnyFact, MergeConflict, Origin
from broker.wire.node import Endpoint
from broker.wire.policy import Policy

NOW = UnixSeconds(1_700_000_000)
FIRST = Policy(names=("*.local",))
OURS = replace(FIRST, wildcards=True)
THEIRS = replace(FIRST, leaf_lifetime_s=86_400)


def opened(home: Path) -> Ledger:
    """Return a ledger of term 2 with a mesh and nothing else."""
    ledger = Ledger.open(home / "state.db", node="boreas")
    ledger.begin()
    mesh = facts.MeshCreated("ab", "lab", "lab.internal", "cd", True, True, FIRST.names, (), FIRST)
    ledger.append(mesh, actor="init", now=NOW)
    doors = Endpoint("boreas", ("127.0.0.1",), 7642, 7643, "boreas.lab.internal")
    joined = facts.MemberJoined("a9", "boreas", (), "standby", doors, "invite")
    ledger.append(joined, actor="init", now=NOW)
    ledger.set_term(2)
    ledger.append(facts.FailoverPromoted("a9", "boreas", "silence", "beats"), actor="x", now=NOW)
    ledger.commit()
    return ledger


def write(ledger: Ledger, *rows: AnyFact) -> None:
    """Append rows as the primary."""
    ledger.begin()
    for fact in rows:
        ledger.append(fact, actor="ann", now=NOW)
    ledger.commit()


def brought_home(ledger: Ledger, fact: AnyFact, term: int = 1) -> list[MergeConflict]:
    """Adopt what the former primary wrote; return what is listed."""
    origin = Origin(term, 12, "atlas", "aa", NOW, "ann", f"{term:04x}000c")
    rows = adopt_page((Orphan.from_fact(origin, fact),), ledger)
    write(ledger, *rows)
    return [row for row in rows if isinstance(row, MergeConflict)]


def changed(policy: Policy) -> facts.PolicyChanged:
    """Return a change of the policy."""
    return facts.PolicyChanged(policy, ("wildcards",))


def rotated(mark: bytes) -> facts.TOTPRotated:
    """Return a new enrollment secret."""
    return facts.TOTPRotated(b"n" * 12, mark)


def policy_in(ledger: Ledger) -> Policy:
    """Return the policy in force."""
    mesh = ledger.mesh()
    assert mesh is not None
    return mesh.policy


def test_a_policy_of_the_side_that_lost_is_not_in_force_and_is_listed(home: Path) -> None:
    """Its operator saw "changed": somebody has to decide whether to do it again."""
    ledger = opened(home)
    write(ledger, changed(OURS))
    [conflict] = brought_home(ledger, changed(THEIRS))
    assert (conflict.rule, conflict.subject) == ("policy", "policy")
    assert "by boreas in term 2" in conflict.kept
    assert "by atlas in term 1" in conflict.lost
    assert policy_in(ledger) == OURS
    ledger.close()


def test_a_policy_that_nobody_contradicted_comes_home(home: Path) -> None:
    """It was decided by a primary with full powers before it was cut off."""
    ledger = opened(home)
    assert brought_home(ledger, changed(THEIRS)) == []
    assert policy_in(ledger) == THEIRS
    ledger.close()


def test_the_same_policy_on_both_sides_is_no_conflict(home: Path) -> None:
    """A review that asks for nothing teaches to ignore reviews."""
    ledger = opened(home)
    write(ledger, changed(OURS))
    assert brought_home(ledger, changed(OURS)) == []
    ledger.close()


@pytest.mark.parametrize("first", [b"ours", b""])
def test_an_enrollment_secret_of_the_side_that_lost_admits_nobody(home: Path, first: bytes) -> None:
    """Two secrets in force would be two to lose."""
    ledger = opened(home)
    if first:
        write(ledger, rotated(first))
    listed = brought_home(ledger, rotated(b"theirs"))
    mesh = ledger.mesh()
    assert mesh is not None
    assert mesh.totp_box == (b"n" * 12, first or b"theirs")
    assert [conflict.rule for conflict in listed] == (["totp-secret"] if first else [])
    ledger.close()


def test_a_later_write_here_stands_over_what_came_home(home: Path) -> None:
    """Also when it is written before the other side is heard of, and again after."""
    ledger = opened(home)
    brought_home(ledger, changed(THEIRS))
    write(ledger, changed(OURS))
    assert policy_in(ledger) == OURS
    ledger.rebuild_projections()
    assert policy_in(ledger) == OURS
    ledger.close()
