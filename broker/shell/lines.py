"""Rows of the ledger and presence, joined into the lines people read."""

from broker.clock import boottime_ms
from broker.core.delivery_state import Loop, delivery_state
from broker.core.renewal import BACKDATE_S
from broker.ledger.rows import CertificateRow, MemberRow
from broker.shell.pace import heard_within_s
from broker.shell.state import BrokerState
from broker.shell.worklist import own_due_at
from broker.units import UnixSeconds
from broker.wire.ids import DeliveryState
from broker.wire.node import MemberLine


class Lines:
    """Makes lines for one moment; what is the same for all members is looked up once."""

    def __init__(self, state: BrokerState, now: UnixSeconds) -> None:
        self._state = state
        self._now = now
        self._silent_s = heard_within_s(state)

    def of(self, row: MemberRow, certificate: CertificateRow | None) -> MemberLine:
        """Return one line of the roster."""
        seen_at = self._seen_at(row)
        active = row.state == "active"
        delivery = delivery_state(self._loop(row, certificate, seen_at), self._now)
        return MemberLine(
            host=row.host,
            member_id=row.member_id,
            role=row.role,
            state=self._word(delivery, seen_at) if active else "revoked",
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
            delivery=delivery if active else row.served,
            survives_until=row.serving_until if active else None,
            served_detail=row.served_detail,
            served_at=row.served_at,
        )

    def _loop(
        self, row: MemberRow, certificate: CertificateRow | None, seen_at: UnixSeconds | None
    ) -> Loop:
        issued_at = UnixSeconds(certificate.not_before + BACKDATE_S) if certificate else None
        return Loop(
            serial=row.current_serial,
            issued_at=issued_at,
            not_after=certificate.not_after if certificate else None,
            word=row.served,
            served_serial=row.served_serial,
            serving_until=row.serving_until,
            seen_at=seen_at,
            silent_s=self._silent_s,
        )

    def _seen_at(self, row: MemberRow) -> UnixSeconds | None:
        """Return when it was heard last: by its heartbeats, or as the primary that is probed."""
        state, active = self._state, row.state == "active"
        if active and row.host == state.host:
            return self._now
        seen = state.presence.of(row.member_id)
        beat_at = seen.seen_at if seen else None
        leader = state.election.leader if state.election else None
        if not active or state.election is None or leader is None or leader.host != row.host:
            return beat_at
        # A primary sends no heartbeats to key holders: they hear its own beats.
        heard_at = UnixSeconds(self._now - state.election.silent_ms(boottime_ms()) // 1000)
        return heard_at if beat_at is None else max(heard_at, beat_at)

    def _word(self, delivery: DeliveryState, seen_at: UnixSeconds | None) -> str:
        if delivery == "expired":
            return "expired"
        if seen_at is None:
            return "new"
        return "up" if self._now - seen_at <= self._silent_s else "away"


def member_line(
    state: BrokerState, row: MemberRow, certificate: CertificateRow | None, now: UnixSeconds
) -> MemberLine:
    """Return one line of the roster."""
    return Lines(state, now).of(row, certificate)


def own_line(state: BrokerState, now: UnixSeconds) -> MemberLine | None:
    """Return this node's own certificate as a line, None before it joined."""
    membership, own = state.membership, state.own
    if membership is None:
        return None
    survives = own.serving_until or own.not_after if own.present else None
    expired = survives is not None and survives <= now
    return MemberLine(
        host=state.host,
        member_id=membership.member_id,
        role=state.role,
        state="expired" if expired else "up",
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
        delivery="expired" if expired else own.state,
        survives_until=survives,
        served_detail=own.detail,
    )
