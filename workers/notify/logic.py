"""What a notice looks like to each kind of target, and what an answer means. Sans-IO.

Whatever came from a host is text on one line before it gets into a header or a subject.
"""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType

import msgspec

from broker.units import UnixSeconds
from broker.wire.notice import Notice, Severity

SCHEMA = "certmesh.notice/1"
IDLE = "nobody is to be told: [notify] names no target"
TITLE_LENGTH_MAX = 200
BODY_LENGTH_MAX = 3_000
"""ntfy takes 4,096 bytes as a message and makes a file of anything longer."""
RETRY_S_MAX = 3_600
RETRY_DIGITS_MAX = 9
OK = range(200, 300)

_PRIORITY: Mapping[Severity, str] = MappingProxyType({"info": "3", "warning": "4", "error": "5"})
_TAGS: Mapping[Severity, str] = MappingProxyType(
    {"info": "information_source", "warning": "warning", "error": "rotating_light"}
)


class NotTakenError(Exception):
    """A target did not take a notice; says why, and when it wants to be asked again."""

    def __init__(self, detail: str, retry_after_ms: int = 0) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_ms = retry_after_ms


def one_line(text: str, limit: int) -> str:
    """Return `text` without line breaks and other unprintable characters, cut to `limit`."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."


def title_of(notice: Notice) -> str:
    """Return the line a person sees first."""
    where = f"certmesh {notice.mesh}" if notice.mesh else "certmesh"
    return one_line(f"[{where}] {notice.summary}", TITLE_LENGTH_MAX)


def lines_of(notice: Notice) -> list[str]:
    """Return what a mail says, one fact a line."""
    rows = (
        ("what", notice.summary),
        ("host", notice.subject),
        ("why", notice.detail),
        ("do", notice.hint),
        ("when", rfc3339(notice.at)),
        ("mesh", notice.mesh),
        ("said by", notice.node),
        ("event", f"{notice.event} ({notice.severity})"),
        ("id", notice.notice_id),
    )
    return [f"{name:<8} {one_line(value, 1024)}" for name, value in rows if value]


def short_text(notice: Notice) -> str:
    """Return what a push message says; the title goes before it."""
    parts = [one_line(part, 1024) for part in (notice.detail, notice.hint) if part]
    told = f"{notice.event} on {notice.node}, {rfc3339(notice.at)}"
    text = "\n".join([*parts, one_line(told, 1024)])
    return text.encode()[:BODY_LENGTH_MAX].decode(errors="ignore")


def ntfy_headers(notice: Notice) -> dict[str, str]:
    """Return title, priority and tags as ntfy reads them."""
    return {
        "Title": header_text(title_of(notice)),
        "Priority": _PRIORITY[notice.severity],
        "Tags": _TAGS[notice.severity],
    }


def header_text(text: str) -> str:
    """Return `text` fit for an HTTP header: as it is when it is ASCII, else as RFC 2047 has it."""
    if text.isascii() and text.isprintable():
        return text
    return f"=?UTF-8?B?{base64.b64encode(text.encode()).decode()}?="


def webhook_body(notice: Notice) -> bytes:
    """Return the JSON object of a notice; its time as people's scripts read it."""
    fields = msgspec.structs.asdict(notice)
    return msgspec.json.encode({"schema": SCHEMA, **fields, "at": rfc3339(notice.at)})


def rfc3339(moment: UnixSeconds) -> str:
    """Return a wall-clock moment in UTC."""
    return datetime.fromtimestamp(moment, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def check_status(status: int, retry_after: str) -> None:
    """Accept what means that the notice was taken.

    Raises:
        NotTakenError: Anything else; a redirect too, because nobody chose where it leads.
    """
    if status in OK:
        return
    said = retry_after if retry_after.isascii() and retry_after.isdigit() else "0"
    # Python refuses to convert some thousands of digits, and a header has room for them.
    wait_s = min(int(said[:RETRY_DIGITS_MAX]), RETRY_S_MAX)
    raise NotTakenError(f"answered status {status}", wait_s * 1000)
