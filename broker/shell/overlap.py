"""Who is ready for the next step of a rollover, as this key holder's rows and ears have it."""

from collections.abc import Iterator

from broker.core.rollover import MemberTrust, Survey, live_s, survey
from broker.ledger.rows import CertificateRow, MemberRow, RolloverRow
from broker.pki.chain import key_id_of, was_issued_by
from broker.shell.pace import beat_every_ms
from broker.shell.state import BrokerState
from broker.shell.trust import trusts_of
from broker.units import UnixSeconds
from broker.wire.ids import Host

PAGE = 500


def survey_of(state: BrokerState, row: RolloverRow, now: UnixSeconds) -> Survey:
    """Return who is ready for the next step, among all active members."""
    live_for_s = live_s(beat_every_ms(state))
    return survey(_members(state, row, now), now, live_for_s)


def standbys_lacking(state: BrokerState, row: RolloverRow) -> tuple[Host, ...]:
    """Return the standbys that are not known to have the row with the next key on disk."""
    followers = state.replication.followers
    others = (member.host for member in state.ledger.key_holders() if member.host != state.host)
    return tuple(
        host for host in others if followers is None or followers.sequence_of(host) < row.sequence
    )


def old_ones(state: BrokerState, row: RolloverRow, after: str, now: UnixSeconds) -> tuple[str, str]:
    """Look at one page of members for a certificate of the retiring CA.

    Returns:
        A host that shows one, else empty; and where the next page begins, empty after the last.
    """
    page = state.ledger.members_page(after, PAGE)
    key_id = key_id_of(row.retiring_issuing)
    for member, certificate in page:
        if member.state == "active" and _shows_old(state, (member, certificate), key_id, now):
            return member.host, ""
    return "", page[-1][0].host if len(page) == PAGE else ""


def _members(state: BrokerState, row: RolloverRow, now: UnixSeconds) -> Iterator[MemberTrust]:
    key_id, after = key_id_of(row.retiring_issuing), ""
    while True:
        page = state.ledger.members_page(after, PAGE)
        for member, certificate in page:
            if member.state != "active":
                continue
            presence = state.presence.of(member.member_id)
            heard_at = presence.seen_at if presence is not None else None
            if member.host == state.host:
                heard_at = now
            if row.phase == "trusting":
                ready = row.pin in _trusts(state, member)
            else:
                ready = not _shows_old(state, (member, certificate), key_id, now)
            yield MemberTrust(member.host, heard_at, ready)
        if len(page) < PAGE:
            return
        after = page[-1][0].host


def _trusts(state: BrokerState, member: MemberRow) -> tuple[str, ...]:
    """Return the pins a member said it trusts, in its services too; nothing from an old release."""
    if member.host == state.host:
        return trusts_of(state)
    presence = state.presence.of(member.member_id)
    return presence.trusts if presence is not None else ()


def _shows_old(
    state: BrokerState,
    what: tuple[MemberRow, CertificateRow | None],
    key_id: bytes,
    now: UnixSeconds,
) -> bool:
    """Return whether a member has a certificate of the retiring CA that somebody could be shown.

    What it was issued counts, and what it said it serves: an installation may have failed.
    """
    member, current = what
    if _is_old(current, key_id, now):
        return True
    presence = state.presence.of(member.member_id)
    served = presence.served_serial if presence is not None else member.served_serial
    if not served or (current is not None and served == current.serial):
        return False
    found = state.ledger.certificate(served)
    return found is not None and _is_old(found[1], key_id, now)


def _is_old(row: CertificateRow | None, key_id: bytes, now: UnixSeconds) -> bool:
    return row is not None and row.not_after >= now and was_issued_by(row.certificate, key_id)
