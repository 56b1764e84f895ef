"""Rows of the ledger and presence, joined into the lines people read."""

from broker.ledger.rows import CertificateRow, MemberRow
from broker.shell.state import BrokerState
from broker.shell.worklist import own_due_at
from broker.units import UnixSeconds
from broker.wire.node import MemberLine


def member_line(
    state: BrokerState, row: MemberRow, certificate: CertificateRow | None, now: UnixSeconds
) -> MemberLine:
    """Return one line of the roster."""
    seen = state.presence.of(row.member_id)
    is_self = row.host == state.host and row.state == "active"
    seen_at = now if is_self else (seen.seen_at if seen else None)
    return MemberLine(
        host=row.host,
        member_id=row.member_id,
        role=row.role,
        state=_state(state, row, certificate, seen_at, now),
        serial=row.current_serial,
        not_before=UnixSeconds(certificate.not_before) if certificate else None,
        not_after=UnixSeconds(certificate.not_after) if certificate else None,
        renew_at=UnixSeconds(certificate.renew_at) if certificate else None,
        served=row.served,
        served_serial=row.served_serial,
        last_seen_at=seen_at,
        address=row.endpoint.addresses[0] if row.endpoint.addresses else "",
        sans=row.sans,
        joined_at=UnixSeconds(row.joined_at),
        last_error=row.last_error,
    )


def own_line(state: BrokerState) -> MemberLine | None:
    """Return this node's own certificate as a line, None before it joined."""
    membership, own = state.membership, state.own
    if membership is None:
        return None
    return MemberLine(
        host=state.host,
        member_id=membership.member_id,
        role=state.role,
        state="up",
        serial=own.serial,
        not_before=own.not_before,
        not_after=own.not_after,
        renew_at=own_due_at(state) if own.present else None,
        served=own.state,
        served_serial=own.serial,
        last_seen_at=None,
        address="",
        sans=(membership.server_name,),
        last_error=state.own_failure or own.detail,
    )


def _state(
    state: BrokerState,
    row: MemberRow,
    certificate: CertificateRow | None,
    seen_at: UnixSeconds | None,
    now: UnixSeconds,
) -> str:
    if row.state == "revoked":
        return "revoked"
    if certificate is not None and certificate.not_after <= now:
        return "expired"
    heartbeat = state.settings.heartbeat
    silent_s = heartbeat.interval.ms * heartbeat.suspect_after / 1000
    if seen_at is None:
        return "new"
    return "up" if now - seen_at <= max(silent_s, 2) else "away"
