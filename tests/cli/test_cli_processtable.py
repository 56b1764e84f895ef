"""The process table of a node: as many processes as the settings say, and whose file it is."""

import configparser

import pytest
from msgspec.structs import replace

from broker.cli.processtable import MARK, lacks, process_table, write_process_table
from broker.errors import SettingsError
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.runtime.settings import Node, Notify, Pool, Settings, load_settings, parse_settings
from tests.cli.command import Certmesh
from tests.cli.fake_supervisord import fake_supervisord


def parsed(settings: Settings) -> configparser.RawConfigParser:
    """Return the table as supervisord reads it."""
    table = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    table.read_string(process_table(settings))
    return table


def test_what_nobody_needs_is_not_started() -> None:
    """A process costs memory, also when it only idles."""
    table = parsed(Settings())
    assert not table.has_section("program:remote-renewal")
    assert not table.has_section("program:notify")
    assert table.get("program:renewal", "numprocs") == "2"
    assert not table.has_option("program:gateway", "numprocs")


def test_the_settings_say_how_many() -> None:
    """Several gateways share the ports, so each needs a name and a log of its own."""
    table = parsed(Settings(pool=Pool(renewal=4, gateway=3, remote_renewal=2)))
    for name, count in (("renewal", "4"), ("gateway", "3"), ("remote-renewal", "2")):
        section = f"program:{name}"
        numbered = f"{name}-%(process_num)d"
        assert table.get(section, "numprocs") == count
        assert table.get(section, "process_name") == numbered
        assert table.get(section, "stdout_logfile") == f"%(here)s/log/{numbered}.log"


def test_whoever_is_to_be_told_needs_the_process_that_tells() -> None:
    """Only then; one is enough."""
    told = replace(Settings(), notify=Notify(ntfy="https://ntfy.example/mesh"))
    assert parsed(told).has_section("program:notify")


def test_everything_else_is_as_packaged() -> None:
    """Scaling touches what scales and nothing besides."""
    usual, scaled = parsed(Settings()), parsed(Settings(pool=Pool(renewal=9, gateway=2)))
    assert usual.sections() == scaled.sections()
    for section in usual.sections():
        if section not in {"program:renewal", "program:gateway"}:
            assert usual.items(section) == scaled.items(section)


@pytest.mark.parametrize("pool", [{"renewal": 0}, {"gateway": 33}, {"workers": 2}])
def test_impossible_numbers_are_refused_by_name(pool: dict[str, int]) -> None:
    """A node without a gateway has no doors."""
    with pytest.raises(SettingsError):
        parse_settings({"pool": pool}, "certmesh.toml")


def test_a_changed_setting_rewrites_our_own_file_once(paths: Paths) -> None:
    """`certmesh up` after an edit of certmesh.toml."""
    assert write_process_table(paths, Settings())
    assert paths.supervisord.read_text().startswith(MARK)
    assert not write_process_table(paths, Settings())
    assert write_process_table(paths, Settings(pool=Pool(renewal=3)))
    assert "numprocs=3" in paths.supervisord.read_text()


def test_a_table_that_somebody_made_their_own_is_kept(paths: Paths) -> None:
    """Who takes the first line away wants to write the file."""
    write_process_table(paths, Settings())
    own = paths.supervisord.read_text().removeprefix(MARK)
    paths.supervisord.write_text(own)
    assert not write_process_table(paths, Settings(pool=Pool(renewal=3)))
    assert paths.supervisord.read_text() == own


def test_a_table_that_a_killed_command_wrote_is_taken_over_by_the_next_one(
    member_home: Paths, certmesh: Certmesh
) -> None:
    """Else supervisord never hears of it: the file is as it should be ever after."""
    write_process_table(member_home, load_settings(member_home.settings))
    with fake_supervisord(member_home.supervisor_socket) as called:
        said = certmesh("up", "--no-wait")
    assert said.status == Exit.OK
    assert "taken over from certmesh.toml: renewal" in said.err
    assert "supervisor.addProcessGroup" in called


def test_a_table_of_a_person_is_not_taken_over(member_home: Paths, certmesh: Certmesh) -> None:
    """Whoever writes it says when."""
    member_home.supervisord.write_text("[supervisord]\n")
    with fake_supervisord(member_home.supervisor_socket) as called:
        assert certmesh("up", "--no-wait").status == Exit.OK
    assert "supervisor.reloadConfig" not in called


def test_a_table_of_ones_own_that_lacks_what_the_settings_want_is_told(paths: Paths) -> None:
    """A node of an earlier release has a table without our first line: nothing would be sent."""
    told = replace(Settings(), notify=Notify(ntfy="https://ntfy.example/mesh"))
    paths.supervisord.write_text(process_table(Settings()).removeprefix(MARK))
    assert lacks(paths, Settings()) == ()
    assert lacks(paths, told) == ("notify",)
    paths.supervisord.write_text(process_table(Settings()))
    assert lacks(paths, told) == ()


def test_the_sockets_and_the_pidfile_are_where_the_settings_say() -> None:
    """A home with a long path needs a short run directory: supervisord must not open another."""
    table = process_table(Settings(node=Node(run_dir="/run/100%/")))
    places = [line for line in table.splitlines() if "supervisor.sock" in line or "pid=" in line]
    assert "%(here)s/run/" not in table
    assert len(places) >= 2
    assert all("/run/100%%/supervisor" in line for line in table.splitlines() if "run/" in line)
    assert "%(here)s/run/" in process_table(Settings())
