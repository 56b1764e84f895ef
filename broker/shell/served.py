"""The closed loop's last step: what a member serves, written down when it changes."""

from broker.clock import boottime_ms
from broker.errors import NotFoundError
from broker.shell.batch import Batch
from broker.shell.state import BrokerState
from broker.wire.facts import CertificateServed
from broker.wire.ids import ServedState

ROWS_EVERY_MS = 2_000
"""A member may change its story this often, by beats and by reports each."""
GOOD: frozenset[ServedState] = frozenset({"served", "installed"})


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
    mends = served in GOOD and bool(member.last_error)
    if told == (serial, served, detail) and not mends:
        return
    key = (source, member_id)
    if source != "work" and not state.rows.passes(key, boottime_ms(), ROWS_EVERY_MS):
        return
    batch.on_void.append(lambda: state.rows.forget(key))
    batch.append(CertificateServed(member_id, serial, served, detail), member.host)
    if served in GOOD:
        batch.after_commit.append(lambda: _no_longer_failing(state, member_id))


def _no_longer_failing(state: BrokerState, member_id: str) -> None:
    state.backoff.pop(("member", member_id), None)
