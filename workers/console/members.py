"""What the local socket takes after `/v1/members?`. Sans-IO."""

from broker.wire.roster import ListMembers
from workers.query import Number, Text
from workers.route import Visit

MEMBERS_QUERY = (
    Text(name="after", summary="Behind this host, or behind `next_after` of the page before."),
    Text(
        name="order",
        summary="By name, or active members by the end of the certificate they serve.",
        choices=("host", "expiry"),
    ),
    Number(name="expiring_s", summary="Only those whose certificate ends within so many seconds."),
    Text(name="state", summary="Only those whose state or delivery has this name."),
)


def list_members(visit: Visit) -> ListMembers:
    """Return the request for one page of the roster."""
    return ListMembers(
        after=visit.query.get("after", ""),
        limit=visit.number("limit"),
        order="expiry" if visit.query.get("order") == "expiry" else "host",
        expiring_s=visit.number("expiring_s", default=-1),
        state=visit.query.get("state", ""),
    )
