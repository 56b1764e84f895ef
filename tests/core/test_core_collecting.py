"""When a restored node may lead: on plain values."""

import pytest

from broker.core.collecting import LATER_MS, PAUSE_MS, ROUNDS, Collecting, Reign, revoked_here
from broker.units import Millis, UnixSeconds
from broker.wire.claims import Head
from broker.wire.node import Endpoint
from broker.wire.roster import BundleBody, KeyHolder


def told(
    primary: str = "atlas",
    term: int = 1,
    sequence: int = 9,
    *holders: str,
    out: tuple[str, ...] = (),
) -> BundleBody:
    """Return a verified bundle."""
    return BundleBody(
        mesh_id="aa",
        pin="bb",
        head=Head(term, sequence, "cc", primary, UnixSeconds(0)),
        bundle_sequence=sequence,
        key_holders=tuple(
            KeyHolder("dd", "standby", Endpoint(host, ("127.0.0.1",), 1, 2, host))
            for host in holders
        ),
        revoked_serials=out,
        revoked_members=out,
    )


def verdict(collecting: Collecting) -> str:
    """Return what follows now; asked anew each time."""
    return collecting.verdict


@pytest.fixture
def asking() -> Collecting:
    """Atlas, restored at row 5 of term 1, with two members."""
    found = Collecting("atlas", Reign(1, 5, "atlas"))
    found.expect(("atlas", "birch", "cedar"))
    return found


def test_nobody_to_ask_is_nothing_to_wait_for() -> None:
    """The mesh of one node."""
    alone = Collecting("atlas", Reign(1, 5, "atlas"))
    alone.expect(("atlas",))
    assert verdict(alone) == "go"


def test_one_that_was_not_asked_holds_it_up(asking: Collecting) -> None:
    """Everybody gets a turn."""
    asking.heard("birch", told())
    assert verdict(asking) == "asking"
    asking.heard("cedar", told())
    assert verdict(asking) == "go"


def test_silence_counts_after_three_rounds_and_no_earlier(asking: Collecting) -> None:
    """Silence is no answer, but it must not last for ever."""
    asking.heard("birch", told())
    for _ in range(ROUNDS):
        assert verdict(asking) == "asking"
        asking.unheard("cedar")
    assert verdict(asking) == "go"
    assert asking.silent == ("cedar",)


def test_a_question_is_repeated_after_a_pause_only(asking: Collecting) -> None:
    """A worker that asks in a loop must not use the three rounds up in a second."""
    assert asking.due(Millis(0)) == ("birch", "cedar")
    asking.unheard("birch")
    assert asking.due(Millis(PAUSE_MS - 1)) == ()
    assert asking.due(Millis(PAUSE_MS)) == ("birch", "cedar")


def test_a_key_holder_that_only_a_bundle_names_is_asked_too(asking: Collecting) -> None:
    """It was nominated after the backup, and may lead by now."""
    asking.heard("birch", told("atlas", 1, 9, "atlas", "dogwood"))
    asking.heard("cedar", told())
    assert verdict(asking) == "asking"
    assert "dogwood" in asking.due(Millis(0))


def test_a_later_primary_that_answers_leads(asking: Collecting) -> None:
    """Never a second one, however good the backup."""
    asking.heard("cedar", told("birch", 2))
    asking.heard("birch", told("birch", 2))
    assert verdict(asking) == "led"


def test_a_later_primary_that_others_tell_of_is_only_silent(asking: Collecting) -> None:
    """What cedar remembers of birch is no sign that birch lives."""
    asking.heard("cedar", told("birch", 2))
    for _ in range(ROUNDS):
        asking.unheard("birch")
    assert verdict(asking) == "silent"


def test_a_primary_that_stopped_answering_no_longer_leads(asking: Collecting) -> None:
    """Once all were asked, only it is watched, at leisure."""
    asking.heard("cedar", told("birch", 2))
    asking.heard("birch", told("birch", 2))
    assert asking.due(Millis(0)) == ("birch",)
    assert asking.due(Millis(LATER_MS - 1)) == ()
    assert asking.due(Millis(LATER_MS)) == ("birch",)
    asking.unheard("birch")
    assert verdict(asking) == "silent"


def test_a_later_term_of_its_own_does_not_stop_it(asking: Collecting) -> None:
    """It led itself after the backup was made; nobody else did."""
    for host in ("birch", "cedar"):
        asking.heard(host, told("atlas", 4, 80))
    assert verdict(asking) == "go"
    assert asking.newest == Reign(4, 80, "atlas")


def test_a_revocation_that_one_member_knows_is_enough(asking: Collecting) -> None:
    """The union, by member and by serial."""
    asking.heard("birch", told(out=("m1",)))
    asking.heard("cedar", told(out=("s2",)))
    assert revoked_here(asking, {"s2": "m2", "s3": "m3"}) == {"m1", "m2", "s2"}
