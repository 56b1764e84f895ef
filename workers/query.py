"""Declared parameters of a query: what a route takes after `?`, checked before it runs. Sans-IO.

The same declarations stand in the OpenAPI document, so it cannot promise anything else.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from broker.errors import MalformedMessageError

NUMBER_MAX = 10**15 - 1
"""Fifteen digits: exact in every JSON reader, and harmless to every column."""
TEXT_LENGTH_MAX = 1024
_NUMBER = re.compile(r"-?[0-9]{1,15}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A whole number; without `default` the parameter may be missing altogether."""

    name: str
    summary: str
    default: int | None = None
    lowest: int = 0
    highest: int = NUMBER_MAX

    def check(self, text: str) -> None:
        """Raise MalformedMessageError unless `text` is a number within the bounds."""
        if _NUMBER.fullmatch(text) is None:
            raise _wrong(self.name, "expected a whole number")
        if not self.lowest <= int(text) <= self.highest:
            raise _wrong(self.name, f"expected {self.lowest} to {self.highest}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Free text, or one of `choices`; empty means the same as missing."""

    name: str
    summary: str
    choices: tuple[str, ...] = ()

    @property
    def default(self) -> None:
        """Text has none: it is missing, or it says something."""

    def check(self, text: str) -> None:
        """Raise MalformedMessageError unless `text` is short enough and a choice."""
        if len(text) > TEXT_LENGTH_MAX:
            raise _wrong(self.name, f"at most {TEXT_LENGTH_MAX} characters")
        if text and self.choices and text not in self.choices:
            raise _wrong(self.name, f"expected one of {', '.join(self.choices)}")


Parameter = Number | Text


def read_query(declared: Sequence[Parameter], given: Mapping[str, str]) -> dict[str, str]:
    """Return what was given, checked, and the defaults of what was not.

    Names that nobody declared are left alone: callers of a later release may know more.

    Raises:
        MalformedMessageError: A value is not what was declared; the detail names the parameter.
    """
    query = dict(given)
    for parameter in declared:
        text = given.get(parameter.name)
        if text is not None:
            parameter.check(text)
        elif parameter.default is not None:
            query[parameter.name] = str(parameter.default)
    return query


def _wrong(name: str, why: str) -> MalformedMessageError:
    return MalformedMessageError(f"query parameter {name}: {why}")
