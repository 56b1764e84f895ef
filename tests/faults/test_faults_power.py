"""Power cuts: what was not synced is gone, what was acknowledged is there."""

from pathlib import Path
from random import Random

import pytest

from broker.wire.slot import AddSlot, RemoveSlot
from tests.faults.crash import Lab, campaign
from tests.faults.shim.build import needs_compiler
from tests.faults.sick_room import SickRoom, sick_room
from tests.faults.verb_run import run_case, verdict
from tests.faults.verb_table import CASES, Stage, prepared

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240), needs_compiler]
CUTS = 12
CUTS_TO_NOTICE = 6


def test_no_acknowledged_row_is_lost_when_the_power_goes() -> None:
    """Every other cut takes all that was not synced, the others what chance wants (row 11) (P1)."""
    with sick_room(journal=True) as room:
        toll = campaign(CUTS, 4, room.power_cut(Random(4)))
    assert toll.broken == []
    assert toll.kept > CUTS


def test_a_weaker_synchronous_setting_would_lose_rows() -> None:
    """The negative control: the power cut takes what nobody synced (row 11)."""
    with sick_room(journal=True, weakened="synchronous=NORMAL") as room:
        toll = campaign(CUTS_TO_NOTICE, 4, room.power_cut(None))
    assert any("acknowledged and lost" in sentence for sentence in toll.broken)


def test_keys_are_the_old_or_the_new_ones_after_a_power_cut() -> None:
    """A CA without its keys is lost for ever (row 11) (row 12)."""
    with sick_room(journal=True) as room:
        stage = _stage(room.homes)
        for kind in (AddSlot, RemoveSlot):
            assert _outcomes(room, stage, kind) == ["", "", "", ""]


def test_without_syncing_names_the_keys_would_be_gone() -> None:
    """The negative control: a rename is not on the disk before its directory is (row 11)."""
    with sick_room(journal=True, weakened="names") as room:
        stage = _stage(room.homes)
        assert any(_outcomes(room, stage, AddSlot))


def _outcomes(room: SickRoom, stage: Stage, kind: type[AddSlot | RemoveSlot]) -> list[str]:
    """Return what is wrong after cuts behind the answer and in the middle of the files."""
    case = CASES[kind]
    found: list[str] = []
    plain = run_case(Lab(room.nursery, room.homes), stage, case, "")
    for point in ("", "", "write-new.after", "sync-names.before"):
        lab = room.power_cut(Random(point) if found else None)
        try:
            found.append(verdict(case, plain, run_case(lab, stage, case, point)))
        except AssertionError as error:
            found.append(f"no broker, or no keys: {error!r:.200}")
    return found


def _stage(homes: Path) -> Stage:
    place = homes / "s"
    place.mkdir(mode=0o700)
    return prepared(place)
