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
from tests.cli.views import DAY_S, NOW, endpoint, member, node, status

STATUS = ("GET", "/v1/status?limit=500")

SCREEN = """\
mesh home   CA ok (unlocked, term 3)   primary atlas   enrollment closed
this node   atlas  primary   certificate valid 29 d, renews in 19 d
continuity  every member survives a dead CA until 2026-12-12 (19 d)

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


def test_warnings_make_status_three(console: FakeConsole, certmesh: Certmesh) -> None:
    """Works, but needs attention: a monitor can tell it from down."""
    console.answer(*STATUS, status(warnings=("nas serves an old certificate",)))
    said = certmesh("status")
    assert said.status == Exit.ATTENTION
    assert "warning   nas serves an old certificate" in said.out


def test_a_locked_ca_needs_attention_and_says_how(console: FakeConsole, certmesh: Certmesh) -> None:
    """Status itself needed no key, so it is 3 and not 5."""
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
        member("pi", served="stale", days=-1),
        member("old", state="revoked"),
        member("new", not_after=None, renew_at=None, last_seen_at=None, served="unknown"),
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
    """The hint is ready to be copied, home included."""
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
    """The path in the file is what a person needs to mend it."""
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
    """State, restarts, last success, next run: what one asks when something is slow."""
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
    )
    view = WorkersView(workers=(renewal,), broker_pid=17, broker_uptime_ms=7_200_000)
    console.answer("GET", "/v1/workers", view)
    said = certmesh("ps")
    assert said.status == Exit.OK
    assert "renewal-0" in said.out
    for word in ("suspect", "4242", "3", "90 s", "the primary does not answer", "up 2 h"):
        assert word in said.out
    worker = certmesh("ps", "--json").body["workers"][0]
    assert (worker["next_run_s"], worker["silent_s"]) == (90.5, 1.5)


def test_survival_is_told_as_a_date(console: FakeConsole, certmesh: Certmesh) -> None:
    """The one number an owner of a home mesh wants."""
    console.answer(*STATUS, status(survives_until=NOW - DAY_S))
    assert "a member's certificate has expired" in certmesh("status").out
