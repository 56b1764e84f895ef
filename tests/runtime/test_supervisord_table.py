"""The process table as it is shipped."""

import configparser
import re
from pathlib import Path

import pytest

from broker.wire.ids import Service

TABLE = Path(__file__).parents[2] / "supervisord.conf"


@pytest.fixture(scope="module")
def table() -> configparser.RawConfigParser:
    """The file as supervisord reads it."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    parser.read(TABLE)
    return parser


def _programs(table: configparser.RawConfigParser) -> dict[str, str]:
    sections = (name.partition(":") for name in table.sections())
    return {
        name: f"{kind}:{name}" for kind, _, name in sections if kind in ("program", "eventlistener")
    }


def test_there_is_one_program_for_the_broker_and_each_service(
    table: configparser.RawConfigParser,
) -> None:
    """A loop that nobody starts does nothing."""
    assert set(_programs(table)) == {"broker", *(service.value for service in Service)}


def test_only_here_is_expanded() -> None:
    """An unset %(ENV_X)s stops supervisord and prints the whole environment."""
    expansions = set(re.findall(r"^[^;\n]*?%\((\w+)\)", TABLE.read_text(), re.MULTILINE))
    assert expansions <= {"here", "process_num"}


def test_there_is_no_group(table: configparser.RawConfigParser) -> None:
    """Inside a group everything is signalled at once, the broker first."""
    assert not [name for name in table.sections() if name.startswith("group")]


def test_doors_close_first_and_the_broker_last_but_for_the_ticking_watchdog(
    table: configparser.RawConfigParser,
) -> None:
    """Reverse priority is the order of stopping."""
    priority = {
        name: table.getint(section, "priority") for name, section in _programs(table).items()
    }
    doors, pillars = {"gateway", "console"}, {"broker", "watchdog"}
    loops = set(priority) - doors - pillars - {"failover"}
    assert {priority[name] for name in doors} == {30}
    assert {priority[name] for name in loops} == {20}
    # The last beat of a primary that stops travels with this loop: it leaves after the others.
    assert priority["failover"] == 15
    assert (priority["broker"], priority["watchdog"]) == (10, 5)


def test_no_program_leaves_children_behind(table: configparser.RawConfigParser) -> None:
    """Forked hooks go with the process group."""
    for section in _programs(table).values():
        assert table.getboolean(section, "stopasgroup"), section
        assert table.getboolean(section, "killasgroup"), section


def test_the_interpreter_can_be_replaced_in_every_command(
    table: configparser.RawConfigParser,
) -> None:
    """`init` writes the absolute interpreter in place of the word after `command=`."""
    for section in _programs(table).values():
        command = table.get(section, "command")
        assert re.fullmatch(r"python -m [\w.]+ %\(here\)s/certmesh\.toml", command), command


def test_only_the_watchdog_keeps_its_output_to_itself(
    table: configparser.RawConfigParser,
) -> None:
    """Its standard output is the protocol channel, its standard error the ticker."""
    for name, section in _programs(table).items():
        quiet = name == "watchdog"
        assert (table.get(section, "stdout_logfile") == "NONE") == quiet
        assert table.getboolean(section, "redirect_stderr", fallback=False) != quiet


def test_the_control_socket_is_closed_to_others(table: configparser.RawConfigParser) -> None:
    """Whoever reaches it runs commands as this user."""
    assert table.get("unix_http_server", "chmod") == "0700"
    assert table.get("supervisord", "umask") == "077"
