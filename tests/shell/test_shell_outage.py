"""The outage budget over real brokers: met or not, by whom, and advice that works when followed."""

import re

import pytest

from broker.cli.policyfields import patch_of
from broker.errors import ConflictError
from broker.wire.audit import ComplianceView, GetCompliance
from broker.wire.ids import Service
from broker.wire.policy import PolicyPatch
from broker.wire.roster import ListMembers, MembersView, RevocationAnswer, RevokeMember
from broker.wire.work import LeaseWork, RenewOwn, WorkAnswer
from tests.shell.mesh_room import Room
from tests.shell.scenes import Make
from tests.shell.serving_scene import (
    DAY_S,
    RENEWING_AT_ONCE,
    certificate_of,
    outage,
    pass_days,
    renew,
    report,
    set_policy,
    sign,
    status,
    warned,
)
from tests.shell.settled import settled

HOSTS = ("atlas", "birch", "cedar")


@pytest.fixture
def room(make: Make) -> Room:
    """A mesh of three that serve what they joined with."""
    room = make("birch", "cedar", **RENEWING_AT_ONCE)
    for host in HOSTS:
        report(room, host, certificate_of(room, host), "served")
    room.run(1_000)
    return room


def compliance(room: Room) -> dict[str, tuple[str, str]]:
    """Return state and hint of each rule."""
    view = settled(room["atlas"].office, GetCompliance(), ComplianceView)
    return {line.rule: (line.state, line.hint) for line in view.lines}


def listed(room: Room, **wish: object) -> list[str]:
    """Return the hosts of one page."""
    request = ListMembers(**wish)  # type: ignore[arg-type]  # named fields
    view = room["atlas"].ask(Service.CONSOLE, request, MembersView)
    return [line.host for line in view.members]


def test_a_fresh_mesh_meets_its_budget(room: Room) -> None:
    """No warning on the first day, and all that ask agree."""
    found = outage(room)
    assert (found.met, found.short_members, found.advice) == (True, 0, "")
    assert found.budget_s == 7 * DAY_S <= found.planned_s
    assert found.survives_until == min(certificate_of(room, host).not_after for host in HOSTS)
    assert status(room).survives_until == found.survives_until
    assert compliance(room)["outage-budget"] == ("ok", "")
    assert not warned(room, "outage")


def test_a_member_that_stops_renewing_breaks_the_budget_and_is_named(room: Room) -> None:
    """Two are fresh; the promise is to all three."""
    end = certificate_of(room, "cedar").not_after
    room["cedar"].down = True
    pass_days(room, 22.9)
    for host in ("atlas", "birch"):
        renew(room, host)
    assert outage(room).met
    pass_days(room, 0.2)
    found = outage(room)
    assert (found.met, found.weakest, found.short_members) == (False, "cedar", 1)
    assert found.survives_until == end
    assert "certmesh member revoke cedar" in found.advice
    assert warned(room, "the outage budget of 7d is not met: cedar ends inside it", "cedar is away")
    assert compliance(room)["outage-budget"] == ("fail", found.advice)
    room["atlas"].ask(Service.CONSOLE, RevokeMember("cedar", "gone", "ann"), RevocationAnswer)
    assert outage(room).met


def test_a_certificate_that_nobody_picked_up_meets_no_budget(room: Room) -> None:
    """The roster of old would call this fresh: the newest certificate ends in 30 days."""
    pass_days(room, 24)
    for host in HOSTS:
        issued = sign(room, host)
        report(room, host, issued, "stale" if host == "cedar" else "served", "443 is old")
    found = outage(room)
    assert (found.met, found.weakest, found.short_members) == (False, "cedar", 1)
    assert "cedar serves an old certificate (443 is old)" in found.advice
    texts = [text for text in status(room).warnings if "cedar" in text]
    assert len(texts) == 2, "the trouble, and that it breaks the budget without saying it twice"
    assert sum("443 is old" in text for text in texts) == 1
    report(room, "cedar", renew(room, "cedar"), "served")
    assert outage(room).met


def test_a_policy_that_plans_too_little_is_advised_and_following_the_advice_mends_it(
    room: Room,
) -> None:
    """Each proposed command is sent as it stands; once everybody renewed, the budget is met."""
    said = set_policy(room, PolicyPatch(leaf_lifetime_s=10 * DAY_S)).warnings
    for host in HOSTS:
        renew(room, host)
    lucky = outage(room)
    assert lucky.met
    assert (lucky.advice,) == said[:1]
    assert warned(room, lucky.advice)
    assert compliance(room)["outage-budget"] == ("warn", lucky.advice)
    pass_days(room, 4)
    short = outage(room)
    assert (short.met, short.short_members, short.advice) == (False, 3, lucky.advice)
    words = re.findall(r"\b\w+=[\w.]+", short.advice)
    assert len(words) == 3
    for word in words:
        set_policy(room, PolicyPatch(leaf_lifetime_s=10 * DAY_S, renew_at=0.667))
        set_policy(room, PolicyPatch(outage_budget_s=7 * DAY_S))
        assert not set_policy(room, patch_of([word])).warnings, word
        for host in HOSTS:
            renew(room, host)
        room.run(2_250)
        mended = outage(room)
        assert (mended.met, mended.advice) == (True, ""), word


def test_a_member_that_ends_early_though_the_policy_is_fine_is_to_be_renewed(room: Room) -> None:
    """It still has the short certificate of the policy before."""
    set_policy(room, PolicyPatch(leaf_lifetime_s=2 * DAY_S))
    renew(room, "cedar")
    set_policy(room, PolicyPatch(leaf_lifetime_s=30 * DAY_S))
    assert outage(room).weakest == "cedar"
    assert "certmesh cert renew, on cedar" in outage(room).advice
    renew(room, "cedar")
    assert outage(room).met


def test_an_ending_ca_is_advised_to_be_replaced(room: Room) -> None:
    """Certificates are cut at the end of their issuer: no renewal can help (row 58)."""
    vault = room["atlas"].office.desk.state.keys.vault
    assert vault is not None
    for _ in range(29):
        pass_days(room, 25)
        for host in HOSTS:
            renew(room, host)
    assert not outage(room).met
    assert outage(room).advice.endswith("certmesh ca rollover start")


def test_a_standby_sees_the_same_budget(make: Make) -> None:
    """Whoever may have to bridge the outage should know how long it has."""
    room = make("birch", "cedar", **RENEWING_AT_ONCE)
    room.nominate("birch")
    room.run(2_000)
    assert outage(room, "birch") == outage(room)


def test_members_are_listed_by_what_ends_first(room: Room) -> None:
    """`member list --sort expiry`, `--expiring`, `--state`, page by page."""
    pass_days(room, 12)
    renew(room, "atlas")
    pass_days(room, 8)
    report(room, "cedar", sign(room, "cedar"), "stale", "443 is old")
    order = listed(room, order="expiry")
    assert sorted(order[:2]) == ["birch", "cedar"]
    assert order[2] == "atlas"
    soon = 11 * DAY_S
    assert sorted(listed(room, order="expiry", expiring_s=soon)) == ["birch", "cedar"]
    assert listed(room, expiring_s=soon) == ["birch", "cedar"]
    assert listed(room, state="stale") == ["cedar"]
    assert listed(room, state="up", order="expiry") == order
    assert listed(room, order="expiry", expiring_s=0) == []


def test_pages_by_expiry_show_everybody_once(room: Room) -> None:
    """Also where several end in the same second: the place is end and id."""
    seen, after = [], ""
    for _ in range(4):
        request = ListMembers(after=after, limit=1, order="expiry")
        view = room["atlas"].ask(Service.CONSOLE, request, MembersView)
        seen += [line.host for line in view.members]
        after = view.next_after
        if not after:
            break
    assert sorted(seen) == list(HOSTS)


@pytest.mark.parametrize("after", ["cedar", "12", ":a", "9" * 19 + ":a", "-1:a"])
def test_a_place_of_another_order_is_refused(room: Room, after: str) -> None:
    """Not answered with a page that skips somebody, and not a crash."""
    with pytest.raises(ConflictError):
        listed(room, order="expiry", after=after)


def own_renewal(room: Room, fraction: float) -> RenewOwn | None:
    """Set the policy, let the member hear of it, and return what it wants a week later."""
    set_policy(room, PolicyPatch(renew_at=fraction, outage_budget_s=DAY_S))
    room.beat(room["cedar"])
    pass_days(room, 7)
    lease = room["cedar"].ask(Service.RENEWAL, LeaseWork(), WorkAnswer).lease
    assert lease is None or isinstance(lease.item, RenewOwn)
    return lease.item if lease is not None and isinstance(lease.item, RenewOwn) else None


def test_a_member_asks_for_its_renewal_by_the_policy_of_the_mesh(room: Room) -> None:
    """It has no roster, and its own settings say two thirds as on the first day."""
    pass_days(room, 1)
    assert own_renewal(room, 0.667) is None
    wanted = own_renewal(room, 0.3)
    assert wanted is not None
    assert wanted.renew_at == 0.3
