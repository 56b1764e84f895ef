"""Notices: what went out, what waits, and a test that says nothing happened."""

from broker.core.outbox import NOTICES_MAX, Parcel
from broker.errors import NotFoundError
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.outbox import new_id, post, teller_of
from broker.shell.state import BrokerState
from broker.wire.notice import ListNotices, NoticesView, SendTestNotice

SHOWN_MAX = 100
"""With this many of the longest notices the answer still fits a message."""
BESIDES = 9
"""Notices shown with a test."""


def list_notices(
    state: BrokerState, _batch: Batch, _caller: Caller, request: ListNotices
) -> NoticesView:
    """Return the newest notices of this node."""
    return _view(state, min(request.limit, SHOWN_MAX, NOTICES_MAX))


def send_test_notice(
    state: BrokerState, batch: Batch, caller: Caller, request: SendTestNotice
) -> NoticesView:
    """Put a test into the outbox.

    Raises:
        NotFoundError: The settings name nobody.
    """
    if not state.settings.notify.targets:
        raise NotFoundError(
            "[notify] in certmesh.toml names nobody: no webhook, no ntfy, no smtp",
            hint="set notify.webhook, notify.ntfy or notify.smtp, then certmesh down, certmesh up",
        )
    notice = teller_of(state, caller.now).test(new_id(state), request.operator)
    post(state, batch, notice)
    # A person who mended something wants to know now, not when the pause is over.
    batch.after_commit.append(state.notices.pauses.clear)
    return _view(state, 1 + BESIDES)


def _view(state: BrokerState, limit: int) -> NoticesView:
    parcels = [Parcel(*row) for row in state.ledger.parcels(limit)]
    return NoticesView(
        notices=tuple(parcel.line for parcel in parcels), targets=state.settings.notify.targets
    )
