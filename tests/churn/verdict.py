"""Which growth is meant: by design, up to a constant, for a day. Whatever else grows is a leak."""

import re
from collections.abc import Sequence

from tests.churn.census import grown
from tests.churn.day import Mark

SHARE, SLACK = 0.25, 8
"""The crowd has the same number at each mark, but not everybody was heard or renewed as often."""

CAPS = {
    r"\._trying(\[\])?$": 2 * 5 * 1024,  # `core.limiter.KEYS_MAX` in each table, as pairs
    r"\.(refusals|rows)\._last(\[\])?$": 4 * 4096,  # `Quiet`: keys of up to four parts
    r"\.presence\._skews(\[\])?$": 2 * 64,  # `core.presence.SKEWS_KEPT`
    r"\.follow\.bundle\.revoked_(members|serials)$": 4_000,  # `bundling.BUNDLE_REVOKED_MAX`
    r"\.follow\.still_revoked$": 4_000,
    r"\.company\._heard$": 100_000,  # `core.company.HEARD_MAX`
    r"\.witnesses\.": 4_096,
    r"\._repeats\._said$": 256,  # `workers.repeats.SUBJECTS_MAX`
}
"""Tables with a bound of their own: larger than this is a leak, smaller is not looked at."""

FOR_A_DAY = (r"\.presence\._rows(\[\])?$", r"\.departing$")
"""What goes a day after its member; looked at after a quiet day."""

HISTORY = frozenset(
    {
        *("journal", "archive", "adopted", "revocations", "bars", "members", "certificates"),
        *("invites", "approvals", "totp_steps", "totp_losers", "promotions", "reviews"),
        *("rollovers", "tokens", "token_revocations"),
        *("worker_grants", "worker_keys", "worker_revocations"),
    }
)
"""Tables that are the journal or a fold of it: they grow with what happened, by design."""

ROWS_MAX = {"mesh": 1, "totals": 1, "head": 1, "local": 64, "troubles": 1_024, "notices": 1_000}
ROWS_FOR_A_DAY = frozenset({"requests", "presence"})


def leaks(first: Mark, last: Mark) -> dict[str, tuple[int, int]]:
    """Return what grew between two marks though nobody came who did not also go."""
    found = unmeant(grown(first.tables, last.tables, share=SHARE, slack=SLACK))
    found |= {f"rows of {table}": sizes for table, sizes in _rows(last).items()}
    found |= {
        f"files in {where}": sizes
        for where, sizes in grown(first.files, last.files, share=0, slack=0).items()
        if not where.endswith("backup")  # as many as the settings keep
    }
    for name in ("descriptors", "threads"):
        before, after = getattr(first, name), getattr(last, name)
        if after > before:
            found[name] = (before, after)
    return found


def unmeant(found: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Return the growth that no bound explains."""
    return {
        path: sizes
        for path, sizes in found.items()
        if not _is_meant(path, sizes[1]) and not _matches(FOR_A_DAY, path)
    }


def left_over(last: Mark, live: int) -> dict[str, int]:
    """Return what a quiet day should have taken away and did not.

    Args:
        last: Taken a day after anything happened.
        live: Active members, the nodes included.
    """
    found = {
        path: size
        for path, size in last.tables.items()
        if _matches(FOR_A_DAY, path) and size > live
    }
    return found | {
        f"{host}: rows of {table}": count
        for host, tables in last.rows.items()
        for table, count in tables.items()
        if table in ROWS_FOR_A_DAY and count > live
    }


def unknown_tables(mark: Mark) -> set[str]:
    """Return tables of the ledger that nobody has said a bound of."""
    known = HISTORY | set(ROWS_MAX) | ROWS_FOR_A_DAY
    return {table for tables in mark.rows.values() for table in tables} - known


def _rows(last: Mark) -> dict[str, tuple[int, int]]:
    return {
        f"{table} at {host}": (ROWS_MAX[table], count)
        for host, tables in last.rows.items()
        for table, count in tables.items()
        if table in ROWS_MAX and count > ROWS_MAX[table]
    }


def _is_meant(path: str, size: int) -> bool:
    return any(re.search(pattern, path) and size <= cap for pattern, cap in CAPS.items())


def _matches(patterns: Sequence[str], path: str) -> bool:
    return any(re.search(pattern, path) for pattern in patterns)
