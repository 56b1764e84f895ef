"""`certmesh member list` and `show`: who, how it stands with the certificate, and until when."""

import json

import msgspec

from broker.runtime.exits import Exit
from broker.units import UnixSeconds
from broker.wire.roster import CertificateLine, MembersView, MemberView
from tests.cli.command import Certmesh
from tests.cli.fake_console import FakeConsole
from tests.cli.views import DAY_S, NOW, member

LIST = "/v1/members?after=&limit=500"
FAILING = member(
    "pi",
    delivery="failed",
    served="failed",
    served_detail='hook nginx exit 1: "no such file"',
    served_at=UnixSeconds(NOW - 3 * 3600),
    served_serial="0b11e0aa",
    survives_until=UnixSeconds(NOW + 9 * DAY_S),
    last_error="",
)


def page(*hosts: str, after: str = "") -> MembersView:
    """Return a page of three hundred."""
    return MembersView(tuple(map(member, hosts)), total=300, next_after=after)


def test_what_ends_soon_is_asked_for_in_that_order(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """`--expiring` makes no sense by name: the first to end comes first."""
    console.answer("GET", f"{LIST}&order=expiry&expiring_s=864000", page("pi", "nas"))
    out = certmesh("member", "list", "--expiring", "10d").out
    assert out.index("pi ") < out.index("nas ")
    console.answer("GET", f"{LIST}&order=expiry", page("pi"))
    assert "pi " in certmesh("member", "list", "--sort", "expiry").out
    console.answer("GET", f"{LIST}&state=stale", page("nas"))
    assert "nas " in certmesh("member", "list", "--state", "STALE").out


def test_filtered_pages_are_followed_to_the_end(console: FakeConsole, certmesh: Certmesh) -> None:
    """A page without a hit is not the end of the roster."""
    console.answer("GET", f"{LIST}&state=away", page(after="h4"))
    console.answer("GET", "/v1/members?after=h4&limit=500&state=away", page("h7", after="h8"))
    console.answer("GET", "/v1/members?after=h8&limit=499&state=away", page("h9"))
    said = certmesh("member", "list", "--state", "away", "--json")
    assert [line["host"] for line in said.body["members"]] == ["h7", "h9"]
    assert said.body["next_after"] == ""


def test_a_full_list_says_where_to_go_on(console: FakeConsole, certmesh: Certmesh) -> None:
    """With the place that the node gave, whatever the order."""
    console.answer(
        "GET", "/v1/members?after=&limit=1&order=expiry", page("pi", after="1795440000:ab")
    )
    said = certmesh("member", "list", "--sort", "expiry", "--limit", "1")
    assert "go on with --after 1795440000:ab" in said.err


def test_roles_are_picked_out(console: FakeConsole, certmesh: Certmesh) -> None:
    """Who holds the key."""
    lines = (member("atlas", role="primary"), member("pi"))
    console.answer("GET", LIST, MembersView(lines, total=2))
    out = certmesh("member", "list", "--role", "primary").out
    assert "atlas" in out
    assert "pi " not in out


def test_one_member_shows_what_it_serves_why_and_until_when(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """The whole story of one host on one screen."""
    held = CertificateLine("0b11e0aa", NOW, UnixSeconds(NOW + 9 * DAY_S), "superseded", "ff")
    console.answer("GET", "/v1/members/pi", MemberView(FAILING, (held,)))
    out = certmesh("member", "show", "pi").out
    for line in ("certificate  FAILED", 'hook nginx exit 1: "no such file"', "0b:11:e0…"):
        assert line in out
    body = certmesh("member", "show", "pi", "--json").body["member"]
    assert body["delivery"] == "failed"
    assert body["served_at"] == "2026-11-23T10:20:00Z"
    assert body["survives_until"] == "2026-12-02T13:20:00Z"


def test_what_is_over_and_what_was_revoked_survive_nothing(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """In words."""
    over = msgspec.structs.replace(FAILING, delivery="expired", survives_until=UnixSeconds(1000))
    console.answer("GET", "/v1/members/pi", MemberView(over, ()))
    out = certmesh("member", "show", "pi").out
    assert "certificate  EXPIRED" in out
    assert "no more, since 1970-01-01T00:16:40Z" in out
    revoked = msgspec.structs.replace(FAILING, state="revoked", survives_until=None)
    console.answer("GET", "/v1/members/pi", MemberView(revoked, ()))
    out = certmesh("member", "show", "pi").out
    assert "certificate  revoked" in out
    assert "survives     -" in out


def test_a_hostile_reason_is_text(console: FakeConsole, certmesh: Certmesh) -> None:
    """Hosts write it, and a terminal must not obey it."""
    hostile = msgspec.structs.replace(FAILING, served_detail="\x1b[2J[red]gone")
    console.answer("GET", "/v1/members/pi", MemberView(hostile, ()))
    said = certmesh("member", "show", "pi")
    assert said.status == Exit.OK
    assert "\x1b" not in said.out
    assert "[red]gone" in said.out
    assert json.loads(certmesh("member", "show", "pi", "--json").out)
