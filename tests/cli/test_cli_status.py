"""The one-screen status: what it shows and what its exit status says."""

import json
import re

import msgspec
import pytest

from broker.cli.shape import clean
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.wire.node import WorkersView, WorkerView
from tests.cli.command import Certmesh
from tests.cli.fake_console import FakeConsole
from tests.cli.views import DAY_S, NOW, endpoint, leader, member, node, outage, standby, status

STATUS = ("GET", "/v1/status?limit=500")

SCREEN = """\
mesh home   CA ok (unlocked, term 3)   primary atlas   enrollment closed
this node   atlas  primary   certificate valid 29 d, renews in 19 d
continuity  every member survives a dead CA until 2026-12-12 (19 d, budget 7 d: met)

HOST   ROLE     STATE  CERTIFICATE  RENEWS IN  SERVED  LAST SEEN
atlas  primary  up     29 d left    19 d       yes     now
nas    member   up     21 d left    11 d       yes     4 s ago

ok
"""


def test_a_healthy_mesh_fits_one_screen(console: FakeConsole, certmesh: Certmesh) -> None:
    """The layout people learn; a change here is a decision."""
    console.answer(*STATUS, status())
    said = certmesh("status")
    assert said.out == SCREEN
    assert (said.status, said.err) == (Exit.OK, "")


POWERS = "caretaker: the other half of the pair may only be cut off"
SUCCESSION_SCREEN = """\
mesh home   CA ok (unlocked, term 3)   primary atlas   standby nas (lag 0)   enrollment closed
this node   atlas  primary   certificate valid 29 d, renews in 19 d
continuity  every member survives a dead CA until 2026-12-12 (19 d, budget 7 d: met)

HOST   ROLE     STATE  CERTIFICATE  RENEWS IN  SERVED  LAST SEEN
atlas  primary  up     29 d left    19 d       yes     now
nas    standby  up     21 d left    11 d       yes     4 s ago

ok
"""


def test_a_mesh_with_a_standby_fits_the_same_screen(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Who takes over, and how far behind it is, stands in the first line."""
    rows = (
        member("atlas", role="primary", last_seen_at=NOW),
        member("nas", role="standby", days=21),
    )
    view = status(standbys=(leader(), standby("nas")), members=rows)
    console.answer(*STATUS, view)
    said = certmesh("status")
    assert said.out == SUCCESSION_SCREEN
    assert said.status == Exit.OK


def test_a_standbys_own_status_says_whom_it_follows(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Its CA is its own copy; the primary is another node."""
    lines = (leader(), standby("nas", lag=2), standby("pi", "locked", ca="locked", rank=1))
    here = node(role="standby", host="nas", phase="following")
    console.answer(*STATUS, status(node=here, standbys=lines))
    said = certmesh("status")
    assert "primary atlas   standby nas (lag 2), pi (locked)" in said.out
    assert "this node   nas  standby (lag 2)   certificate" in said.out
    assert "warning   standby pi is locked" in said.out
    assert said.status == Exit.ATTENTION


def test_a_locked_standby_is_told_to_unlock(console: FakeConsole, certmesh: Certmesh) -> None:
    """It could not take over; the command that changes that stands beside it."""
    lines = (leader(), standby("nas", "locked", ca="locked", reason="the CA key is locked"))
    here = node(role="standby", host="nas", ca="locked")
    console.answer(*STATUS, status(node=here, standbys=lines))
    out = certmesh("status").out
    assert "CA LOCKED (term 3)" in out
    assert "ca unlock" in out
    assert "standby nas is locked: the CA key is locked" in out


@pytest.mark.parametrize("silent_s", [1, 14, 15, 240])
def test_a_silent_primary_is_told_from_the_third_tick_on(
    silent_s: int, console: FakeConsole, certmesh: Certmesh
) -> None:
    """One lost probe is no news, three are."""
    shown = silent_s >= 15
    lines = (leader(last_heard_at=NOW - silent_s), standby("nas"))
    here = node(role="standby", host="nas", phase="suspecting" if shown else "following")
    console.answer(*STATUS, status(node=here, standbys=lines))
    said = certmesh("status")
    assert ("warning   primary silent" in said.out) is shown
    assert ("primary atlas (silent " in said.out) is shown
    assert ("nas  standby (lag 0, suspecting)" in said.out) is shown
    assert said.status == (Exit.ATTENTION if shown else Exit.OK)


def test_a_primary_never_calls_itself_silent(console: FakeConsole, certmesh: Certmesh) -> None:
    """Nobody probes itself, so its own line has an old time."""
    lines = (leader(last_heard_at=NOW - 900), standby("nas"))
    console.answer(*STATUS, status(standbys=lines))
    assert certmesh("status").status == Exit.OK


def test_a_caretaker_names_the_command_that_confirms_it(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Half of a pair cannot know whether the other half is dead; a person can."""
    here = node(phase="caretaking", powers=POWERS)
    console.answer(*STATUS, status(node=here))
    said = certmesh("status")
    assert "enrollment, policy and roles are refused, confirm with certmesh" in said.out
    assert "standby promote" in said.out
    assert "atlas  primary (caretaking)" in said.out
    assert said.status == Exit.ATTENTION


def test_a_pending_primary_says_that_it_serves_nothing(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """There is nothing to confirm: it settles by itself."""
    powers = "pending: asking the other key holders whether they replaced it"
    console.answer(*STATUS, status(node=node(phase="pending", powers=powers)))
    said = certmesh("status")
    assert "atlas  primary (pending)" in said.out
    assert "it serves nothing until then" in said.out
    assert "standby promote" not in said.out


def test_a_member_knows_the_standbys_by_name(console: FakeConsole, certmesh: Certmesh) -> None:
    """From the signed bundle: no lag, no lock state."""
    here = node(role="member", ca="absent", key_holders=(endpoint("atlas"), endpoint("nas")))
    console.answer(*STATUS, status(node=here))
    assert "CA elsewhere (term 3)   primary atlas   standby nas   " in certmesh("status").out


@pytest.mark.parametrize(
    ("changed", "warning", "once"),
    [
        ({}, "standby pi is away", "standby pi is away"),
        ({}, "atlas has been silent for 240 s; this standby holds back: locked", "silent for"),
        ({"phase": "caretaking", "powers": POWERS}, f"this primary refuses: {POWERS}", POWERS),
    ],
)
def test_what_the_broker_warned_of_is_not_said_twice(
    changed: dict[str, object],
    warning: str,
    once: str,
    console: FakeConsole,
    certmesh: Certmesh,
) -> None:
    """Two sentences about one fault are one too many."""
    lines = (leader("nas", last_heard_at=NOW - 240), standby("pi", "away"))
    here = node(**changed)  # type: ignore[arg-type]  # named fields
    console.answer(*STATUS, status(node=here, standbys=lines, warnings=(warning,)))
    told = certmesh("status").out.partition("warning")[2]
    assert told.count(once) == 1
    assert told.count("silent") == 1


def test_warnings_make_status_three(console: FakeConsole, certmesh: Certmesh) -> None:
    """Works, but needs attention: a monitor can tell it from down (P15)."""
    console.answer(*STATUS, status(warnings=("nas serves an old certificate",)))
    said = certmesh("status")
    assert said.status == Exit.ATTENTION
    assert "warning   nas serves an old certificate" in said.out


def test_a_locked_ca_needs_attention_and_says_how(console: FakeConsole, certmesh: Certmesh) -> None:
    """Status itself needed no key, so it is 3 and not 5 (P15)."""
    console.answer(*STATUS, status(node=node(ca="locked")))
    said = certmesh("status")
    assert said.status == Exit.ATTENTION
    assert "CA LOCKED" in said.out
    assert "ca unlock" in said.out


def test_waiting_approvals_need_attention(console: FakeConsole, certmesh: Certmesh) -> None:
    """Somebody stands at the door."""
    console.answer(*STATUS, status(approvals_pending=2))
    said = certmesh("status")
    assert said.status == Exit.ATTENTION
    assert "2 waiting for approval" in said.out


def test_stale_and_revoked_members_are_told_in_words(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Meaning never rests on colour."""
    rows = (
        member("pi", served="stale", delivery="stale", days=-1),
        member("old", state="revoked"),
        member("new", not_after=None, renew_at=None, last_seen_at=None, delivery="unknown"),
    )
    console.answer(*STATUS, status(members=rows, member_count=700))
    out = certmesh("status").out
    assert "expired 24 h ago" in out
    assert "STALE" in out
    assert out.count("revoked") == 2
    assert "697 more" in out


def test_a_node_without_mesh_is_status_six(console: FakeConsole, certmesh: Certmesh) -> None:
    """It answers, so `--json` still is a status and not an error."""
    view = status(node=node(role="none", ca="absent", mesh=False), own=None)
    console.answer(*STATUS, view)
    assert certmesh("status").status == Exit.NO_MESH
    assert certmesh("status", "--json").body["schema"] == "certmesh.status/1"


def test_a_stopped_node_is_status_four_with_the_command_that_starts_it(
    member_home: Paths, certmesh: Certmesh
) -> None:
    """The hint is ready to be copied, home included (P15)."""
    said = certmesh("status")
    assert said.status == Exit.UNREACHABLE
    assert f"certmesh --home {member_home.home} up" in said.err


def test_a_missing_home_is_status_six_and_says_what_to_do(certmesh: Certmesh) -> None:
    """Not a traceback about a file."""
    said = certmesh("status")
    assert said.status == Exit.NO_MESH
    assert "init NAME" in said.err


def test_a_home_without_membership_is_status_six(paths: Paths, certmesh: Certmesh) -> None:
    """Nothing to start: there is no mesh yet."""
    assert paths.settings.exists()
    assert certmesh("status").status == Exit.NO_MESH


def test_an_unknown_settings_key_is_status_78_and_named(paths: Paths, certmesh: Certmesh) -> None:
    """The path in the file is what a person needs to mend it (P15)."""
    paths.settings.write_text('[listen]\nenrol = "127.0.0.1:1"\n')
    said = certmesh("status", "--json")
    assert said.status == Exit.SETTINGS
    assert "listen" in said.body["detail"]
    assert "enrol" in said.body["detail"]


def test_json_has_rfc3339_times_and_seconds(console: FakeConsole, certmesh: Certmesh) -> None:
    """Scripts never see the wire's units."""
    console.answer(*STATUS, status())
    body = certmesh("status", "--json").body
    assert body["schema"] == "certmesh.status/1"
    assert body["now"] == "2026-11-23T13:20:00Z"
    assert body["own"]["not_after"] == "2026-12-22T13:20:00Z"
    assert body["node"]["mesh"]["primary"] == json.loads(msgspec.json.encode(endpoint()))
    assert "kind" not in body


def test_global_options_are_taken_before_and_after_the_command(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Nobody remembers where they go."""
    console.answer(*STATUS, status())
    assert certmesh("--json", "status").body == certmesh("status", "--json").body


@pytest.mark.parametrize(
    "name",
    [
        "[red]pi[/red]",
        "[bold]",
        "\x1b[31mpi",
        "pi\nroot",
        "pi\u202exe",
        "pi\x9b2J",
        "pi\u2028x",
        ":boom:",
    ],
)
def test_a_hostile_name_is_printed_and_not_obeyed(
    name: str, console: FakeConsole, certmesh: Certmesh
) -> None:
    """Names come from machines that wanted in; markup and control codes must stay text."""
    console.answer(*STATUS, status(members=(member(name),), warnings=(f"{name} is late",)))
    said = certmesh("status", "--color", "always")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said.out)
    assert f"\n{clean(name)} " in plain
    assert f"warning   {clean(name)} is late" in plain
    assert not set(plain) & set("\x1b\u202e\x9b\u2028")
    raw = certmesh("status", "--json")
    assert raw.body["members"][0]["host"] == name
    assert raw.out.isascii()


def test_a_pipe_gets_whole_lines_without_colour(console: FakeConsole, certmesh: Certmesh) -> None:
    """A table cut at 80 columns would lose what a script greps for."""
    long = f"{'a' * 63}.{'b' * 63}.internal"
    console.answer(*STATUS, status(members=(member(long),)))
    out = certmesh("status").out
    assert long in out
    assert "\x1b" not in out


def test_the_processes_are_one_table(console: FakeConsole, certmesh: Certmesh) -> None:
    """State, restarts, last success, next run: what one asks when something is slow (P11)."""
    renewal = WorkerView(
        instance="renewal-0",
        service="renewal",
        pid=4242,
        liveness="suspect",
        supervisor="RUNNING",
        restarts=3,
        state="",
        last_success_at=None,
        last_error="the primary does not answer",
        next_run_ms=90_500,
        silent_ms=1500,
        uptime_ms=600_000,
        last_exit="killed: silent for 7.2 s",
    )
    view = WorkersView(workers=(renewal,), broker_pid=17, broker_uptime_ms=7_200_000)
    console.answer("GET", "/v1/workers", view)
    said = certmesh("ps")
    assert said.status == Exit.OK
    assert "renewal-0" in said.out
    said_of_it = "the primary does not answer; before: killed: silent for 7.2 s"
    for word in ("suspect", "4242", "3", "10 min", "89 s", said_of_it, "2 h"):
        assert word in said.out
    worker = certmesh("ps", "--json").body["workers"][0]
    assert (worker["next_run_s"], worker["silent_s"]) == (90.5, 1.5)


def test_survival_is_told_as_a_date(console: FakeConsole, certmesh: Certmesh) -> None:
    """The one number an owner of a home mesh wants."""
    console.answer(*STATUS, status(survives_until=NOW - DAY_S))
    assert "a member's certificate has expired" in certmesh("status").out


def test_the_budget_stands_beside_the_date(console: FakeConsole, certmesh: Certmesh) -> None:
    """Met, met for now, or not met and by whom; a member does not know the budget."""
    for changed, said in (
        ({}, "until 2026-12-12 (19 d, budget 7 d: met)"),
        ({"planned_s": 3 * DAY_S}, "budget 7 d: met for now, the policy plans 3 d)"),
        ({"met": False, "short_members": 1}, "budget 7 d: NOT MET by nas)"),
        ({"met": False, "short_members": 4}, "budget 7 d: NOT MET by 4 members, nas first)"),
    ):
        console.answer(*STATUS, status(outage=outage(**changed)))
        assert said in certmesh("status").out
    console.answer(*STATUS, status(outage=None))
    assert "until 2026-12-12 (19 d)\n" in certmesh("status").out


def test_every_state_of_a_certificate_is_a_word(console: FakeConsole, certmesh: Certmesh) -> None:
    """Those that need somebody stand out in capitals, not by colour."""
    words = {
        "served": "yes",
        "installed": "on disk",
        "stale": "STALE",
        "failed": "FAILED",
        "expired": "EXPIRED",
        "away": "away",
        "unknown": "-",
    }
    rows = tuple(member(f"host-{state}", delivery=state) for state in words)
    console.answer(*STATUS, status(members=rows))
    lines = certmesh("status").out.splitlines()
    for state, word in words.items():
        (row,) = [line for line in lines if line.startswith(f"host-{state} ")]
        assert f"  {word}  " in row


def test_json_has_the_budget(console: FakeConsole, certmesh: Certmesh) -> None:
    """For the monitor that watches it."""
    console.answer(*STATUS, status())
    body = certmesh("status", "--json").body
    assert body["outage"] == {
        "budget_s": 7 * DAY_S,
        "planned_s": 8 * DAY_S,
        "met": True,
        "weakest": "nas",
        "survives_until": "2026-12-12T13:20:00Z",
        "short_members": 0,
        "advice": "",
    }
    assert body["members"][0]["delivery"] == "served"
    assert body["members"][0]["survives_until"] == "2026-12-22T13:20:00Z"
