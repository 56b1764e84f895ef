"""Failed attempts: who guesses has to wait; nobody else does, also after a restart.

Invariants: a key that spent its attempts stays locked for a whole window, whatever others do and
however often the broker starts again; memory and the saved state are bounded; a wall clock that is
set back frees nobody, one that is wrong locks nobody for longer than a window.

A code has six digits, so guesses at it count per source and per claimed host. An invite cannot be
guessed: its failures count per source and in a table of their own, so that nobody's guesses at
codes, behind the same address or elsewhere, keep an invited host out. The same holds for the key of
an expired certificate.
"""

import ipaddress
from collections import OrderedDict
from typing import NamedTuple

import msgspec

from broker.errors import ThrottledError
from broker.units import Millis, UnixSeconds

IPV6_PREFIX = 64
"""One IPv6 host owns a whole /64, so that is one source."""
CROWD_IPV4, CROWD_IPV6 = 24, 48
"""Neighbours who share their attempts once the table is full of locked addresses."""
KEYS_MAX = 1024
"""Keys below their limit, and locked ones, remembered in each table."""
CROWDS_MAX = 256
CROWD_FACTOR = 16
HOST_FACTOR = 4
"""A neighbour's typos must not close a host's door at once; its own address is closed earlier."""

CODE, INVITE, HOST, LOCAL, KEY = "code", "invite", "host", "local", "key"
_GUESSABLE = (CODE, HOST, LOCAL)


def source_key(source: str) -> str:
    """Return what counts as one source: an IPv4 address or an IPv6 /64."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))


def crowd_key(key: str) -> str:
    """Return the neighbourhood of a source; empty for what is no address."""
    try:
        network = ipaddress.ip_network(key)
    except ValueError:
        return ""
    prefix = CROWD_IPV4 if network.version == 4 else CROWD_IPV6  # noqa: PLR2004 (IP versions)
    return str(network.supernet(new_prefix=prefix))


class Entry(NamedTuple):
    """Failures of one key, and when they are forgotten: boot time in memory, a wait when saved."""

    failures: int
    until_ms: int


class Saved(msgspec.Struct, frozen=True):
    """What outlives the process: failures and waits that were left at `at`, by table and key."""

    at: UnixSeconds
    tables: dict[str, dict[str, tuple[int, int]]]
    closed_ms: int = 0


class AttemptTable:
    """Failures by key inside a window.

    Keys below the limit and locked ones are kept apart: a flood of new keys pushes out the oldest
    beginners, never somebody who is locked.

    Args:
        attempts: Failures allowed inside one window.
        window_ms: How long failures count, and the wait once there are that many.
        keys_max: Bound of each of the two parts.
    """

    def __init__(self, attempts: int, window_ms: int, keys_max: int = KEYS_MAX) -> None:
        self._attempts = attempts
        self._window_ms = window_ms
        self._keys_max = keys_max
        self._trying: OrderedDict[str, Entry] = OrderedDict()
        self._locked: OrderedDict[str, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._trying) + len(self._locked)

    def wait_ms(self, key: str, now_ms: Millis) -> int:
        """Return how long `key` has to wait; 0 when it may try."""
        entry = self._locked.get(key)
        return max(0, entry.until_ms - now_ms) if entry is not None else 0

    def failed(self, key: str, now_ms: Millis) -> bool:
        """Count one failure; return False when there is no room to remember a locked key."""
        self._forget_over(now_ms)
        if key in self._locked:
            return True
        entry = self._trying.pop(key, None)
        if entry is None or entry.until_ms <= now_ms:
            entry = Entry(0, now_ms + self._window_ms)
        count = entry.failures + 1
        if count >= self._attempts and len(self._locked) < self._keys_max:
            self._locked[key] = Entry(count, now_ms + self._window_ms)
            return True
        self._trying[key] = Entry(min(count, self._attempts - 1), entry.until_ms)
        if len(self._trying) > self._keys_max:
            self._trying.popitem(last=False)
        return count < self._attempts

    def left(self, now_ms: Millis) -> dict[str, tuple[int, int]]:
        """Return failures and remaining wait of every key; locked ones first."""
        entries = [*self._locked.items(), *self._trying.items()]
        return {
            key: (entry.failures, entry.until_ms - now_ms)
            for key, entry in entries
            if entry.until_ms > now_ms
        }

    def restore(self, left: dict[str, tuple[int, int]], now_ms: Millis, gone_ms: int) -> None:
        """Take up what `left` returned `gone_ms` ago, in an earlier life."""
        waits = sorted(left.items(), key=lambda item: item[1][1])
        for key, (count, wait_ms) in waits:
            until_ms = now_ms + min(wait_ms - gone_ms, self._window_ms)
            if until_ms <= now_ms:
                continue
            part = self._locked if count >= self._attempts else self._trying
            if len(part) < self._keys_max:
                part[key] = Entry(count, until_ms)

    def _forget_over(self, now_ms: Millis) -> None:
        """Drop what ended; every lock lasts one window, so they end in the order they began."""
        while self._locked:
            key, entry = next(iter(self._locked.items()))
            if entry.until_ms > now_ms:
                return
            del self._locked[key]


class AttemptLimiter:
    """All tables of one broker.

    Args:
        attempts: Failures allowed to one source inside one window.
        window_ms: Length of the window, and of the wait once it is full.
    """

    def __init__(self, attempts: int, window_ms: int) -> None:
        self._window_ms = window_ms
        self._tables = {
            CODE: AttemptTable(attempts, window_ms),
            INVITE: AttemptTable(attempts, window_ms),
            HOST: AttemptTable(attempts * HOST_FACTOR, window_ms),
            LOCAL: AttemptTable(attempts, window_ms),
            KEY: AttemptTable(attempts, window_ms),
        }
        self._crowds = AttemptTable(attempts * CROWD_FACTOR, window_ms, CROWDS_MAX)
        self._closed_until_ms = 0
        self._dirty = False

    def __len__(self) -> int:
        return sum(map(len, self._tables.values())) + len(self._crowds)

    def check(self, source: str, now_ms: Millis) -> None:
        """Let an attempt pass that is not a join, such as an unlock.

        Raises:
            ThrottledError: Too many failures under this name; carries the wait.
        """
        self._pass(self._wait_ms(LOCAL, source_key(source), now_ms), "under this name")

    def failed(self, source: str, now_ms: Millis) -> None:
        """Count one failed attempt that was not a join."""
        self._fail(LOCAL, source_key(source), now_ms)

    def check_join(self, source: str, host: str, now_ms: Millis, *, invited: bool) -> None:
        """Let a join pass as far as its credential.

        Args:
            source: Peer address.
            host: The name it claims; any text.
            now_ms: Boot-time clock.
            invited: It shows an invite and no code.

        Raises:
            ThrottledError: Too many failures; carries the wait.
        """
        key = source_key(source)
        if invited:
            self._pass(self._wait_ms(INVITE, key, now_ms), "from this address")
            return
        self._pass(self._wait_ms(CODE, key, now_ms), "from this address")
        if len(self._crowds):
            self._pass(self._crowds.wait_ms(crowd_key(key), now_ms), "from these addresses")
        self._pass(self._wait_ms(HOST, host, now_ms), "for this host")

    def join_failed(self, source: str, host: str, now_ms: Millis, *, invited: bool) -> bool:
        """Count one join with a bad credential; return whether its source is locked from now on."""
        key = source_key(source)
        table = INVITE if invited else CODE
        if not self._fail(table, key, now_ms) and not invited:
            self._crowds.failed(crowd_key(key), now_ms)
        if not invited:
            self._fail(HOST, host, now_ms)
        return self._tables[table].wait_ms(key, now_ms) > 0

    def check_key(self, source: str, now_ms: Millis) -> None:
        """Let a proof by the key of an expired certificate pass as far as its signature.

        Raises:
            ThrottledError: Too many from this source proved nothing; carries the wait.
        """
        self._pass(self._wait_ms(KEY, source_key(source), now_ms), "from this address")

    def key_failed(self, source: str, now_ms: Millis) -> bool:
        """Count one proof by key that failed; return whether its source is locked from now on."""
        key = source_key(source)
        self._fail(KEY, key, now_ms)
        return self._tables[KEY].wait_ms(key, now_ms) > 0

    def take_dirty(self, now_ms: Millis, now: UnixSeconds) -> bytes:
        """Return what to save; empty when nothing changed since the last time."""
        if not self._dirty:
            return b""
        self._dirty = False
        tables = {name: table.left(now_ms) for name, table in self._tables.items()}
        return msgspec.msgpack.encode(Saved(now, tables, max(0, self._closed_until_ms - now_ms)))

    def mark_dirty(self) -> None:
        """Note that the last save came to nothing."""
        self._dirty = True

    def restore(self, raw: bytes, now_ms: Millis, now: UnixSeconds) -> bool:
        """Take up what an earlier life saved; return False when it cannot be read.

        Then everything that can be guessed is closed for one window: whoever was locked stays so,
        and a damaged row is no way to more guesses. Invites stay open.
        """
        try:
            saved = msgspec.msgpack.decode(raw, type=Saved)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._closed_until_ms = now_ms + self._window_ms
            self._dirty = True
            return False
        # A wall clock that was set back says that no time went by: then every wait is whole again.
        gone_ms = max(0, now - saved.at) * 1000
        self._closed_until_ms = now_ms + min(saved.closed_ms, self._window_ms) - gone_ms
        for name, left in saved.tables.items():
            if name in self._tables:
                self._tables[name].restore(left, now_ms, gone_ms)
        return True

    def _wait_ms(self, table: str, key: str, now_ms: Millis) -> int:
        closed_ms = self._closed_until_ms - now_ms if table in _GUESSABLE else 0
        return max(closed_ms, self._tables[table].wait_ms(key, now_ms))

    def _fail(self, table: str, key: str, now_ms: Millis) -> bool:
        self._dirty = True
        return self._tables[table].failed(key, now_ms)

    def _pass(self, wait_ms: int, whose: str) -> None:
        if wait_ms > 0:
            raise ThrottledError(
                f"too many failed attempts {whose}",
                hint=f"wait {-(-wait_ms // 1000)} s",
                retry_after_ms=wait_ms,
            )
