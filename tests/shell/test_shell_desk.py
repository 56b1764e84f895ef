"""The desk: hostile frames, strangers, the capability check, one commit per drain, full disks."""

import os
import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from broker.errors import (
    ConflictError,
    ErrorCode,
    ForbiddenError,
    MeshExistsError,
    NameNotAllowedError,
    StorageError,
    UnregisteredError,
)
from broker.shell.create import create_mesh
from broker.shell.desk import Incoming
from broker.shell.lock import only_broker
from broker.wire.audit import AuditView, ListAudit
from broker.wire.authority import AuthorityView, LockAuthority
from broker.wire.codec import MESSAGE_BYTES_MAX, VERSION_FRAME, encode
from broker.wire.control import Fault
from broker.wire.enrollment import EnrollmentView, InvitesView, ListInvites, SetEnrollment
from broker.wire.events import RosterMoved
from broker.wire.ids import Service
from broker.wire.messages import Call
from broker.wire.node import GetNode, NodeView
from tests.creation import wished
from tests.shell.office import PASSPHRASE, Office

REQUEST_ID = bytes(range(16))


@pytest.fixture
def office(home: Path) -> Office:
    """A mesh."""
    return Office.create(home)


def refusal(office: Office, frames: list[bytes]) -> Fault | None:
    """Hand raw frames to the desk and return what it refuses with."""
    batch = office.desk.open_batch()
    incoming = Incoming(cast("Any", None), b"stranger", frames)
    entry = office.desk.decide(batch, incoming)
    office.desk.finish(batch, [entry] if entry else [])
    if entry is None:
        return None
    assert isinstance(entry.reply, Fault)
    return entry.reply


def envelope(**fields: Any) -> bytes:
    """Return a call body with anything inside."""
    return msgspec.msgpack.encode({"request_id": REQUEST_ID, "ttl_ms": 1, **fields})


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([VERSION_FRAME, envelope(request={"kind": "format-disk"})], ErrorCode.UNKNOWN_KIND),
        ([VERSION_FRAME, envelope(request={"kind": "get-node", "x": 1})], ErrorCode.UNREGISTERED),
        ([VERSION_FRAME, envelope(request=7)], ErrorCode.MALFORMED),
        ([b"\x63", envelope(request={"kind": "get-node"})], ErrorCode.UNSUPPORTED_VERSION),
    ],
)
def test_a_bad_message_with_an_id_is_answered_with_a_typed_refusal(
    office: Office, frames: list[bytes], code: ErrorCode
) -> None:
    """The caller learns what is wrong instead of waiting."""
    fault = refusal(office, frames)
    assert fault is not None
    assert fault.code == code


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [VERSION_FRAME],
        [VERSION_FRAME, b"\xff\xfe"],
        [VERSION_FRAME, b"\x91" * 100_000],
        [VERSION_FRAME, b"\xc1" * (MESSAGE_BYTES_MAX + 1)],
        [VERSION_FRAME, envelope(request={"kind": "get-node"}), b"extra"],
    ],
)
def test_garbage_is_dropped_and_counted(office: Office, frames: list[bytes]) -> None:
    """Whatever a peer sends never ends the broker (row 39)."""
    before = office.desk.refused_frames
    assert refusal(office, frames) is None
    assert office.desk.refused_frames == before + 1
    assert office.ask(Service.CONSOLE, GetNode(), NodeView).role == "primary"


def test_a_stranger_must_introduce_itself(office: Office) -> None:
    """Capability begins with a name."""
    with pytest.raises(UnregisteredError):
        office.send(b"stranger", GetNode(), NodeView)


def test_a_service_cannot_send_what_the_table_does_not_give_it(office: Office) -> None:
    """A gateway that was taken over cannot lock the CA (row 41)."""
    with pytest.raises(ForbiddenError):
        office.ask(Service.GATEWAY, LockAuthority("root"), AuthorityView)


def test_one_drain_is_one_commit(office: Office) -> None:
    """The throughput of a durable broker comes from the group."""
    console = office.introduce(Service.CONSOLE)
    commits: list[str] = []
    office.ledger._connection.set_trace_callback(
        lambda text: commits.append(text) if text.startswith("COMMIT") else None
    )
    office.turn(
        [
            (console, SetEnrollment(open=bool(n % 2), operator="root"), secrets.token_bytes(16))
            for n in range(8)
        ]
    )
    office.ledger._connection.set_trace_callback(None)
    assert len(commits) == 1
    moved = [event for event in office.events if isinstance(event, RosterMoved)]
    assert moved[-1].sequence == office.ledger.head.sequence
    assert len(office.ask(Service.CONSOLE, ListAudit(0, 500), AuditView).rows) == 2 + 1 + 8


def test_a_full_disk_at_commit_acknowledges_nothing_and_the_broker_lives(office: Office) -> None:
    """Refused by name; served again when there is room; nothing half-written (row 14, P12)."""
    pages = office.ledger._connection.execute("PRAGMA page_count").fetchone()[0]
    console = office.introduce(Service.CONSOLE)
    before = office.ledger.head
    office.ledger._connection.execute(f"PRAGMA max_page_count={pages}")
    outgoing = []
    for number in range(200):
        wanted = SetEnrollment(open=bool(number % 2), operator="x" * 1000)
        outgoing = office.turn([(console, wanted, secrets.token_bytes(16))])
        if isinstance(outgoing[0].reply, Fault):
            break
        before = office.ledger.head
    reply = outgoing[0].reply
    assert isinstance(reply, Fault)
    assert reply.code == ErrorCode.STORAGE
    assert str(office.paths.ledger) in reply.detail
    assert office.ledger.head == before
    assert office.send(console, ListInvites(), InvitesView).invites == ()
    office.ledger._connection.execute("PRAGMA max_page_count=1000000")
    view = office.send(console, SetEnrollment(open=False, operator="root"), EnrollmentView)
    assert view.open is False
    assert office.ledger.verify_chain()[2] is None


def test_a_reader_in_a_lost_drain_still_gets_its_answer(office: Office) -> None:
    """Only what depended on the commit is refused."""
    console = office.introduce(Service.CONSOLE)
    state = office.desk.state
    batch = office.desk.open_batch()
    entries = []
    for request in (GetNode(), SetEnrollment(open=False, operator="root")):
        frames = encode(Call(secrets.token_bytes(16), 1, cast("Any", request)))
        entry = office.desk.decide(batch, Incoming(cast("Any", None), console, frames))
        assert entry is not None
        entries.append(entry)
    office.desk.void(batch, entries, StorageError("disk full"))
    assert isinstance(entries[0].reply, NodeView)
    assert isinstance(entries[1].reply, Fault)
    mesh = state.ledger.mesh()
    assert mesh is not None
    assert mesh.enrollment_open


def test_a_second_broker_is_told_who_holds_the_lock(office: Office) -> None:
    """ZeroMQ would let it steal the address without a word."""
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(only_broker(office.paths.lock))
        with pytest.raises(ConflictError, match=str(os.getpid())):
            second.enter_context(only_broker(office.paths.lock))


def test_a_second_creation_changes_nothing(office: Office) -> None:
    """`init` twice is refused, whatever the names."""
    before = office.paths.membership.read_bytes()
    with pytest.raises(MeshExistsError):
        create_mesh(office.settings, office.paths, wished("x", PASSPHRASE))
    assert office.paths.membership.read_bytes() == before


def test_an_unfinished_creation_does_not_answer_already_exists_for_ever(office: Office) -> None:
    """Without its last file a creation never happened; its pieces are kept aside."""
    office.ledger.close()
    office.paths.membership.unlink()
    wanted = wished("again", PASSPHRASE)
    assert create_mesh(office.settings, office.paths, wanted).name == "again"
    (aside,) = office.paths.data.glob("unfinished-*")
    assert (aside / "ca" / "keys.sealed").exists()


def test_a_node_outside_its_own_policy_cannot_create_a_mesh(home: Path) -> None:
    """A CA that could never certify its own host would be found out much later."""
    with pytest.raises(NameNotAllowedError, match="outside the policy"):
        Office.create(home, node={"name": "nas.example.com"})
    assert not list(home.iterdir())
