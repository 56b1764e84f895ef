"""Renewal through leases and by members, and what becomes of results."""

import hashlib
import secrets
from pathlib import Path

import pytest

from broker.clock import wall_s
from broker.errors import (
    CSRRejectedError,
    ForbiddenError,
    LeaseLostError,
    NotAMemberError,
    NotFoundError,
    RenewalInProgressError,
    RevokedError,
)
from broker.units import Millis, UnixSeconds
from broker.wire.audit import AuditView, ListAudit
from broker.wire.control import Ack
from broker.wire.enrollment import CreateInvite, InviteView, Issued, JoinAnswer
from broker.wire.events import CertificateMoved, WorkAvailable
from broker.wire.ids import Service
from broker.wire.liveness import Beat, BeatAnswer
from broker.wire.node import GetStatus, StatusView
from broker.wire.renewal import (
    ForceRenewal,
    InstallAnswer,
    NoteOwnCertificate,
    RekeyAnswer,
    RenewalAnswer,
    RenewAsPeer,
    RenewWithLease,
    ReportInstalled,
    StartInstall,
    StartRekey,
)
from broker.wire.roster import RevocationAnswer, RevokeMember, WhoAmI, WhoAmIAnswer
from broker.wire.work import (
    CompleteWork,
    ExtendLease,
    Failed,
    Installed,
    LeaseWork,
    Rekeyed,
    ReleaseLease,
    RenewMember,
    RenewOwn,
    WorkAnswer,
)
from tests.shell.office import Office, issued_of, join_request, make_csr, peer_of
from tests.support import eventually


@pytest.fixture
def office(home: Path) -> Office:
    """A mesh whose certificates are due as soon as they are issued."""
    return Office.create(
        home,
        policy={"leaf_lifetime": "1h", "renew_at": 0.00001},
        renewal={"jitter": 0.0, "backoff_min": "1h", "backoff_max": "2h"},
    )


def enroll(office: Office, host: str) -> Issued:
    """Enroll a member by invite."""
    secret = secrets.token_urlsafe(8)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    wanted = CreateInvite(digest, host, (), 3600, "root")
    office.ask(Service.CONSOLE, wanted, InviteView)
    request = join_request(host, make_csr(host), invite_secret=secret)
    return issued_of(office.ask(Service.GATEWAY, request, JoinAnswer))


def far() -> UnixSeconds:
    """Return a moment far away."""
    return UnixSeconds(wall_s() + 10**6)


def own_certificate(office: Office, *, present: bool = True) -> None:
    """Report this node's own certificate as fresh, or as missing."""
    note = NoteOwnCertificate(
        present=present,
        serial="aa",
        not_before=wall_s(),
        not_after=far() if present else wall_s(),
        state="installed",
        detail="",
    )
    office.ask(Service.RENEWAL, note, Ack)


def lease(office: Office, worker: bytes) -> WorkAnswer:
    """Ask for work."""
    return office.send(worker, LeaseWork(), WorkAnswer)


def test_a_due_member_is_leased_to_one_worker_only(office: Office) -> None:
    """Two workers never renew one host at the same time."""
    enroll(office, "nas")
    first, second = (office.introduce(Service.RENEWAL, f"renewal-{n}") for n in (0, 1))
    granted = lease(office, first).lease
    assert granted is not None
    assert isinstance(granted.item, RenewMember)
    assert granted.item.host == "nas"
    assert granted.item.endpoint.addresses == ("127.0.0.9",)
    assert lease(office, second).lease is None


def test_a_renewal_needs_a_live_lease(office: Office) -> None:
    """A frozen worker that thaws cannot have anything signed."""
    enroll(office, "nas")
    frozen, other = (office.introduce(Service.RENEWAL, f"renewal-{n}") for n in (0, 1))
    granted = lease(office, frozen).lease
    assert granted is not None
    state = office.desk.state
    state.leases.expired(Millis(10**15))
    taken = lease(office, other).lease
    assert taken is not None
    before = office.ledger.head.sequence
    stale = RenewWithLease(granted.lease_id, make_csr("nas"))
    with pytest.raises(LeaseLostError):
        office.send(frozen, stale, RenewalAnswer)
    done = CompleteWork(granted.lease_id, Installed("aa", "served", ""))
    with pytest.raises(LeaseLostError):
        office.send(frozen, done, Ack)
    assert office.ledger.head.sequence == before


def test_a_lease_of_another_worker_signs_nothing(office: Office) -> None:
    """The number alone is no right."""
    enroll(office, "nas")
    holder, thief = (office.introduce(Service.RENEWAL, f"renewal-{n}") for n in (0, 1))
    granted = lease(office, holder).lease
    assert granted is not None
    with pytest.raises(LeaseLostError):
        office.send(thief, RenewWithLease(granted.lease_id, make_csr("nas")), RenewalAnswer)


def test_a_renewed_member_is_served_and_no_longer_offered(office: Office) -> None:
    """The closed loop: lease, sign, install, report."""
    first = enroll(office, "nas")
    worker = office.introduce(Service.RENEWAL)
    granted = lease(office, worker).lease
    assert granted is not None
    answer = office.send(worker, RenewWithLease(granted.lease_id, make_csr("nas")), RenewalAnswer)
    assert answer.issued.serial != first.serial
    served = Installed(answer.issued.serial, "served", "hook ok")
    office.send(worker, CompleteWork(granted.lease_id, served), Ack)
    member = office.ledger.member_by_host("nas")
    assert member is not None
    assert (member.served, member.served_serial) == ("served", answer.issued.serial)
    assert member.current_serial == answer.issued.serial


def test_a_lost_answer_to_a_renewal_gives_the_same_certificate(office: Office) -> None:
    """Retry with the same key: no second certificate."""
    enroll(office, "nas")
    worker = office.introduce(Service.RENEWAL)
    granted = lease(office, worker).lease
    assert granted is not None
    csr = make_csr("nas")
    ask = RenewWithLease(granted.lease_id, csr)
    first = office.send(worker, ask, RenewalAnswer)
    again = office.send(worker, ask, RenewalAnswer)
    assert again.issued.leaf == first.issued.leaf


def test_an_old_key_is_not_certified_again(office: Office) -> None:
    """Renewal means a fresh key."""
    peer = peer_of(enroll(office, "nas"), "nas")
    old, fresh = make_csr("nas"), make_csr("nas")
    for csr in (old, fresh):
        office.ask(Service.GATEWAY, RenewAsPeer(peer, csr), RenewalAnswer)
    with pytest.raises(CSRRejectedError, match="fresh key"):
        office.ask(Service.GATEWAY, RenewAsPeer(peer, old), RenewalAnswer)


def test_one_lease_is_one_certificate(office: Office) -> None:
    """A confused or stolen worker gets what it was sent for, once (P6)."""
    enroll(office, "nas")
    worker = office.introduce(Service.RENEWAL)
    granted = lease(office, worker).lease
    assert granted is not None
    office.send(worker, RenewWithLease(granted.lease_id, make_csr("nas")), RenewalAnswer)
    before = office.ledger.head.sequence
    with pytest.raises(LeaseLostError, match="another certificate"):
        office.send(worker, RenewWithLease(granted.lease_id, make_csr("nas")), RenewalAnswer)
    assert office.ledger.head.sequence == before


def test_one_failing_member_backs_off_and_the_others_go_on(office: Office) -> None:
    """Defect: one member's failure must never stop the batch."""
    enroll(office, "bad")
    enroll(office, "good")
    worker = office.introduce(Service.RENEWAL)
    hosts = []
    while (granted := lease(office, worker).lease) is not None:
        assert isinstance(granted.item, RenewMember)
        hosts.append(granted.item.host)
        office.send(worker, CompleteWork(granted.lease_id, Failed("no route")), Ack)
    assert sorted(hosts) == ["bad", "good"]
    member = office.ledger.member_by_host("bad")
    assert member is not None
    assert member.last_error == "no route"


def test_the_first_failure_is_written_down_and_repeats_are_not(office: Office) -> None:
    """Defect: no first-failure event; and a broken member must not fill the journal."""
    enroll(office, "nas")
    state, worker = office.desk.state, office.introduce(Service.RENEWAL)
    for _ in range(3):
        state.backoff.clear()
        granted = lease(office, worker).lease
        assert granted is not None
        office.send(worker, CompleteWork(granted.lease_id, Failed("no route")), Ack)
    rows = office.ask(Service.CONSOLE, ListAudit(after=0, limit=500), AuditView).rows
    assert [row.event for row in rows].count("certificate.renewal_failed") == 1


def test_a_released_item_is_offered_again_at_once(office: Office) -> None:
    """A polite stop costs nothing."""
    enroll(office, "nas")
    worker = office.introduce(Service.RENEWAL)
    granted = lease(office, worker).lease
    assert granted is not None
    office.send(worker, ExtendLease(granted.lease_id, 120_000), Ack)
    office.send(worker, ReleaseLease(granted.lease_id), Ack)
    assert WorkAvailable(Service.RENEWAL) in office.events
    again = lease(office, worker).lease
    assert again is not None
    assert again.lease_id > granted.lease_id


def test_a_primary_without_a_certificate_renews_itself_through_its_own_broker(
    office: Office,
) -> None:
    """The first certificate of the CA node takes the same way as all later ones."""
    own_certificate(office, present=False)
    worker = office.introduce(Service.RENEWAL)
    granted = lease(office, worker).lease
    assert granted is not None
    assert isinstance(granted.item, RenewOwn)
    assert granted.item.via_broker
    csr = make_csr("atlas", granted.item.sans)
    answer = office.send(worker, RenewWithLease(granted.lease_id, csr), RenewalAnswer)
    member = office.ledger.member_by_host("atlas")
    assert member is not None
    assert member.current_serial == answer.issued.serial


def test_a_node_that_cannot_renew_itself_says_why_until_it_can(office: Office) -> None:
    """A revoked or cut-off node must not call itself healthy."""
    own_certificate(office, present=False)
    worker = office.introduce(Service.RENEWAL)
    granted = lease(office, worker).lease
    assert granted is not None
    office.send(worker, CompleteWork(granted.lease_id, Failed("refused: revoked")), Ack)
    status = office.ask(Service.CONSOLE, GetStatus(), StatusView)
    assert "renewing this node fails: refused: revoked" in status.warnings
    assert status.own is not None
    assert status.own.last_error == "refused: revoked"
    office.ask(Service.CONSOLE, ForceRenewal("root"), Ack)
    status = office.ask(Service.CONSOLE, GetStatus(), StatusView)
    assert status.own is not None
    assert status.own.last_error == ""


def test_the_trouble_of_a_loop_is_a_warning(office: Office) -> None:
    """What a worker says in its beats reaches the person who asks for the status (P11, P15)."""
    heartbeat = office.introduce(Service.HEARTBEAT)
    beat = Beat(1, 1000, last_error="atlas refused: revoked")
    office.send(heartbeat, beat, BeatAnswer)
    status = office.ask(Service.CONSOLE, GetStatus(), StatusView)
    assert "heartbeat: atlas refused: revoked" in status.warnings


def test_a_member_cannot_pull_while_the_ca_renews_it(office: Office) -> None:
    """One lease per host makes double issue impossible."""
    peer = peer_of(enroll(office, "nas"), "nas")
    lease(office, office.introduce(Service.RENEWAL))
    with pytest.raises(RenewalInProgressError):
        office.ask(Service.GATEWAY, RenewAsPeer(peer, make_csr("nas")), RenewalAnswer)


def test_a_member_cannot_renew_under_another_name(office: Office) -> None:
    """Own name only."""
    peer = peer_of(enroll(office, "nas"), "nas")
    enroll(office, "pi")
    with pytest.raises(CSRRejectedError):
        office.ask(Service.GATEWAY, RenewAsPeer(peer, make_csr("pi")), RenewalAnswer)


def test_a_member_can_only_report_serials_that_were_issued_to_it(office: Office) -> None:
    """Defect: a member could report any expiry date and drop out of renewal."""
    nas, other = enroll(office, "nas"), enroll(office, "pi")
    peer = peer_of(nas, "nas")
    for serial in (other.serial, "ff"):
        report = ReportInstalled(serial, "served", "", peer)
        with pytest.raises(NotFoundError):
            office.ask(Service.GATEWAY, report, Ack)
    office.ask(Service.GATEWAY, ReportInstalled(nas.serial, "served", "", peer), Ack)
    member = office.ledger.member_by_host("nas")
    assert member is not None
    assert member.served == "served"


def test_a_revoked_member_is_refused_on_the_next_request(office: Office) -> None:
    """Also on an open connection: the roster is asked every time."""
    peer = peer_of(enroll(office, "nas"), "nas")
    assert office.ask(Service.GATEWAY, WhoAmI(peer), WhoAmIAnswer).host == "nas"
    revoke = RevokeMember("nas", "lost", "root")
    answer = office.ask(Service.CONSOLE, revoke, RevocationAnswer)
    assert answer.serials == (peer.serial,)
    for request in (WhoAmI(peer), RenewAsPeer(peer, make_csr("nas"))):
        with pytest.raises(RevokedError):
            office.ask(Service.GATEWAY, request, WhoAmIAnswer)
    office.crash()
    with pytest.raises(RevokedError):
        office.ask(Service.GATEWAY, WhoAmI(peer), WhoAmIAnswer)


def test_an_expired_certificate_is_refused_on_a_connection_that_outlived_it(home: Path) -> None:
    """TLS looked at the dates once, at the handshake; the roster is asked every time."""
    office = Office.create(home, policy={"leaf_lifetime": "1s", "renew_at": 0.5})
    peer = peer_of(enroll(office, "nas"), "nas")

    def refused() -> bool:
        try:
            office.ask(Service.GATEWAY, WhoAmI(peer), WhoAmIAnswer)
        except NotAMemberError:
            return True
        return False

    eventually(refused, within_s=5)


def test_a_dry_run_of_a_revocation_changes_nothing(office: Office) -> None:
    """It tells and does not do."""
    peer = peer_of(enroll(office, "nas"), "nas")
    revoke = RevokeMember("nas", "lost", "root", dry_run=True)
    answer = office.ask(Service.CONSOLE, revoke, RevocationAnswer)
    assert answer.serials == (peer.serial,)
    assert office.ask(Service.GATEWAY, WhoAmI(peer), WhoAmIAnswer).state == "active"


def test_a_serial_with_another_certificate_is_nobody(office: Office) -> None:
    """The fingerprint must match, not only the number."""
    issued = enroll(office, "nas")
    forged = peer_of(Issued(issued.serial, b"x", b"", b"", wall_s(), far(), far()), "nas")
    with pytest.raises(NotAMemberError):
        office.ask(Service.GATEWAY, WhoAmI(forged), WhoAmIAnswer)


def test_only_key_holders_may_push_to_a_member(office: Office) -> None:
    """A member cannot make another member rekey or install."""
    peer = peer_of(enroll(office, "nas"), "nas")
    for request in (StartRekey(peer, 1), StartInstall(peer, b"x", b"y", 1)):
        with pytest.raises(NotAMemberError):
            office.ask(Service.GATEWAY, request, RekeyAnswer)


def test_a_push_waits_for_the_local_renewal_worker(office: Office) -> None:
    """Deferred replies: the gateway's question is answered by the worker's result."""
    state = office.desk.state
    assert state.membership is not None
    state.keys.vault = None  # this node plays a member now; its primary is another host
    state.host = "nas"
    peer = peer_of(Issued("ab", b"x", b"", b"", wall_s(), far(), far()), "atlas")
    gateway, worker = office.introduce(Service.GATEWAY), office.introduce(Service.RENEWAL)
    request_id = secrets.token_bytes(16)
    assert office.turn([(gateway, StartRekey(peer, 1), request_id)]) == []
    granted = lease(office, worker).lease
    assert granted is not None
    done = CompleteWork(granted.lease_id, Rekeyed(b"csr"))
    entries = office.turn([(worker, done, secrets.token_bytes(16))])
    answers = {entry.caller.request_id: entry.reply for entry in entries}
    assert answers[request_id] == RekeyAnswer(b"csr")
    request_id = secrets.token_bytes(16)
    office.turn([(gateway, StartInstall(peer, b"leaf", b"issuing", 1), request_id)])
    granted = lease(office, worker).lease
    assert granted is not None
    done = CompleteWork(granted.lease_id, Installed("ab", "served", "", 12))
    entries = office.turn([(worker, done, secrets.token_bytes(16))])
    answers = {entry.caller.request_id: entry.reply for entry in entries}
    assert answers[request_id] == InstallAnswer("ab", "served", "", 12)


def test_a_result_that_does_not_fit_the_work_is_refused(office: Office) -> None:
    """A confused worker cannot decide an approval with a CSR."""
    enroll(office, "nas")
    worker = office.introduce(Service.RENEWAL)
    granted = lease(office, worker).lease
    assert granted is not None
    with pytest.raises(ForbiddenError):
        office.send(worker, CompleteWork(granted.lease_id, Rekeyed(b"x")), Ack)


def test_listeners_hear_of_a_new_own_certificate_once(office: Office) -> None:
    """The gateway reloads when the serial is new, not on every report."""
    own_certificate(office)
    own_certificate(office)
    assert office.events.count(CertificateMoved("aa")) == 1
