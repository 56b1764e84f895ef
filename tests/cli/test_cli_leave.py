"""`certmesh leave` with the program that speaks mutual TLS, against a primary of flesh and TLS."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from broker.cli.aside import Begun, begin, begun
from broker.errors import ConflictError
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.wire.control import Ack
from broker.wire.node import Endpoint, Membership
from tests.cli.command import Certmesh
from tests.workers.fake_node import FakeNode, Visit
from tests.workers.small_ca import DOMAIN, SmallCA
from workers.certstore import CertificateStore

REPOSITORY = Path(__file__).parents[2]
LEAVE = ("POST", "/v1/leave")


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """The mesh's CA."""
    return SmallCA()


@pytest.fixture
def atlas(ca: SmallCA) -> Iterator[FakeNode]:
    """The primary's mesh port."""
    with FakeNode(ca, {LEAVE: lambda _: Ack()}, mutual=True) as node:
        yield node


@pytest.fixture
def node(paths: Paths, ca: SmallCA, atlas: FakeNode) -> Paths:
    """Return the home of nas, a member of atlas's mesh with some history."""
    store = CertificateStore(paths.certificates, "nas")
    for _ in range(2):
        store.install(ca.sign(store.prepare(), "nas"), ca.issuing, ca.root)
    store.prepare()
    (paths.certificates / "oldname").symlink_to("nas")
    paths.ledger.write_bytes(b"history")
    paths.trust.mkdir()
    _belong(paths, ca, atlas.endpoint())
    return paths


def _belong(paths: Paths, ca: SmallCA, primary: Endpoint) -> None:
    membership = Membership(
        mesh_id="01",
        mesh_name="test",
        pin=ca.pin,
        root_pem=ca.root_pem,
        host="nas",
        member_id="ab",
        server_name=f"nas.{DOMAIN}",
        primary=primary,
    )
    paths.membership.write_bytes(msgspec.json.encode(membership))


def nowhere() -> Endpoint:
    """Return the doors of a primary that is gone."""
    return Endpoint("atlas", ("127.0.0.1",), 9, 9, f"atlas.{DOMAIN}")


def private_keys(home: Path) -> list[Path]:
    """Return every file below `home` with a private key in it."""
    files = (path for path in home.rglob("*") if path.is_file())
    return [path for path in files if b"PRIVATE KEY" in path.read_bytes()]


def test_leaving_tells_the_ca_and_leaves_no_private_key_behind(
    node: Paths, atlas: FakeNode, certmesh: Certmesh
) -> None:
    """Every version and the pending one; what is no secret is kept for a person to look at."""
    assert len(private_keys(node.home)) >= 3
    said = certmesh("--json", "--yes", "leave")
    assert said.status == Exit.OK, said.err
    assert len(atlas.seen("/v1/leave")) == 1
    aside = Path(said.body["aside"])
    assert (said.body["host"], said.body["mesh"], said.body["told"]) == ("nas", "test", True)
    assert aside.parent == node.home
    assert aside.stat().st_mode & 0o077 == 0
    assert private_keys(node.home) == []
    assert (aside / "ledger.db").read_bytes() == b"history"
    assert (aside / "certs" / "nas" / "v0001" / "cert.pem").exists()
    assert (aside / "membership.json").exists()
    note = node.home / "leaving.json"
    for gone in (node.membership, node.certificates, node.ledger, node.trust, note):
        assert not gone.exists()
    assert node.settings.exists()


def test_whoever_left_belongs_to_no_mesh_and_may_leave_another_day(
    node: Paths, ca: SmallCA, atlas: FakeNode, certmesh: Certmesh
) -> None:
    """The home is as before the join; a second life is set aside beside the first."""
    first = certmesh("--json", "--yes", "leave").body["aside"]
    assert certmesh("leave").status == Exit.NO_MESH
    store = CertificateStore(node.certificates, "nas")
    store.install(ca.sign(store.prepare(), "nas"), ca.issuing, ca.root)
    _belong(node, ca, atlas.endpoint())
    second = certmesh("--json", "--yes", "leave")
    assert second.status == Exit.OK, second.err
    assert second.body["aside"] == f"{first}-2"


def test_leaving_asks_first(node: Paths, atlas: FakeNode, certmesh: Certmesh) -> None:
    """It cannot be undone; a script has to say --yes."""
    assert certmesh("leave").status == Exit.USAGE
    assert node.membership.exists()
    assert not atlas.visits


def test_a_silent_ca_keeps_the_member_until_it_insists(
    node: Paths, ca: SmallCA, certmesh: Certmesh
) -> None:
    """Otherwise the roster lists a host that has gone, and nobody knows."""
    _belong(node, ca, nowhere())
    said = certmesh("--yes", "leave")
    assert said.status == Exit.UNREACHABLE
    assert "leave --force" in said.err
    assert node.membership.exists()
    assert private_keys(node.home)
    forced = certmesh("--yes", "leave", "--force")
    assert forced.status == Exit.OK
    assert "still lists nas" in forced.err
    assert "certmesh member revoke nas" in forced.err
    assert private_keys(node.home) == []


def test_a_refusal_is_not_overcome_by_force(
    node: Paths, atlas: FakeNode, certmesh: Certmesh
) -> None:
    """A standby that goes with the CA key is what the refusal is there for."""

    def keeps_the_key(_visit: Visit) -> Ack:
        raise ConflictError("nas is a standby", hint="certmesh standby remove nas")

    atlas.table[LEAVE] = keeps_the_key
    said = certmesh("--yes", "leave", "--force")
    assert said.status == Exit.CONFLICT
    assert "standby remove nas" in said.err
    assert node.membership.exists()


def test_a_node_with_the_ca_key_does_not_even_ask(
    node: Paths, atlas: FakeNode, certmesh: Certmesh
) -> None:
    """The key on this disk decides, whatever the roster says by now."""
    node.authority.mkdir()
    assert certmesh("--yes", "leave", "--force").status == Exit.CONFLICT
    assert not atlas.visits
    assert node.membership.exists()


def test_an_interrupted_leaving_goes_on_without_asking_the_ca_again(
    node: Paths, atlas: FakeNode, certmesh: Certmesh
) -> None:
    """The certificate has ended by then: a second call could only be refused."""
    note = begin(node, "2026-01-02", told=True)
    assert begun(node) == note == Begun(told=True, place="left-2026-01-02")
    (node.home / note.place).mkdir()
    node.ledger.rename(node.home / note.place / "ledger.db")
    said = certmesh("--json", "leave")
    assert said.status == Exit.OK, said.err
    assert said.body["aside"] == str(node.home / "left-2026-01-02")
    assert not atlas.visits
    assert (node.home / note.place / "membership.json").exists()


def test_a_note_left_by_a_kill_at_the_very_end_does_not_end_the_next_membership(
    node: Paths, atlas: FakeNode, certmesh: Certmesh
) -> None:
    """It would delete the key of a mesh joined since, unasked, and say that its CA was told."""
    note = begin(node, "2026-01-02", told=True)
    (node.home / note.place).mkdir()
    (node.home / note.place / "membership.json").write_bytes(b"the earlier one")
    assert certmesh("leave").status == Exit.USAGE
    assert private_keys(node.home)
    said = certmesh("--json", "--yes", "leave")
    assert said.status == Exit.OK, said.err
    assert len(atlas.seen("/v1/leave")) == 1
    assert said.body["aside"] != str(node.home / note.place)


def test_a_disk_that_refuses_halfway_leaves_a_member_that_can_finish_leaving(
    node: Paths, atlas: FakeNode, certmesh: Certmesh
) -> None:
    """The file that says which mesh this is goes last: without it nothing would know the way on."""
    note = begin(node, "2026-01-02", told=True)
    blocked = node.home / note.place / "ledger.db"
    (blocked / "something").mkdir(parents=True)
    said = certmesh("leave")
    assert said.status == Exit.FAILED
    assert "run the command again" in said.err
    assert node.membership.exists()
    (blocked / "something").rmdir()
    blocked.rmdir()
    assert certmesh("leave").status == Exit.OK
    assert not node.membership.exists()
    assert not atlas.visits


def test_state_does_not_move_away_from_a_running_broker(node: Paths, certmesh: Certmesh) -> None:
    """One that somebody started by hand is not in the process table."""
    descriptor = os.open(node.lock, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        said = certmesh("--yes", "leave")
    finally:
        os.close(descriptor)
    assert said.status == Exit.CONFLICT
    assert node.membership.exists()
    assert node.ledger.exists()
    assert certmesh("leave").status == Exit.OK
