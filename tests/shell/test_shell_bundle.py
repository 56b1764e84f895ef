"""Bundles and heartbeats: how members follow, and what they refuse to follow."""

import hashlib
import secrets
from pathlib import Path

import msgspec
import pytest

from broker.clock import boottime_ms, wall_s
from broker.errors import BundleRejectedError, NotAMemberError
from broker.ledger.sqlite import Ledger
from broker.pki.bundle import sign_bundle
from broker.runtime.paths import node_paths
from broker.shell.desk import Desk
from broker.shell.membership import write_membership
from broker.shell.serve import make_state
from broker.shell.ticks import Ticks
from broker.units import UnixSeconds
from broker.wire.authority import AuthorityView, LockAuthority
from broker.wire.codec import decode_body, encode_body
from broker.wire.control import Ack
from broker.wire.enrollment import (
    CreateInvite,
    GetMesh,
    GetTrust,
    InviteView,
    Issued,
    JoinAnswer,
    MeshAnswer,
    TrustAnswer,
)
from broker.wire.events import BundleMoved, RoleMoved
from broker.wire.ids import Service
from broker.wire.node import Endpoint, GetNode, Membership, NodeView
from broker.wire.renewal import NoteOwnCertificate
from broker.wire.roster import (
    BundleAnswer,
    BundleBody,
    BundleInstalled,
    GetBundle,
    HeartbeatAnswer,
    HeartbeatPlan,
    InstallBundle,
    NoteHeartbeat,
    PrepareHeartbeat,
    RecordHeartbeat,
    RevocationAnswer,
    RevokeMember,
    SignedBundle,
)
from tests.shell.office import Office, issued_of, join_request, make_csr, office_settings, peer_of


@pytest.fixture
def office(home: Path) -> Office:
    """The primary, atlas."""
    (home / "a").mkdir()
    return Office.create(home / "a")


def enroll(office: Office, host: str) -> JoinAnswer:
    """Enroll a member by invite."""
    secret = secrets.token_urlsafe(8)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    office.ask(Service.CONSOLE, CreateInvite(digest, host, (), 3600, "root"), InviteView)
    request = join_request(host, make_csr(host), invite_secret=secret)
    return office.ask(Service.GATEWAY, request, JoinAnswer)


@pytest.fixture
def member(office: Office, home: Path) -> Office:
    """The broker of a node that joined as nas."""
    answer = enroll(office, "nas")
    settings = office_settings(node={"name": "nas"})
    paths = node_paths(home / "b" / "certmesh.toml", settings)
    paths.data.mkdir()
    membership = office.desk.state.membership
    assert membership is not None
    write_membership(
        paths,
        msgspec.structs.replace(
            membership, host="nas", member_id=answer.member_id, server_name=answer.server_name
        ),
    )
    desk = Desk(make_state(settings, paths, Ledger.open(paths.ledger, node="nas")))
    return Office(paths, settings, office.creation, desk)


def bundle(office: Office) -> bytes:
    """Return the primary's newest bundle."""
    return office.ask(Service.GATEWAY, GetBundle(), BundleAnswer).bundle


def install(member: Office, raw: bytes) -> BundleInstalled:
    """Install a bundle as the sync loop does."""
    return member.ask(Service.ROSTER_SYNC, InstallBundle(raw, "atlas"), BundleInstalled)


def test_a_member_installs_what_the_pinned_ca_signed_and_remembers_it(
    office: Office, member: Office
) -> None:
    """The primary's address and the revocations come with it, also after a restart."""
    assert install(member, bundle(office)).changed
    assert not install(member, bundle(office)).changed
    member.crash()
    node = member.ask(Service.CONSOLE, GetNode(), NodeView)
    assert node.role == "member"
    assert node.bundle_sequence > 0
    assert [holder.host for holder in node.key_holders] == ["atlas"]


def test_an_older_bundle_is_refused(office: Office, member: Office) -> None:
    """Defect: old manifests could be replayed (row 36, P7)."""
    old = bundle(office)
    enroll(office, "pi")
    office.ask(Service.CONSOLE, RevokeMember("pi", "lost", "root"), RevocationAnswer)
    install(member, bundle(office))
    with pytest.raises(BundleRejectedError, match="has seen"):
        install(member, old)


def test_another_content_under_the_same_number_is_an_alarm(office: Office, member: Office) -> None:
    """Two truths with one number mean two primaries."""
    raw = bundle(office)
    install(member, raw)
    issuer = office.desk.state.keys.issuer
    assert issuer is not None
    body = decode_body(decode_body(raw, SignedBundle).body, BundleBody)
    other = msgspec.structs.replace(body, revoked_serials=("ab",))
    with pytest.raises(BundleRejectedError, match="another content"):
        install(member, encode_body(sign_bundle(issuer, other)))


def test_a_bundle_signed_by_a_foreign_ca_is_refused(
    office: Office, member: Office, home: Path
) -> None:
    """Defect: the manifest was verified with its own embedded key (row 37)."""
    (home / "c").mkdir()
    foreign = Office.create(home / "c")
    issuer = foreign.desk.state.keys.issuer
    assert issuer is not None
    body = decode_body(decode_body(bundle(office), SignedBundle).body, BundleBody)
    with pytest.raises(BundleRejectedError):
        install(member, encode_body(sign_bundle(issuer, body)))


def test_a_locked_primary_still_serves_its_last_bundle(office: Office) -> None:
    """Verification goes on while nobody can sign."""
    raw = bundle(office)
    office.ask(Service.CONSOLE, LockAuthority("root"), AuthorityView)
    assert bundle(office) == raw


def test_trust_material_is_public_and_the_crl_names_the_revoked(office: Office) -> None:
    """Root, issuing certificate, CRL with a growing number."""
    first = office.ask(Service.GATEWAY, GetTrust(), TrustAnswer)
    assert first.crl_number > 0
    assert office.ask(Service.GATEWAY, GetTrust(), TrustAnswer).crl == first.crl
    serial = issued_of(enroll(office, "pi")).serial
    office.ask(Service.CONSOLE, RevokeMember("pi", "lost", "root"), RevocationAnswer)
    second = office.ask(Service.GATEWAY, GetTrust(), TrustAnswer)
    assert second.crl_number > first.crl_number
    assert bytes.fromhex(serial) in second.crl
    mesh = office.ask(Service.GATEWAY, GetMesh(), MeshAnswer)
    assert hashlib.sha256(mesh.root).hexdigest() == mesh.pin == office.creation.pin


def heartbeat(issued: Issued, pin: str, **fields: object) -> RecordHeartbeat:
    """Return a heartbeat of nas."""
    values: dict[str, object] = {
        "peer": peer_of(issued, "nas"),
        "pin": pin,
        "served_serial": issued.serial,
        "served_not_after": None,
        "served": "served",
        "endpoint": None,
        "clock": wall_s(),
        "bundle_sequence": 0,
        "term": 1,
        **fields,
    }
    return RecordHeartbeat(**values)  # type: ignore[arg-type]  # fields are those of the struct


def test_a_heartbeat_is_presence_and_not_history(office: Office) -> None:
    """Defect: the whole roster was rewritten on every heartbeat."""
    issued = issued_of(enroll(office, "nas"))
    bundle(office)
    beat = heartbeat(issued, office.creation.pin)
    office.ask(Service.GATEWAY, beat, HeartbeatAnswer)
    before = office.ledger.head.sequence
    answers = [office.ask(Service.GATEWAY, beat, HeartbeatAnswer) for _ in range(5)]
    answer = answers[-1]
    assert answer.valid
    assert answer.primary is not None
    assert answer.primary.host == "atlas"
    assert office.ledger.head.sequence == before


def test_a_member_that_pins_another_ca_is_told_so(office: Office) -> None:
    """`valid` false is the mismatch warning of the heartbeat loop."""
    issued = issued_of(enroll(office, "nas"))
    answer = office.ask(Service.GATEWAY, heartbeat(issued, "00" * 32), HeartbeatAnswer)
    assert not answer.valid


def test_a_member_may_move_its_doors_but_not_its_name(office: Office) -> None:
    """Addresses change; what it was certified as does not."""
    issued = issued_of(enroll(office, "nas"))
    moved = Endpoint("nas", ("127.0.0.77",), 1, 2, "atlas.home.internal")
    beat = heartbeat(issued, office.creation.pin, endpoint=moved)
    office.ask(Service.GATEWAY, beat, HeartbeatAnswer)
    row = office.ledger.member_by_host("nas")
    assert row is not None
    assert row.endpoint.addresses == ("127.0.0.77",)
    assert row.endpoint.server_name == "nas.home.internal"


def test_presence_survives_a_restart_after_its_flush(office: Office) -> None:
    """Flushed in batches by the tick."""
    answer = enroll(office, "nas")
    beat = heartbeat(issued_of(answer), office.creation.pin)
    office.ask(Service.GATEWAY, beat, HeartbeatAnswer)
    batch = office.desk.open_batch()
    Ticks(office.desk.state).run(batch, boottime_ms(), wall_s())
    office.desk.finish(batch, [])
    office.crash()
    seen = office.desk.state.presence.of(answer.member_id)
    assert seen is not None
    assert seen.served == "served"


def test_a_member_beats_to_key_holders_and_never_to_itself(member: Office, office: Office) -> None:
    """Defect: the reference's heartbeat asked itself."""
    note = NoteOwnCertificate(True, "ab", wall_s(), UnixSeconds(wall_s() + 99), "installed", "")
    member.ask(Service.RENEWAL, note, Ack)
    plan = member.ask(Service.HEARTBEAT, PrepareHeartbeat(), HeartbeatPlan)
    assert [target.host for target in plan.targets] == ["atlas"]
    office.ask(Service.RENEWAL, note, Ack)
    assert office.ask(Service.HEARTBEAT, PrepareHeartbeat(), HeartbeatPlan).targets == ()


def test_a_heartbeat_answer_wakes_the_sync_and_moves_the_primary(member: Office) -> None:
    """A member learns of a change at the next beat."""
    moved = Endpoint("atlas", ("127.0.0.5",), 7642, 7643, "atlas.home.internal")
    answer = HeartbeatAnswer(True, moved, 1, 9, wall_s(), 10_000)
    member.ask(Service.HEARTBEAT, NoteHeartbeat("atlas", answer), Ack)
    assert BundleMoved(9) in member.events
    node = member.ask(Service.CONSOLE, GetNode(), NodeView)
    assert node.mesh is not None
    assert node.mesh.primary == moved
    with pytest.raises(NotAMemberError):
        member.ask(Service.HEARTBEAT, NoteHeartbeat("mallory", answer), Ack)


def test_a_running_broker_notices_that_its_node_joined(home: Path, office: Office) -> None:
    """`certmesh join` works while the pool is up."""
    settings = office_settings(node={"name": "pi"})
    paths = node_paths(home / "d" / "certmesh.toml", settings)
    paths.data.mkdir()
    desk = Desk(make_state(settings, paths, Ledger.open(paths.ledger, node="pi")))
    fresh = Office(paths, settings, office.creation, desk)
    assert fresh.ask(Service.CONSOLE, GetNode(), NodeView).role == "none"
    membership = office.desk.state.membership
    assert membership is not None
    joined: Membership = msgspec.structs.replace(membership, host="pi", member_id="ab")
    write_membership(paths, joined)
    batch = fresh.desk.open_batch()
    Ticks(desk.state).run(batch, boottime_ms(), wall_s())
    assert RoleMoved("member", 1) in fresh.desk.finish(batch, [])
    assert fresh.ask(Service.CONSOLE, GetNode(), NodeView).role == "member"
