"""Replies every conversation may get."""

from broker.wire.base import Reply
from broker.wire.ids import Count, Text


class Ack(Reply, frozen=True, tag="ack"):
    """Done, nothing more to say."""


class Fault(Reply, frozen=True, tag="fault"):
    """A typed refusal: a `MeshError` on its way to the caller."""

    code: Text
    detail: Text
    hint: Text = ""
    retry_after_ms: Count = 0
