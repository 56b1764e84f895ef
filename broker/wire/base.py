"""Base classes of everything that crosses a process or node boundary.

No `from __future__ import annotations` here or in any wire module: msgspec reads annotations when
the class is made.
"""

from typing import Any

import msgspec
from typing_extensions import override


class Veiled:
    """Shows nothing of itself: what is in here belongs into no log and no traceback."""

    __slots__ = ()

    @override
    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return nothing for consoles that ask for the fields."""
        return []


class Body(msgspec.Struct, frozen=True):
    """A plain part of a message, or a JSON body between nodes."""


class Message(msgspec.Struct, frozen=True, tag_field="kind"):
    """Anything with a kind of its own on the wire."""


class Request(Message, frozen=True):
    """Asked of the broker by a worker or the command; answered by exactly one reply."""


class Reply(Message, frozen=True):
    """The broker's answer to a request."""


class Event(Message, frozen=True):
    """A hint from the broker to whoever listens; losing one costs an interval, never safety."""


class Fact(Message, frozen=True):
    """One line of the journal: something that happened and will always have happened."""
