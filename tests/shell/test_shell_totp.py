"""Changing the enrollment secret: proven first, the same on every key holder, always sealed."""

import base64
import secrets
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from broker.clock import boottime_ms, wall_s
from broker.core.rotation import TTL_MS, Rotation
from broker.errors import (
    BadCredentialError,
    CALockedError,
    ConflictError,
    ForbiddenError,
    LedgerDamagedError,
    NotPrimaryError,
    StorageError,
)
from broker.ledger.sqlite import Ledger
from broker.pki.totp_box import open_totp, seal_totp
from broker.shell.credential import enrollment_secret
from broker.units import Millis
from broker.wire.authority import AuthorityView, LockAuthority, UnlockAuthority
from broker.wire.control import Fault
from broker.wire.enrollment import (
    EnrollmentView,
    FinishTOTPRotation,
    JoinAnswer,
    StartTOTPRotation,
    TOTPRotationView,
)
from broker.wire.facts import TOTPRotated
from broker.wire.ids import Service
from tests.shell.mesh_room import Node, Room
from tests.shell.office import PASSPHRASE, Office, issued_of, join_request, make_csr
from tests.support import eventually


@pytest.fixture
def office(home: Path) -> Office:
    """A mesh without approval."""
    return Office.create(home)


def start(asked: Office | Node) -> bytes:
    """Ask for a new secret; return it as an authenticator keeps it."""
    view = asked.ask(Service.CONSOLE, StartTOTPRotation("ann"), TOTPRotationView)
    assert view.totp_uri.startswith("otpauth://totp/")
    assert view.ttl_s == TTL_MS // 1000
    return base64.b32decode(view.totp_key.replace(" ", ""))


def finish(asked: Office | Node, code: str) -> EnrollmentView:
    """Prove the new secret."""
    return asked.ask(Service.CONSOLE, FinishTOTPRotation(code, "ann"), EnrollmentView)


def code_of(secret: bytes, offset_s: int = 0) -> str:
    """Return what an authenticator with this secret shows."""
    return TOTP(secret, 6, hashes.SHA1(), 30).generate(wall_s() + offset_s).decode()


def rotate(asked: Office | Node) -> bytes:
    """Change the secret, all the way; return the new one."""
    secret = start(asked)
    finish(asked, code_of(secret))
    return secret


def join(asked: Office | Node, host: str, code: str) -> JoinAnswer:
    """Join by code."""
    source = f"127.0.0.{secrets.randbelow(200) + 20}"
    request = join_request(host, make_csr(host), totp_code=code, source=source)
    return asked.ask(Service.GATEWAY, request, JoinAnswer)


def first_secret(office: Office) -> bytes:
    """Return the secret the mesh was made with."""
    return office.desk.state.keys.totp_secret


def test_defect_32_a_typo_while_rotating_kills_enrollment(office: Office) -> None:
    """The old secret goes when the new one is proven, and not a moment before."""
    old = first_secret(office)
    new = start(office)
    with pytest.raises(BadCredentialError, match="the old secret stays in force"):
        finish(office, "000000" if code_of(new) != "000000" else "111111")
    assert issued_of(join(office, "nas", code_of(old))).serial
    finish(office, code_of(new))
    assert enrollment_secret(office.desk.state) == new


def test_after_the_proof_only_the_new_secret_counts(office: Office) -> None:
    """Whoever left with the old one in a telephone stays outside."""
    old, new = first_secret(office), rotate(office)
    with pytest.raises(BadCredentialError, match="wrong or too old"):
        join(office, "nas", code_of(old))
    assert issued_of(join(office, "nas", code_of(new, 30))).serial


def test_the_code_that_proved_the_secret_admits_nobody(office: Office) -> None:
    """It was typed on a screen that somebody may have watched; a step is accepted once."""
    new = start(office)
    code = code_of(new)
    finish(office, code)
    with pytest.raises(BadCredentialError, match="used already"):
        join(office, "nas", code)


def test_a_proof_in_a_step_that_a_join_has_spent_still_counts(office: Office) -> None:
    """The join spent the step with the other secret; the operator need not wait for the next."""
    join(office, "nas", code_of(first_secret(office)))
    new = rotate(office)
    assert enrollment_secret(office.desk.state) == new


def test_a_code_with_a_space_is_the_code(office: Office) -> None:
    """Authenticators show `123 456`."""
    new = start(office)
    code = code_of(new)
    finish(office, f"{code[:3]} {code[3:]}")
    assert enrollment_secret(office.desk.state) == new


def test_a_retried_proof_gets_the_first_answer(office: Office) -> None:
    """The reply was lost, not the decision."""
    new, request_id = start(office), secrets.token_bytes(16)
    console = office.introduce(Service.CONSOLE)
    proof = FinishTOTPRotation(code_of(new), "ann")
    first = office.send(console, proof, EnrollmentView, request_id)
    assert office.send(console, proof, EnrollmentView, request_id) == first


def test_of_two_proofs_in_one_drain_one_counts(office: Office) -> None:
    """The second finds nothing that waits."""
    new, console = start(office), office.introduce(Service.CONSOLE)
    proof = FinishTOTPRotation(code_of(new), "ann")
    one, other = office.turn([(console, proof, secrets.token_bytes(16)) for _ in range(2)])
    assert isinstance(one.reply, EnrollmentView)
    assert isinstance(other.reply, Fault)
    assert other.reply.code == "conflict"


def test_a_second_start_forgets_the_first_secret(office: Office) -> None:
    """The QR code that was shown last is the one that counts."""
    first, second = start(office), start(office)
    with pytest.raises(BadCredentialError):
        finish(office, code_of(first))
    finish(office, code_of(second))
    assert enrollment_secret(office.desk.state) == second


def test_an_unproven_secret_is_forgotten_after_ten_minutes(office: Office) -> None:
    """A QR code on a forgotten screen is worth nothing tomorrow."""
    keys, new = office.desk.state.keys, start(office)
    keys.rotation = Rotation(new, Millis(boottime_ms()))
    with pytest.raises(ConflictError, match="nothing was changed"):
        finish(office, code_of(new))
    assert keys.rotation is None


@pytest.mark.parametrize("how", ["restart", "lock"])
def test_an_unproven_secret_lives_in_memory_alone(office: Office, how: str) -> None:
    """Nothing of it is on the disk, and a locked CA has forgotten it."""
    new = start(office)
    if how == "restart":
        office.crash()
    else:
        office.ask(Service.CONSOLE, LockAuthority("ann"), AuthorityView)
        unlock(office)
    with pytest.raises(ConflictError):
        finish(office, code_of(new))


def unlock(office: Office) -> None:
    """Open the CA with its passphrase."""
    request = UnlockAuthority(PASSPHRASE.encode(), "ann")
    console, request_id = office.introduce(Service.CONSOLE), secrets.token_bytes(16)
    office.turn([(console, request, request_id)])

    def opened() -> bool:
        for then, outcome in office.desk.state.offloop.finished():
            batch = office.desk.open_batch()
            then(batch, outcome)
            office.desk.finish(batch, [])
        return office.desk.state.keys.state == "unlocked"

    eventually(opened)


@pytest.mark.parametrize("how", ["credential", "passphrase"])
def test_the_new_secret_is_in_force_after_a_restart(office: Office, how: str) -> None:
    """By whichever slot the CA opens: the ledger says which secret counts."""
    new = rotate(office)
    if how == "passphrase":
        office.paths.credential.unlink()
    office.crash()
    if how == "passphrase":
        unlock(office)
    assert enrollment_secret(office.desk.state) == new
    assert issued_of(join(office, "nas", code_of(new, 30))).serial


def test_the_secret_is_nowhere_in_the_clear(office: Office) -> None:
    """Journal, ledger and log are copied, backed up and exported."""
    new = rotate(office)
    text = base64.b32encode(new)
    for path in office.paths.data.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert new not in content, path
            assert text not in content, path
    assert repr(Rotation(new, Millis(0))) == "Rotation(until_ms=0)"


def test_a_locked_ca_changes_no_secret(office: Office) -> None:
    """Nobody could seal it."""
    office.ask(Service.CONSOLE, LockAuthority("ann"), AuthorityView)
    with pytest.raises(CALockedError):
        start(office)
    with pytest.raises(CALockedError):
        finish(office, "123456")


def test_gateways_and_workers_change_no_secret(office: Office) -> None:
    """The capability table, for the secret that admits strangers."""
    for service in (Service.GATEWAY, Service.APPROVAL, Service.RENEWAL):
        with pytest.raises(ForbiddenError):
            office.ask(service, StartTOTPRotation("eve"), TOTPRotationView)


def test_a_failed_commit_leaves_the_old_secret_and_the_new_one_waiting(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk must not leave enrollment without any secret."""
    old, new = first_secret(office), start(office)

    def full(ledger: Ledger) -> None:
        ledger.rollback()
        raise StorageError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "commit", full)
        with pytest.raises(StorageError):
            finish(office, code_of(new))
    assert enrollment_secret(office.desk.state) == old
    finish(office, code_of(new))
    assert enrollment_secret(office.desk.state) == new


def test_a_lock_that_was_not_committed_leaves_the_new_secret_waiting(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drain that was undone is undone whole: somebody has just scanned that code."""
    new = start(office)

    def full(ledger: Ledger) -> None:
        ledger.rollback()
        raise StorageError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "commit", full)
        with pytest.raises(StorageError):
            office.ask(Service.CONSOLE, LockAuthority("ann"), AuthorityView)
    finish(office, code_of(new))
    assert enrollment_secret(office.desk.state) == new


def test_a_box_for_other_keys_admits_nobody(office: Office) -> None:
    """Fail closed: the old secret was given up when the new one was written."""
    state = office.desk.state
    batch = office.desk.open_batch()
    box = seal_totp(b"\1" * 32, state.mesh().mesh_id, b"\2" * 20, state.draw)
    batch.append(TOTPRotated(box.nonce, box.ciphertext), "eve")
    office.desk.finish(batch, [])
    with pytest.raises(LedgerDamagedError) as refusal:
        join(office, "nas", code_of(first_secret(office)))
    assert "certmesh enrollment rotate-totp" in refusal.value.hint
    rotate(office)


@pytest.mark.parametrize(
    ("key", "mesh_id", "nonce"),
    [
        (b"\2" * 32, "aa", None),
        (b"\1" * 32, "bb", None),
        (b"\1" * 32, "aa", b""),
        (b"\1" * 32, "aa", b"\0" * 12),
    ],
)
def test_a_box_opens_for_its_mesh_and_its_keys_alone(
    key: bytes, mesh_id: str, nonce: bytes | None
) -> None:
    """Moved to another mesh, or mangled, it is nothing."""
    box = seal_totp(b"\1" * 32, "aa", b"\3" * 20, lambda size: b"\7" * size)
    assert open_totp(b"\1" * 32, "aa", (box.nonce, box.ciphertext)) == b"\3" * 20
    assert open_totp(key, mesh_id, (box.nonce if nonce is None else nonce, box.ciphertext)) is None
    assert open_totp(b"\1" * 32, "aa", (box.nonce, b"")) is None


def test_a_standby_that_takes_over_asks_for_the_new_secret(room: Room) -> None:
    """The secret travels in the journal, sealed for those who share the wrapping key."""
    old = first_secret(room["atlas"].office)
    new = rotate(room["atlas"])
    with pytest.raises(NotPrimaryError):
        start(room["birch"])
    room.run(5_000, until=lambda: room.lag("birch") == 0)
    room["atlas"].down = True
    room.run(60_000, until=lambda: room.serves(room["birch"]))
    birch = room["birch"].office.desk.state
    assert birch.keys.totp_secret == old
    assert enrollment_secret(birch) == new


def test_of_two_rotations_in_a_partition_the_last_writer_wins_on_both_sides(room: Room) -> None:
    """Two secrets in force would be twice the secrets to lose; the loser's is listed for review."""
    atlas, birch = room["atlas"], room["birch"]
    room.run(5_000, until=lambda: room.lag("birch") == 0)
    lost = start(atlas)
    room.cuts.update({("atlas", "birch"), ("atlas", "cedar")})
    finish(atlas, code_of(lost))
    room.run(120_000, until=lambda: room.serves(birch))
    kept = rotate(birch)
    room.cuts.clear()
    room.run(120_000, until=lambda: atlas.role == "standby" and room.lag("atlas") == 0)
    for node in (atlas, birch):
        mesh = node.office.ledger.mesh()
        opened = node.office.desk.state.keys.opened
        assert mesh is not None
        assert opened is not None
        assert open_totp(opened.wrapping_key, mesh.mesh_id, mesh.totp_box) == kept
