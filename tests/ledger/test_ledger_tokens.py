"""API tokens in the ledger: made, revoked, adopted across a fork."""

from pathlib import Path

import pytest

from broker.ledger.rows import TokenRow
from broker.ledger.sqlite import Ledger
from broker.units import UnixSeconds
from broker.wire import facts
from broker.wire.codec import encode_fact
from tests.ledger.ledger_facts import DAY_S, NOW, mesh
from tests.ledger.ledger_room import opened, write


def made(token_id: str, name: str = "grafana") -> facts.TokenMade:
    """Return a token for a day."""
    return facts.TokenMade(token_id, name, ("read",), UnixSeconds(NOW + DAY_S))


def adopted(fact: facts.TokenMade | facts.TokenRevoked, number: int) -> facts.FactAdopted:
    """Return `fact` as birch wrote it while it led on its own."""
    origin = facts.Origin(2, number, "birch", "ff", NOW, "ann", f"{number:064x}")
    tag = str(type(fact).__struct_config__.tag)
    return facts.FactAdopted(origin, tag, encode_fact(fact))


def _token(ledger: Ledger, token_id: str) -> TokenRow:
    row = ledger.token(token_id)
    assert row is not None
    return row


def test_a_token_reads_back_with_who_made_it(home: Path) -> None:
    """The list answers: which program, what may it, who said so."""
    ledger = opened(home)
    write(ledger, mesh(), made("a1"))
    assert _token(ledger, "a1") == TokenRow(
        token_id="a1",
        name="grafana",
        scopes=("read",),
        expires_at=UnixSeconds(NOW + DAY_S),
        created_at=NOW,
        created_by="test",
        revoked=False,
    )
    assert ledger.token("a2") is None
    ledger.close()


def test_a_revoked_token_stays_revoked_and_lists_are_newest_first(home: Path) -> None:
    """A revocation twice changes nothing; an expired token is not active, and still listed."""
    ledger = opened(home)
    write(ledger, mesh(), *(made(f"a{number}", f"t{number}") for number in range(4)))
    revoked = facts.TokenRevoked("a1", "t1")
    write(ledger, revoked, revoked)
    assert [row.token_id for row in ledger.tokens(3)] == ["a3", "a2", "a1"]
    assert _token(ledger, "a1").revoked
    assert [row.token_id for row in ledger.tokens_active(NOW)] == ["a3", "a2", "a0"]
    assert ledger.tokens_active(NOW + DAY_S) == []
    ledger.close()


def test_the_same_secret_twice_is_a_contradiction(home: Path) -> None:
    """And leaves nothing behind."""
    ledger = opened(home)
    write(ledger, mesh(), made("a1"))
    ledger.begin()
    with pytest.raises(ValueError, match="contradicts"):
        ledger.append(made("a1", "other"), actor="test", now=NOW)
    ledger.commit()
    assert _token(ledger, "a1").name == "grafana"
    ledger.close()


def test_a_token_of_the_other_side_is_taken_over_as_it_is(home: Path) -> None:
    """Also one whose name is taken here: both go on working, both are listed with their maker."""
    ledger = opened(home)
    write(ledger, mesh(), made("a1"), adopted(made("b1"), 7), adopted(made("a1", "again"), 8))
    assert [row.token_id for row in ledger.tokens_active(NOW)] == ["b1", "a1"]
    assert _token(ledger, "b1").created_by == "ann"
    assert _token(ledger, "a1").name == "grafana"
    ledger.close()


def test_a_revocation_absorbs_also_ahead_of_its_token(home: Path) -> None:
    """Rows of two sides arrive in any order; what anybody was told is worthless stays so."""
    ledger = opened(home)
    write(ledger, mesh(), adopted(facts.TokenRevoked("b1", "grafana"), 8), adopted(made("b1"), 7))
    assert _token(ledger, "b1").revoked
    assert ledger.differing_projections() == ()
    ledger.close()
