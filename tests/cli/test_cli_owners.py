"""`[users]`: who owns what, what is refused by name, and what leftovers of an attacker get."""

import os
import pwd
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.cli.owners import settle_owners
from broker.cli.processtable import process_table
from broker.errors import SettingsError
from broker.runtime.paths import Paths, node_paths
from broker.runtime.settings import Settings, parse_settings
from broker.wire.node import Membership
from tests.wire.samples import sample

BROKER, DOORS, OTHERS = "_apt", "nobody", "sync"


def _accounts() -> bool:
    try:
        groups = {pwd.getpwnam(name).pw_gid for name in (BROKER, DOORS, OTHERS)}
    except KeyError:
        return False
    return len(groups) == 1


AS_ROOT = pytest.mark.skipif(
    os.geteuid() != 0 or not _accounts(), reason="needs root and accounts of one group"
)
USERS = {"broker": BROKER, "gateway": DOORS, "workers": OTHERS}


def node(home: Path, users: dict[str, str], **sections: Any) -> tuple[Paths, Settings]:
    """Return a node with data apart from its home."""
    raw = {"node": {"data_dir": str(home / "data")}, "users": users, **sections}
    settings = parse_settings(raw, "owners")
    paths = node_paths(home / "certmesh.toml", settings)
    paths.settings.write_text("")
    for place in ("data/ca", "data/certs/atlas/v0001", "log"):
        (home / place).mkdir(parents=True)
    for name in ("data/ledger.db", "data/ca/keys.sealed", "data/certs/atlas/v0001/key.pem"):
        (home / name).write_text("secret")
        (home / name).chmod(0o600)
    return paths, settings


def settle(paths: Paths, settings: Settings) -> None:
    """Settle; whether those users reach this interpreter is another matter, and asked last."""
    try:
        settle_owners(paths, settings)
    except SettingsError as error:
        if "cannot run this program" not in error.detail:
            raise


def _is(path: Path) -> tuple[str, int]:
    found = path.lstat()
    return pwd.getpwuid(found.st_uid).pw_name, stat.S_IMODE(found.st_mode)


def test_a_node_without_users_stays_exactly_as_it_is(home: Path) -> None:
    """No mode and no owner changes where nobody asked for it."""
    paths, settings = node(home, {})
    before = {path: _is(path) for path in home.rglob("*")}
    settle_owners(paths, settings)
    assert {path: _is(path) for path in home.rglob("*")} == before
    assert paths.broker_run == paths.run == paths.console_run
    assert "user=" not in process_table(settings)


@AS_ROOT
def test_the_broker_alone_has_the_ledger_and_the_ca(home: Path) -> None:
    """And the group of all reads certificates, settings and membership (P3) (L6)."""
    paths, settings = node(home, USERS)
    settle(paths, settings)
    assert _is(paths.ledger) == (BROKER, 0o600)
    assert _is(paths.authority / "keys.sealed") == (BROKER, 0o600)
    assert _is(paths.data) == (BROKER, 0o2710)
    assert _is(paths.broker_run) == (BROKER, 0o3750)
    assert _is(paths.home) == ("root", 0o2750)
    assert _is(paths.settings) == ("root", 0o640)
    assert _is(paths.certificates) == (BROKER, 0o3750)
    assert _is(paths.certificates / "atlas" / "v0001") == ("root", 0o3750)
    assert _is(paths.certificates / "atlas" / "v0001" / "key.pem") == ("root", 0o640)


@AS_ROOT
@pytest.mark.parametrize("host", ["cedar", "../cedar", "."])
def test_renewal_finds_a_directory_of_its_own_for_the_first_certificate(
    home: Path, host: str
) -> None:
    """Below one of the broker's it could not make it; a name that is a path makes nothing (L6)."""
    paths, settings = node(home, {**USERS, "renewal": OTHERS})
    membership = msgspec.structs.replace(sample(Membership), host=host)
    paths.membership.write_bytes(msgspec.json.encode(membership))
    settle(paths, settings)
    found = {path.name for path in paths.certificates.iterdir()}
    assert found == ({"atlas", "cedar"} if host == "cedar" else {"atlas"})
    assert not (paths.data / "cedar").exists()
    if host == "cedar":
        assert _is(paths.certificates / "cedar") == (OTHERS, 0o3750)


@AS_ROOT
def test_settling_twice_changes_nothing(home: Path) -> None:
    """It is done at every start."""
    paths, settings = node(home, USERS)
    settle(paths, settings)
    before = {path: _is(path) for path in home.rglob("*")}
    settle(paths, settings)
    assert {path: _is(path) for path in home.rglob("*")} == before


@AS_ROOT
def test_a_link_that_was_left_behind_gives_nothing_away(home: Path, tmp_path: Path) -> None:
    """Symbolic or hard: what a broker that was taken over leaves there is not root's order (L6)."""
    paths, settings = node(home, USERS)
    target = tmp_path / "shadow"
    target.write_text("root's")
    target.chmod(0o600)
    (paths.data / "ca" / "soft").symlink_to(target)
    (paths.certificates / "atlas" / "soft").symlink_to(target)
    os.link(target, paths.data / "hard")
    settle(paths, settings)
    assert _is(target) == ("root", 0o600)


@AS_ROOT
@pytest.mark.parametrize("place", ["run", "data/certs", "data/trust", "run/broker"])
def test_a_link_in_place_of_a_directory_stops_the_start(home: Path, place: str) -> None:
    """Owner and mode would go to whatever it points at (L6)."""
    paths, settings = node(home, USERS)
    (home / "elsewhere").mkdir(mode=0o700)
    link = home / place
    if link.is_dir():
        (home / "data/certs/atlas/v0001/key.pem").unlink()
        for inner in ("atlas/v0001", "atlas", ""):
            (link / inner).rmdir()
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(home / "elsewhere")
    with pytest.raises(SettingsError, match="to its user") as refusal:
        settle_owners(paths, settings)
    assert "elsewhere" in refusal.value.detail or str(link) in refusal.value.detail
    assert _is(home / "elsewhere") == ("root", 0o700)


@AS_ROOT
@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"users": {"broker": "no-such-account"}}, "no account no-such-account"),
        ({"users": {"broker": BROKER, "gateway": "daemon"}}, "same primary group"),
        ({"node": {}}, "directory of their own"),
        ({"listen": {"mesh": "127.0.0.1:1"}}, "cannot listen at port 1"),
        ({"pool": {"remote_renewal": 1}}, "remote_renewal"),
    ],
)
def test_what_cannot_work_is_refused_by_name(home: Path, sections: Any, why: str) -> None:
    """Before anything is changed; the hint says what to do."""
    if why.endswith("port 1") and _lowest_port() <= 1:
        pytest.skip("every port is open to everybody here")
    paths, settings = node(home, **{"users": USERS, **sections})
    before = {path: _is(path) for path in home.rglob("*")}
    with pytest.raises(SettingsError, match=why) as refusal:
        settle_owners(paths, settings)
    assert refusal.value.hint
    assert {path: _is(path) for path in home.rglob("*")} == before


def _lowest_port() -> int:
    return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())


def test_the_process_table_names_the_user_of_each_program() -> None:
    """The watchdog stays with supervisord, whose socket it needs; HOME is not root's (L6)."""
    table = process_table(parse_settings({"users": USERS, "notify": {}}, "table"))
    users = {}
    for section in table.split("\n["):
        name = section.partition("]")[0].rpartition(":")[2]
        lines = dict(line.partition("=")[::2] for line in section.splitlines() if "=" in line)
        users[name] = lines.get("user", "")
        assert ("HOME" in lines.get("environment", "")) == bool(users[name])
    assert users["broker"] == BROKER
    assert users["gateway"] == DOORS
    assert users["watchdog"] == users["renewal"] == users["console"] == ""
    assert users["heartbeat"] == users["roster-sync"] == users["approval"] == OTHERS
