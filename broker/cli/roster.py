"""The roster as tables: what stands for the state of a certificate, and pages of members."""

from dataclasses import dataclass

from broker.cli.api import Api, segment
from broker.cli.screen import Screen
from broker.cli.shape import ago, due_in, left, rfc3339, short_serial, span
from broker.wire.ids import DeliveryState
from broker.wire.node import MemberLine
from broker.wire.roster import MembersView

SERVED: dict[DeliveryState, str] = {
    "served": "yes",
    "installed": "on disk",
    "stale": "STALE",
    "failed": "FAILED",
    "expired": "EXPIRED",
    "away": "away",
}
"""Words; those in capitals need somebody. Meaning never rests on colour."""
HEADINGS = ("HOST", "ROLE", "STATE", "CERTIFICATE", "RENEWS IN", "SERVED", "LAST SEEN")
PAGE = 500


@dataclass(frozen=True, slots=True)
class Wish:
    """Which members to list, in which order; what is empty or None does not matter."""

    after: str
    limit: int
    order: str
    expiring_s: int | None
    state: str
    role: str

    def path(self, after: str, limit: int) -> str:
        """Return what to ask for one page."""
        path = f"/v1/members?after={segment(after)}&limit={limit}"
        if self.order != "host":
            path += f"&order={self.order}"
        if self.expiring_s is not None:
            path += f"&expiring_s={self.expiring_s}"
        return path + (f"&state={segment(self.state)}" if self.state else "")


def members_wanted(api: Api, wish: Wish) -> MembersView:
    """Return up to `wish.limit` members; a page that was filtered is no reason to stop."""
    found: list[MemberLine] = []
    after = wish.after
    while True:
        view = api.get(wish.path(after, min(PAGE, wish.limit - len(found))), MembersView)
        found += [line for line in view.members if wish.role in ("", line.role)]
        after = view.next_after
        if not after or len(found) >= wish.limit:
            return MembersView(members=tuple(found), total=view.total, next_after=after)


def draw_members(screen: Screen, members: tuple[MemberLine, ...], now: int) -> None:
    """Print the roster table."""
    screen.table(HEADINGS, [_row(line, now) for line in members])


def _row(line: MemberLine, now: int) -> tuple[str, ...]:
    seen = ago(line.last_seen_at, now)
    if line.state == "revoked":
        return (line.host, line.role, line.state, "revoked", "-", "-", seen)
    return (
        line.host,
        line.role,
        line.state,
        left(line.not_after, now),
        due_in(line.renew_at, now),
        SERVED.get(line.delivery, "-"),
        seen,
    )


def member_facts(line: MemberLine, now: int) -> list[tuple[str, str]]:
    """Return label and value of everything about one member."""
    return [
        ("host", line.host),
        ("member", line.member_id),
        ("role", f"{line.role}, {line.state}"),
        ("names", ", ".join(line.sans) or "-"),
        ("address", line.address or "-"),
        ("joined", "-" if line.joined_at is None else rfc3339(line.joined_at)),
        ("last seen", ago(line.last_seen_at, now)),
        ("certificate", _delivery(line)),
        ("said", _said(line, now)),
        ("survives", _survival(line, now)),
        ("trouble", line.last_error or "none"),
    ]


def _delivery(line: MemberLine) -> str:
    if line.state == "revoked":
        return "revoked"
    return line.delivery.upper() if SERVED.get(line.delivery, "").isupper() else line.delivery


def _said(line: MemberLine, now: int) -> str:
    """Return what the host said last of what it serves, since when, and why."""
    at = f", {ago(line.served_at, now)}" if line.served_at is not None else ""
    why = f": {line.served_detail}" if line.served_detail else ""
    return f"{line.served} {short_serial(line.served_serial)}{at}{why}"


def _survival(line: MemberLine, now: int) -> str:
    until = line.survives_until
    if until is None:
        return "-"
    if until <= now:
        return f"no more, since {rfc3339(until)}"
    return f"without any CA until {rfc3339(until)} ({span(until - now)})"
