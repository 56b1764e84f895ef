"""The pace of attempts: a host is tried at most once in a while, whoever tries.

An attempt begins when a worker is given the host, or when the host asks for itself; push and pull
share one turn. The other invariant is that no way in starves the other: a host that came too early
has asked for the next turn, and the CA's sweep leaves it to it. Otherwise a sweep that cannot reach
a host would spend every turn, and the certificate would end.

A retry of the same request, or the same work handed on politely, is no new attempt. What succeeded
is in the ledger as well: the newest certificate tells when it was issued, after any restart.
"""

from collections import OrderedDict

import msgspec
from msgspec.structs import replace

from broker.core.renewal import BACKDATE_S
from broker.core.spans import seconds_up, span_down, span_up
from broker.units import Millis, UnixSeconds
from broker.wire.policy import Policy

LIFETIME_SHARE = 5
"""A pace is never longer than this part of a lifetime, or no second attempt would come in time."""
KEYS_MAX = 262_144
"""Attempts remembered: what one primary begins in a minute, and more."""
SAVED_MAX = 4_096
"""Newest attempts without a certificate that outlive the process."""
ATTEMPTS_MIN = 3
"""One may meet a restart and one a network that is away; the third has to be there."""
LIFETIME_S_MAX = 366 * 86_400


def pace_ms(attempt_every_ms: int, lifetime_s: int) -> int:
    """Return the shortest time between two attempts for a host with such certificates."""
    return min(attempt_every_ms, lifetime_s * 1000 // LIFETIME_SHARE)


def since_issue_ms(not_before: UnixSeconds | int, now: UnixSeconds, every_ms: int) -> int:
    """Return how long the pace still holds after a certificate was issued; 0 when it is over.

    Args:
        not_before: Of the newest certificate; backdated.
        now: Wall time. A certificate of the future says nothing: a clock was set back.
        every_ms: The pace.
    """
    gone_s = now - (not_before + BACKDATE_S)
    if gone_s < 0 or not every_ms:
        return 0
    # Both moments are whole seconds, cut off: the true distance may be one second less.
    return max(0, every_ms - max(0, gone_s - 1) * 1000)


def attempts_left(policy: Policy, attempt_every_ms: int) -> int:
    """Return how many attempts fit between the due date of a certificate and its end."""
    every_ms = pace_ms(attempt_every_ms, policy.leaf_lifetime_s)
    reserve_ms = int(policy.leaf_lifetime_s * 1000 * (1 - policy.renew_at))
    return 1 + max(0, reserve_ms - 1) // max(1, every_ms)


def attempts_advice(policy: Policy, attempt_every_ms: int) -> str:
    """Return what to change when one failure may be the end of a certificate, empty when not.

    Each value in the sentence is enough by itself.
    """
    fit = attempts_left(policy, attempt_every_ms)
    if fit >= ATTEMPTS_MIN:
        return ""
    many = f"{fit} attempts" if fit > 1 else "one attempt"
    ways = _ways_to_more(policy, attempt_every_ms)
    return (
        f"a certificate of {span_down(policy.leaf_lifetime_s)} (leaf_lifetime) that is renewed at "
        f"{policy.renew_at:g} of it (renew_at) leaves {many}, and {ATTEMPTS_MIN} should fit: "
        f"certmesh ca policy set {' (or '.join(ways)}{')' * (len(ways) - 1)}"
    )


def _ways_to_more(policy: Policy, attempt_every_ms: int) -> list[str]:
    """Return settings, each of which leaves enough attempts; rounded to the safe side."""
    ways = []
    every_ms = pace_ms(attempt_every_ms, policy.leaf_lifetime_s)
    needed = (ATTEMPTS_MIN - 1) * every_ms / (policy.leaf_lifetime_s * 1000)
    fraction = (int((1 - needed) * 100) - 1) / 100
    if fraction > 0 and _suffices(policy, attempt_every_ms, renew_at=fraction):
        ways.append(f"renew_at={fraction:g}")
    needed_s = int((ATTEMPTS_MIN - 1) * attempt_every_ms / 1000 / (1 - policy.renew_at)) + 2
    lifetime_s = seconds_up(needed_s)
    if lifetime_s <= LIFETIME_S_MAX and _suffices(
        policy, attempt_every_ms, leaf_lifetime_s=lifetime_s
    ):
        ways.append(f"leaf_lifetime={span_up(needed_s)}")
    return ways


def _suffices(policy: Policy, attempt_every_ms: int, **changed: float) -> bool:
    changed_policy: Policy = replace(policy, **changed)
    return attempts_left(changed_policy, attempt_every_ms) >= ATTEMPTS_MIN


class SavedPace(msgspec.Struct, frozen=True):
    """What outlives the process: for how long each attempt had been over at `at`, in ms."""

    at: UnixSeconds
    gone_ms: dict[str, int]


class Pace:
    """When the last attempt of each host began, and who asked for the next turn."""

    def __init__(self) -> None:
        self._began: OrderedDict[str, Millis] = OrderedDict()
        self._open: OrderedDict[str, Millis] = OrderedDict()
        self._asked: OrderedDict[str, int] = OrderedDict()
        self._pullers: OrderedDict[str, None] = OrderedDict()
        self._dirty = False

    def __len__(self) -> int:
        return len(self._began)

    def begin(self, key: str, now_ms: Millis, every_ms: int) -> Millis | None:
        """Note that an attempt begins; return when the one before began, for `put_back`."""
        self._forget_over(now_ms, every_ms)
        before = self._began.pop(key, None)
        self._asked.pop(key, None)
        self._began[key] = self._open[key] = now_ms
        self._open.move_to_end(key)
        if len(self._began) > KEYS_MAX:
            self._began.popitem(last=False)
        if len(self._open) > SAVED_MAX:
            self._open.popitem(last=False)
        self._dirty = True
        return before

    def put_back(self, key: str, before: Millis | None) -> None:
        """Take back an attempt that came to nothing: it was not committed, or handed on."""
        self._began.pop(key, None)
        self._open.pop(key, None)
        if before is not None:
            self._began[key] = before
            self._began.move_to_end(key, last=False)
        self._dirty = True

    def succeeded(self, key: str, *, pulled: bool) -> None:
        """Note that the ledger tells of the attempt from now on, and which way it came."""
        if self._open.pop(key, None) is not None:
            self._dirty = True
        self._pullers.pop(key, None)
        if pulled:
            self._pullers[key] = None
            if len(self._pullers) > KEYS_MAX:
                self._pullers.popitem(last=False)

    def pulls(self, key: str) -> bool:
        """Whether the host renewed itself the last time: it is left to it the next time too."""
        return key in self._pullers

    def began_ms(self, key: str) -> Millis | None:
        """Return when the last attempt began, None when that is long over or unknown."""
        return self._began.get(key)

    def turn_ms(self, key: str, every_ms: int) -> int | None:
        """Return from when on the next attempt may begin; None when no attempt is known."""
        began_ms = self._began.get(key)
        return None if began_ms is None else began_ms + every_ms

    def ask(self, key: str, turn_ms: int, every_ms: int) -> None:
        """Keep the turn at `turn_ms` for the host itself, for as long as one turn lasts.

        A turn that is kept already is not kept for longer: who asks all the time and never comes
        in time keeps the sweep away once, not for ever.
        """
        if self._asked.get(key, 0) <= turn_ms:
            self._asked.pop(key, None)
            self._asked[key] = turn_ms + every_ms
        if len(self._asked) > SAVED_MAX:
            self._asked.popitem(last=False)

    def kept_until_ms(self, key: str) -> int:
        """Return until when the sweep leaves the turn to the host itself; 0 when it need not."""
        return self._asked.get(key, 0)

    def take_dirty(self, now_ms: Millis, now: UnixSeconds) -> bytes:
        """Return what to save; empty when nothing changed since the last time."""
        if not self._dirty:
            return b""
        self._dirty = False
        gone = {key: now_ms - began_ms for key, began_ms in self._open.items()}
        return msgspec.msgpack.encode(SavedPace(now, gone))

    def mark_dirty(self) -> None:
        """Note that the last save came to nothing."""
        self._dirty = True

    def restore(self, raw: bytes, now_ms: Millis, now: UnixSeconds) -> None:
        """Take up what an earlier life saved; what cannot be read says nothing.

        A wall clock that was set back says that no time went by: a host then waits for one whole
        turn at the most.
        """
        try:
            saved = msgspec.msgpack.decode(raw, type=SavedPace)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        away_ms = max(0, now - saved.at) * 1000
        by_age = sorted(saved.gone_ms.items(), key=lambda item: -item[1])
        for key, gone_ms in by_age[-SAVED_MAX:]:
            began_ms = Millis(now_ms - max(0, gone_ms) - away_ms)
            self._began[key] = self._open[key] = began_ms

    def _forget_over(self, now_ms: Millis, every_ms: int) -> None:
        """Drop what holds nobody back any more; attempts stand in the order they began."""
        for table in (self._began, self._open):
            while table and next(iter(table.values())) + every_ms <= now_ms:
                table.popitem(last=False)
        while self._asked and next(iter(self._asked.values())) <= now_ms:
            self._asked.popitem(last=False)
