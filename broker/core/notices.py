"""What people should hear of, decided on plain values: troubles, their ends, and how many at once.

A trouble is a state of the roster, not an event: it is found again at every look, told once, and
over when a look no longer finds it. So nothing depends on having seen the moment it began, and a
restart neither repeats nor forgets.

`member.expiring` has steps. They lie behind the due date, because before it nothing is late: of 30,
14, 7 and 1 days those below what remained at the due date (a 30-day certificate is due with 10 days
left: 7 and 1), and for a remainder of a week or less its half and its quarter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from broker.units import UnixSeconds
from broker.wire.ids import ServedState
from broker.wire.notice import NoticeEvent

DAY_S = 86_400
STEPS_S = (30 * DAY_S, 14 * DAY_S, 7 * DAY_S, DAY_S)
SHORT_S = 7 * DAY_S
"""What remains at the due date of a short-lived certificate: days are no measure for it."""
DETAIL_LENGTH_MAX = 500

REPAIRABLE: tuple[NoticeEvent, ...] = (
    "renewal.failed",
    "hook.failed",
    "served.mismatch",
    "member.expiring",
    "member.expired",
)
"""Troubles of one member, whose end is worth a word too."""
ONE_SHOT: tuple[NoticeEvent, ...] = ("renewal.recovered", "failover.promoted")
"""Told and forgotten: they have no end."""


@dataclass(frozen=True, slots=True)
class Case:
    """How it stands with one host's certificate; no `renew_at` or `not_after`: it has none yet.

    `ends_at` is the end of what it really serves, which may be an earlier certificate; then it is
    `behind`.
    """

    member_id: str
    host: str
    active: bool
    serial: str
    renew_at: UnixSeconds | None
    not_after: UnixSeconds | None
    last_error: str
    served: ServedState
    served_detail: str
    ends_at: UnixSeconds | None
    behind: bool = False

    def is_unrenewed(self, now: UnixSeconds) -> bool:
        """Whether a renewal is due, or one that was issued did not arrive."""
        return self.behind or (self.renew_at is not None and self.renew_at <= now)


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is not well; `step` grows as it gets worse, `told` says that people know.

    `about` is the id of the member (or approval, or the term of a promotion). `at` is when it was
    first seen. `mark` is the end of the certificate in question, in seconds, where that matters:
    with another end it is another trouble.
    """

    event: NoticeEvent
    about: str
    host: str
    at: UnixSeconds
    step: int = 0
    mark: str = ""
    detail: str = ""
    told: bool = False

    @property
    def key(self) -> str:
        """The same for the same thing."""
        return f"{self.event}:{self.about}"

    @property
    def columns(self) -> tuple[NoticeEvent, str, str, UnixSeconds, int, str, str, bool]:
        """All fields, in their order."""
        kept = (self.event, self.about, self.host, self.at)
        return (*kept, self.step, self.mark, self.detail, self.told)


@dataclass(frozen=True, slots=True)
class Changes:
    """What one look at a member came to; `recovered` names the troubles that are over."""

    news: tuple[Trouble, ...] = ()
    over: tuple[Trouble, ...] = ()
    recovered: tuple[NoticeEvent, ...] = ()
    people_knew: bool = False


def steps_of(renew_at: UnixSeconds, not_after: UnixSeconds) -> tuple[int, ...]:
    """Return the seconds before the end at which to speak, longest first."""
    left_s = not_after - renew_at
    if left_s > SHORT_S:
        return tuple(step for step in STEPS_S if step < left_s)
    return tuple(step for step in (left_s // 2, left_s // 4) if step > 0)


def troubles_of(
    case: Case,
    now: UnixSeconds,
    known: Mapping[NoticeEvent, Trouble] = MappingProxyType({}),
    failed: str = "",
) -> dict[NoticeEvent, Trouble]:
    """Return what is not well with a member's certificate now.

    A host that beats says that it serves well what it has, and so ends its last error; its renewal
    fails nevertheless, until there is one.

    Args:
        case: The member.
        now: Wall time.
        known: What is remembered of it.
        failed: Why its renewal failed lately, whatever was said since.
    """
    if not case.active:
        return {}
    found: dict[NoticeEvent, Trouble] = {}
    unrenewed = case.is_unrenewed(now)
    reason = case.last_error or (failed if unrenewed else "")
    if reason:
        found["renewal.failed"] = _trouble(case, "renewal.failed", now, reason)
    elif unrenewed and "renewal.failed" in known:
        found["renewal.failed"] = known["renewal.failed"]
    late = _lateness(case, now)
    if late is not None:
        why = found["renewal.failed"].detail if "renewal.failed" in found else ""
        found[late.event] = replace(late, detail=why)
    if case.served in {"failed", "stale"}:
        event: NoticeEvent = "hook.failed" if case.served == "failed" else "served.mismatch"
        found[event] = _trouble(case, event, now, case.served_detail)
    return found


def _lateness(case: Case, now: UnixSeconds) -> Trouble | None:
    """Return how late a member is, measured on what it serves."""
    if case.renew_at is None or case.not_after is None:
        return None
    ends_at = case.not_after if case.ends_at is None else min(case.ends_at, case.not_after)
    if ends_at <= now:
        return replace(_trouble(case, "member.expired", now), mark=str(ends_at))
    steps = steps_of(case.renew_at, case.not_after)
    passed = sum(1 for step_s in steps if ends_at - now <= step_s)
    if not passed:
        return None
    expiring = _trouble(case, "member.expiring", now)
    return replace(expiring, mark=str(ends_at), step=passed)


def _trouble(case: Case, event: NoticeEvent, now: UnixSeconds, detail: str = "") -> Trouble:
    return Trouble(event, case.member_id, case.host, now, detail=plain(detail, DETAIL_LENGTH_MAX))


def compare(
    known: Mapping[NoticeEvent, Trouble],
    found: Mapping[NoticeEvent, Trouble],
    *,
    active: bool,
) -> Changes:
    """Return what changed between the troubles remembered of one member and those found now.

    A streak is one trouble, whatever reasons it goes through. Recovery is told when nothing is left
    of a member's troubles, and of a revoked member never.
    """
    news = tuple(trouble for event, trouble in found.items() if _is_news(known.get(event), trouble))
    over = tuple(trouble for event, trouble in known.items() if event not in found)
    well = active and not found
    return Changes(
        news=news,
        over=over,
        recovered=tuple(trouble.event for trouble in over) if well else (),
        people_knew=any(trouble.told for trouble in over),
    )


def _is_news(known: Trouble | None, found: Trouble) -> bool:
    if known is None or known.mark != found.mark:
        return True
    return found.step > known.step


def plain(text: str, limit: int) -> str:
    """Return `text` on one line, without anything unprintable, cut to `limit` characters.

    It comes from hosts and ends in mails, chats and terminals.
    """
    shown = "".join(c if c.isprintable() else " " for c in text[: 4 * limit])
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."
