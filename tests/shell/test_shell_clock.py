"""A node whose wall clock is wrong: what it still does, what it refuses, and how it comes back."""

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from broker.clock import wall_s
from broker.core.presence import Presence
from broker.errors import BadCredentialError, ClockSkewError, CSRRejectedError, InviteUsedError
from broker.shell.credential import enrollment_secret
from broker.wire.enrollment import JoinAnswer
from broker.wire.ids import Service
from broker.wire.node import GetStatus, StatusView
from tests.shell.mesh_room import Room
from tests.shell.office import join_request, make_csr
from tests.shell.scenes import Make, fail_over

DAY_S = 86_400
ABSURD = (400 * DAY_S, -365 * DAY_S, 2 * DAY_S, -2 * DAY_S)


def _by_code(room: Room, host: str, code: str = "") -> JoinAnswer:
    atlas = room["atlas"]
    request = join_request(host, make_csr(host), totp_code=code or _code(room))
    return atlas.ask(Service.GATEWAY, request, JoinAnswer)


def _code(room: Room) -> str:
    secret = enrollment_secret(room["atlas"].office.desk.state)
    clockwork = TOTP(secret, 6, hashes.SHA1(), 30)
    return clockwork.generate(wall_s()).decode()


def _warnings(room: Room, host: str = "atlas") -> str:
    return "\n".join(room[host].ask(Service.CONSOLE, GetStatus(), StatusView).warnings)


def _issued(room: Room) -> int:
    rows = room["atlas"].office.ledger.audit(0, 1000)
    return sum(1 for row in rows if row.event in {"certificate.issued", "certificate.renewed"})


def _silent(make: Make) -> Room:
    """Return a mesh whose members cannot be heard: to a far clock their certificates are over."""
    room = make("birch", "cedar")
    room.run(2_000)
    room.cut("atlas", "birch")
    room.cut("atlas", "cedar")
    return room


@pytest.mark.parametrize("jump_s", ABSURD)
def test_nothing_is_issued_while_the_clock_is_absurd(make: Make, jump_s: int) -> None:
    """A certificate with dates of another year is worthless or lives too long (rows 19, 20, P13).

    It says so, changes nothing, and goes on when the clock is right again.
    """
    room = _silent(make)
    before = _issued(room)
    room.clock.jump_s = jump_s
    with pytest.raises(ClockSkewError, match="clock") as caught:
        _by_code(room, "nas")
    assert "set this machine's clock" in caught.value.hint
    room.run(2_000)
    with pytest.raises(ClockSkewError):
        _by_code(room, "nas")
    assert _issued(room) == before
    assert "so nothing is issued or renewed" in _warnings(room)
    room.clock.jump_s = 0
    room.run(1_000)
    assert _by_code(room, "nas").issued is not None
    assert "clock" not in _warnings(room)


def test_an_hour_off_is_a_warning_and_no_more(make: Make) -> None:
    """Expiry is shown by that clock, everything goes on (row 19, P13)."""
    room = _silent(make)
    room.clock.jump_s = 3600
    room.run(1_000)
    assert "it jumped forward by" in _warnings(room)
    assert _by_code(room, "nas").issued is not None


def test_a_clock_that_was_wrong_from_the_start_is_seen_by_what_members_say(make: Make) -> None:
    """After a restart nothing here remembers another time; the members do (row 19, P13)."""
    room = make("birch", "cedar")
    room.run(2_000)
    room["atlas"].restart()
    presence = room["atlas"].office.desk.state.presence
    for member_id in ("birch", "cedar"):
        presence.note(member_id, Presence(wall_s(), "", "unknown", 0, -400 * DAY_S))
    with pytest.raises(ClockSkewError, match="ahead of 2 members"):
        _by_code(room, "nas")
    assert "ahead of 2 members" in _warnings(room)


def test_beats_clear_a_clock_that_jumped_to_the_right_time(make: Make) -> None:
    """A virtual machine paused for a week goes on without a person (row 21, P13)."""
    room = make("birch", "cedar")
    room.run(2_000)
    room.clock.jump_s = 7 * DAY_S
    with pytest.raises(ClockSkewError):
        _by_code(room, "nas")
    room.run(2_000)  # all nodes share this clock, so the members' beats agree with it
    assert _by_code(room, "nas").issued is not None
    assert "clock" not in _warnings(room)


def test_a_person_who_starts_the_node_again_vouches_for_its_clock(make: Make) -> None:
    """A CA alone on its island must not be stuck for ever."""
    room = _silent(make)
    room.clock.jump_s = 7 * DAY_S
    room.run(1_000)
    with pytest.raises(ClockSkewError):
        _by_code(room, "nas")
    room["atlas"].restart()
    room["atlas"].tick()
    assert _by_code(room, "nas").issued is not None


def test_nothing_is_issued_before_the_first_day_of_the_ca(make: Make) -> None:
    """A machine without a battery starts in 1970; nobody would accept that leaf (row 20, P13)."""
    room = _silent(make)
    room.clock.jump_s = -(int(wall_s()) - 1000)
    room["atlas"].restart()
    room["atlas"].tick()
    with pytest.raises(ClockSkewError, match="before the CA's first day"):
        _by_code(room, "nas")


@pytest.mark.parametrize("jump_s", [400 * DAY_S, -365 * DAY_S])
def test_a_wall_clock_that_jumps_changes_no_role(make: Make, jump_s: int) -> None:
    """Grace and leases are counted by the boot clock (rows 19, 20, P9)."""
    room = make("birch", "cedar")
    room.nominate("birch")
    room.run(2_000)
    for jump in (jump_s, 0, jump_s // 2, 0):
        room.clock.jump_s = jump
        room.run(3_000)
        assert [room[host].role for host in ("atlas", "birch")] == ["primary", "standby"]


def test_a_code_that_was_used_is_worthless_when_the_clock_goes_back(make: Make) -> None:
    """The table has the numbers of steps, not moments (row 20)."""
    room = _silent(make)
    code = _code(room)
    assert _by_code(room, "nas", code).issued is not None
    for jump_s in (3600, -7200, 0):
        room.clock.jump_s = jump_s
        with pytest.raises(BadCredentialError):
            _by_code(room, "pi", code)


def test_a_used_invite_is_used_at_any_time_of_day(make: Make) -> None:
    """What was spent or revoked is a row of the journal and no date (row 20)."""
    room = _silent(make)
    room.clock.jump_s = -7200
    request = join_request("cedar", make_csr("cedar"), invite_secret="secret-cedar-3")
    with pytest.raises(InviteUsedError):
        room["atlas"].ask(Service.GATEWAY, request, JoinAnswer)


def test_a_standby_with_an_absurd_clock_takes_over_nothing(make: Make) -> None:
    """It could sign nothing good; another one comes first (row 19)."""
    room = make("birch", "cedar", "dan", "eve")
    room.nominate("birch")
    room.run(2_000)
    presence = room["birch"].office.desk.state.presence
    for name in ("a", "b", "c", "d", "e"):
        presence.note(name, Presence(wall_s(), "", "unknown", 0, -3 * DAY_S))
    room["birch"].tick()
    room.run(1_000)
    assert "clock" in room["birch"].office.desk.state.surroundings().unready


def test_a_takeover_needs_no_wall_clock(make: Make) -> None:
    """The heir counts silence by its boot clock, whatever the time of day does (row 20, P9)."""
    room = make("birch", "cedar")
    room.nominate("birch")
    room.clock.jump_s = -3600
    room.run(1_000)
    fail_over(room)


@pytest.mark.parametrize("left_s", [364 * DAY_S, 30 * DAY_S, 600])
def test_the_end_of_the_ca_is_told_a_year_ahead_and_no_leaf_outlives_it(
    make: Make, left_s: int
) -> None:
    """Nobody renews a CA in an afternoon (row 58)."""
    room = _silent(make)
    issuer = room["atlas"].office.desk.state.issuer()
    assert "CA's certificate ends" not in _warnings(room)
    room.clock.jump_s = int(issuer.not_after - wall_s()) - left_s
    room["atlas"].restart()
    room["atlas"].tick()
    assert "the CA's certificate ends in" in _warnings(room)
    assert "certmesh ca rollover start" in _warnings(room)
    answer = _by_code(room, "nas")
    assert answer.issued is not None
    assert answer.issued.not_after <= issuer.not_after


def test_a_ca_that_has_ended_refuses_and_says_what_to_do(make: Make) -> None:
    """The alternative would be leaves that nobody accepts (row 58)."""
    room = _silent(make)
    issuer = room["atlas"].office.desk.state.issuer()
    room.clock.jump_s = int(issuer.not_after - wall_s()) + 60
    room["atlas"].restart()
    room["atlas"].tick()
    assert "has ended, nothing can be issued" in _warnings(room)
    with pytest.raises(CSRRejectedError, match="has expired") as caught:
        _by_code(room, "nas")
    assert "certmesh ca rollover" in caught.value.hint
