"""The closed loop's last step: what a member serves, written down when it changes."""

from broker.clock import boottime_ms
from broker.errors import NotFoundError
from broker.shell.batch import Batch
from broker.shell.state import BrokerState
from broker.wire.facts import CertificateServed
from broker.wire.ids import ServedState

ROWS_EVERY_MS = 2_000
"""A member may change its story this often; the next heartbeat tells what was left out."""


def note_served(
    state: BrokerState, batch: Batch, member_id: str, report: tuple[str, ServedState, str]
) -> None:
    """Append the state of a member's certificate if it is news.

    Args:
        state: The broker.
        batch: The drain.
        member_id: Whose certificate.
        report: Serial, state, detail. The serial must have been issued to that member; the
            member can say what it serves, never when that ends.

    Raises:
        NotFoundError: The serial was not issued to this member.
    """
    serial, served, detail = report
    found = state.ledger.certificate(serial)
    if found is None or found[0].member_id != member_id:
        raise NotFoundError("this serial was not issued to this member")
    member = found[0]
    if (member.served_serial, member.served, member.served_detail) == report_key(report):
        return
    key = ("served", member_id)
    if not state.rows.passes(key, boottime_ms(), ROWS_EVERY_MS):
        return
    batch.on_void.append(lambda: state.rows.forget(key))
    batch.append(CertificateServed(member_id, serial, served, detail[:512]), member.host)


def report_key(report: tuple[str, ServedState, str]) -> tuple[str, str, str]:
    """Return a report in the order of the roster's columns."""
    serial, served, detail = report
    return serial, served, detail[:512]
