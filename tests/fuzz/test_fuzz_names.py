"""Host names that are paths, options, devices or other alphabets, at every edge (row 45).

A name is checked where it comes in and again in the broker; none of them becomes a file outside its
directory, whoever says it: a joiner, an operator, a settings file, a hook, a member's heartbeat.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from broker.cli.tree import root
from broker.core.doors import check_doors
from broker.errors import MeshError, NameNotAllowedError
from broker.runtime.exits import Exit
from broker.runtime.paths import node_paths
from broker.runtime.settings import parse_settings
from broker.shell.create import create_mesh
from broker.wire.base import Reply, Request
from broker.wire.enrollment import CreateInvite, InviteView, Join, JoinAnswer
from broker.wire.ids import Service
from broker.wire.remote import EnrollWorker
from broker.wire.roster import (
    ListMembers,
    MembersView,
    RecordHeartbeat,
    ReinstateMember,
    RenameMember,
    RevokeMember,
)
from broker.wire.standby import NominateStandby
from tests.creation import wished
from tests.shell.office import Office, issued_of, join_request, make_csr, peer_of
from tests.wire.samples import sample
from workers.certstore import CertificateStore
from workers.failover.logic import hint_of

HOSTILE = (
    "",
    ".",
    "..",
    "../x",
    "../../etc/cron.d/x",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "nas\x00.evil",
    "-rf",
    "--help",
    "CON",
    "NUL.txt",
    "näs",
    "na\u0130s",
    "xn--",
    "\u0430\u0430s",
    "a" * 64,
    "a." * 127 + "a",
    "nas.",
    ".nas",
    "NAS",
    "nas\n",
    "nas\r\nBcc: x",
    "\x1b[2Jnas",
    "nas\u202e",
    "$(reboot)",
    "`id`",
    "nas;id",
    "nas|id",
    "%2e%2e%2f",
    "*",
    "*.home.arpa",
    " nas",
    "~root",
    "nas\ud800".encode("utf-8", "replace").decode(),
)
"""Every one of them is refused as the name of a host."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Office, Any, Path]]:
    """A broker with the member `nas`; its home lies in a directory that is looked over."""
    around = tmp_path_factory.mktemp("n")
    (around / "home").mkdir()
    office = Office.create(around / "home")
    secret = "x" * 22
    digest = hashlib.sha256(secret.encode()).hexdigest()
    wish = CreateInvite(secret_hash=digest, host="nas", sans=(), ttl_s=900, operator="ann")
    office.ask(Service.CONSOLE, wish, InviteView)
    join = join_request("nas", make_csr("nas"), invite_secret=secret)
    issued = issued_of(office.ask(Service.GATEWAY, join, JoinAnswer))
    yield office, peer_of(issued, "nas"), around
    office.ledger.close()


def requests(name: str) -> tuple[tuple[Service, Request], ...]:
    """Return every request that carries a name somebody chose."""
    ann = "ann"
    invite = CreateInvite(secret_hash="00" * 32, host=name, sans=(), ttl_s=900, operator=ann)
    return (
        (Service.CONSOLE, invite),
        (Service.CONSOLE, replace(invite, host="birch", sans=(name,))),
        (Service.CONSOLE, RenameMember(host="nas", new_host=name, operator=ann)),
        (Service.CONSOLE, RenameMember(host=name, new_host="birch", operator=ann)),
        (Service.CONSOLE, RevokeMember(host=name, reason="", operator=ann)),
        (Service.CONSOLE, ReinstateMember(host=name, operator=ann)),
        (Service.CONSOLE, EnrollWorker(host=name, operator=ann)),
        (Service.CONSOLE, NominateStandby(host=name, operator=ann)),
        (Service.GATEWAY, join_request(name, make_csr("birch"), invite_secret="y" * 22)),
        (Service.GATEWAY, _addressed(name)),
    )


def _addressed(name: str) -> Join:
    return join_request("birch", make_csr("birch"), addresses=(name,), invite_secret="y" * 22)


def hosts_of(office: Office) -> list[str]:
    """Return whom the roster has."""
    return [row.host for row in office.ask(Service.CONSOLE, ListMembers(), MembersView).members]


def tree(directory: Path) -> set[str]:
    """Return all files below a directory."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_request_makes_a_hostile_name_a_host(scene: tuple[Office, Any, Path], name: str) -> None:
    """Refused by type, and nothing on the disk has another name afterwards (row 45) (P4)."""
    office, _, around = scene
    before, hosts = tree(around), hosts_of(office)
    for service, request in requests(name):
        with pytest.raises(MeshError) as refused:
            office.ask(service, request, Reply)
        assert refused.value.detail.isprintable(), type(request)
    assert tree(around) == before
    assert hosts_of(office) == hosts


@pytest.mark.parametrize("name", [*HOSTILE, "fe80::1%\x1b[2J", "fe80::1%a\r\nb", "fe80::1%../x"])
def test_a_member_that_says_it_lives_at_a_hostile_address_stays_where_it_was(
    scene: tuple[Office, Any, Path], name: str
) -> None:
    """A beat counts as a sign of life whatever else it says; what it says goes to every node."""
    office, peer, _ = scene
    known = office.ledger.member_by_host("nas")
    assert known is not None
    endpoint = replace(known.endpoint, addresses=(name,))
    beat = replace(sample(RecordHeartbeat), peer=peer, endpoint=endpoint)
    office.ask(Service.GATEWAY, beat, Reply)
    after = office.ledger.member_by_host("nas")
    assert after is not None
    assert after.endpoint == known.endpoint


@pytest.mark.parametrize("name", HOSTILE)
def test_no_certificate_lies_outside_its_directory(home: Path, name: str) -> None:
    """The store makes a directory of the name, so it looks at it itself (row 45)."""
    place = home / "certs"
    place.mkdir()
    with pytest.raises(NameNotAllowedError):
        CertificateStore(place, name)
    assert tree(home) == {"certs"}


@pytest.mark.parametrize("name", [one for one in HOSTILE if one])
def test_no_mesh_begins_with_a_hostile_name(home: Path, name: str) -> None:
    """`[node] name` in the settings is an edge too; nothing is written before it is refused."""
    settings = parse_settings({"node": {"name": name}}, "test settings")
    paths = node_paths(home / "certmesh.toml", settings)
    with pytest.raises(NameNotAllowedError):
        create_mesh(settings, paths, wished("home", "p" * 20, settings=settings))
    assert tree(home) == set()


@pytest.mark.parametrize(
    "words",
    [("home", "--node-name=../x"), ("home", "--node-name=nas\n"), ("../../x",), ("--", "-rf")],
)
def test_the_command_leaves_nothing_behind_for_a_hostile_name(
    home: Path, words: tuple[str, ...]
) -> None:
    """Names of nodes and of meshes, as options and as arguments."""
    inner = home / "deep" / "node"
    inner.parent.mkdir()
    done = CliRunner().invoke(root, ["--home", str(inner), "--no-input", "init", *words])
    assert done.exit_code == Exit.REFUSED, done.stderr
    assert {path for path in tree(home) if not path.startswith("deep/node")} == {"deep"}
    assert {path.partition("/")[0] for path in tree(inner)} <= {"broker.lock", "log"}


@pytest.mark.parametrize("zone", ["\x1b[2J", "a\r\nb", "x" * 900, "../x", "é", " "])
def test_the_zone_of_an_address_is_no_free_text(zone: str) -> None:
    """To Python everything behind the % of an IPv6 address is fine, and it goes to all nodes."""
    with pytest.raises(NameNotAllowedError):
        check_doors((f"fe80::1%{zone}",), 7643)
    hint = hint_of("certmesh-ca-x", ("10.0.0.7", f"fe80::1%{zone}"), 7642, {})
    assert hint is None or all(text.isprintable() and len(text) <= 64 for text in hint.addresses)


@pytest.mark.parametrize("address", ["fe80::1%eth0", "fe80::1%2", "10.0.0.7", "nas.home.arpa"])
def test_ordinary_addresses_pass(address: str) -> None:
    """Link-local ones have the name or number of an interface behind the %."""
    assert check_doors((address,), 7643) == (address,)
