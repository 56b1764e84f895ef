"""The closed loop's last step: what a member serves, written down when it changes."""

from broker.clock import boottime_ms, wall_s
from broker.core.delivery_state import GOOD
from broker.errors import NotFoundError
from broker.ledger.rows import CertificateRow, MemberRow
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.state import BrokerState
from broker.shell.turns import OWN
from broker.wire.facts import CertificateServed
from broker.wire.ids import ServedState

ROWS_EVERY_MS = 2_000
"""A member may change its story this often, by beats and by reports each."""


def note_served(
    state: BrokerState,
    batch: Batch,
    member_id: str,
    report: tuple[str, ServedState, str],
    *,
    source: str,
) -> None:
    """Append the state of a member's certificate if it is news.

    Args:
        state: The broker.
        batch: The drain.
        member_id: Whose certificate.
        report: Serial, state, detail. The serial must have been issued to that member; the
            member can say what it serves, never when that ends.
        source: `work`, `report` or `beat`; each has a pace of its own, leased work has none.

    Raises:
        NotFoundError: The serial was not issued to this member.
    """
    serial, served, detail = report[0], report[1], report[2][:512]
    found = state.ledger.certificate(serial)
    if found is None or found[0].member_id != member_id:
        raise NotFoundError("this serial was not issued to this member")
    member = found[0]
    told = (member.served_serial, member.served, member.served_detail)
    renewed = served in GOOD and _is_renewed(member, found[1])
    mends = renewed and bool(member.last_error)
    if told == (serial, served, detail) and not mends:
        return
    key = (source, member_id)
    if source != "work" and not state.rows.passes(key, boottime_ms(), ROWS_EVERY_MS):
        return
    batch.on_void.append(lambda: state.rows.forget(key))
    batch.append(CertificateServed(member_id, serial, served, detail), member.host)
    if renewed:
        batch.after_commit.append(lambda: _no_longer_failing(state, member))


def _is_renewed(member: MemberRow, certificate: CertificateRow) -> bool:
    """Return whether this is the newest certificate of a member, and not what could not be renewed.

    A host that the sweep cannot reach goes on to say that it serves the one before: that ends no
    failure and no backoff.
    """
    return certificate.serial == member.current_serial and certificate.renew_at > wall_s()


def _no_longer_failing(state: BrokerState, member: MemberRow) -> None:
    state.backoff.pop(("member", member.member_id), None)
    if state.membership is not None and state.membership.member_id == member.member_id:
        # What this node could not renew is not due any more: a clock that went wrong is right.
        state.backoff.pop(OWN, None)
        state.own_failure = ""
    if member.last_error:
        log(EventName.RENEWAL_RECOVERED, host=member.host, after=member.last_error)
