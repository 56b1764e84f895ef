"""Replacing the CA with overlap: `next` is trusted before it signs, `retired` after it stopped.

Phases: `none`; `trusting` (a new root is announced in the bundle, the old CA signs); `switched`
(the new CA signs, the old root is trusted until no member shows a certificate of it).
"""

from typing import Annotated, Literal

from msgspec import Meta

from broker.wire.authority import Passphrase
from broker.wire.base import Body, Reply, Request, Veiled
from broker.wire.ids import Count, Hex, Host, Text, UnixSeconds
from broker.wire.policy import Patterns

Phase = Literal["none", "trusting", "switched"]


class RolloverBody(Veiled, Body, frozen=True):
    """POST /v1/ca/rollover: the passphrase seals the new root key.

    `names` and `networks` are what the next CA may certify besides the policy of today.
    """

    passphrase: Annotated[str, Meta(min_length=1, max_length=1024)]
    names: Patterns = ()
    networks: Patterns = ()


class StartRollover(Veiled, Request, frozen=True, tag="start-rollover"):
    """Make the next CA and announce its root; derived off the loop.

    It is constrained to the policy in force, and to `names` and `networks` besides: a policy can
    never go beyond the CA, so a wider one needs a wider CA first.
    """

    passphrase: Passphrase
    operator: Text
    names: Patterns = ()
    networks: Patterns = ()


class GetRollover(Request, frozen=True, tag="get-rollover"):
    """Ask for the `RolloverView`."""


class FinishRolloverBody(Body, frozen=True):
    """POST /v1/ca/rollover/finish."""

    dry_run: bool = False


class FinishRollover(Request, frozen=True, tag="finish-rollover"):
    """Let the next CA sign; refused while a live member lacks its root or a standby its key."""

    operator: Text
    dry_run: bool = False


class AbortRollover(Request, frozen=True, tag="abort-rollover"):
    """Forget the next CA; possible until it signs."""

    operator: Text


class RolloverView(Reply, frozen=True, tag="rollover-view"):
    """Where a rollover stands.

    `lacking` are live members that do not trust the next root yet, or, once switched, still show
    a certificate of the old CA; `away` are members nobody has heard of lately.
    """

    phase: Phase
    pin: Hex
    next_pin: Hex
    started_at: UnixSeconds | None
    trusting: Count
    members: Count
    lacking: tuple[Host, ...]
    away: tuple[Host, ...]
    standbys_lacking: tuple[Host, ...] = ()
    detail: Text = ""
