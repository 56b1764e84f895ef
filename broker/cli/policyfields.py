"""The policy as people write and read it: `leaf_lifetime=30d wildcards=no`. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from broker.cli.profiles import SHORT_NAMES
from broker.cli.shape import duration_text
from broker.runtime.duration import Duration
from broker.wire.policy import Policy, PolicyPatch
from broker.wire.profiles import PROFILES

NONE = "-"
YES, NO = ("yes", "true", "on"), ("no", "false", "off")


def patch_of(words: Sequence[str]) -> PolicyPatch:
    """Return the patch in `KEY=VALUE` words.

    Raises:
        ValueError: A word is no assignment, a key is unknown or given twice, or a value is not
            what the key takes; the text says what it takes.
    """
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f'"{word}" is no KEY=VALUE')
        key = key.strip().replace("-", "_").removesuffix("_s")
        if key not in _READ:
            raise ValueError(f'"{key}" is no setting of the policy: {", ".join(_READ)}')
        field, read = _READ[key]
        if field in found:
            raise ValueError(f"{key} is given twice")
        try:
            found[field] = read(value.strip())
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    return PolicyPatch(**found)


def lines_of(policy: Policy) -> list[tuple[str, str]]:
    """Return label and value of every setting, each as `policy set` takes it."""
    return [
        ("profile", policy.profile),
        ("names", ",".join(policy.names)),
        ("networks", ",".join(policy.networks) or NONE),
        ("wildcards", _word(yes=policy.wildcards)),
        ("leaf_lifetime", duration_text(policy.leaf_lifetime_s * 1000)),
        ("renew_at", f"{policy.renew_at:g}"),
        ("outage_budget", duration_text(policy.outage_budget_s * 1000)),
        ("expired_grace", duration_text(policy.expired_grace_s * 1000)),
        ("approval", _word(yes=policy.approval)),
        ("operator_required", _word(yes=policy.operator_required)),
        ("unattended", _word(yes=policy.unattended)),
    ]


def _word(*, yes: bool) -> str:
    return "yes" if yes else "no"


def _flag(text: str) -> bool:
    if text.lower() not in YES + NO:
        raise ValueError(f'expected yes or no, not "{text}"')
    return text.lower() in YES


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip() not in {"", NONE})


def _seconds(text: str) -> int:
    return Duration.parse(text).s


def _lifetime(text: str) -> int:
    seconds = _seconds(text)
    if not 1 <= seconds <= LIFETIME_S_MAX:
        raise ValueError(f'"{text}" is not between 1s and 366d')
    return seconds


def _grace(text: str) -> int:
    seconds = _seconds(text)
    if seconds > LIFETIME_S_MAX:
        raise ValueError(f'"{text}" is over 366d')
    return seconds


def _fraction(text: str) -> float:
    try:
        fraction = float(text)
    except ValueError:
        fraction = 0.0
    if not 0.0 < fraction < 1.0:
        raise ValueError(f'expected a fraction between 0 and 1, such as 0.667, not "{text}"')
    return fraction


def _profile(text: str) -> str:
    name = SHORT_NAMES.get(text, text)
    if name not in PROFILES:
        raise ValueError(f'"{text}" is no profile: {", ".join(PROFILES)}')
    return name


LIFETIME_S_MAX = 366 * 86_400
_READ: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "profile": ("profile", _profile),
    "names": ("names", _list),
    "networks": ("networks", _list),
    "wildcards": ("wildcards", _flag),
    "leaf_lifetime": ("leaf_lifetime_s", _lifetime),
    "renew_at": ("renew_at", _fraction),
    "outage_budget": ("outage_budget_s", _grace),
    "expired_grace": ("expired_grace_s", _grace),
    "approval": ("approval", _flag),
    "operator_required": ("operator_required", _flag),
    "unattended": ("unattended", _flag),
}
