"""A node that was restored from a backup: what it asks, what it concludes, and how it goes on.

Until `broker.core.collecting` says so it neither serves nor signs. Going on is one transaction: a
new term above all that anybody has heard of, the restoration with its witnesses, and everybody whom
the living call revoked. The journal goes on where the backup ended, so what members remember of
later rows differs from it: those rows are of a term before this one.
"""

from msgspec.structs import replace

from broker.core.collecting import Collecting, Reign, revoked_here
from broker.core.phases import Promote
from broker.errors import LedgerDamagedError, MeshError
from broker.ledger.rows import MemberRow
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.bundling import LOCAL_BUNDLE, keep_refusing, primary_of
from broker.shell.peers import own_domain, own_endpoint
from broker.shell.safekeeping import RestoreBook, RestoreMark
from broker.shell.state import BrokerState
from broker.shell.succession import promote
from broker.units import Millis
from broker.wire.codec import decode_body, encode_body
from broker.wire.facts import BackupRestored, MemberMoved, MemberRevoked
from broker.wire.ids import Host
from broker.wire.node import Endpoint
from broker.wire.roster import BundleBody

ACTOR = "restore"
LOCAL_RESTORED = "restored"
NAMED_MAX = 8


def open_restored(state: BrokerState) -> None:
    """Take up a restoration where the last lifetime left it; whoever was asked is asked again.

    Raises:
        LedgerDamagedError: The mark cannot be read; it is never guessed that it meant nothing.
    """
    raw = state.ledger.local_get(LOCAL_RESTORED)
    if raw is None:
        return
    try:
        mark = decode_body(raw, RestoreMark)
    except MeshError as error:
        raise LedgerDamagedError(f"the mark of a restoration: {error.detail}") from None
    head = state.ledger.head
    leaders = [row.host for row in state.ledger.key_holders() if row.role == "primary"]
    own = Reign(head.term, head.sequence, leaders[0] if leaders else "")
    book = state.restored = RestoreBook(mark, Collecting(state.host, own))
    book.collecting.expect(tuple(host for _, host in state.ledger.active_members()))


def sources_now(state: BrokerState, now_ms: Millis) -> tuple[Endpoint, ...]:
    """Return the doors of whom to ask now; nobody when nothing is to be collected."""
    book = state.restored
    if book is None or book.mark.settled:
        return ()
    found: list[Endpoint] = []
    for host in book.collecting.due(now_ms):
        doors = _doors(state, host)
        if doors is None or not doors.addresses or not doors.enroll_port:
            book.collecting.unheard(host)  # nowhere to ask it
        else:
            found.append(doors)
    return tuple(found)


def note_answer(state: BrokerState, host: Host, body: BundleBody, raw: bytes) -> None:
    """Take in a verified bundle; the newest one shows the key holders that the backup lacks."""
    book = state.restored
    if book is None or book.mark.settled:
        return
    book.collecting.heard(host, body)
    known = state.follow.bundle
    if known is None or _version(body) > _version(known):
        state.follow.bundle, state.follow.bundle_bytes = body, raw


def note_silence(state: BrokerState, host: Host) -> None:
    """Note that a member did not answer."""
    if state.restored is not None:
        state.restored.collecting.unheard(host)


def go_on_if_all_answered(state: BrokerState, batch: Batch, now_ms: Millis) -> None:
    """Begin the new term once everybody had their turn and nobody else led meanwhile."""
    book = state.restored
    if book is None or book.mark.settled or book.collecting.verdict != "go":
        return
    go_on(state, batch, ACTOR, now_ms)


def go_on(state: BrokerState, batch: Batch, actor: str, now_ms: Millis) -> None:
    """Serve again: new term, who was asked, all revocations, in one transaction."""
    book, election = state.restored, state.election
    assert book is not None
    assert election is not None
    collecting = book.collecting
    term = max(election.highest_term, collecting.newest.term) + 1
    _settle(state, batch, book, term)
    out = _to_revoke(state, collecting)
    promote(state, batch, Promote(term, "restored", _evidence(collecting)), now_ms)
    revoked = len(out)
    _revoke(state, batch, collecting, out)
    answered = collecting.asked - len(collecting.silent)
    batch.append(
        BackupRestored(state.host, book.mark.digest, collecting.asked, answered, revoked), actor
    )
    _move_here(state, batch)
    log(
        EventName.BACKUP_RESTORED,
        term=term,
        asked=collecting.asked,
        answered=answered,
        silent=list(collecting.silent[:NAMED_MAX]),
        revoked=revoked,
    )


def restored_warning(state: BrokerState) -> str:
    """Return what a person should know of a restoration, or nothing."""
    book = state.restored
    if book is None:
        return ""
    collecting = book.collecting
    leader = collecting.newest.primary
    if book.mark.settled:
        silent = collecting.silent
        if not silent:
            return ""
        named = ", ".join(silent[:NAMED_MAX]) + (" ..." if len(silent) > NAMED_MAX else "")
        return f"restored from a backup without a word from {named}: what only they know is missing"
    match collecting.verdict:
        case "led":
            return (
                f"{leader} leads in term {collecting.newest.term}, so this restored node must not: "
                "certmesh ca destroy here, then join again and become a standby"
            )
        case "silent":
            return (
                f"restored, but {leader} led in term {collecting.newest.term} and does not answer: "
                "start it, or if it is gone for good: certmesh standby promote --force"
            )
        case _:
            return f"this node {book.held}"


def _settle(state: BrokerState, batch: Batch, book: RestoreBook, term: int) -> None:
    """Mark the restoration as over, with the transaction that makes it so."""
    before = book.mark
    book.mark = replace(before, settled=True, new_term=term)
    batch.keep(LOCAL_RESTORED, encode_body(book.mark))
    batch.on_void.append(lambda: setattr(book, "mark", before))
    if state.follow.bundle is not None:
        batch.keep(LOCAL_BUNDLE, state.follow.bundle_bytes)


def _to_revoke(state: BrokerState, collecting: Collecting) -> list[str]:
    """Return the active members of this ledger that the living call revoked."""
    found = {serial: state.ledger.certificate(serial) for serial in collecting.serials}
    owners = {serial: pair[0].member_id for serial, pair in found.items() if pair is not None}
    rows = map(state.ledger.member, sorted(revoked_here(collecting, owners)))
    active = (row for row in rows if row is not None and row.state == "active")
    return [row.member_id for row in active if row.host != state.host]


def _revoke(state: BrokerState, batch: Batch, collecting: Collecting, out: list[str]) -> None:
    """Write down whom the living call revoked; keep serials that this ledger never knew."""
    for member_id in out:
        member = state.ledger.member(member_id)
        # The promotion took over what the newest bundle says; the others are still to come.
        if member is not None and member.state == "active":
            batch.append(_revocation(collecting, member), ACTOR)
    keep_refusing(state, batch, sorted(collecting.serials))


def _revocation(collecting: Collecting, member: MemberRow) -> MemberRevoked:
    reign = collecting.newest
    reason = f"revoked after the backup was made, as the members know (term {reign.term})"
    return MemberRevoked(member.member_id, member.host, reason)


def _move_here(state: BrokerState, batch: Batch) -> None:
    """Tell the mesh where this node is now: a new machine may have another address."""
    membership = state.membership
    assert membership is not None
    row = state.ledger.member(membership.member_id)
    here = own_endpoint(state, own_domain(membership))
    if row is not None and here.addresses and row.endpoint != here:
        batch.append(MemberMoved(membership.member_id, here), ACTOR)


def _evidence(collecting: Collecting) -> str:
    lost = max(0, collecting.newest.sequence - collecting.own.sequence)
    answered = collecting.asked - len(collecting.silent)
    told = f"{answered} of {collecting.asked} members told what they know"
    if collecting.newest.term == collecting.own.term and lost:
        told += f"; {lost} rows after row {collecting.own.sequence} are lost"
    if collecting.silent:
        told += f"; silent: {', '.join(collecting.silent[:NAMED_MAX])}"
    return told


def _doors(state: BrokerState, host: str) -> Endpoint | None:
    """Return where a node is: as a newer bundle says of a key holder, else as the backup says."""
    bundle = state.follow.bundle
    holders = bundle.key_holders if bundle is not None else ()
    for holder in holders:
        if holder.endpoint.host == host:
            return holder.endpoint
    member = state.ledger.member_by_host(host)
    if member is not None:
        return member.endpoint
    primary = primary_of(bundle) if bundle is not None else None
    return primary if primary is not None and primary.host == host else None


def _version(body: BundleBody) -> tuple[int, int]:
    return (body.head.term, body.bundle_sequence)
