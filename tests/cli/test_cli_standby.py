"""Standbys against a console: the order of succession, waiting, and what needs a yes."""

import json

import pytest

from broker.clock import wall_s
from broker.errors import (
    CALockedError,
    ForbiddenError,
    MeshError,
    NoMeshError,
    NotPrimaryError,
    StaleTermError,
    UnavailableError,
    WithheldError,
)
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.units import UnixSeconds
from broker.wire.claims import Claim
from broker.wire.control import Ack
from broker.wire.failover import Hint, PeersView, Sighting
from broker.wire.ids import Role
from broker.wire.standby import PromotionAnswer, ReviewsView, StepDownAnswer
from tests.cli.command import Certmesh, on_terminal
from tests.cli.fake_console import FakeConsole
from tests.cli.views import leader, node, review, standby, standbys

LIST = ("GET", "/v1/standbys")
PROMOTE = ("POST", "/v1/standby/promote")
STEP_DOWN = ("POST", "/v1/standby/step-down")
NODE = ("GET", "/v1/node")

SCREEN = """\
primary    atlas   term 3   mode automatic
this node  atlas   serving

HOST   ROLE     STATE      LAG  TERM  HEARD
atlas  primary  primary    0    3     here
nas    standby  ready      0    3     5 min ago
pi     standby  locked     7    3     10 min ago
usb    member   nominated  -    -     -

warning   standby pi is locked: the CA key is locked
"""


def minutes_ago(count: int) -> UnixSeconds:
    """Return a moment that is told the same for the next half minute."""
    return UnixSeconds(wall_s() - count * 60 - 30)


def test_the_order_of_succession_is_one_table(console: FakeConsole, certmesh: Certmesh) -> None:
    """The primary, then who takes over, in this order; the layout people learn."""
    nominated = standby("usb", "nominated", role="member", lag=None, term=0, last_heard_at=None)
    locked = standby(
        "pi",
        "locked",
        rank=1,
        lag=7,
        ca="locked",
        last_heard_at=minutes_ago(10),
        reason="the CA key is locked",
    )
    ready = standby("nas", last_heard_at=minutes_ago(5))
    console.answer(*LIST, standbys(nominated, locked, ready, leader()))
    said = certmesh("standby", "list")
    assert said.out == SCREEN
    assert said.status == Exit.ATTENTION


def test_a_healthy_succession_is_status_zero(console: FakeConsole, certmesh: Certmesh) -> None:
    """A monitor can watch this command."""
    console.answer(*LIST, standbys())
    said = certmesh("standby", "list")
    assert (said.status, said.out.splitlines()[-1]) == (Exit.OK, "ok")


def test_a_mesh_without_standby_says_how_to_get_one(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """No fault, but nobody takes over."""
    console.answer(*LIST, standbys(leader()))
    said = certmesh("standby", "list")
    assert said.status == Exit.OK
    assert f"no standby: certmesh --home {said_home(certmesh)}" in said.out
    assert "standby nominate HOST" in said.out


def said_home(certmesh: Certmesh) -> str:
    """Return the home the command was bound to."""
    return certmesh("standby", "list").out.rpartition("--home ")[2].partition(" ")[0]


def test_a_silent_primary_and_the_reason_to_wait_are_told(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """The two things one wants to know while the primary is gone."""
    view = standbys(
        leader(last_heard_at=minutes_ago(2)),
        standby("nas"),
        host="nas",
        phase="suspecting",
        silent_ms=72_000,
        withheld="lagging: row 40 of 41",
    )
    console.answer(*LIST, view)
    said = certmesh("standby", "list")
    assert "this node  nas   suspecting" in said.out
    assert "warning   primary atlas silent 72 s" in said.out
    assert "warning   nas does not take over: lagging: row 40 of 41" in said.out
    assert said.status == Exit.ATTENTION
    body = certmesh("standby", "list", "--json").body
    assert body["schema"] == "certmesh.standby-list/1"
    assert (body["silent_s"], body["withheld"]) == (72.0, "lagging: row 40 of 41")
    assert len(body["attention"]) == 2


def test_a_pause_below_three_ticks_is_no_news(console: FakeConsole, certmesh: Certmesh) -> None:
    """Beats come once a tick: some silence is always there."""
    console.answer(*LIST, standbys(silent_ms=14_999))
    assert certmesh("standby", "list").status == Exit.OK
    console.answer(*LIST, standbys(silent_ms=15_000))
    assert certmesh("standby", "list").status == Exit.ATTENTION


def test_a_caretakers_powers_stand_beside_the_command_that_confirms_them(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """A person knows whether the other half of the pair is dead."""
    powers = "caretaker: the other half of the pair may only be cut off"
    console.answer(*LIST, standbys(leader(), powers=powers, phase="caretaking"))
    said = certmesh("standby", "list")
    assert "enrollment, policy and roles are refused, confirm with certmesh" in said.out
    assert said.out.rstrip().partition("standby promote")[1]
    assert said.status == Exit.ATTENTION


def test_a_standby_is_not_blamed_for_powers_it_never_had(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Following is its duty, and no limitation that anybody has to confirm."""
    powers = "following: another node leads, or may lead"
    view = standbys(leader(), standby("nas"), host="nas", phase="following", powers=powers)
    console.answer(*LIST, view)
    assert certmesh("standby", "list").status == Exit.OK


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("", "standby pi is lagging"),
        ("lagging", "standby pi is lagging"),
        ("lagging: row 40 of 41", "standby pi is lagging: row 40 of 41"),
        ("row 40 of 41", "standby pi is lagging: row 40 of 41"),
    ],
)
def test_a_state_and_its_reason_are_one_sentence(
    reason: str, said: str, console: FakeConsole, certmesh: Certmesh
) -> None:
    """Whoever gives the reason may have said the state already."""
    console.answer(*LIST, standbys(leader(), standby("pi", "lagging", reason=reason)))
    assert f"warning   {said}\n" in certmesh("standby", "list").out


def test_conflicts_that_wait_for_a_person_are_counted(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """The merge has decided; somebody should look."""
    console.answer(*LIST, standbys(reviews=1))
    assert "1 conflict waits for review: certmesh" in certmesh("standby", "list").out
    console.answer(*LIST, standbys(reviews=2))
    said = certmesh("standby", "list")
    assert "2 conflicts wait for review" in said.out
    assert said.status == Exit.ATTENTION


def test_a_nomination_returns_at_once_without_wait(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """The nominated node fetches the key by itself."""
    console.answer("POST", "/v1/standbys/nas", Ack())
    said = certmesh("standby", "nominate", "nas")
    assert said.status == Exit.OK
    assert "nas is nominated" in said.out
    assert [(asked.method, asked.path) for asked in console.asked] == [("POST", "/v1/standbys/nas")]


def test_waiting_for_a_standby_shows_every_change_on_stderr(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """The answer alone is on stdout."""
    console.answer("POST", "/v1/standbys/nas", Ack())
    nominated = standby("nas", "nominated", role="member", lag=None)
    lagging = standby("nas", "lagging", lag=400, reason="row 1 of 401")
    console.answer_in_turn(
        *LIST,
        standbys(leader()),
        standbys(leader(), nominated),
        standbys(leader(), nominated),
        standbys(leader(), lagging),
        standbys(leader(), standby("nas")),
    )
    said = certmesh("standby", "nominate", "nas", "--wait", "20s")
    assert said.status == Exit.OK
    assert said.err.splitlines() == ["nas  nominated", "nas  lagging: row 1 of 401", "nas  ready"]
    assert said.out.startswith("nas is ready, after ")


def test_a_standby_that_is_not_ready_in_time_is_status_eight(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Nothing went wrong yet: a script may go on waiting."""
    console.answer("POST", "/v1/standbys/nas", Ack())
    console.answer(*LIST, standbys(leader(), standby("nas", "locked", reason="no credential")))
    said = certmesh("standby", "nominate", "nas", "--wait", "100ms")
    assert said.status == Exit.WAITING
    assert "nas is not ready yet: locked: no credential" in said.out
    body = certmesh("standby", "nominate", "nas", "--wait", "100ms", "--json").body
    assert (body["ready"], body["state"]) == (False, "locked")


def test_a_nomination_that_was_taken_back_is_not_waited_for(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """It will never be ready; ten minutes of silence would not change that."""
    console.answer("POST", "/v1/standbys/nas", Ack())
    console.answer_in_turn(
        *LIST, standbys(leader(), standby("nas", "nominated")), standbys(leader())
    )
    said = certmesh("standby", "nominate", "nas", "--wait", "10m")
    assert said.status == Exit.CONFLICT
    assert "nas was nominated, and is no candidate any more" in said.err


def test_a_busy_moment_does_not_end_the_waiting(console: FakeConsole, certmesh: Certmesh) -> None:
    """Brokers restart exactly when roles move."""
    console.answer("POST", "/v1/standbys/nas", Ack())
    console.refuse(*LIST, UnavailableError("the broker is starting"), 503)
    busy = console.answers[LIST]
    console.answer_in_turn(*LIST, standbys(leader(), standby("nas")))
    console.turns[LIST].insert(0, busy)
    assert certmesh("standby", "nominate", "nas", "--wait", "10s").status == Exit.OK


def test_removing_a_standby_needs_a_yes_and_says_what_stays(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """A key once given cannot be taken back."""
    console.answer("DELETE", "/v1/standbys/nas", Ack())
    assert certmesh("standby", "remove", "nas").status == Exit.USAGE
    assert certmesh("standby", "remove", "nas", "--json").status == Exit.USAGE
    assert console.asked == []
    said = certmesh("standby", "remove", "nas", "--yes")
    assert (said.status, said.out) == (Exit.OK, "nas is no standby any more\n")
    assert "cannot be taken back" in said.err
    assert console.asked[-1].method == "DELETE"


@pytest.mark.parametrize(
    "words", [("remove", "nas"), ("step-down",), ("promote", "--force")], ids=lambda words: words[0]
)
def test_return_is_a_no_on_a_terminal(
    words: tuple[str, ...], console: FakeConsole, member_home: Paths
) -> None:
    """Roles do not move because somebody pressed return."""
    status, shown = on_terminal(("--home", str(member_home.home), "standby", *words), b"\n")
    assert status == Exit.FAILED
    assert b"nothing was changed" in shown
    assert console.asked == []


def test_a_dry_run_of_a_promotion_changes_nothing_and_asks_nobody(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Also of a forced one."""
    would = PromotionAnswer(outcome="would", term=4, detail="atlas silent for 31 s")
    console.answer(*PROMOTE, would)
    said = certmesh("standby", "promote", "--dry-run", "--force")
    assert said.out == "would become primary, term 4: atlas silent for 31 s\n"
    assert said.status == Exit.OK
    assert json.loads(console.asked[-1].body) == {"force": True, "dry_run": True}
    assert len(console.asked) == 1


def test_a_promotion_waits_until_this_node_is_primary(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Asking is not being: a living primary hands over first, and a pending one serves nobody."""
    console.answer(*PROMOTE, PromotionAnswer(outcome="asked", term=3, detail="atlas hands over"))
    following = node(role="standby", host="nas", phase="following")
    pending = node(host="nas", phase="pending", term=4)
    serving = node(host="nas", phase="serving", term=4)
    console.answer_in_turn(*NODE, following, pending, serving)
    said = certmesh("standby", "promote")
    assert said.status == Exit.OK
    assert said.err == "atlas hands over\n"
    assert said.out.startswith("nas is primary, term 4, after 0.")
    assert json.loads(console.asked[0].body) == {"force": False, "dry_run": False}
    assert len([asked for asked in console.asked if asked.path == NODE[1]]) == 3


def test_a_promotion_that_is_held_back_is_status_eight_with_the_reason(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """The reason is what a person can act on."""
    console.answer(*PROMOTE, PromotionAnswer(outcome="asked", term=3))
    console.answer(*NODE, node(role="standby", host="nas"))
    console.answer(*LIST, standbys(withheld="locked"))
    said = certmesh("standby", "promote", "--wait", "100ms")
    assert (said.status, said.out) == (Exit.WAITING, "not the primary yet: locked\n")
    body = certmesh("standby", "promote", "--wait", "100ms", "--json").body
    assert (body["primary"], body["withheld"]) == (False, "locked")


@pytest.mark.parametrize(
    ("outcome", "said"),
    [("confirmed", "full powers confirmed, term 4\n"), ("asked", "the primary was asked")],
)
def test_what_needs_no_waiting_is_not_waited_for(
    outcome: str, said: str, console: FakeConsole, certmesh: Certmesh
) -> None:
    """A caretaker is primary already; `--wait 0s` is the person's word."""
    console.answer(*PROMOTE, PromotionAnswer(outcome=outcome, term=4))
    assert certmesh("standby", "promote", "--wait", "0s").out.startswith(said)
    assert len(console.asked) == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (WithheldError("lagging: row 40 of 41", hint="--force"), Exit.CONFLICT),
        (NotPrimaryError("atlas leads"), Exit.CONFLICT),
        (StaleTermError("term 3 is over"), Exit.CONFLICT),
        (CALockedError("the key is locked", hint="certmesh ca unlock"), Exit.LOCKED),
        (NoMeshError("no mesh here"), Exit.NO_MESH),
        (ForbiddenError("this node holds no key"), Exit.REFUSED),
    ],
    ids=lambda value: getattr(value, "code", value),
)
def test_a_refused_change_of_roles_says_why_by_its_status(
    error: MeshError, status: Exit, console: FakeConsole, certmesh: Certmesh
) -> None:
    """A script can tell a locked key from a lagging journal."""
    console.refuse(*PROMOTE, error)
    console.refuse(*STEP_DOWN, error)
    console.refuse("POST", "/v1/standbys/nas", error)
    for words in (("promote",), ("step-down", "--yes"), ("nominate", "nas")):
        said = certmesh("standby", *words)
        assert said.status == status
        assert error.detail in said.err


def test_a_hand_over_waits_until_this_node_follows_the_successor(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Not just any standby, and not while this node still thinks it leads."""
    console.answer(*STEP_DOWN, StepDownAnswer(successor="nas", term=3))
    still = node(led_by="nas")
    nobody = node(role="standby")
    done = node(role="standby", led_by="nas", term=4)
    console.answer_in_turn(*NODE, still, nobody, done)
    said = certmesh("standby", "step-down", "--to", "nas", "--yes")
    assert said.status == Exit.OK
    assert said.out.startswith("nas is primary, term 4, after 0.")
    assert json.loads(console.asked[0].body) == {"successor": "nas"}
    assert len(console.asked) == 4


def test_a_successor_that_does_not_take_over_is_status_eight(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """The role was given away and nobody has it: say so."""
    console.answer(*STEP_DOWN, StepDownAnswer(successor="nas", term=3))
    console.answer(*NODE, node(role="standby"))
    said = certmesh("standby", "step-down", "--yes", "--wait", "100ms")
    assert said.status == Exit.WAITING
    assert "nas has not taken over yet" in said.out
    without = certmesh("standby", "step-down", "--yes", "--wait", "0s")
    assert (without.status, without.out) == (Exit.OK, "nas was asked\n")


def test_a_round_of_syncing_can_be_asked_for(console: FakeConsole, certmesh: Certmesh) -> None:
    """After mending a network nobody wants to wait five minutes."""
    console.answer("POST", "/v1/standby/sync", Ack())
    assert certmesh("standby", "sync").out == "a round has begun\n"
    assert certmesh("standby", "sync", "--json").body["schema"] == "certmesh.standby-sync/1"


def test_conflicts_are_listed_and_closed_by_the_beginning_of_their_id(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Nobody types sixteen digits."""
    lines = (review(), review("b1b2c3d4e5f6a7b8", "old"))
    console.answer("GET", "/v1/reviews", ReviewsView(reviews=lines, total=2))
    console.answer("POST", "/v1/reviews/a1b2c3d4e5f6a7b8/close", Ack())
    out = certmesh("review", "list").out
    assert out.splitlines()[1].startswith("a1b2c3d4e5f6  hostname  pi       pi of atlas, term 3")
    said = certmesh("review", "close", "a1b2")
    assert (said.status, said.out) == (Exit.OK, "review a1b2c3d4e5f6 closed\n")
    assert certmesh("review", "close", "old").status == Exit.FAILED  # not answered: no such route
    assert certmesh("review", "close", "nobody").status == Exit.FAILED
    body = certmesh("review", "list", "--json").body
    assert (body["schema"], body["reviews"][0]["at"]) == (
        "certmesh.review-list/1",
        "2026-11-23T13:20:00Z",
    )


def test_no_conflict_is_said_in_words(console: FakeConsole, certmesh: Certmesh) -> None:
    """An empty table looks like a fault."""
    console.answer("GET", "/v1/reviews", ReviewsView(reviews=(), total=0))
    assert certmesh("review", "list").out == "nothing to review\n"


def claim(host: str, role: Role, **changed: object) -> Claim:
    """Return what a key holder says of itself."""
    fields: dict[str, object] = {
        "host": host,
        "role": role,
        "serving": role == "primary",
        "term": 3,
        "highest_term": 3,
        "version_term": 3,
        "sequence": 41,
        "hash": "ab",
        "promotable": role == "standby",
    }
    return Claim(**(fields | changed))  # type: ignore[arg-type]  # a sample with changes


def test_peers_show_what_each_key_holder_claims(console: FakeConsole, certmesh: Certmesh) -> None:
    """Verified claims in one table, what mDNS says below it and named as what it is."""
    seen = (
        Sighting("atlas", "192.0.2.1", claim("atlas", "primary")),
        Sighting("nas", "192.0.2.2", claim("nas", "standby")),
        Sighting("pi", "192.0.2.3", claim("pi", "standby", promotable=False, reason="locked")),
        Sighting("old", "192.0.2.4", claim("old", "primary", serving=False)),
        Sighting("usb", "", None, "connection refused"),
    )
    hint = Hint("certmesh-ca-evil", ("192.0.2.66",), 7643, "primary", "9f3a", "99")
    console.answer("GET", "/v1/peers", PeersView(sightings=seen, hints=(hint,)))
    said = certmesh("peers")
    lines = [line.split() for line in said.out.splitlines()]
    assert lines[1] == ["atlas", "192.0.2.1", "primary", "serving", "3", "41"]
    assert lines[2] == ["nas", "192.0.2.2", "standby", "ready", "3", "41"]
    assert lines[3] == ["pi", "192.0.2.3", "standby", "locked", "3", "41"]
    assert lines[4] == ["old", "192.0.2.4", "primary", "pending", "3", "41"]
    assert lines[5] == ["usb", "-", "-", "connection", "refused", "-", "-"]
    assert said.out.index("not verified") < said.out.index("certmesh-ca-evil")
    assert certmesh("peers", "--json").body["sightings"][0]["claim"]["serving"] is True


def test_no_peer_is_said_in_words(console: FakeConsole, certmesh: Certmesh) -> None:
    """A mesh of one node has nobody to probe."""
    console.answer("GET", "/v1/peers", PeersView(sightings=(), hints=()))
    assert certmesh("peers").out == "no other key holder was probed\n"
