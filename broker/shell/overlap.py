"""Who is ready for the next step of a rollover, as this key holder's rows and ears have it."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

from broker.clock import boottime_ms
from broker.core.rollover import MemberTrust, Survey, live_s, survey
from broker.ledger.rollover_reads import Shown
from broker.ledger.rows import RolloverRow
from broker.pki.chain import key_id_of, was_issued_by
from broker.shell.pace import beat_every_ms
from broker.shell.state import BrokerState
from broker.shell.trust import trusts_of
from broker.units import UnixSeconds
from broker.wire.ids import Host

PAGE = 500
ALL = -1


def survey_of(state: BrokerState, row: RolloverRow, now: UnixSeconds) -> Survey:
    """Return who is ready for the next step, among all active members."""
    live_for_s = live_s(beat_every_ms(state))
    members: Iterable[MemberTrust] = _members(state, row, now)
    if boottime_ms() - state.started_ms < live_for_s * 1000:
        # Nobody has had the time to be heard by this broker: their silence says nothing.
        members = map(partial(_as_if_here, now), members)
    return survey(members, now, live_for_s)


def _as_if_here(now: UnixSeconds, member: MemberTrust) -> MemberTrust:
    return member if member.heard_at is None else replace(member, heard_at=now)


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
    key_id = key_id_of(row.retiring_issuing)
    page = state.ledger.shown(key_id, now, after, PAGE)
    for member in page:
        if _shows_old(state, member, key_id, now):
            return member.host, ""
    return "", page[-1].host if len(page) == PAGE else ""


def _members(state: BrokerState, row: RolloverRow, now: UnixSeconds) -> Iterator[MemberTrust]:
    key_id = key_id_of(row.retiring_issuing)
    for member in state.ledger.shown(key_id, now, "", ALL):
        presence = state.presence.of(member.member_id)
        heard_at = presence.seen_at if presence is not None else None
        if member.host == state.host:
            heard_at = now
        if row.phase == "trusting":
            ready = row.pin in _trusts(state, member)
        else:
            ready = not _shows_old(state, member, key_id, now)
        yield MemberTrust(member.host, heard_at, ready)


def _trusts(state: BrokerState, member: Shown) -> tuple[str, ...]:
    """Return the pins a member said it trusts, in its services too; nothing from an old release."""
    if member.host == state.host:
        return trusts_of(state)
    presence = state.presence.of(member.member_id)
    return presence.trusts if presence is not None else ()


def _shows_old(state: BrokerState, member: Shown, key_id: bytes, now: UnixSeconds) -> bool:
    """Return whether a member has a certificate of the retiring CA that somebody could be shown.

    What it was issued counts, and what it said it serves: an installation may have failed.
    """
    if member.is_old:
        return True
    presence = state.presence.of(member.member_id)
    served = presence.served_serial if presence is not None else member.served_serial
    if not served or served == member.serial:
        return False
    found = state.ledger.certificate(served)
    if found is None or found[1].not_after < now:
        return False
    return was_issued_by(found[1].certificate, key_id)
