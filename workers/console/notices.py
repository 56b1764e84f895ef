"""Routes of what people were told about."""

from broker.wire.notice import ListNotices, NoticesView, SendTestNotice
from workers.query import Number
from workers.route import Route

LIMIT_NOTICES = Number(name="limit", summary="At most so many notices.", default=50)

NOTICE_ROUTES = (
    Route(
        method="GET",
        path="/v1/notices",
        summary="Notices of this node, newest first: who took them, who did not, and why.",
        make=lambda visit: ListNotices(limit=visit.number("limit")),
        reply=NoticesView,
        scope="read",
        query=(LIMIT_NOTICES,),
    ),
    Route(
        method="POST",
        path="/v1/notices/test",
        summary="Send a notice that says nothing happened to everybody in [notify].",
        make=lambda visit: SendTestNotice(operator=visit.caller.operator),
        reply=NoticesView,
        scope="admin",
    ),
)
