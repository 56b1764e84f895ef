"""`hook`: events, tries and what failed; `cert show`: which certificate waits on disk."""

import json
import os
import tomllib
from pathlib import Path

import pytest

from broker.clock import wall_s
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.units import UnixSeconds
from broker.wire.console_api import CertificateView, HookRun, HookRunsView
from tests.cli.command import Certmesh
from tests.cli.fake_console import FakeConsole
from tests.cli.test_cli_cert import write_pair
from tests.cli.views import NOW

DAY_S = 86_400
CERTIFICATE = CertificateView(
    host="atlas",
    present=True,
    serial="4c11",
    not_before=UnixSeconds(wall_s() - DAY_S),
    not_after=UnixSeconds(wall_s() + 9 * DAY_S),
    renew_at=UnixSeconds(wall_s() + 5 * DAY_S),
    served="failed",
    served_serial="4c11",
    sans=("atlas.internal",),
    last_error="",
    files={},
)


def hooks_in(paths: Paths) -> list[dict[str, object]]:
    """Return the hooks of the settings file."""
    found = tomllib.loads(paths.settings.read_text()).get("hook", [])
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("event", ["issued", "renewed", "revoked", "ca_changed", "crl_changed"])
def test_a_hook_can_be_added_for_every_event(paths: Paths, certmesh: Certmesh, event: str) -> None:
    """What the settings take, the command takes."""
    assert certmesh("hook", "add", "x", "--event", event, "--", "true").status == Exit.OK
    assert hooks_in(paths)[0]["event"] == [event]


def test_a_dry_run_checks_and_changes_nothing(paths: Paths, certmesh: Certmesh) -> None:
    """Adding and removing both; what is wrong is refused there too."""
    certmesh("hook", "add", "old", "--", "true")
    before = paths.settings.read_bytes()
    said = certmesh("hook", "add", "web", "--dry-run", "--", "true", "--quiet")
    assert (said.status, said.out) == (Exit.OK, "would add hook web\n")
    assert certmesh("hook", "add", "old", "--dry-run", "--", "true").status == Exit.CONFLICT
    gone = certmesh("hook", "remove", "old", "--dry-run")
    assert (gone.status, gone.out) == (Exit.OK, "would remove hook old\n")
    body = certmesh("hook", "remove", "old", "--dry-run", "--json").body
    assert body == {"schema": "certmesh.hook-remove/1", "name": "old", "dry_run": True}
    assert paths.settings.read_bytes() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's hooks run as somebody else")
def test_root_is_told_who_a_hook_runs_as(paths: Paths, certmesh: Certmesh) -> None:
    """`systemctl reload` needs more than nobody has; better said now than at the renewal."""
    paths.settings.write_text("")
    said = certmesh("hook", "add", "web", "--", "systemctl", "reload", "nginx")
    assert "it runs as nobody; --user root" in said.err
    assert not certmesh("hook", "add", "own", "--user", "root", "--", "true").err


def test_trying_a_hook_shows_what_it_is_told_when_asked_to_say_more(
    paths: Paths, certmesh: Certmesh
) -> None:
    """The way to debug a script is to see what it sees."""
    certmesh("hook", "add", "web", "--event", "revoked", "--", "sh", "-c", "echo hi")
    said = certmesh("hook", "test", "web", "-v")
    assert said.status == Exit.OK
    told = dict(line.split(None, 1) for line in said.out.splitlines() if line.count("  "))
    assert told["CERTMESH_EVENT"] == "revoked"
    assert told["CERTMESH_DRY_RUN"] == "1"
    assert told["RENEWED_LINEAGE"] == str(paths.certificates / "atlas" / "live")
    assert said.out.endswith("hi\n")
    assert "CERTMESH" not in certmesh("hook", "test", "web").out
    assert certmesh("hook", "test", "web", "--json").body["environment"]["PATH"]


def test_the_last_failed_run_is_shown_with_all_its_output(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """The last line alone seldom says why; it is foreign text still."""
    runs = (
        HookRun(at=NOW, hook="web", event="renewed", exit=0, took_s=0.4, output="fine\n"),
        HookRun(at=NOW, hook="web", event="renewed", exit=1, took_s=0.4, output="one\n\x1b[2J\n"),
        HookRun(at=NOW, hook="web", event="renewed", exit=2, took_s=0.4, output="older\n"),
    )
    console.answer("GET", "/v1/hooks/runs?limit=20&name=web", HookRunsView(runs))
    said = certmesh("hook", "log", "web", "--full")
    head, *rest = said.out.splitlines()
    assert head.startswith("fail (exit 1)  web  renewed  2026-")
    assert rest == ["one", r"\x1b[2J"]
    body = certmesh("hook", "log", "web", "--full", "--json").body
    assert (body["run"]["exit"], body["run"]["output"]) == (1, "one\n\x1b[2J\n")
    console.answer("GET", "/v1/hooks/runs?limit=20", HookRunsView(runs[:1]))
    assert certmesh("hook", "log", "--full").out == "none of these runs failed\n"
    assert certmesh("hook", "log", "--full", "--json").body["run"] is None


def versions(paths: Paths, *serials: int, live: int) -> Path:
    """Write versions with these serials; the one with number `live` is in use."""
    place = paths.certificates / "atlas"
    for number, serial in enumerate(serials, start=1):
        write_pair(place / f"v{number:04d}", serial=serial, from_days=-1, to_days=10)
    (place / "live").symlink_to(f"v{live:04d}")
    return place


def test_a_certificate_that_waits_for_a_hook_is_shown(
    console: FakeConsole, paths: Paths, certmesh: Certmesh
) -> None:
    """Otherwise nobody knows that the renewal came and is only not in service."""
    console.answer("GET", "/v1/certificate", CERTIFICATE)
    place = versions(paths, 0xAA, 0x4C11, 0xBEEF, live=2)
    record = {"serial": "4c11", "state": "failed", "detail": "hook web exit 1"}
    (place / "delivery.json").write_text(json.dumps(record))
    assert "(v0003) waits until its hooks and probes succeed" in certmesh("cert", "show").out
    body = certmesh("cert", "show", "--json").body
    assert body["held"] == "beef"
    assert body["delivery"] == record
    assert [(row["version"], row["live"], row["held"]) for row in body["versions"]] == [
        ("v0003", False, True),
        ("v0002", True, False),
        ("v0001", False, False),
    ]


def test_without_one_nothing_waits_whatever_lies_on_disk(
    console: FakeConsole, paths: Paths, certmesh: Certmesh
) -> None:
    """Damage in the store must not end a command that only looks."""
    console.answer("GET", "/v1/certificate", CERTIFICATE)
    place = versions(paths, 0xAA, 0x4C11, live=2)
    (place / "v0001" / "cert.pem").write_text("damaged")
    (place / "v0003").mkdir()
    (place / "vacation").mkdir()
    (place / "delivery.json").write_bytes(b"\xff{")
    body = certmesh("cert", "show", "--json").body
    assert (body["held"], body["delivery"]["state"]) == (None, "unknown")
    assert [row["version"] for row in body["versions"]] == ["v0002"]
