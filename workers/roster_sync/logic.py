"""What roster-sync asks for, how patiently, and how each failure is called: decisions only.

The primary is the one that the *mesh state* names. A node never syncs from itself, and what it
fetches proves nothing until the broker has verified it against the pinned CA.
"""

from dataclasses import dataclass

import msgspec

from broker.errors import (
    BundleRejectedError,
    ClaimRejectedError,
    ForkedError,
    KeyRejectedError,
    MalformedMessageError,
    MeshError,
)
from broker.wire.node import Endpoint, NodeView
from broker.wire.replica import PageInstalled
from broker.wire.roster import SignedBundle

BUNDLE_BYTES_MAX = 1_048_576
"""A bundle is a few kilobytes; what is larger is not decoded."""

PAGE_BYTES_MAX = 786_432
"""What a message to the broker may carry of a page."""

SOURCES_MAX = 8
IMPOSTOR = "answered, but not as the node it should be"
"""What `workers.transport` says of a certificate that does not verify; a test holds them equal."""
WAIT_MS = 20_000
"""How long the primary may hold its answer back: one request in this time when nothing happens."""

SETTLE_MS = 100
"""How long while rows flow: the request only says what has arrived, and takes what is there."""

BUNDLE_EVERY = 10
"""While rows flow without a pause, the bundle is asked for with every so many pages."""

EARLY_MS = 1_000
"""A primary that does not hold its answers back is asked this often."""

REJECTIONS = (
    BundleRejectedError,
    ClaimRejectedError,
    ForkedError,
    KeyRejectedError,
    MalformedMessageError,
)
"""What the broker says of octets that it does not believe; anything else is trouble of its own."""

_BACKOFF_MS = (1_000, 2_000, 5_000)
_DECODER: msgspec.msgpack.Decoder[SignedBundle] = msgspec.msgpack.Decoder(SignedBundle)


def is_askable(source: Endpoint | None, own_host: str) -> bool:
    """Return whether `source` is another node with an address."""
    return source is not None and source.host.lower() != own_host.lower() and bool(source.addresses)


def sources(node: NodeView, first: Endpoint | None) -> tuple[Endpoint, ...]:
    """Return whom to ask for the bundle: the primary, then other key holders, never this node."""
    seen: set[str] = set()
    chosen: list[Endpoint] = []
    for endpoint in (first, *node.key_holders):
        if endpoint is None or not is_askable(endpoint, node.host):
            continue
        if endpoint.host.lower() not in seen:
            seen.add(endpoint.host.lower())
            chosen.append(endpoint)
    return tuple(chosen[:SOURCES_MAX])


def bundle_path(node: NodeView) -> str:
    """Return the path that asks for anything newer than what is installed here."""
    return f"/v1/bundle?after={node.bundle_sequence}&term={node.bundle_term}"


def is_stranger(reason: str) -> bool:
    """Return whether somebody answered who could not prove to be the node that was asked."""
    return IMPOSTOR in reason


def check_bundle(octets: bytes) -> None:
    """Refuse octets that are no signed bundle, before they reach the broker.

    Raises:
        MalformedMessageError: Too large, or not the msgpack form of `SignedBundle`.
    """
    if len(octets) > BUNDLE_BYTES_MAX:
        raise MalformedMessageError(f"{len(octets)} octets are too many for a bundle")
    try:
        _DECODER.decode(octets)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessageError(f"not a signed bundle: {error}") from None


def check_page(octets: bytes) -> None:
    """Refuse octets that no message to the broker could carry; what is in them it judges itself.

    Raises:
        MalformedMessageError: Too large, or nothing at all.
    """
    if not 0 < len(octets) <= PAGE_BYTES_MAX:
        raise MalformedMessageError(f"{len(octets)} octets are no page of a journal")


@dataclass(frozen=True, slots=True)
class Pace:
    """How a standby asks for rows: with patience once it has everything, at once while it has not.

    A new bundle only shows what a standby has said to be durable, and it says so by asking for
    the next rows. So after a page the rows come first and the bundle once they have ended.

    Attributes:
        is_level: The last page said that there is nothing more.
        pages: Pages with rows since then.
    """

    is_level: bool = False
    pages: int = 0

    @property
    def wait_ms(self) -> int:
        """How long the primary may wait for rows."""
        return WAIT_MS if self.is_level else SETTLE_MS

    @property
    def asks_bundle(self) -> bool:
        """Whether to look for a newer bundle before the rows."""
        return self.pages % BUNDLE_EVERY == 0

    def after(self, installed: PageInstalled, spent_ms: int) -> tuple["Pace", int]:
        """Return the next pace and when to ask again, after a round that took `spent_ms`."""
        if installed.rows or installed.orphaned:
            return Pace(pages=self.pages + 1), 0
        if installed.behind or self.is_level:
            # It should have sent rows, or waited for some: no progress must not become a storm.
            return Pace(is_level=not installed.behind), max(0, EARLY_MS - spent_ms)
        return Pace(is_level=True), 0


def backoff_ms(failures: int) -> int:
    """Return the wait after so many failures in a row: short, for a standby must not lag."""
    return _BACKOFF_MS[min(max(failures, 1), len(_BACKOFF_MS)) - 1]


def state_of(source: str, installed: PageInstalled) -> str:
    """Return what `certmesh ps` says of a standby."""
    if installed.behind:
        return f"{installed.behind} rows behind {source}"
    return f"in step with {source}"


def in_own_words(error: Exception) -> str:
    """Return which kind of failure `error` is; each kind has a name of its own in the log."""
    match error:
        case BundleRejectedError() | ClaimRejectedError() | KeyRejectedError():
            return f"verification failed: {error.detail}"
        case ForkedError():
            return f"forked: {error.detail}"
        case MalformedMessageError():
            return f"bad format: {error.detail}"
        case MeshError():
            return f"fetch failed: {error.detail}"
        case _:
            return f"crashed fetch: {type(error).__name__}: {error}"
