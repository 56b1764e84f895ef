"""Folds of a rollover: at most one is open, and what comes home from a fork never breaks it."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.core.adoption import Orphan
from broker.ledger.folding import rebuild
from broker.ledger.sqlite import Ledger
from broker.units import UnixSeconds
from broker.wire.codec import encode_fact
from broker.wire.facts import (
    AnyFact,
    FactAdopted,
    MeshCreated,
    Origin,
    RolloverAborted,
    RolloverFinished,
    RolloverRetired,
    RolloverStarted,
)

NOW = UnixSeconds(1_000_000)
OLD, NEW, OTHER = "0a" * 32, "0b" * 32, "0c" * 32


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    """The ledger of a mesh under the old CA."""
    found = Ledger.open(home / "ledger.db", node="atlas")
    found.begin()
    found.append(
        MeshCreated("aa" * 16, "home", "home.internal", OLD, True, False, (), ()),
        actor="init",
        now=NOW,
    )
    yield found
    found.close()


def start(pin: str = NEW, retiring: str = OLD) -> RolloverStarted:
    """Return the announcement of a CA."""
    return RolloverStarted(b"root", b"issuing", pin, retiring, b"r", b"i", b"n", b"c", b"crl")


def write(ledger: Ledger, *facts: AnyFact) -> None:
    """Append as the primary."""
    for fact in facts:
        ledger.append(fact, actor="ann", now=NOW)


def adopt(ledger: Ledger, *facts: AnyFact) -> None:
    """Append what another primary wrote."""
    for number, fact in enumerate(facts, start=ledger.head.sequence + 100):
        origin = Origin(
            term=1,
            sequence=number,
            node="borea",
            incarnation="ee",
            at=NOW,
            actor="ann",
            hash=f"{number:064x}",
        )
        tag = Orphan.from_fact(origin, fact).fact.__struct_config__.tag
        write(ledger, FactAdopted(origin=origin, event=str(tag), payload=encode_fact(fact)))


def state(ledger: Ledger) -> tuple[str, str]:
    """Return the pin in force and the phase of the open rollover."""
    mesh, row = ledger.mesh(), ledger.rollover()
    assert mesh is not None
    return mesh.pin, row.phase if row is not None else "none"


def test_the_pin_moves_with_the_switch_and_not_before(ledger: Ledger) -> None:
    """Start announces, finish switches, retire ends."""
    seen = []
    for fact in (start(), RolloverFinished(NEW, OLD), RolloverRetired(OLD)):
        write(ledger, fact)
        seen.append(state(ledger))
    assert seen == [(OLD, "trusting"), (NEW, "switched"), (NEW, "none")]
    row = ledger.rollover_to(NEW)
    assert row is not None
    assert (row.phase, row.retiring_pin, row.root_crl) == ("retired", OLD, b"crl")


def test_every_step_changes_the_bundle(ledger: Ledger) -> None:
    """That is how members hear of it."""
    for fact in (start(), RolloverFinished(NEW, OLD), RolloverRetired(OLD)):
        write(ledger, fact)
        assert ledger.bundle_sequence() == ledger.head.sequence


@pytest.mark.parametrize(
    ("before", "fact"),
    [
        ((), start(retiring=OTHER)),
        ((start(),), start(OTHER)),
        ((start(), RolloverAborted(NEW)), start(NEW)),
        ((), RolloverFinished(NEW, OLD)),
        ((start(),), RolloverFinished(NEW, OTHER)),
        ((start(),), RolloverRetired(OLD)),
        ((start(), RolloverFinished(NEW, OLD)), RolloverAborted(NEW)),
        ((start(), RolloverAborted(NEW)), RolloverFinished(NEW, OLD)),
    ],
)
def test_a_step_that_does_not_fit_its_phase_is_refused_and_ignored_when_adopted(
    ledger: Ledger, before: tuple[AnyFact, ...], fact: AnyFact
) -> None:
    """A primary never writes one; from across a fork it may come, and must do no harm."""
    write(ledger, *before)
    known = state(ledger)
    with pytest.raises(ValueError, match="phase"):
        write(ledger, fact)
    adopt(ledger, fact)
    assert state(ledger) == known


def test_a_whole_rollover_that_comes_home_is_taken_over(ledger: Ledger) -> None:
    """Members over there pin the next root already."""
    adopt(ledger, start(), RolloverFinished(NEW, OLD))
    assert state(ledger) == (NEW, "switched")


def test_an_abort_that_comes_home_ends_a_rollover_that_did_not_switch(ledger: Ledger) -> None:
    """The operator's word counts on whichever side it was given."""
    write(ledger, start())
    adopt(ledger, RolloverAborted(NEW))
    assert state(ledger) == (OLD, "none")


def test_the_end_of_a_ca_is_never_taken_over(ledger: Ledger) -> None:
    """Another primary did not know of everybody who shows a certificate here."""
    write(ledger, start(), RolloverFinished(NEW, OLD))
    adopt(ledger, RolloverRetired(OLD))
    assert state(ledger) == (NEW, "switched")


def test_a_fold_of_the_whole_journal_gives_the_same(ledger: Ledger, home: Path) -> None:
    """Projections may be dropped and made again at any time."""
    write(ledger, start(), RolloverAborted(NEW), start(OTHER), RolloverFinished(OTHER, OLD))
    adopt(ledger, start("0d" * 32), RolloverRetired(OLD))
    ledger.commit()
    copy = home / "copy.db"
    with sqlite3.connect(home / "ledger.db") as whole, sqlite3.connect(copy) as target:
        whole.backup(target)
        rebuild(target)
    again = Ledger.open(copy, node="atlas")
    assert state(again) == state(ledger) == (OTHER, "switched")
    assert [row.phase for row in again.rollovers()] == ["aborted", "switched"]
    again.close()


def test_the_sealed_key_is_in_no_representation(ledger: Ledger) -> None:
    """Rows are logged and shown in tracebacks."""
    write(ledger, start())
    assert "ciphertext" not in repr(ledger.rollover())
