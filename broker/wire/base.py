"""Base classes of everything that crosses a process or node boundary.

No `from __future__ import annotations` here or in any wire module: msgspec reads annotations when
the class is made.
"""

import msgspec


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
