"""Liveness between a worker and the broker: Majordomo's READY, heartbeat and DISCONNECT.

A worker beats its *loop progress*, not its existence: before a call that may block it says how
long it may stay silent. Source: ZeroMQ RFC 7/MDP and the Paranoid Pirate pattern.
"""

from broker.wire.base import Reply, Request
from broker.wire.ids import Count, Service, Text, UnixSeconds

SILENCE_MS_MAX = 120_000
"""No worker may announce a longer silence than this."""


class Ready(Request, frozen=True, tag="ready"):
    """A process introduces itself; required before any other request.

    `instance` is unique among the processes of one service (`renewal-1`); `boot_id` is one
    process lifetime; `wire` is the protocol version it speaks.
    """

    service: Service
    instance: Text
    boot_id: Text
    pid: Count
    wire: Count


class Beat(Request, frozen=True, tag="beat"):
    """The worker's loop made progress and promises the next beat within `within_ms`.

    `last_success_at` and `last_error` describe the last finished round; `next_run_ms` is the
    time until the next one.
    """

    progress: Count
    within_ms: Count
    last_success_at: UnixSeconds | None = None
    last_error: Text = ""
    next_run_ms: Count | None = None
    state: Text = ""


class Goodbye(Request, frozen=True, tag="goodbye"):
    """The process stops on purpose; its leases return at once."""

    reason: Text


class Welcome(Reply, frozen=True, tag="welcome"):
    """The broker knows the worker now; `broker_boot_id` changes when the broker restarts."""

    broker_boot_id: Text
    beat_every_ms: Count
    node: Text = ""


class BeatAnswer(Reply, frozen=True, tag="beat-answer"):
    """Proof that the broker's loop lives; `registered` false asks for READY again."""

    broker_boot_id: Text
    registered: bool = True
