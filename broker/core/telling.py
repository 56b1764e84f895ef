"""How troubles become notices: one by one while they are few, summed up when they are many.

Of each kind at most `SINGLES_MAX` notices and one summary go out in a window, so that a dead switch
or a broken CA is one message and not a thousand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from broker.core.notices import DAY_S, Trouble, plain
from broker.units import Millis, UnixSeconds
from broker.wire.notice import Notice, NoticeEvent, Severity

WINDOW_MS = 600_000
SINGLES_MAX = 5
NAMED_MAX = 20
"""Hosts that a summary names."""
SUMMARY_LENGTH_MAX = 200

_SEVERITY: Mapping[NoticeEvent, Severity] = MappingProxyType(
    {
        "renewal.failed": "warning",
        "renewal.recovered": "info",
        "hook.failed": "warning",
        "served.mismatch": "warning",
        "member.expiring": "warning",
        "member.expired": "error",
        "failover.promoted": "warning",
        "approval.pending": "info",
        "notify.test": "info",
    }
)
_ONE: Mapping[NoticeEvent, str] = MappingProxyType(
    {
        "renewal.failed": "renewing {host} fails",
        "renewal.recovered": "{host} is well again",
        "hook.failed": "{host} rolled its renewal back: a hook or a probe failed",
        "served.mismatch": "{host} does not serve its new certificate",
        "member.expiring": "the certificate of {host} ends in {left} and was not renewed",
        "member.expired": "the certificate of {host} has expired",
        "failover.promoted": "{host} is the primary now",
        "approval.pending": "{host} asks to join and waits for a decision",
    }
)
_MANY: Mapping[NoticeEvent, str] = MappingProxyType(
    {
        "renewal.failed": "renewing {count} hosts fails",
        "renewal.recovered": "{count} hosts are well again",
        "hook.failed": "{count} hosts rolled a renewal back: a hook or a probe failed",
        "served.mismatch": "{count} hosts do not serve their new certificate",
        "member.expiring": "the certificates of {count} hosts end soon and were not renewed",
        "member.expired": "the certificates of {count} hosts have expired",
        "failover.promoted": "{count} changes of the primary",
        "approval.pending": "{count} requests to join wait for a decision",
        "notify.test": "{count} tests",
    }
)
_HINTS: Mapping[NoticeEvent, str] = MappingProxyType(
    {
        "renewal.failed": "certmesh member show {host}",
        "hook.failed": "on {host}: certmesh hook log",
        "served.mismatch": "on {host}: certmesh hook log",
        "member.expiring": "certmesh member show {host}",
        "member.expired": "certmesh member show {host}",
        "failover.promoted": "certmesh status; certmesh peers",
        "approval.pending": "certmesh approval list",
    }
)


@dataclass(frozen=True, slots=True)
class Window:
    """What of one kind went out since the window began; boot-time milliseconds."""

    since_ms: int = 0
    singles: int = 0
    summed_up: bool = False
    begun: bool = False

    def next(self, waiting: int, now_ms: Millis) -> tuple["Window", int, bool]:
        """Return the window afterwards, how many to tell one by one, and whether to sum up.

        Args:
            waiting: How many troubles of this kind people do not know of.
            now_ms: Boot time.
        """
        now = self
        if not self.begun or now_ms - self.since_ms >= WINDOW_MS:
            now = Window(now_ms, begun=True)
        if not waiting:
            return self, 0, False
        if waiting <= SINGLES_MAX - now.singles:
            told = Window(now.since_ms, now.singles + waiting, now.summed_up, begun=True)
            return told, waiting, False
        if not now.summed_up:
            return Window(now.since_ms, now.singles, summed_up=True, begun=True), 0, True
        return now, 0, False


@dataclass(frozen=True, slots=True)
class Teller:
    """Who tells, and when."""

    mesh: str
    node: str
    now: UnixSeconds

    def one(self, notice_id: str, trouble: Trouble) -> Notice:
        """Return the notice about one trouble."""
        left_s = int(trouble.mark) - self.now if trouble.mark else None
        return Notice(
            notice_id=notice_id,
            event=trouble.event,
            severity=_severity(trouble, left_s),
            at=trouble.at,
            mesh=self.mesh,
            node=self.node,
            subject=trouble.host,
            summary=plain(_sentence(trouble, left_s), SUMMARY_LENGTH_MAX),
            detail=trouble.detail,
            hint=_HINTS.get(trouble.event, "").format(host=trouble.host),
            key=trouble.key,
        )

    def many(
        self, notice_id: str, event: NoticeEvent, count: int, named: Sequence[Trouble]
    ) -> Notice:
        """Return the notice about `count` troubles of one kind, of which it names some."""
        hosts = [trouble.host for trouble in named[:NAMED_MAX]]
        more = f" and {count - len(hosts)} more" if count > len(hosts) else ""
        reasons = sorted({trouble.detail for trouble in named if trouble.detail})
        why = f"; such as: {reasons[0]}" if reasons else ""
        return Notice(
            notice_id=notice_id,
            event=event,
            severity=_SEVERITY[event],
            at=self.now,
            mesh=self.mesh,
            node=self.node,
            subject="",
            summary=_MANY[event].format(count=count),
            detail=plain(f"{', '.join(hosts)}{more}{why}", 1000),
            hint="certmesh approval list" if event == "approval.pending" else "certmesh status",
            key=f"{event}:*",
        )

    def test(self, notice_id: str, operator: str) -> Notice:
        """Return the notice that says nothing happened."""
        return Notice(
            notice_id=notice_id,
            event="notify.test",
            severity="info",
            at=self.now,
            mesh=self.mesh,
            node=self.node,
            subject=self.node,
            summary="a test: nothing happened, and notices get through",
            detail=plain(f"asked for by {operator}", SUMMARY_LENGTH_MAX),
            key=f"notify.test:{notice_id}",
        )


def _severity(trouble: Trouble, left_s: int | None) -> Severity:
    if trouble.event == "member.expiring" and left_s is not None and left_s <= DAY_S:
        return "error"
    return _SEVERITY[trouble.event]


def _sentence(trouble: Trouble, left_s: int | None) -> str:
    return _ONE[trouble.event].format(host=trouble.host, left=span(left_s or 0))


def span(left_s: int) -> str:
    """Return a stretch of time in the largest unit that says enough."""
    for size_s, unit in ((DAY_S, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if left_s >= 2 * size_s or size_s == 1:
            count = max(0, left_s // size_s)
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    raise AssertionError("a second is the smallest")
