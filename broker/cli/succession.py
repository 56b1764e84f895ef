"""The order of succession in words. Pure: structs of the wire in, sentences out."""

from collections.abc import Iterable, Sequence

from broker.cli.shape import ago, span
from broker.units import UnixSeconds
from broker.wire.standby import StandbyLine, StandbysView

FULL = frozenset({"", "full"})
LEADING = frozenset({"pending", "serving", "caretaking"})
"""Phases in which a node is the primary: only then its powers mean anything."""
UNFIT = frozenset({"lagging", "locked", "away", "unready"})
HEADINGS = ("HOST", "ROLE", "STATE", "LAG", "TERM", "HEARD")
SUSPECT_TICKS = 3
SECOND_MS = 1000


def ordered(lines: Iterable[StandbyLine]) -> list[StandbyLine]:
    """Return the primary, then the standbys by rank, then who is only nominated."""
    return sorted(
        lines,
        key=lambda line: (
            line.role != "primary",
            line.state == "nominated",
            line.rank,
            line.host,
        ),
    )


def rows(lines: Iterable[StandbyLine], here: str, now: int) -> list[tuple[str, ...]]:
    """Return the table of key holders as `HEADINGS` names its columns."""
    return [
        (
            line.host,
            line.role,
            line.state,
            "-" if line.lag is None else str(line.lag),
            str(line.term) if line.term else "-",
            "here" if line.host == here else ago(line.last_heard_at, now),
        )
        for line in ordered(lines)
    ]


def named(line: StandbyLine) -> str:
    """Return a standby as it stands in a headline: `nas (lag 0)`, `pi (locked)`."""
    if line.state != "ready":
        return f"{line.host} ({line.state})"
    return line.host if line.lag is None else f"{line.host} (lag {line.lag})"


def standbys(lines: Iterable[StandbyLine]) -> list[StandbyLine]:
    """Return the key holders that could take over, and who is nominated, in order."""
    return [line for line in ordered(lines) if line.role != "primary"]


def unfit(lines: Iterable[StandbyLine]) -> list[str]:
    """Return one sentence for each standby that could not take over now."""
    poor = (line for line in standbys(lines) if line.state in UNFIT)
    return [f"standby {line.host} is {condition(line)}" for line in poor]


def condition(line: StandbyLine) -> str:
    """Return the state with its reason, which may begin with the same word: `lagging: row 1`."""
    reason = line.reason.removeprefix(line.state).lstrip(": ")
    return f"{line.state}: {reason}" if reason else line.state


def limits(powers: str, confirm: str) -> str:
    """Return what a primary without full powers refuses, and what ends that; empty when full."""
    if powers in FULL:
        return ""
    if powers.startswith("pending"):
        return f"{powers}; it serves nothing until then"
    said = f"{powers}; enrollment, policy and roles are refused"
    return f"{said}, confirm with {confirm}" if powers.startswith("caretaker") else said


def limits_of(view: StandbysView, confirm: str) -> str:
    """Return the limits of the primary that this view is of; a standby has no powers to lack."""
    return limits(view.powers, confirm) if view.phase in LEADING else ""


def silence(lines: Iterable[StandbyLine], here: str, tick_ms: int, now: UnixSeconds) -> int:
    """Return for how many seconds the primary has been silent, 0 while that is nothing unusual.

    Read from wall-clock times of whole seconds, so two seconds are always within the usual.
    """
    for line in lines:
        if line.role == "primary" and line.host != here and line.last_heard_at is not None:
            silent_s = now - line.last_heard_at
            return silent_s if silent_s * SECOND_MS >= suspect_ms(tick_ms) else 0
    return 0


def suspect_ms(tick_ms: int) -> int:
    """Return the silence of a primary that is worth showing."""
    return max(SUSPECT_TICKS * tick_ms, 2 * SECOND_MS)


def concerns(view: StandbysView, tick_ms: int, confirm: str) -> tuple[str, ...]:
    """Return what deserves attention in the order of succession, worst first."""
    found = []
    if view.silent_ms >= suspect_ms(tick_ms):
        found.append(f"primary {view.primary or '?'} silent {span(view.silent_ms / SECOND_MS)}")
    if view.withheld:
        found.append(f"{view.host} does not take over: {view.withheld}")
    refused = limits_of(view, confirm)
    found += [refused] if refused else []
    found += unfit(view.lines)
    return tuple(found)


def silent_hosts(lines: Sequence[StandbyLine], first: StandbyLine) -> list[str]:
    """Return the standbys before `first` that nobody has excused: each costs one stagger.

    A locked or lagging one says so and is passed over at once; only silence has to be waited out.
    """
    return [
        line.host for line in standbys(lines) if line.state == "away" and line.rank < first.rank
    ]
