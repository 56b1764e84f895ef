"""Unlocking by a code: the broker opens the TOTP-guarded slot for whoever has the authenticator.

What this is worth: it keeps a person at the keyboard, or an operator without the authenticator,
from unlocking. It does not protect a stolen disk, which holds everything that opens the slot; only
a passphrase, a peer, or a credential kept elsewhere does that.

Each step is taken once, and after a few wrong codes everybody has to wait. Both are remembered in
the ledger, in wall time, so that a restart forgives nothing.
"""

from typing import Annotated

from msgspec import Meta

from broker.errors import BadCredentialError, NotFoundError, ThrottledError
from broker.pki.seal import open_with_secret
from broker.pki.slots import Typed, check_code
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.slotfile import read_slot_secret
from broker.shell.state import BrokerState
from broker.shell.unlocking import take_into_use
from broker.shell.verbs.authority import authority_view, held_vault
from broker.units import UnixSeconds
from broker.wire.authority import AuthorityView
from broker.wire.base import Body
from broker.wire.codec import decode_body, encode_body
from broker.wire.facts import AuthorityUnlockFailed
from broker.wire.ids import Count, Text
from broker.wire.slot import UnlockByCode

LOCAL_CODES = "unlock.codes"
WRONG_MAX = 5
WRONG_WINDOW_S = 900
"""Three codes of a million are right at any time: 480 guesses a day find one in two years."""


class CodeBook(Body, frozen=True):
    """What is remembered of the codes for one slot: the newest accepted step, wrong ones lately."""

    slot_id: Text = ""
    last_step: Count = 0
    wrong: Annotated[tuple[UnixSeconds, ...], Meta(max_length=64)] = ()


def unlock_by_code(
    state: BrokerState, batch: Batch, caller: Caller, request: UnlockByCode
) -> AuthorityView:
    """Open the issuing key with a code of the authenticator.

    Raises:
        NotFoundError: This CA has no code slot.
        BadCredentialError: Not a code of now, or used before.
        ThrottledError: Too many wrong codes.
        LedgerDamagedError: The slot's file is missing, damaged, or open to others.
    """
    vault = held_vault(state)
    if state.keys.issuer is not None:
        return authority_view(state)
    slot = next(iter(vault.sealed.of_kind("totp")), None)
    if slot is None:
        raise NotFoundError(
            "no slot of this CA opens by code", hint="certmesh ca slot add totp, while you can"
        )
    book = _book(state, slot.slot_id)
    recent = _recent(book, caller.now)
    secret = read_slot_secret(state.paths, slot)
    typed = Typed(request.code, caller.now, book.last_step)
    try:
        step = check_code(vault.sealed, slot, secret, typed)
    except BadCredentialError:
        wrong = (*recent, caller.now)
        batch.keep(LOCAL_CODES, encode_body(CodeBook(slot.slot_id, book.last_step, wrong)))
        log(EventName.CA_UNLOCK_FAILED, slot=slot.slot_id, operator=request.operator)
        if state.serves:
            batch.append(AuthorityUnlockFailed("totp"), request.operator)
        raise
    opened = open_with_secret(vault.sealed, "totp", secret, slot.slot_id)
    batch.keep(LOCAL_CODES, encode_body(CodeBook(slot.slot_id, step, ())))
    take_into_use(state, batch, opened, by=slot.slot_id, operator=request.operator)
    return authority_view(state)


def _book(state: BrokerState, slot_id: str) -> CodeBook:
    raw = state.ledger.local_get(LOCAL_CODES)
    book = decode_body(raw, CodeBook) if raw else CodeBook()
    # Wrong codes count on: a new slot must not be the way to guess on.
    return book if book.slot_id == slot_id else CodeBook(slot_id, 0, book.wrong)


def _recent(book: CodeBook, now: UnixSeconds) -> tuple[UnixSeconds, ...]:
    """Return the wrong codes that count; one from the future is of a clock that went wrong.

    Raises:
        ThrottledError: Too many.
    """
    recent = tuple(at for at in book.wrong if abs(now - at) < WRONG_WINDOW_S)
    if len(recent) >= WRONG_MAX:
        wait_s = max(1, WRONG_WINDOW_S - abs(now - recent[0]))
        raise ThrottledError(
            "too many wrong codes",
            hint=f"wait {wait_s} s, or unlock with the passphrase: certmesh ca unlock",
            retry_after_ms=wait_s * 1000,
        )
    return recent
