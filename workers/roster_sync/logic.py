"""Where the trust bundle comes from and how each failure is called: decisions only.

The primary is the one the *mesh state* names. A node never syncs from itself, and what it fetches
proves nothing until the broker has verified it against the pinned CA.
"""

import msgspec

from broker.errors import BundleRejectedError, MalformedMessageError, MeshError
from broker.wire.node import Endpoint, NodeView
from broker.wire.roster import SignedBundle

BUNDLE_BYTES_MAX = 1_048_576
"""A bundle is a few kilobytes; what is larger is not decoded."""

SOURCES_MAX = 8
FOLLOWERS = ("member", "standby")
_DECODER: msgspec.msgpack.Decoder[SignedBundle] = msgspec.msgpack.Decoder(SignedBundle)


def sources(node: NodeView) -> tuple[Endpoint, ...]:
    """Return whom to ask, the primary first, then other key holders, never this node."""
    if node.mesh is None or node.role not in FOLLOWERS:
        return ()
    primary = (node.mesh.primary,) if node.mesh.primary is not None else ()
    seen = {node.host.lower()}
    chosen: list[Endpoint] = []
    for endpoint in (*primary, *node.key_holders):
        if endpoint.host.lower() not in seen and endpoint.addresses:
            seen.add(endpoint.host.lower())
            chosen.append(endpoint)
    return tuple(chosen[:SOURCES_MAX])


def bundle_path(node: NodeView) -> str:
    """Return the path that asks for anything newer than what is installed here."""
    return f"/v1/bundle?after={node.bundle_sequence}"


def check_format(octets: bytes) -> None:
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


def in_own_words(error: Exception) -> str:
    """Return which kind of failure `error` is; each kind has a name of its own in the log."""
    match error:
        case BundleRejectedError():
            return f"verification failed: {error.detail}"
        case MalformedMessageError():
            return f"bad format: {error.detail}"
        case MeshError():
            return f"fetch failed: {error.detail}"
        case _:
            return f"crashed fetch: {type(error).__name__}: {error}"
