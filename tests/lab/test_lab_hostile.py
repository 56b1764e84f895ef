"""A host on the LAN that lies: over the air, with borrowed names, stolen keys, and old truths."""

import msgspec
import pytest

from broker.clock import boottime_ms
from broker.wire.failover import PeersView
from broker.wire.roster import HeartbeatAnswer
from tests.lab.forger import Forger
from tests.lab.mesh import GRACE_S, STANDBYS, STRANGER, Mesh
from tests.lab.stranger import (
    announcing,
    ask,
    body_of,
    deceived,
    heartbeat,
    identity_of,
    pretending,
)
from tests.lab.takeover import FOLLOW_S, follow, taken_over
from tests.support import eventually, throughout

HEARTBEAT, BUNDLE = "POST /v1/heartbeat", "GET /v1/bundle"
pytestmark = [pytest.mark.mesh, pytest.mark.timeout(180)]


def views(mesh: Mesh) -> list[tuple[str, str, int]]:
    """Return what each node says of itself: role, primary, term."""
    return [(host.node().role, mesh.leader(host.name), host.node().term) for host in mesh.nodes]


def test_a_stranger_that_calls_itself_primary_is_asked_and_not_believed(mesh: Mesh) -> None:
    """Right fingerprint, higher term, a standby's name, and a CA of the same name: only words.

    (row 23, P8)
    """
    believed = views(mesh)
    claims = {"role": "primary", "fingerprint": mesh.pin, "term": "99"}
    stranger = mesh.host(STRANGER)
    forged = Forger(mesh.host("birch")).identity(stranger.home / "forged")
    with (
        pretending(mesh, stranger.address, forged, {}) as attempt,
        announcing(mesh, "certmesh-ca-birch", **claims),
    ):
        eventually(lambda: heard_lie(mesh), FOLLOW_S)
        throughout(lambda: views(mesh) == believed, for_s=2.0)
    assert attempt.refused >= 2
    assert attempt.asked == {}
    assert mesh.is_whole()


def heard_lie(mesh: Mesh) -> bool:
    """Whether the primary was told to ask the stranger."""
    hints = mesh.founder.ask("/v1/peers", PeersView).hints
    return any(mesh.host(STRANGER).address in hint.addresses for hint in hints)


def test_who_is_no_member_or_was_one_is_refused(mesh: Mesh) -> None:
    """Without a certificate by TLS, with a revoked one by the roster, replays and all."""
    serial, believed = mesh.enroll_stranger(), views(mesh)
    stranger, birch = mesh.host(STRANGER), mesh.host("birch")
    identity = identity_of(stranger)
    own = heartbeat(mesh, serial)
    known = msgspec.json.decode(
        body_of(ask(stranger, birch, HEARTBEAT, own, identity)), type=HeartbeatAnswer
    )
    assert known.gossip.beats
    assert known.gossip.head is not None
    replay = heartbeat(mesh, serial, known.gossip)
    mesh.founder.certmesh("member", "revoke", STRANGER, "--reason", "stolen", "--yes")
    eventually(lambda: mesh.is_revoked(STRANGER, serial, on="birch"), FOLLOW_S)
    for target in (mesh.founder, birch):
        refused = ask(stranger, target, HEARTBEAT, replay, identity)
        assert refused["status"] == 403, refused
        assert "refused" in ask(stranger, target, HEARTBEAT, replay, None)
    assert views(mesh) == believed


def test_old_truths_and_new_lies_about_the_roster_are_refused(mesh: Mesh) -> None:
    """Even from an impostor with the primary's own certificate, at the primary's own address.

    (rows 36, 37, P7)
    """
    dogwood, believed = mesh.host("dogwood"), views(mesh)
    old = body_of(ask(dogwood, mesh.founder, BUNDLE, None, None))
    known = bundle_of(mesh, "dogwood")
    mesh.enroll_stranger()
    mesh.founder.certmesh("member", "revoke", STRANGER, "--reason", "stolen", "--yes")
    newest = eventually(lambda: newer_bundle(mesh, "dogwood", known), FOLLOW_S)
    stolen = identity_of(mesh.founder)
    with (
        deceived(mesh, ("dogwood",), whom="atlas") as address,
        pretending(mesh, address, stolen, {BUNDLE: old}) as attempt,
    ):
        dogwood.certmesh("standby", "sync")
        eventually(lambda: "has seen" in rejections(mesh, "dogwood"), FOLLOW_S)
        attempt.offer({BUNDLE: Forger(dogwood).bundle(old)})
        dogwood.certmesh("standby", "sync")
        eventually(lambda: "root" in rejections(mesh, "dogwood"), FOLLOW_S)
    assert attempt.asked[BUNDLE] >= 2
    assert bundle_of(mesh, "dogwood") == newest
    assert views(mesh) == believed


def bundle_of(mesh: Mesh, name: str) -> tuple[int, int]:
    """Return the version of the roster that a node obeys."""
    node = mesh.host(name).node()
    return node.bundle_term, node.bundle_sequence


def newer_bundle(mesh: Mesh, name: str, known: tuple[int, int]) -> tuple[int, int] | None:
    """Return the version of a node's roster, once it is above a known one."""
    found = bundle_of(mesh, name)
    return found if found > known else None


def rejections(mesh: Mesh, name: str) -> str:
    """Return what a node's roster-sync turned down."""
    lines = mesh.host(name).events("roster-sync", "roster.rejected")
    return " ".join(line["reason"] for line in lines)


def test_what_a_primary_once_said_does_not_keep_it_alive(mesh: Mesh) -> None:
    """Its recorded answers, signed beats and head in them, come from its own address, for ever.

    (row 24)
    """
    dogwood = mesh.host("dogwood")
    own = heartbeat(mesh, mesh.serial("dogwood", on="atlas"))
    said = body_of(ask(dogwood, mesh.founder, HEARTBEAT, own, identity_of(dogwood)))
    assert msgspec.json.decode(said, type=HeartbeatAnswer).gossip.beats
    stolen = identity_of(mesh.founder)
    victims = (*STANDBYS, "dogwood")
    with (
        deceived(mesh, victims, whom="atlas") as address,
        pretending(mesh, address, stolen, {HEARTBEAT: said}) as attempt,
    ):
        began_ms = boottime_ms()
        mesh.lab.cut_from_all("atlas")
        taken = taken_over(mesh, "birch", began_ms)
        throughout(lambda: mesh.phase("birch") == "serving", for_s=2.0)
        eventually(lambda: follow(mesh, "birch", "cedar", "dogwood"), FOLLOW_S)
    assert taken.is_due, taken
    assert attempt.asked[HEARTBEAT] > GRACE_S
