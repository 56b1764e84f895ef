"""`certmesh notify` against a console: what is shown, what a test waits for, exit statuses."""

from typing import Any

from broker.errors import NotFoundError
from broker.runtime.exits import Exit
from broker.wire.notice import Notice, NoticeLine, NoticesView
from tests.cli.command import Certmesh
from tests.cli.fake_console import FakeConsole
from tests.cli.views import NOW

TARGETS = ("webhook", "ntfy")
LIST = "/v1/notices?limit=100"
TEST = "/v1/notices/test"


def line(number: int, state: str, **waiting: str) -> NoticeLine:
    """Return a notice; `waiting` says of each target why it has not taken it."""
    notice = Notice(
        f"{number:032x}", "hook.failed", "warning", NOW, "home", "atlas", "nas", "nas \x1b[2J"
    )
    said = "; ".join(f"{name}: {why}" for name, why in waiting.items() if why)
    return NoticeLine(notice, state, 1, tuple(waiting), said, tuple(waiting.values()))


def view(*lines: NoticeLine) -> NoticesView:
    """Return an answer of the broker."""
    return NoticesView(lines, TARGETS)


def test_the_list_shows_who_did_not_take_it_and_why(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Escaped: the text comes from hosts."""
    shown = view(line(2, "waiting", ntfy="status 500"), line(1, "sent"))
    console.answer("GET", "/v1/notices?limit=20", shown)
    out = certmesh("notify", "list").out
    assert "ntfy: status 500" in out
    assert "\x1b" not in out
    body = certmesh("notify", "list", "--json").body
    assert body["schema"] == "certmesh.notify-list/1"
    assert body["notices"][0]["notice"]["at"].endswith("Z")


def test_a_test_that_everybody_takes_succeeds(console: FakeConsole, certmesh: Certmesh) -> None:
    """It waits for the answer instead of hoping."""
    console.answer("POST", TEST, view(line(7, "waiting", webhook="", ntfy="")))
    console.answer_in_turn(
        "GET", LIST, view(line(7, "waiting", webhook="", ntfy="")), view(line(7, "sent"))
    )
    said = certmesh("notify", "test")
    assert said.status == Exit.OK
    assert [row.split() for row in said.out.splitlines()[1:]] == [
        ["webhook", "taken"],
        ["ntfy", "taken"],
    ]


def test_a_test_says_for_each_target_why_not(console: FakeConsole, certmesh: Certmesh) -> None:
    """Exit 1, and the reason that the target gave."""
    failed = view(line(7, "waiting", ntfy="answered status 500"))
    console.answer("POST", TEST, view(line(7, "waiting", webhook="", ntfy="")))
    console.answer("GET", LIST, failed)
    said = certmesh("notify", "test", "--json")
    assert said.status == Exit.FAILED
    assert said.body["targets"] == [
        {"target": "webhook", "taken": True, "detail": ""},
        {"target": "ntfy", "taken": False, "detail": "answered status 500"},
    ]
    assert "fail: answered status 500" in certmesh("notify", "test").out


def test_a_test_that_nobody_tries_ends_too(console: FakeConsole, certmesh: Certmesh) -> None:
    """The process may not run: silence is no success."""
    waiting = view(line(7, "waiting", webhook="", ntfy=""))
    console.answer("POST", TEST, waiting)
    console.answer("GET", LIST, waiting)
    said = certmesh("notify", "test", "--timeout", "300ms")
    assert said.status == Exit.FAILED
    assert "is the process notify running?" in said.out


def test_nobody_configured_is_a_mistake_of_usage_with_a_hint(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Exit 2: nothing was wrong with the node."""
    error = NotFoundError("[notify] names nobody", hint="set notify.webhook")
    console.refuse("POST", TEST, error, 404)
    said: Any = certmesh("notify", "test")
    assert (said.status, "set notify.webhook" in said.err) == (Exit.USAGE, True)
