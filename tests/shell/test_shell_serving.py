"""What the primary shows of each member's certificate, from one state to the next."""

import msgspec
import pytest

from broker.errors import NotFoundError
from broker.wire.ids import Service
from broker.wire.roster import GetMember, MemberView, RevocationAnswer, RevokeMember
from tests.shell.mesh_room import Room
from tests.shell.scenes import Make, fail_over
from tests.shell.serving_scene import (
    DAY_S,
    RENEWING_AT_ONCE,
    certificate_of,
    claim,
    line,
    pass_days,
    renew,
    report,
    sign,
    status,
    warned,
)


@pytest.fixture
def room(make: Make) -> Room:
    """Atlas leads, birch and cedar are members that serve what they joined with."""
    room = make("birch", "cedar", **RENEWING_AT_ONCE)
    for host in ("birch", "cedar"):
        report(room, host, certificate_of(room, host), "served")
    room.run(1_000)
    return room


def test_a_member_goes_from_served_to_stale_and_back(room: Room) -> None:
    """Its port went on with the old certificate until somebody restarted the service."""
    first = certificate_of(room, "cedar")
    pass_days(room, 20)
    second = sign(room, "cedar")
    report(room, "cedar", second, "stale", "443 still serves the old one")
    shown = line(room, "cedar")
    assert (shown.delivery, shown.served_detail) == ("stale", "443 still serves the old one")
    assert (shown.serial, shown.not_after) == (second.serial, second.not_after)
    assert shown.survives_until == first.not_after
    assert warned(room, "cedar serves an old certificate", "443 still serves", "certmesh hook log")
    report(room, "cedar", second, "served")
    shown = line(room, "cedar")
    assert (shown.delivery, shown.survives_until) == ("served", second.not_after)
    assert not warned(room, "cedar")


def test_a_rollback_serves_the_old_certificate_and_says_so_until_it_is_mended(room: Room) -> None:
    """The last good pair works; it ends when it ends, whatever the CA signed since."""
    first = certificate_of(room, "cedar")
    pass_days(room, 20)
    sign(room, "cedar")
    report(room, "cedar", first, "failed", "hook nginx exit 1; rolled back")
    room.run(3_000)
    shown = line(room, "cedar")
    assert (shown.delivery, shown.served_serial) == ("failed", first.serial)
    assert shown.survives_until == first.not_after < (shown.not_after or 0)
    assert warned(
        room, "cedar serves an old certificate (failed ", "s ago: hook nginx exit 1; rolled back)"
    )
    third = renew(room, "cedar")
    assert line(room, "cedar").survives_until == third.not_after
    assert not warned(room, "cedar")


def test_a_port_that_never_took_a_renewal_ends_with_the_certificate_it_has(room: Room) -> None:
    """Three renewals on disk do not help a service that was never reloaded."""
    first = certificate_of(room, "cedar")
    for _ in range(3):
        pass_days(room, 8)
        report(room, "cedar", sign(room, "cedar"), "stale", "443 still serves the old one")
        assert line(room, "cedar").survives_until == first.not_after
    pass_days(room, 7)
    shown = line(room, "cedar")
    assert (shown.delivery, shown.state) == ("expired", "expired")
    assert (shown.not_after or 0) > status(room).now
    assert warned(room, "cedar's certificate has expired")


def test_a_delivery_under_way_is_no_trouble_and_a_lost_one_is(room: Room) -> None:
    """The CA signed; for ten minutes the old word stands, then somebody should look."""
    pass_days(room, 20)
    sign(room, "cedar")
    room.clock.push(590_000)
    room.run(1_500)
    assert line(room, "cedar").delivery == "served"
    assert not warned(room, "cedar")
    room.clock.push(20_000)
    room.run(1_500)
    assert line(room, "cedar").delivery == "stale"
    assert warned(room, "cedar still serves its certificate before the newest")


def test_a_silent_member_is_away_and_comes_back_as_what_it_serves(room: Room) -> None:
    """Three beats without a word: nobody knows what its port shows now."""
    room["cedar"].down = True
    room.run(4_500)
    shown = line(room, "cedar")
    assert (shown.delivery, shown.state) == ("away", "away")
    assert shown.survives_until == certificate_of(room, "cedar").not_after
    room["cedar"].down = False
    room.run(1_500)
    assert (line(room, "cedar").delivery, line(room, "cedar").state) == ("served", "up")


def test_trouble_before_the_silence_is_still_told(room: Room) -> None:
    """Switching a box off mends no hook."""
    report(room, "cedar", certificate_of(room, "cedar"), "failed", "hook nginx exit 1")
    room["cedar"].down = True
    room.run(4_500)
    assert line(room, "cedar").delivery == "away"
    assert warned(room, "cedar has not taken its newest certificate", "hook nginx exit 1")


def test_an_expired_member_is_expired_though_it_is_silent(room: Room) -> None:
    """That it is off explains it, and changes nothing for its callers."""
    room["cedar"].down = True
    pass_days(room, 31)
    shown = line(room, "cedar")
    assert (shown.delivery, shown.state) == ("expired", "expired")
    assert warned(room, "cedar's certificate has expired")


def test_what_is_over_is_told_before_what_only_fails(room: Room) -> None:
    """A person reads from the top, and a status with many troubles is cut at the end."""
    room["cedar"].down = True
    pass_days(room, 20)
    second = renew(room, "birch")
    pass_days(room, 11)
    report(room, "birch", second, "failed", "hook nginx exit 1")
    told = [text.partition(" ")[0] for text in status(room).warnings]
    assert told.index("cedar's") < told.index("birch")


def test_a_revoked_member_keeps_its_last_word_and_survives_nothing(room: Room) -> None:
    """It counts for no budget, and its line says revoked."""
    report(room, "cedar", certificate_of(room, "cedar"), "failed", "hook nginx exit 1")
    room["atlas"].ask(Service.CONSOLE, RevokeMember("cedar", "sold", "ann"), RevocationAnswer)
    shown = line(room, "cedar")
    assert (shown.state, shown.delivery, shown.survives_until) == ("revoked", "failed", None)
    assert not warned(room, "cedar")


def test_defect_19_a_member_says_what_it_serves_and_never_when_that_ends(room: Room) -> None:
    """A foreign serial is refused, a beat with another date is ignored, an old serial counts."""
    first = certificate_of(room, "cedar")
    pass_days(room, 20)
    second = renew(room, "cedar")
    with pytest.raises(NotFoundError):
        claim(room, "cedar", certificate_of(room, "birch"), "served")
    assert line(room, "cedar").survives_until == second.not_after
    lie = msgspec.structs.replace(second, not_after=second.not_after + 3650 * DAY_S)
    claim(room, "cedar", lie, "served")
    room.run(3_000)
    assert line(room, "cedar").survives_until == second.not_after
    claim(room, "cedar", first, "served")
    assert line(room, "cedar").survives_until == first.not_after
    assert line(room, "cedar").renew_at == second.renew_at


def test_a_standby_and_the_next_primary_show_the_same(make: Make) -> None:
    """Who takes over must not begin by believing that all is well."""
    room = make("birch", "cedar", **RENEWING_AT_ONCE)
    room.nominate("birch")
    first = certificate_of(room, "cedar")
    report(room, "cedar", first, "served")
    pass_days(room, 20)
    report(room, "cedar", sign(room, "cedar"), "stale", "443 still serves the old one")
    room.run(3_000)
    shown = [line(room, "cedar", at) for at in ("atlas", "birch")]
    assert shown[0].survives_until == shown[1].survives_until == first.not_after
    assert shown[0].delivery == shown[1].delivery == "stale"
    assert (line(room, "atlas", "birch").state, line(room, "birch").state) == ("up", "up")
    fail_over(room)
    assert line(room, "cedar", "birch").survives_until == first.not_after


def test_a_restart_forgets_nothing_of_what_is_served(room: Room) -> None:
    """`kill -9` of the broker: the states are in the journal."""
    pass_days(room, 20)
    report(room, "cedar", sign(room, "cedar"), "stale", "443 still serves the old one")
    before = line(room, "cedar")
    room["atlas"].restart()
    room.run(1_500)
    after = line(room, "cedar")
    same = ("delivery", "survives_until", "served_detail", "served_at", "serial")
    assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]


def test_a_member_shows_how_long_it_survives_itself(room: Room) -> None:
    """It has no roster; of its own services it knows what they have."""
    first = certificate_of(room, "cedar")
    pass_days(room, 20)
    second = sign(room, "cedar")
    report(room, "cedar", second, "stale", "443 still serves the old one")
    own = status(room, "cedar").own
    assert own is not None
    assert (own.delivery, own.survives_until) == ("stale", first.not_after)
    assert status(room, "cedar").survives_until == first.not_after
    assert status(room, "cedar").outage is None
    report(room, "cedar", second, "served")
    assert status(room, "cedar").survives_until == second.not_after


def test_one_member_shows_why_and_since_when(room: Room) -> None:
    """What `member show` prints."""
    report(room, "cedar", certificate_of(room, "cedar"), "stale", "443 does not answer")
    at = status(room).now
    view = room["atlas"].ask(Service.CONSOLE, GetMember("cedar"), MemberView).member
    assert (view.delivery, view.served_detail) == ("stale", "443 does not answer")
    assert view.served_at == at
