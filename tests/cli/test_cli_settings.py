"""`config` and `hook`: reading and changing the settings file."""

import json
import tomllib

import pytest

from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.wire.console_api import HookLine, HookRun, HookRunsView, HooksView
from tests.cli.command import Certmesh
from tests.cli.fake_console import FakeConsole
from tests.cli.views import NOW


def test_every_setting_tells_where_it_comes_from(
    paths: Paths, certmesh: Certmesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flag, environment, file, default: one never wonders which."""
    monkeypatch.setenv("CERTMESH_LOG_LEVEL", "debug")
    shown = certmesh("config", "show", "--json").body["settings"]
    assert shown["log.level"] == {"value": "debug", "origin": "CERTMESH_LOG_LEVEL"}
    assert shown["node.name"] == {"value": "atlas", "origin": str(paths.settings)}
    assert shown["policy.leaf_lifetime"] == {"value": "30d", "origin": "default"}
    lines = certmesh("config", "show").out.splitlines()
    assert 'log.level = "debug"' in lines


def test_what_is_shown_can_be_written_into_a_file(paths: Paths, certmesh: Certmesh) -> None:
    """`config show` prints TOML; reading it back gives the same settings."""
    assert paths.settings.exists()
    shown = certmesh("config", "show").out
    paths.settings.write_text(shown)
    assert certmesh("config", "show").out == shown
    assert certmesh("config", "validate").status == Exit.OK


def test_a_wrong_setting_is_named(paths: Paths, certmesh: Certmesh) -> None:
    """Seventy-eight, as the processes say it."""
    paths.settings.write_text('[renewal]\ncheck_every = "soon"\n')
    said = certmesh("config", "validate")
    assert said.status == Exit.SETTINGS
    assert "soon" in said.err


def test_the_schema_knows_every_section(certmesh: Certmesh) -> None:
    """Editors check certmesh.toml with it; no node is needed to print it."""
    schema = json.loads(certmesh("config", "schema").out)
    sections = schema["$defs"]["Settings"]["properties"]
    assert {"node", "listen", "hook", "renewal"} <= set(sections)
    assert certmesh("config", "schema", "--json").body["json_schema"] == schema


def test_the_place_of_the_file_is_told_without_a_node(certmesh: Certmesh) -> None:
    """Where it would be."""
    assert certmesh("config", "path").out.endswith("/certmesh.toml\n")
    assert certmesh("config", "path", "--json").body["exists"] is False


def test_a_hook_is_added_as_an_argument_list(paths: Paths, certmesh: Certmesh) -> None:
    """What stands after -- is passed on untouched, options included."""
    words = ("hook", "add", "nginx", "--event", "renewed", "--timeout", "90s")
    paths.settings.chmod(0o600)
    said = certmesh(*words, "--", "systemctl", "reload", "--quiet", "nginx; rm -rf /")
    assert said.status == Exit.OK
    assert tomllib.loads(paths.settings.read_text())["hook"] == [
        {
            "name": "nginx",
            "command": ["systemctl", "reload", "--quiet", "nginx; rm -rf /"],
            "event": ["renewed"],
            "timeout": "90s",
        }
    ]
    assert paths.settings.stat().st_mode & 0o777 == 0o600


def test_a_second_hook_of_that_name_is_refused(paths: Paths, certmesh: Certmesh) -> None:
    """`hook log nginx` must mean one."""
    certmesh("hook", "add", "nginx", "--", "true")
    before = paths.settings.read_bytes()
    assert certmesh("hook", "add", "nginx", "--", "false").status == Exit.CONFLICT
    assert paths.settings.read_bytes() == before


def test_a_bad_hook_leaves_the_file_as_it_was(paths: Paths, certmesh: Certmesh) -> None:
    """Validated before it is written, not after."""
    paths.settings.write_text('[[hook]]\nname = "a"\ncommand = ["b"]\n')
    before = paths.settings.read_bytes()
    assert certmesh("hook", "add", "c", "--retries", "11", "--", "true").status == Exit.USAGE
    assert certmesh("hook", "add", "c").status == Exit.USAGE
    assert certmesh("hook", "add", "c", "--event", "never", "--", "x").status == Exit.USAGE
    assert paths.settings.read_bytes() == before


def test_a_hook_is_removed(paths: Paths, certmesh: Certmesh) -> None:
    """By name; an unknown one changes nothing."""
    certmesh("hook", "add", "nginx", "--", "true")
    assert certmesh("hook", "remove", "apache").status == Exit.FAILED
    assert certmesh("hook", "remove", "nginx").status == Exit.OK
    assert "hook" not in tomllib.loads(paths.settings.read_text())


def test_hooks_are_listed_with_their_source(console: FakeConsole, certmesh: Certmesh) -> None:
    """From the file or from hooks.d/."""
    line = HookLine(
        name="nginx",
        command=("systemctl", "reload", "nginx"),
        event=("renewed",),
        timeout_ms=30_000,
        user="",
        retries=0,
        source="hooks.d/deploy",
    )
    console.answer("GET", "/v1/hooks", HooksView((line,)))
    out = certmesh("hook", "list").out
    assert "hooks.d/deploy" in out
    assert "systemctl reload nginx" in out
    assert certmesh("hook", "list", "--json").body["hooks"][0]["timeout_s"] == 30


def test_hook_runs_show_their_last_line(console: FakeConsole, certmesh: Certmesh) -> None:
    """Output of hooks is foreign text."""
    runs = (
        HookRun(at=NOW, hook="nginx", event="renewed", exit=1, took_s=0.4, output="a\nb \x1b[2J"),
        HookRun(at=NOW, hook="nginx", event="renewed", exit=None, took_s=30.0, timed_out=True),
    )
    console.answer("GET", "/v1/hooks/runs?limit=20&name=nginx", HookRunsView(runs))
    out = certmesh("hook", "log", "nginx").out
    assert r"b \x1b[2J" in out
    assert "fail (exit 1)" in out
    assert "fail (timed out)" in out
