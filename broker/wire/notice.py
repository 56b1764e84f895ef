"""Notices: what people are told about, by webhook, ntfy or mail."""

from typing import Literal

from broker.wire.base import Body, Reply, Request
from broker.wire.ids import Count, Hex, Text, UnixSeconds

NoticeEvent = Literal[
    "renewal.failed",
    "renewal.recovered",
    "hook.failed",
    "served.mismatch",
    "member.expiring",
    "member.expired",
    "failover.promoted",
    "approval.pending",
    "notify.test",
]
"""What `[notify] on` chooses from; `notify.test` always goes out."""

Severity = Literal["info", "warning", "error"]


class Notice(Body, frozen=True):
    """One thing worth telling; never a secret in it.

    `key` is the same for the same thing: it is told once until it is over. `subject` is the host it
    is about, `mesh` and `node` say who tells.
    """

    notice_id: Hex
    event: NoticeEvent
    severity: Severity
    at: UnixSeconds
    mesh: Text
    node: Text
    subject: Text
    summary: Text
    detail: Text = ""
    hint: Text = ""
    key: Text = ""


class NoticeLine(Body, frozen=True):
    """A notice in the outbox; `state` is `waiting`, `sent` or `dropped`.

    `errors` says of each target in `waiting` why it has not taken it, empty: not tried yet.
    """

    notice: Notice
    state: Text
    attempts: Count
    waiting: tuple[Text, ...]
    last_error: Text = ""
    errors: tuple[Text, ...] = ()


class ListNotices(Request, frozen=True, tag="list-notices"):
    """Ask for the newest notices of this node."""

    limit: Count = 50


class NoticesView(Reply, frozen=True, tag="notices-view"):
    """The notices, newest first, and the targets that the settings name."""

    notices: tuple[NoticeLine, ...]
    targets: tuple[Text, ...]


class SendTestNotice(Request, frozen=True, tag="send-test-notice"):
    """Send a notice that says nothing happened; answered with the `NoticesView` that has it."""

    operator: Text
