"""Unlocking by a code: who has the authenticator, once per step, a few guesses, all remembered."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.errors import BadCredentialError, LedgerDamagedError, NotFoundError, ThrottledError
from broker.pki.totp import STEP_S
from broker.shell.verbs.codes import WRONG_MAX, WRONG_WINDOW_S
from broker.wire.authority import AuthorityView, LockAuthority
from broker.wire.ids import Service
from broker.wire.slot import SlotAnswer, UnlockByCode
from tests.pki.test_pki_slots import code_of
from tests.shell.mesh_room import PushedClock, pushed_clock
from tests.shell.office import Office
from tests.shell.slot_scenes import adding, change, mode_of, removing, slot_of


@pytest.fixture
def clock() -> Iterator[PushedClock]:
    """Time that is pushed."""
    with pushed_clock() as found:
        yield found


@pytest.fixture
def office(home: Path, clock: PushedClock) -> Office:
    """A mesh made at a time that is pushed."""
    assert clock.jump_s == 0
    return Office.create(home)


def secret_of(answer: SlotAnswer) -> bytes:
    """Return what the authenticator was given."""
    text = answer.totp_key.replace(" ", "")
    return base64.b32decode(text + "=" * (-len(text) % 8))


def locked_with_code(office: Office) -> bytes:
    """Add a code slot, restart without the credential, and return the authenticator's secret."""
    secret = secret_of(change(office, adding("totp")))
    office.paths.credential.unlink(missing_ok=True)
    office.crash()
    return secret


def unlock(office: Office, code: str) -> str:
    """Try a code and return the lock state after it."""
    request = UnlockByCode(code, "ann")
    return office.ask(Service.CONSOLE, request, AuthorityView).state


def now_code(secret: bytes, clock: PushedClock, off: int = 0) -> str:
    """Return what the authenticator shows now."""
    return code_of(secret, int(clock.wall()) // STEP_S + off)


def wrong_code(secret: bytes, clock: PushedClock) -> str:
    """Return six digits that are no code of now."""
    right = {now_code(secret, clock, off) for off in (-1, 0, 1)}
    return next(guess for guess in ("000000", "111111", "222222", "333333") if guess not in right)


def test_a_code_opens_the_ca(office: Office, clock: PushedClock) -> None:
    """A person with the authenticator, without the passphrase."""
    secret = locked_with_code(office)
    assert unlock(office, now_code(secret, clock)) == "unlocked"
    slot = slot_of(office, "totp")
    last = office.ledger.audit(0, 1000)[-1]
    assert (last.event, last.actor, slot.encode() in last.payload) == ("ca.unlocked", "ann", True)
    assert mode_of(office.paths.credential.with_name(f"totp-{slot}")) == 0o600


def test_a_step_is_taken_once_also_after_a_crash(office: Office, clock: PushedClock) -> None:
    """Whoever looked over the shoulder has nothing."""
    secret = locked_with_code(office)
    code, earlier = now_code(secret, clock), now_code(secret, clock, -1)
    assert unlock(office, code) == "unlocked"
    for crash in (False, True):
        office.crash() if crash else _lock(office)
        for used in (code, earlier):
            with pytest.raises(BadCredentialError, match="used before"):
                unlock(office, used)
    clock.push(STEP_S * 1000)
    assert unlock(office, now_code(secret, clock)) == "unlocked"


def _lock(office: Office) -> None:
    office.ask(Service.CONSOLE, LockAuthority("ann"), AuthorityView)


def test_wrong_codes_have_to_wait_and_a_restart_forgives_nothing(
    office: Office, clock: PushedClock
) -> None:
    """A million codes, three of them right: guesses must be few."""
    secret = locked_with_code(office)
    for _ in range(WRONG_MAX):
        with pytest.raises(BadCredentialError):
            unlock(office, wrong_code(secret, clock))
    for crash in (False, True):
        if crash:
            office.crash()
        with pytest.raises(ThrottledError):
            unlock(office, now_code(secret, clock))
    clock.push(WRONG_WINDOW_S * 1000)
    assert unlock(office, now_code(secret, clock)) == "unlocked"
    events = [row.event for row in office.ledger.audit(0, 1000)]
    assert events.count("ca.unlock_failed") == WRONG_MAX


def test_a_new_slot_is_no_way_to_guess_on(office: Office, clock: PushedClock) -> None:
    """Who may add slots has a passphrase; still, the count stays."""
    secret = locked_with_code(office)
    for _ in range(WRONG_MAX):
        with pytest.raises(BadCredentialError):
            unlock(office, wrong_code(secret, clock))
    change(office, removing(slot_of(office, "totp")))
    secret = locked_with_code(office)
    with pytest.raises(ThrottledError):
        unlock(office, now_code(secret, clock))


@pytest.mark.parametrize("trouble", ["open to others", "missing", "another"])
def test_defect_36_the_file_of_the_slot_has_to_be_the_nodes_own(
    office: Office, clock: PushedClock, trouble: str
) -> None:
    """Whatever is wrong with it is said, and opens nothing; it is no wrong code either."""
    secret = locked_with_code(office)
    path = office.paths.credential.with_name(f"totp-{slot_of(office, 'totp')}")
    match trouble:
        case "open to others":
            path.chmod(0o640)
        case "missing":
            path.unlink()
        case _:
            path.write_bytes(bytes(32))
    for _ in range(WRONG_MAX + 1):
        with pytest.raises(LedgerDamagedError):
            unlock(office, now_code(secret, clock))


def test_a_code_without_a_slot_is_told_so(office: Office) -> None:
    """And an open CA stays open."""
    assert unlock(office, "123456") == "unlocked"
    office.paths.credential.unlink()
    office.crash()
    with pytest.raises(NotFoundError, match="by code"):
        unlock(office, "123456")
