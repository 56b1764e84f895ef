"""`certmesh reload`: who starts again for which settings, in which order, and what is refused."""

import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from msgspec.structs import replace

from broker.cli.reloading import SECTIONS, check_doors, sections_of, stale_programs
from broker.cli.supervisor import Program, Supervisor
from broker.errors import SettingsError
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.runtime.restraint import Start, Starts, digests
from broker.runtime.settings import (
    BrokerSettings,
    Listen,
    Log,
    Settings,
    Sync,
    parse_settings,
)
from broker.wire.ids import Service
from tests.cli.command import Certmesh

ROOT = Path(__file__).parents[2]
_READ = re.compile(r"\bsettings\.(\w+)\b")


@dataclass
class Running:
    """A supervisord whose programs all run."""

    names: tuple[str, ...]

    def programs(self) -> tuple[Program, ...]:
        """Return its table; several of a kind are one group."""
        return tuple(
            Program(name, re.sub(r"-\d+$", "", name), "RUNNING", 7, 0, "", Path("/dev/null"))
            for name in self.names
        )


ALL = ("broker", "console", "gateway-0", "gateway-1", "heartbeat", "renewal-0", "watchdog")


def stale(paths: Paths, before: Settings, after: Settings) -> list[str]:
    """Return who starts again when programs that started with `before` should have `after`."""
    for name in ALL:
        (paths.home / "run").mkdir(exist_ok=True)
        Starts(paths.home).keep(name, Start(0, settings=digests(before)))
    supervisor = cast("Supervisor", Running(ALL))
    return [one.program.name for one in stale_programs(supervisor, paths, after)]


def test_each_process_is_known_by_what_it_reads_of_the_settings() -> None:
    """A setting that is forgotten here would change nothing until the next restart of the node."""
    sections = set(Settings.__struct_fields__)
    assert {service.value for service in SECTIONS} == {service.value for service in Service}
    for service in Service:
        source = ROOT / "workers" / service.value.replace("-", "_")
        text = "\n".join(path.read_text() for path in source.glob("*.py"))
        read = set(_READ.findall(text)) & sections
        # The renewal reads hooks anew at each use.
        known = sections_of(service.value) | ({"hook"} if service is Service.RENEWAL else set())
        assert read <= known, service


def test_nothing_starts_again_for_nothing(paths: Paths) -> None:
    """`certmesh reload` may be run at any time."""
    assert stale(paths, Settings(), Settings()) == []


def test_only_who_reads_the_section_starts_again(paths: Paths) -> None:
    """A change of one loop's pace disturbs that loop."""
    pool = parse_settings({"pool": {"gateway": 2}}, "x")
    assert stale(paths, Settings(), replace(Settings(), sync=Sync(), pool=pool.pool)) == []
    slow = parse_settings({"heartbeat": {"interval": "20s"}}, "x")
    assert stale(paths, Settings(), slow) == ["heartbeat", "broker"]


def test_loops_go_first_then_the_doors_one_by_one_and_the_broker_last(paths: Paths) -> None:
    """Of two gateways one is always open, and the broker keeps what the others ask for."""
    order = stale(paths, Settings(), replace(Settings(), log=Log(level="debug")))
    doors = ["gateway-0", "gateway-1", "console"]
    assert order == ["heartbeat", "renewal-0", *doors, "watchdog", "broker"]
    judged = replace(Settings(), broker=BrokerSettings())
    assert stale(paths, judged, parse_settings({"broker": {"worker_dead_after": "9s"}}, "x")) == [
        "watchdog",
        "broker",
    ]


def test_who_does_not_say_what_it_works_with_starts_again(paths: Paths) -> None:
    """It may be from an earlier release."""
    (paths.home / "run").mkdir(exist_ok=True)
    supervisor = cast("Supervisor", Running(("console",)))
    (found,) = stale_programs(supervisor, paths, Settings())
    assert (found.program.name, found.sections) == ("console", ())


def test_a_door_that_cannot_be_opened_is_refused_before_anything_is_touched() -> None:
    """The open one would be closed for it."""
    with pytest.raises(SettingsError, match=r"cannot listen on 192\.0\.2\.1:7642"):
        check_doors(Settings(listen=Listen(enroll="192.0.2.1:7642", mesh="")))
    with pytest.raises(SettingsError, match="99999"):
        check_doors(Settings(listen=Listen(enroll="127.0.0.1:99999", mesh="")))
    with socket.socket() as ours:
        ours.bind(("127.0.0.1", 0))
        ours.listen()
        check_doors(Settings(listen=Listen(enroll=f"127.0.0.1:{ours.getsockname()[1]}", mesh="")))


def test_without_a_running_node_it_says_how_to_start_one(paths: Paths, certmesh: Certmesh) -> None:
    """Exit 4, as every command that needs the node."""
    assert paths.settings.exists()
    said = certmesh("reload")
    assert said.status == Exit.UNREACHABLE
    assert " up" in said.err


def test_wrong_settings_are_refused_with_78(paths: Paths, certmesh: Certmesh) -> None:
    """Before anything else is looked at."""
    paths.settings.write_text("[renewal]\ncheck_evry = '1h'\n")
    assert certmesh("reload").status == Exit.SETTINGS
