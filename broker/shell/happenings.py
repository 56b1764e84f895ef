"""What happens to this node and its services want to know: `revoked`, `ca_changed`, `crl_changed`.

Each is kept in the ledger's local part until a renewal worker has run the hooks for it, so that
none is lost over crashes; a hook may run twice for that. One that keeps failing is given up after
some attempts: it says what happened, and nothing waits for it.

*Revoked*: told once per identity, when a revocation list or a bundle that was verified names the
live certificate. *The CA changed*: told when the chain file on disk has other roots than the last
time it was told, and they are those to trust now. A renewal brings the file, so a hook that copies
it finds the new one; while that renewal fails, nothing has changed for the services either. *The
revocation lists changed*: told when `trust/crl.pem` has another content than the last time, the
first one included; programs read that file when they are reloaded, and at no other time.
"""

import hashlib

import msgspec

from broker.core.renewal import Backoff
from broker.errors import MeshError
from broker.pki.crl import lists_serial
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.runtime.settings import HookEvent
from broker.shell.batch import Batch
from broker.shell.books import HappeningBook, Happenings
from broker.shell.caller import Caller
from broker.shell.lists import LOCAL_CRL, StoredCRL
from broker.shell.state import BrokerState
from broker.shell.trust import anchors_of, pins_of
from broker.wire.codec import decode_body, encode_body
from broker.wire.events import WorkAvailable
from broker.wire.ids import Service
from broker.wire.work import Failed, HooksRan, RunHooks

LOCAL_HAPPENINGS = "happenings"
TRIES_MAX = 5
HAPPENING = "happening"
LISTS = "crl.pem"
"""Written by the roster-sync worker, replaced whole, a megabyte at most."""

Key = tuple[str, str]


def note_happenings(state: BrokerState, batch: Batch) -> None:
    """Look whether something has happened to this node since the last look, and keep it."""
    if state.membership is None or not state.own.present:
        return
    book, kept = state.happenings, _kept(state)
    looked, seen = book.looked, book.seen

    def look_again() -> None:
        """What was found is lost with the drain, so that nothing was looked at."""
        book.looked, book.seen = looked, seen

    batch.on_void.append(look_again)
    found = _with_revocation(state, book, _with_trust(state, kept))
    found = _with_lists(state, book, found)
    if found == kept:
        return
    batch.keep(LOCAL_HAPPENINGS, encode_body(found))
    batch.after_commit.append(lambda: setattr(book, "kept", found))
    if set(found.waiting) - set(kept.waiting):
        batch.publish(WorkAvailable(Service.RENEWAL))


def waiting_hooks(state: BrokerState, caller: Caller) -> list[tuple[Key, RunHooks]]:
    """Return what hooks have to be told now, with the key of each item."""
    if state.membership is None:
        return []
    found = []
    for event in _kept(state).waiting:
        key, rests = (HAPPENING, event), state.backoff.get((HAPPENING, event))
        if not state.leases.is_held(key) and (rests is None or rests.is_over(caller.now_ms)):
            found.append((key, RunHooks(state.host, event)))
    return found


def hooks_ran(
    state: BrokerState, batch: Batch, caller: Caller, what: tuple[RunHooks, HooksRan | Failed]
) -> None:
    """Forget what hooks were told, or let it wait when one failed."""
    item, result = what
    key = (HAPPENING, item.event)
    renewal = state.settings.renewal
    rests = state.backoff.get(key, Backoff()).after_failure(
        caller.now_ms, min_ms=renewal.backoff_min.ms, max_ms=renewal.backoff_max.ms
    )
    if result.detail and rests.failures < TRIES_MAX:
        batch.after_commit.append(lambda: state.backoff.update({key: rests}))
        return
    if result.detail:
        log(EventName.HOOK_FAILED, hook_event=item.event, detail=f"given up: {result.detail}")
    kept = _kept(state)
    left = msgspec.structs.replace(
        kept, waiting=tuple(event for event in kept.waiting if event != item.event)
    )
    batch.keep(LOCAL_HAPPENINGS, encode_body(left))

    def forget() -> None:
        state.happenings.kept = left
        state.backoff.pop(key, None)

    batch.after_commit.append(forget)


def _kept(state: BrokerState) -> Happenings:
    book = state.happenings
    if book.kept is None:
        raw = state.ledger.local_get(LOCAL_HAPPENINGS)
        try:
            book.kept = decode_body(raw, Happenings) if raw else Happenings()
        except MeshError as error:
            log(EventName.STORAGE_FAILED, detail=f"what hooks wait for: {error.detail}")
            book.kept = Happenings()
    return book.kept


def _with_trust(state: BrokerState, kept: Happenings) -> Happenings:
    assert state.membership is not None
    roots = state.own.roots
    if not roots or roots == kept.roots or roots != pins_of(anchors_of(state.membership)):
        return kept
    found = msgspec.structs.replace(kept, roots=roots)
    # The roots that came with the first certificate have not changed.
    return _adding(found, "ca_changed") if kept.roots else found


def _with_revocation(state: BrokerState, book: HappeningBook, kept: Happenings) -> Happenings:
    assert state.membership is not None
    member_id = state.membership.member_id
    bundle = state.follow.bundle
    version = (bundle.head.term, bundle.bundle_sequence) if bundle else None
    looked = (state.own.serial, version, book.lists)
    if kept.revoked == member_id or book.looked == looked:
        return kept
    book.looked = looked
    if not _is_revoked(state, member_id):
        return kept
    log(EventName.MEMBER_REVOKED, host=state.host, serial=state.own.serial)
    return _adding(msgspec.structs.replace(kept, revoked=member_id), "revoked")


def _with_lists(state: BrokerState, book: HappeningBook, kept: Happenings) -> Happenings:
    path = state.paths.trust / LISTS
    try:
        found = path.stat()
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if book.seen == seen:
            return kept
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return kept  # not there yet, or not readable: the next look may find it
    book.seen = seen
    if digest == kept.lists:
        return kept
    return _adding(msgspec.structs.replace(kept, lists=digest), "crl_changed")


def _is_revoked(state: BrokerState, member_id: str) -> bool:
    bundle, serial = state.follow.bundle, state.own.serial
    if bundle is not None and (
        member_id in bundle.revoked_members or serial in bundle.revoked_serials
    ):
        return True
    raw = state.ledger.local_get(LOCAL_CRL)
    stored = decode_body(raw, StoredCRL) if raw else None
    return stored is not None and any(
        lists_serial(der, int(serial, 16)) for der in (stored.crl, *stored.others) if der
    )


def _adding(kept: Happenings, event: HookEvent) -> Happenings:
    waiting = tuple(dict.fromkeys((*kept.waiting, event)))
    return msgspec.structs.replace(kept, waiting=waiting)
