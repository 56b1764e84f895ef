"""Adding and removing ways to unlock: what proves the right, what crashes leave, who may read."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from broker.core.limiter import AttemptLimiter
from broker.errors import (
    BadPassphraseError,
    BusyError,
    ConflictError,
    ForbiddenError,
    NameNotAllowedError,
    NotFoundError,
    StorageError,
    ThrottledError,
)
from broker.pki.seal import open_root, open_with_passphrase
from broker.runtime.files import fsync_directory
from broker.shell import vault as vault_module
from broker.shell.slotfile import SYSTEMD_DIRECTORY, SYSTEMD_NAME
from broker.shell.vault import load_vault
from broker.wire.authority import AuthorityView, GetAuthority
from broker.wire.facts import PolicyChanged
from broker.wire.ids import Service
from broker.wire.slot import SlotAnswer, SlotKind
from tests.shell.office import PASSPHRASE, Office
from tests.shell.slot_scenes import (
    SECOND,
    adding,
    answer,
    begin,
    change,
    credentials,
    finish,
    kinds,
    mode_of,
    removing,
    slot_of,
)

FIRST = ["passphrase", "credential", "recovery"]
"""What `certmesh init` makes."""


@pytest.fixture
def office(home: Path) -> Office:
    """A mesh whose CA opens by passphrase and by credential file."""
    return Office.create(home)


def journal(office: Office) -> list[str]:
    """Return the events about the CA, oldest first."""
    rows = office.ledger.audit(0, 1000)
    return [row.event for row in rows if row.event.startswith("ca.")]


@contextmanager
def full_disk(office: Office, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every commit of the block fail as one on a full disk does: rolled back."""

    def refuse() -> None:
        office.ledger.rollback()
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(office.ledger, "commit", refuse)
        yield


def state_of(office: Office) -> str:
    """Return the lock state."""
    return office.ask(Service.CONSOLE, GetAuthority(), AuthorityView).state


def opens(office: Office, passphrase: str) -> bool:
    """Whether what lies on disk opens with this passphrase."""
    vault = load_vault(office.paths.authority)
    assert vault is not None
    try:
        open_with_passphrase(vault.sealed, passphrase.encode())
    except BadPassphraseError:
        return False
    return True


def test_a_passphrase_is_changed_by_adding_the_new_and_removing_the_old(office: Office) -> None:
    """At every moment one of them opens the CA, and the root key follows."""
    first = slot_of(office, "passphrase")
    added = change(office, adding("passphrase", new=SECOND))
    assert (opens(office, PASSPHRASE), opens(office, SECOND)) == (True, True)
    assert added.note == ""
    change(office, removing(first, SECOND))
    assert (opens(office, PASSPHRASE), opens(office, SECOND)) == (False, True)
    vault = load_vault(office.paths.authority)
    assert vault is not None
    assert open_root(vault.sealed, SECOND.encode())
    assert journal(office)[-2:] == ["ca.slot_added", "ca.slot_removed"]


def test_defect_32_a_passphrase_that_proves_nothing_changes_nothing(office: Office) -> None:
    """`rotate-auth` never checked: the typing error killed enrollment at the next unlock."""
    before = (office.paths.authority / "keys.sealed").read_bytes()
    wrong = PASSPHRASE + "x"
    requests = (
        adding("passphrase", passphrase=wrong, new=SECOND),
        adding("totp", passphrase=wrong),
        adding("systemd", passphrase=wrong),
        removing(slot_of(office, "credential"), wrong),
    )
    for request in requests:
        with pytest.raises(BadPassphraseError):
            change(office, request)
    assert (office.paths.authority / "keys.sealed").read_bytes() == before
    assert credentials(office) == {"ca-unlock"}
    assert journal(office)[-4:] == ["ca.unlock_failed"] * 4


def test_defect_32_a_typing_error_in_the_new_passphrase_keeps_the_old_one(office: Office) -> None:
    """Who cannot type the new one again cannot remove the old one."""
    first = slot_of(office, "passphrase")
    change(office, adding("passphrase", new=SECOND + "typo"))
    for unproved in (SECOND, PASSPHRASE):
        with pytest.raises(BadPassphraseError):
            change(office, removing(first, unproved))
    assert opens(office, PASSPHRASE)


def test_wrong_proofs_have_to_wait_like_wrong_unlocks(office: Office) -> None:
    """Else changing slots would be the way to guess passphrases without a limit."""
    office.desk.state.limiter = AttemptLimiter(2, 60_000)
    for _ in range(2):
        with pytest.raises(BadPassphraseError):
            change(office, adding("totp", passphrase="guess"))
    with pytest.raises(ThrottledError):
        change(office, adding("totp"))
    with pytest.raises(ThrottledError):
        change(office, removing(slot_of(office, "credential")))


@pytest.mark.parametrize("new", ["short", "", "x" * 257])
def test_a_second_passphrase_has_to_be_one_that_can_be_used(office: Office, new: str) -> None:
    """The same bounds as everywhere."""
    with pytest.raises(NameNotAllowedError):
        change(office, adding("passphrase", new=new))
    assert kinds(office) == FIRST


def test_the_last_passphrase_slot_stays(office: Office) -> None:
    """A lost file would else be a lost CA."""
    with pytest.raises(ConflictError, match="last passphrase"):
        change(office, removing(slot_of(office, "passphrase")))
    with pytest.raises(NotFoundError):
        change(office, removing("00" * 8))


def test_a_removed_credential_takes_its_file_along_and_opens_nothing(office: Office) -> None:
    """After a restart a person is needed."""
    change(office, removing(slot_of(office, "credential")))
    assert credentials(office) == set()
    assert state_of(office) == "unlocked", "what is open stays open until somebody locks it"
    office.crash()
    assert state_of(office) == "locked"


def test_a_credential_comes_back_and_opens_at_the_next_start(office: Office) -> None:
    """Off and on again, with another secret."""
    old = office.paths.credential.read_bytes()
    change(office, removing(slot_of(office, "credential")))
    added = change(office, adding("credential"))
    assert added.secret_path == str(office.paths.credential)
    assert mode_of(office.paths.credential) == 0o600
    assert office.paths.credential.read_bytes() != old
    office.crash()
    assert state_of(office) == "unlocked"
    office.paths.credential.write_bytes(old)
    office.crash()
    assert state_of(office) == "locked"


@pytest.mark.parametrize("kind", ["credential", "totp"])
def test_there_is_one_slot_of_a_kind_that_has_one_file(office: Office, kind: SlotKind) -> None:
    """A second one would overwrite the first one's secret."""
    if kind == "totp":
        change(office, adding(kind))
    with pytest.raises(ConflictError, match="already"):
        change(office, adding(kind))


def test_the_recovery_secret_is_drawn_once(office: Office) -> None:
    """It is shown when the mesh is made, on paper; nothing later could show it."""
    with pytest.raises(ConflictError, match="drawn once"):
        change(office, adding("recovery"))


@pytest.mark.parametrize("kind", ["credential", "systemd", "peer"])
def test_a_policy_without_unattended_slots_refuses_them(office: Office, kind: SlotKind) -> None:
    """my-organization wants a person at every start; a code is one."""
    mesh = office.ledger.mesh()
    assert mesh is not None
    batch = office.desk.open_batch()
    batch.append(PolicyChanged(replace(mesh.policy, unattended=False), ("unattended",)), "ann")
    office.desk.finish(batch, [])
    with pytest.raises(ForbiddenError, match="without a person"):
        change(office, adding(kind, peer="nas" if kind == "peer" else ""))
    assert change(office, adding("totp")).slot_kind == "totp"


# What systemd gives.


def test_the_secret_of_systemd_opens_the_ca_from_where_systemd_puts_it(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On disk it lies encrypted for this machine's TPM or host key, not in this home."""
    change(office, removing(slot_of(office, "credential")))
    added = change(office, adding("systemd"))
    drawn = Path(added.secret_path)
    assert (mode_of(drawn), len(drawn.read_bytes())) == (0o600, 32)
    secret = drawn.read_bytes()
    drawn.unlink()
    office.crash()
    assert state_of(office) == "locked"
    given = tmp_path / SYSTEMD_NAME
    given.write_bytes(secret)
    given.chmod(0o440)  # as an access list makes it look
    monkeypatch.setenv(SYSTEMD_DIRECTORY, str(tmp_path))
    office.crash()
    assert state_of(office) == "unlocked"
    given.chmod(0o444)
    office.crash()
    assert state_of(office) == "locked"


def test_a_broken_credential_file_does_not_keep_systemd_from_unlocking(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One way that fails is no reason not to try the next (row 57)."""
    added = change(office, adding("systemd"))
    (tmp_path / SYSTEMD_NAME).write_bytes(Path(added.secret_path).read_bytes())
    (tmp_path / SYSTEMD_NAME).chmod(0o400)
    monkeypatch.setenv(SYSTEMD_DIRECTORY, str(tmp_path))
    office.paths.credential.write_bytes(bytes(32))
    office.crash()
    assert state_of(office) == "unlocked"


# Who may read.


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o666])
def test_defect_36_a_secret_that_others_may_read_or_write_is_refused(
    office: Office, mode: int
) -> None:
    """What everybody could read, or could have put there, is no secret (row 57)."""
    office.paths.credential.chmod(mode)
    office.crash()
    assert state_of(office) == "locked"
    office.paths.credential.chmod(0o600)
    office.crash()
    assert state_of(office) == "unlocked"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_defect_36_a_secret_of_another_user_is_refused(office: Office) -> None:
    """Somebody else may have put it there."""
    os.chown(office.paths.credential, 65534, -1)
    office.crash()
    assert state_of(office) == "locked"


def test_defect_36_nothing_stands_in_for_a_missing_secret(office: Office) -> None:
    """No key from the machine id or anything else that everybody can read (row 57)."""
    office.paths.credential.unlink()
    office.crash()
    assert state_of(office) == "locked"


def test_a_pipe_in_place_of_a_secret_stops_nobody(office: Office) -> None:
    """Opening it must not wait for a writer: the broker would never start."""
    office.paths.credential.unlink()
    os.mkfifo(office.paths.credential, 0o600)
    office.crash()
    assert state_of(office) == "locked"


# Crashes and full disks.


def test_defect_33_a_crash_at_any_moment_leaves_a_vault_that_opens_and_changes(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half-made things used to answer "already exists" for ever."""
    steps = {"left": 0}

    def power_cut(path: Path) -> None:
        steps["left"] -= 1
        if steps["left"] == 0:
            raise OSError(5, "power cut")
        fsync_directory(path)

    monkeypatch.setattr(vault_module, "fsync_directory", power_cut)
    for moment in range(1, 8):
        steps["left"] = moment
        try:
            change(office, adding("totp"))
        except StorageError:
            office.crash()
        assert opens(office, PASSPHRASE), f"nothing opens after a crash at step {moment}"
        steps["left"] = 0
        if "totp" in kinds(office):
            change(office, removing(slot_of(office, "totp")))
        change(office, adding("totp"))
        change(office, removing(slot_of(office, "totp")))
    assert state_of(office) == "unlocked"
    assert kinds(office) == FIRST


def test_a_slot_whose_row_cannot_be_written_does_not_come_to_be(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No way to unlock exists that the audit trail does not know."""
    assert begin(office, adding("totp")) == []

    with full_disk(office, monkeypatch), pytest.raises(StorageError, match="full"):
        answer(finish(office), SlotAnswer)
    assert kinds(office) == FIRST
    assert credentials(office) == {"ca-unlock"}
    assert change(office, adding("totp")).totp_key


def test_a_removal_whose_row_cannot_be_written_is_a_removal(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slot that somebody wanted gone must not come back with the full disk."""
    assert begin(office, removing(slot_of(office, "credential"))) == []

    with full_disk(office, monkeypatch), pytest.raises(StorageError, match="full"):
        answer(finish(office), SlotAnswer)
    assert kinds(office) == ["passphrase", "recovery"]
    assert change(office, adding("credential")).slot_kind == "credential"


def test_one_change_at_a_time(office: Office) -> None:
    """Two computed from the same vault would undo one another."""
    assert begin(office, adding("totp")) == []
    with pytest.raises(BusyError):
        change(office, adding("systemd"))
    answer(finish(office), SlotAnswer)
    change(office, adding("systemd"))
    assert kinds(office) == [*FIRST, "totp", "systemd"]


def test_a_repetition_of_the_request_waits_for_the_same_change(office: Office) -> None:
    """A console that lost the answer asks again; one slot comes of it."""
    request_id = secrets.token_bytes(16)
    assert begin(office, adding("systemd"), request_id) == []
    assert begin(office, adding("systemd"), request_id) == []
    answer(finish(office), SlotAnswer)
    assert kinds(office) == [*FIRST, "systemd"]


@pytest.mark.parametrize("change_of", ["an addition", "a removal"])
def test_what_was_computed_from_a_vault_that_is_gone_is_not_written(
    office: Office, change_of: str
) -> None:
    """A key that was received meanwhile, or a new CA, must not be overwritten by the old one."""
    gone = removing(slot_of(office, "credential"))
    assert begin(office, gone if change_of == "a removal" else adding("systemd")) == []
    vault = load_vault(office.paths.authority)
    office.desk.state.keys.vault = vault
    with pytest.raises(ConflictError, match="meanwhile"):
        answer(finish(office), SlotAnswer)
    assert kinds(office) == FIRST
    assert change(office, adding("systemd")).slot_kind == "systemd"


def test_a_locked_ca_changes_its_slots_and_stays_locked(office: Office) -> None:
    """The proof opens the keys for the change alone."""
    office.paths.credential.unlink()
    office.crash()
    change(office, adding("passphrase", new=SECOND))
    assert state_of(office) == "locked"


def test_the_loop_is_free_while_a_passphrase_is_tried(office: Office) -> None:
    """A key derivation takes a fifth of a second; a status must not wait for it."""
    assert begin(office, adding("passphrase", new=SECOND)) == []
    assert kinds(office) == FIRST
    answer(finish(office), SlotAnswer)
    assert kinds(office) == [*FIRST, "passphrase"]


def test_the_secret_file_of_a_slot_is_read_whole_or_not_at_all(office: Office) -> None:
    """A torn file says so instead of looking like a wrong secret."""
    office.paths.credential.write_bytes(bytes(31))
    office.crash()
    assert state_of(office) == "locked"
    office.paths.credential.write_bytes(bytes(33))
    office.crash()
    assert state_of(office) == "locked"
