"""Renewal after expiry: the old key signs, within the grace, at the enrol door."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from broker.clock import wall_s
from broker.errors import (
    BadCredentialError,
    CertificateExpiredError,
    ConflictError,
    CSRRejectedError,
    NotAMemberError,
    RenewalNotDueError,
    RevokedError,
)
from broker.wire.audit import AuditView, ListAudit
from broker.wire.control import Ack
from broker.wire.ids import Service
from broker.wire.policy import PolicyPatch, PolicyView, SetPolicy
from broker.wire.renewal import RenewExpired, ReportInstalled
from broker.wire.roster import (
    LeaveMesh,
    MemberView,
    RenameMember,
    RevocationAnswer,
    RevokeMember,
)
from tests.shell.expired_office import (
    GRACE_S,
    GRACIOUS,
    LIFETIME_S,
    Night,
    Sleeper,
    ask,
    enrolled,
    new_key,
    pull,
)
from tests.shell.mesh_room import PushedClock, pushed_clock
from tests.shell.office import Office, make_csr, peer_of


@pytest.fixture
def clock() -> Iterator[PushedClock]:
    """Time that is pushed."""
    with pushed_clock() as clock:
        yield clock


@pytest.fixture
def office(home: Path, clock: PushedClock) -> Office:
    """A CA with certificates of an hour, and a grace of a day."""
    del clock
    return Office.create(home, **GRACIOUS)


@pytest.fixture
def night(office: Office, clock: PushedClock) -> Night:
    """What lets time pass."""
    return Night(office, clock)


@pytest.fixture
def sleeper(office: Office) -> Sleeper:
    """A member that is about to sleep."""
    return enrolled(office)


def rows(office: Office, event: str) -> list[Any]:
    """Return the audit rows of one event."""
    view = office.ask(Service.CONSOLE, ListAudit(after=0, limit=500), AuditView)
    return [row for row in view.rows if row.event == event]


def set_grace(office: Office, grace_s: int) -> None:
    """Change the policy as an operator."""
    patch = PolicyPatch(expired_grace_s=grace_s)
    office.ask(Service.CONSOLE, SetPolicy(patch, "ann"), PolicyView)


def test_a_member_that_slept_past_its_certificate_gets_one_for_a_fresh_key(
    office: Office, night: Night, sleeper: Sleeper
) -> None:
    """Nobody has to be involved, and the audit trail says how it came back."""
    night.sleep(LIFETIME_S + 600)
    issued = ask(office, sleeper.request())
    leaf = x509.load_der_x509_certificate(issued.leaf)
    assert leaf.public_key() == sleeper.waiting.public_key() != sleeper.key.public_key()
    assert issued.not_after > wall_s()
    member = office.ledger.member(sleeper.member_id)
    assert member is not None
    assert member.current_serial == issued.serial
    (row,) = rows(office, "certificate.renewed")
    assert row.fields["by_old_key"] is True
    assert row.actor == "nas"


def test_an_ordinary_renewal_is_not_marked_as_one_by_the_old_key(
    office: Office, night: Night, sleeper: Sleeper
) -> None:
    """The mark means something only if it is missing elsewhere."""
    night.sleep(600)
    pull(office, sleeper)
    assert rows(office, "certificate.renewed")[0].fields["by_old_key"] is False


def test_it_may_come_until_the_last_second_of_the_grace(
    office: Office, night: Night, sleeper: Sleeper
) -> None:
    """`expired_grace` is what it says."""
    night.sleep_past(sleeper.issued.not_after + GRACE_S)
    assert ask(office, sleeper.request()).serial


def test_after_the_grace_it_is_told_since_when_and_how_to_come_back(
    office: Office, night: Night, sleeper: Sleeper
) -> None:
    """Terminal for the machine: a person has to act, and reads what to do."""
    night.sleep_past(sleeper.issued.not_after + GRACE_S + 1)
    with pytest.raises(CertificateExpiredError, match="could renew it until") as refused:
        ask(office, sleeper.request())
    ended = datetime.fromtimestamp(sleeper.issued.not_after, UTC)
    assert f"expired at {ended:%Y-%m-%dT%H:%M:%SZ}, " in refused.value.detail
    assert "certmesh invite create nas --rejoin" in refused.value.hint
    assert "certmesh join" in refused.value.hint
    assert [row.fields["code"] for row in rows(office, "auth.failed")] == ["certificate_expired"]


def test_a_grace_of_zero_renews_nothing_after_expiry(
    office: Office, night: Night, sleeper: Sleeper
) -> None:
    """Not even in the second in which the certificate ends."""
    set_grace(office, 0)
    night.sleep_past(sleeper.issued.not_after)
    with pytest.raises(CertificateExpiredError, match="expired_grace 0s"):
        ask(office, sleeper.request())


def test_a_live_certificate_is_told_to_use_the_mesh_door(
    office: Office, night: Night, sleeper: Sleeper
) -> None:
    """The CA's clock decides: a member cannot choose a time, and no door is weaker than it need."""
    night.sleep_past(sleeper.issued.not_after - 1)
    with pytest.raises(RenewalNotDueError, match="is valid until") as refused:
        ask(office, sleeper.request())
    assert "mesh port" in refused.value.hint
    assert not rows(office, "auth.failed")
    night.sleep(1)
    assert ask(office, sleeper.request()).serial  # in its last second OpenSSL refuses it already


def test_the_key_of_somebody_else_gets_nothing(
    office: Office, night: Night, sleeper: Sleeper
) -> None:
    """The leaf is public: everybody who was ever served it has it."""
    night.sleep(LIFETIME_S + 600)
    before = office.ledger.member(sleeper.member_id)
    with pytest.raises(BadCredentialError):
        ask(office, sleeper.request(signer=new_key()))
    assert office.ledger.member(sleeper.member_id) == before


def test_another_csr_under_the_same_signature_gets_nothing(
    office: Office, night: Night, sleeper: Sleeper
) -> None:
    """Whoever stands between cannot put a key of its own into the request."""
    night.sleep(LIFETIME_S + 600)
    good = sleeper.request()
    swapped = RenewExpired(good.leaf, make_csr("nas"), good.signature, good.source)
    with pytest.raises(BadCredentialError):
        ask(office, swapped)


def test_a_signature_for_another_mesh_gets_nothing(
    office: Office, night: Night, sleeper: Sleeper
) -> None:
    """The statement names the mesh."""
    night.sleep(LIFETIME_S + 600)
    with pytest.raises(BadCredentialError):
        ask(office, sleeper.request(mesh_id="00" * 16))


def test_a_certificate_of_another_mesh_gets_nothing(
    office: Office, night: Night, tmp_path: Path
) -> None:
    """Signed by the right key, and of a CA that is not this one."""
    other = Office.create(tmp_path, **GRACIOUS)
    stranger = enrolled(other)
    enrolled(office)
    night.sleep(LIFETIME_S + 600)
    mesh = office.ledger.mesh()
    assert mesh is not None
    with pytest.raises(NotAMemberError, match="not in the roster"):
        ask(office, stranger.request(mesh_id=mesh.mesh_id))


@pytest.mark.parametrize("leaf", [b"", b"\x30\x00", b"x" * 900])
def test_what_is_no_certificate_is_refused_and_nothing_breaks(
    office: Office, night: Night, sleeper: Sleeper, leaf: bytes
) -> None:
    """Strangers may send anything."""
    night.sleep(LIFETIME_S + 600)
    good = sleeper.request()
    with pytest.raises(NotAMemberError, match="no certificate of this mesh"):
        ask(office, RenewExpired(leaf, good.csr, good.signature, good.source))


def test_a_changed_copy_under_a_known_serial_is_not_the_rosters(
    office: Office, night: Night, sleeper: Sleeper
) -> None:
    """The octets have to be those that were issued; the serial alone says nothing."""
    night.sleep(LIFETIME_S + 600)
    leaf = bytearray(sleeper.issued.leaf)
    leaf[-1] ^= 1
    sleeper.issued = type(sleeper.issued)(
        **{name: getattr(sleeper.issued, name) for name in sleeper.issued.__struct_fields__}
        | {"leaf": bytes(leaf)}
    )
    with pytest.raises(NotAMemberError, match="not in the roster"):
        ask(office, sleeper.request())


def test_a_revoked_member_stays_out(office: Office, night: Night, sleeper: Sleeper) -> None:
    """Expiry is no way around a revocation."""
    office.ask(Service.CONSOLE, RevokeMember("nas", "stolen", "ann"), RevocationAnswer)
    night.sleep(LIFETIME_S + 600)
    with pytest.raises(RevokedError):
        ask(office, sleeper.request())
    assert [row.fields["code"] for row in rows(office, "auth.failed")] == ["revoked"]


def test_a_member_that_left_stays_out(office: Office, night: Night, sleeper: Sleeper) -> None:
    """It said so itself."""
    office.ask(Service.GATEWAY, LeaveMesh(peer_of(sleeper.issued, "nas")), Ack)
    night.sleep(LIFETIME_S + 600)
    with pytest.raises(RevokedError, match="left"):
        ask(office, sleeper.request())


def test_a_host_that_was_replaced_by_a_rejoin_stays_out(
    office: Office, night: Night, sleeper: Sleeper
) -> None:
    """The old disk turns up again after its host was set up anew."""
    enrolled(office, rejoin=True)
    night.sleep(LIFETIME_S + 600)
    with pytest.raises(RevokedError):
        ask(office, sleeper.request())


def test_a_member_that_was_renamed_in_its_sleep_is_told_its_name(
    office: Office, night: Night, sleeper: Sleeper
) -> None:
    """It asks for the old name; a certificate for the new one would be of no use to it."""
    office.ask(Service.CONSOLE, RenameMember("nas", "store", "ann"), MemberView)
    night.sleep(LIFETIME_S + 600)
    with pytest.raises(ConflictError, match="called store now") as refused:
        ask(office, sleeper.request())
    assert "invite create store --rejoin" in refused.value.hint
    assert ask(office, sleeper.request(make_csr("store", key=sleeper.waiting))).serial


def test_a_request_for_names_of_others_is_refused(
    office: Office, night: Night, sleeper: Sleeper
) -> None:
    """The same checks as at the mesh door."""
    enrolled(office, "pi")
    night.sleep(LIFETIME_S + 600)
    csr = make_csr("nas", ("pi.home.internal",), key=sleeper.waiting)
    with pytest.raises(CSRRejectedError, match="not this host's"):
        ask(office, sleeper.request(csr))


def test_a_recorded_request_brings_the_same_certificate_and_later_none(
    office: Office, night: Night, sleeper: Sleeper
) -> None:
    """A lost answer is answered again; whoever replays it gets what is public anyway."""
    night.sleep(LIFETIME_S + 600)
    recorded = sleeper.request()
    first = ask(office, recorded)
    assert ask(office, recorded).leaf == first.leaf
    assert len(rows(office, "certificate.renewed")) == 1
    sleeper.take(first)
    night.sleep(600)
    sleeper.take(pull(office, sleeper))
    with pytest.raises(NotAMemberError, match="newer certificates"):
        ask(office, recorded)
    assert len(rows(office, "certificate.renewed")) == 2


def test_an_answer_that_was_lost_until_it_expired_too_is_not_repeated(
    office: Office, night: Night, sleeper: Sleeper
) -> None:
    """Short-lived certificates end while a key still waits for its own."""
    night.sleep(LIFETIME_S + 600)
    recorded = sleeper.request()
    ask(office, recorded)
    night.sleep(LIFETIME_S + 600)
    with pytest.raises(CSRRejectedError, match="fresh key"):
        ask(office, recorded)
    sleeper.waiting = new_key()
    assert ask(office, sleeper.request()).serial


def test_a_member_that_went_back_to_the_pair_before_may_come_with_that(
    office: Office, night: Night, sleeper: Sleeper
) -> None:
    """Its hook failed: what it serves is older than what it was issued, and ends earlier."""
    night.sleep(LIFETIME_S - 300)
    newest = pull(office, sleeper)
    sleeper.waiting = new_key()
    night.sleep(600)
    assert sleeper.issued.not_after < wall_s() < newest.not_after
    assert ask(office, sleeper.request()).serial


def test_what_it_said_it_serves_counts_however_often_it_was_renewed_since(
    office: Office, night: Night, sleeper: Sleeper
) -> None:
    """A hook that fails for hours: one new certificate after the other, none in service."""
    report = ReportInstalled(
        sleeper.issued.serial, "failed", "hook", peer_of(sleeper.issued, "nas")
    )
    for _ in range(3):
        night.sleep(900)
        pull(office, sleeper)
        sleeper.waiting = new_key()
        office.ask(Service.GATEWAY, report, Ack)
    night.sleep(1200)
    assert ask(office, sleeper.request()).serial


def test_a_certificate_that_was_replaced_long_ago_gets_nothing(
    office: Office, night: Night, sleeper: Sleeper
) -> None:
    """A key from an old backup is no way in, though its certificate ended a moment ago."""
    old = Sleeper("nas", sleeper.member_id, sleeper.key, sleeper.issued, sleeper.mesh_id)
    for _ in range(2):
        night.sleep(1500)
        sleeper.take(pull(office, sleeper))
        report = ReportInstalled(
            sleeper.issued.serial, "served", "", peer_of(sleeper.issued, "nas")
        )
        office.ask(Service.GATEWAY, report, Ack)
    night.sleep(900)
    assert old.issued.not_after < wall_s()
    with pytest.raises(NotAMemberError, match="newer certificates"):
        ask(office, old.request())
