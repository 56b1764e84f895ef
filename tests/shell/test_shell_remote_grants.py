"""Renewal workers on other machines: granted, bound, revoked, over forks and takeovers."""

import pytest

from broker.errors import (
    BadCredentialError,
    ForbiddenError,
    KeyRejectedError,
    LeaseLostError,
    NotFoundError,
    NotPrimaryError,
    RevokedError,
    UnavailableError,
)
from broker.wire.audit import AuditView, ListAudit
from broker.wire.control import Ack
from broker.wire.ids import Service
from broker.wire.remote import (
    EnrollWorker,
    ListRemoteWorkers,
    RemoteWorkersView,
    RemoteWorkerView,
    RevokeWorker,
)
from broker.wire.renewal import RenewalAnswer, RenewWithLease
from broker.wire.roster import MemberView, RenameMember, RevocationAnswer, RevokeMember
from broker.wire.work import CompleteWork, Failed, Installed, LeaseWork, WorkAnswer
from tests.shell.grant_scenes import (
    DUE,
    KEY,
    OTHER,
    PORT,
    SERVER,
    bind,
    enroll,
    introduce,
    lease_remotely,
    open_port,
    over_curve,
    proven,
    revoke,
)
from tests.shell.mesh_room import Node, Room
from tests.shell.office import make_csr
from tests.shell.scenes import Make, events, fail_over


@pytest.fixture
def due(make: Make) -> Room:
    """Atlas leads with an open port; the certificates of cedar and elm are due at once."""
    room = make("cedar", "elm", **DUE)
    open_port(room["atlas"].office)
    return room


def listed(node: Node) -> tuple[RemoteWorkerView, ...]:
    """Return the grants as a console shows them."""
    return node.ask(Service.CONSOLE, ListRemoteWorkers(), RemoteWorkersView).workers


def test_a_granted_machine_binds_its_key_and_works(due: Room) -> None:
    """The whole way: a person, the machine over mutual TLS, the key over CURVE, a renewal."""
    atlas = due["atlas"]
    granted = enroll(atlas, "cedar")
    assert (granted.host, granted.state, granted.public_key) == ("cedar", "enrolled", "")
    door = bind(due, "cedar")
    assert (door.port, door.server_key, door.grant_id) == (PORT, SERVER, granted.grant_id)
    route = introduce(atlas.office)
    lease, item = lease_remotely(atlas.office, route)
    assert item.mandate is not None
    csr = proven(due, lease, item)
    issued = over_curve(atlas.office, KEY, csr, RenewalAnswer, route).issued
    done = CompleteWork(lease.lease_id, Installed(issued.serial, "served", ""))
    over_curve(atlas.office, KEY, done, Ack, route)
    member = atlas.office.ledger.member_by_host(item.host)
    assert member is not None
    assert (member.current_serial, member.served) == (issued.serial, "served")
    (view,) = listed(atlas)
    assert (view.state, view.connected, view.renewals) == ("bound", 1, 1)
    assert view.enrolled_by == "ann"
    assert [name for name in events(due, "atlas") if name.startswith("worker.")] == [
        "worker.enrolled",
        "worker.bound",
    ]


def test_a_failed_renewal_is_not_counted_as_one(due: Room) -> None:
    """The number tells what a machine is worth."""
    atlas = due["atlas"]
    enroll(atlas, "cedar")
    bind(due, "cedar")
    route = introduce(atlas.office)
    lease, _ = lease_remotely(atlas.office, route)
    unknown = CompleteWork(lease.lease_id, Installed("ff", "served", ""))
    over_curve(atlas.office, KEY, unknown, Ack, route)
    lease, _ = lease_remotely(atlas.office, route)
    failed = CompleteWork(lease.lease_id, Failed("no answer"))
    over_curve(atlas.office, KEY, failed, Ack, route)
    assert [view.renewals for view in listed(atlas)] == [0]


def test_telling_the_same_key_again_changes_nothing(due: Room) -> None:
    """Each process of the machine does so, and each again after every restart."""
    atlas = due["atlas"]
    enroll(atlas, "cedar")
    first = bind(due, "cedar")
    head = atlas.office.ledger.head
    assert bind(due, "cedar") == first
    assert atlas.office.ledger.head == head


def test_nobody_is_bound_without_a_grant(due: Room) -> None:
    """Being a member is not enough; the refusal says what to do, and by whom is written down."""
    with pytest.raises(ForbiddenError, match="nobody let renewal workers of cedar in") as refused:
        bind(due, "cedar")
    assert "certmesh worker enroll cedar" in refused.value.hint
    with pytest.raises(RevokedError, match="not granted"):
        introduce(due["atlas"].office)
    for _ in range(3):
        with pytest.raises(ForbiddenError):
            bind(due, "cedar")
    page = due["atlas"].ask(Service.CONSOLE, ListAudit(-1, 50), AuditView)
    told = [line.actor for line in page.rows if line.event == "action.refused"]
    assert told == ["cedar"], "a machine that waits for its grant does not fill the trail"


def test_a_grant_takes_one_key_and_no_second(due: Room) -> None:
    """Whoever steals the machine's certificate later cannot add a key of their own."""
    atlas = due["atlas"]
    enroll(atlas, "cedar")
    bind(due, "cedar")
    with pytest.raises(ForbiddenError, match="another key") as refused:
        bind(due, "cedar", OTHER)
    assert "certmesh worker enroll cedar" in refused.value.hint
    with pytest.raises(RevokedError):
        introduce(atlas.office, OTHER)
    introduce(atlas.office)


def test_a_key_is_never_used_twice(due: Room) -> None:
    """Not after its revocation, and not by another machine that has read it somewhere."""
    atlas = due["atlas"]
    enroll(atlas, "cedar")
    bind(due, "cedar")
    enroll(atlas, "elm")
    with pytest.raises(KeyRejectedError, match="used before"):
        bind(due, "elm")
    revoke(atlas, "cedar")
    enroll(atlas, "cedar")
    with pytest.raises(KeyRejectedError, match="used before"):
        bind(due, "cedar")
    bind(due, "cedar", OTHER)
    introduce(atlas.office, OTHER)


def test_a_new_grant_ends_the_one_before(due: Room) -> None:
    """The old key is worth nothing from then on."""
    atlas = due["atlas"]
    enroll(atlas, "cedar")
    bind(due, "cedar")
    route = introduce(atlas.office)
    enroll(atlas, "cedar", "bob")
    with pytest.raises(RevokedError):
        over_curve(atlas.office, KEY, LeaseWork(), WorkAnswer, route)
    assert [(view.state, view.enrolled_by) for view in listed(atlas)] == [
        ("enrolled", "bob"),
        ("revoked", "ann"),
    ]


def test_a_revoked_worker_is_refused_at_its_next_word(due: Room) -> None:
    """Also on the open connection, and also with a lease in its hands."""
    atlas = due["atlas"]
    enroll(atlas, "cedar")
    bind(due, "cedar")
    route = introduce(atlas.office)
    lease, item = lease_remotely(atlas.office, route)
    assert revoke(atlas, "cedar").state == "revoked"
    head = atlas.office.ledger.head
    csr = proven(due, lease, item)
    for request in (csr, LeaseWork(), CompleteWork(lease.lease_id, Installed("aa", "served", ""))):
        with pytest.raises(RevokedError, match="not granted"):
            over_curve(atlas.office, KEY, request, Ack, route)
    assert atlas.office.ledger.head == head
    assert [view.state for view in listed(atlas)] == ["revoked"]
    with pytest.raises(ForbiddenError):
        bind(due, "cedar")


def test_a_lease_is_of_use_to_its_own_connection_only(due: Room) -> None:
    """Another process of the same machine, or a local worker, cannot finish it."""
    atlas = due["atlas"]
    enroll(atlas, "cedar")
    bind(due, "cedar")
    route = introduce(atlas.office)
    other = introduce(atlas.office, instance="remote-renewal-1")
    lease, item = lease_remotely(atlas.office, route)
    csr = proven(due, lease, item)
    with pytest.raises(LeaseLostError):
        over_curve(atlas.office, KEY, csr, RenewalAnswer, other)
    with pytest.raises(LeaseLostError):
        atlas.ask(Service.RENEWAL, csr, RenewalAnswer)


def test_a_machine_that_is_put_out_of_the_mesh_works_no_more(due: Room) -> None:
    """One word is enough; nobody has to think of its workers."""
    atlas = due["atlas"]
    enroll(atlas, "cedar")
    bind(due, "cedar")
    route = introduce(atlas.office)
    atlas.ask(Service.CONSOLE, RevokeMember("cedar", "stolen", "ann"), RevocationAnswer)
    with pytest.raises(RevokedError):
        over_curve(atlas.office, KEY, LeaseWork(), WorkAnswer, route)
    with pytest.raises(RevokedError):
        bind(due, "cedar")
    with pytest.raises(NotFoundError):
        enroll(atlas, "cedar")
    assert [view.state for view in listed(atlas)] == ["revoked"]


def test_a_renamed_machine_keeps_its_grant_under_its_new_name(due: Room) -> None:
    """The grant is the machine's, not the name's."""
    atlas = due["atlas"]
    enroll(atlas, "cedar")
    bind(due, "cedar")
    atlas.ask(Service.CONSOLE, RenameMember("cedar", "larch", "ann"), MemberView)
    introduce(atlas.office)
    assert [(view.host, view.state) for view in listed(atlas)] == [("larch", "bound")]
    assert revoke(atlas, "larch").host == "larch"


def test_a_dry_run_tells_and_changes_nothing(due: Room) -> None:
    """Also what it would refuse."""
    atlas = due["atlas"]
    head = atlas.office.ledger.head
    asked = EnrollWorker("cedar", "ann", dry_run=True)
    assert atlas.ask(Service.CONSOLE, asked, RemoteWorkerView).state == "enrolled"
    with pytest.raises(NotFoundError, match="no active member 'oak'"):
        atlas.ask(Service.CONSOLE, EnrollWorker("oak", "ann", dry_run=True), RemoteWorkerView)
    assert atlas.office.ledger.head == head
    enroll(atlas, "cedar")
    bind(due, "cedar")
    head = atlas.office.ledger.head
    ending = RevokeWorker("cedar", "ann", dry_run=True)
    assert atlas.ask(Service.CONSOLE, ending, RemoteWorkerView).state == "revoked"
    assert atlas.office.ledger.head == head
    introduce(atlas.office)


def test_a_broker_without_a_port_says_which_setting_to_write(make: Make) -> None:
    """A grant that leads nowhere must not look like one that works."""
    room = make("cedar")
    enroll(room["atlas"], "cedar")
    with pytest.raises(UnavailableError, match="listens for no renewal workers") as refused:
        bind(room, "cedar")
    assert "[listen]" in refused.value.hint
    room["atlas"].office.desk.state.remote_port.trouble = "address in use"
    with pytest.raises(UnavailableError, match="address in use"):
        bind(room, "cedar")


def test_a_standby_neither_grants_nor_binds_and_knows_what_was_granted(room: Room) -> None:
    """It says whom to ask; after a takeover it has the same grants."""
    open_port(room["birch"].office)
    granted = enroll(room["atlas"], "cedar")
    open_port(room["atlas"].office)
    bind(room, "cedar")
    room.run(3_000, until=lambda: room.lag("birch") == 0)
    with pytest.raises(NotPrimaryError, match="not the primary") as refused:
        bind(room, "cedar", at="birch")
    assert "ask atlas" in refused.value.hint
    with pytest.raises(NotPrimaryError):
        enroll(room["birch"], "cedar")
    fail_over(room)
    assert bind(room, "cedar", at="birch").grant_id == granted.grant_id
    introduce(room["birch"].office)
    assert [view.state for view in listed(room["birch"])] == ["bound"]


def test_grants_of_both_sides_of_a_partition_live_on_after_it(room: Room) -> None:
    """Adopted as they are: what a cut-off primary granted is not asked for again."""
    for host in ("atlas", "birch"):
        open_port(room[host].office)
    room.cut("atlas", "birch")
    room.cut("atlas", "cedar")
    room.run(12_000, until=lambda: room.serves(room["birch"]))
    enroll(room["atlas"], "birch")
    bind(room, "birch")
    enroll(room["birch"], "cedar")
    bind(room, "cedar", OTHER, at="birch")
    _heal(room)
    for host in ("atlas", "birch"):
        views = {view.host: view for view in listed(room[host])}
        assert {view.state for view in views.values()} == {"bound"}
        assert views["birch"].enrolled_by == "ann"
    for key in (KEY, OTHER):
        introduce(room["birch"].office, key)


def test_a_grant_revoked_on_one_side_of_a_partition_is_over_on_both(room: Room) -> None:
    """Whoever was told that it is over is right, whatever the other side did with it."""
    open_port(room["birch"].office)
    enroll(room["atlas"], "cedar")
    room.run(3_000, until=lambda: room.lag("birch") == 0)
    room.cut("atlas", "birch")
    room.cut("atlas", "cedar")
    room.run(12_000, until=lambda: room.serves(room["birch"]))
    revoke(room["atlas"], "cedar")
    bind(room, "cedar", at="birch")
    introduce(room["birch"].office)
    _heal(room)
    with pytest.raises(RevokedError):
        introduce(room["birch"].office)
    assert [view.state for view in listed(room["birch"])] == ["revoked"]


def test_a_grant_with_a_key_of_each_side_is_over(room: Room) -> None:
    """Nobody can tell which was meant; the machine is enrolled again, and that works."""
    for host in ("atlas", "birch"):
        open_port(room[host].office)
    enroll(room["atlas"], "cedar")
    room.run(3_000, until=lambda: room.lag("birch") == 0)
    room.cut("atlas", "birch")
    room.cut("atlas", "cedar")
    room.run(12_000, until=lambda: room.serves(room["birch"]))
    bind(room, "cedar", KEY)
    bind(room, "cedar", OTHER, at="birch")
    _heal(room)
    for key in (KEY, OTHER):
        with pytest.raises(RevokedError):
            introduce(room["birch"].office, key)
    enroll(room["birch"], "cedar")
    bind(room, "cedar", "dd" * 32, at="birch")
    introduce(room["birch"].office, "dd" * 32)


def _heal(room: Room) -> None:
    room.cuts.clear()
    room.run(8_000, until=lambda: room["atlas"].role == "standby" and room.lag("atlas") == 0)
    room.run(2_000)
    assert room["atlas"].office.ledger.orphan_count() == 0
    assert room["atlas"].office.ledger.head == room["birch"].office.ledger.head


def test_a_key_holder_is_renewed_by_processes_of_the_ca_s_machine_alone(make: Make) -> None:
    """A granted machine that brings its own CSR must not become what members take orders from."""
    room = make("cedar", "elm", **DUE)
    open_port(room["atlas"].office)
    room.nominate("elm")
    atlas = room["atlas"]
    enroll(atlas, "cedar")
    bind(room, "cedar")
    office = atlas.office
    route = introduce(office)
    asked = LeaseWork(local=False)
    hosts = []
    for _ in range(4):
        room.clock.push(1_000)
        lease = over_curve(office, KEY, asked, WorkAnswer, route).lease
        hosts += [lease.item.host] if lease is not None else []
    assert hosts == ["cedar"]
    assert len(office.desk.state.due) <= 1, "what is passed over is not collected"
    local = office.introduce(Service.RENEWAL)
    lease = office.send(local, asked, WorkAnswer).lease
    assert lease is not None
    assert lease.item.host == "elm"


def test_a_worker_elsewhere_cannot_have_a_key_of_its_own_certified(due: Room) -> None:
    """It carries what the member made; the member's live key says so."""
    atlas = due["atlas"]
    enroll(atlas, "cedar")
    bind(due, "cedar")
    route = introduce(atlas.office)
    seen = {}
    for _ in range(2):
        lease, item = lease_remotely(atlas.office, route)
        seen[item.host] = (lease, item)
    lease, item = seen["elm"]
    honest = proven(due, lease, item)
    assert honest.proof is not None
    other_leaf = proven(due, *seen["cedar"]).proof
    assert other_leaf is not None
    forged = (
        RenewWithLease(lease.lease_id, make_csr("elm")),
        RenewWithLease(lease.lease_id, make_csr("elm"), honest.proof),
        proven(due, lease, item, by="cedar"),
        RenewWithLease(lease.lease_id, honest.csr, other_leaf),
    )
    for request in forged:
        with pytest.raises(BadCredentialError, match="did not prove"):
            over_curve(atlas.office, KEY, request, RenewalAnswer, route)
    assert over_curve(atlas.office, KEY, honest, RenewalAnswer, route).issued.serial
