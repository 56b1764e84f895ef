"""What a remote renewal worker makes of its node and of refusals, on plain values."""

from broker.errors import ErrorCode, MeshError
from broker.wire.node import Endpoint, NodeView

ROUND_MS_MAX = 5_000
"""A new grant, a new primary and new work are noticed within this."""
ROUND_MS_MIN = 250
LED_HERE = "this node leads: its own renewal workers do the work"
NO_MESH = "waiting for a mesh"
NO_PRIMARY = "waiting to hear who leads"
NOT_LEADING = "the CA does not serve; waiting for the next one"

UNGRANTED = frozenset({ErrorCode.FORBIDDEN, ErrorCode.REVOKED, ErrorCode.NOT_A_MEMBER})
"""A person has to do something; asking more often is no help."""

Seat = tuple[Endpoint, int]
"""Whose workers these are: the doors of the primary, and its term."""


def seat_of(node: NodeView) -> Seat | None:
    """Return whom to work for, None when nobody elsewhere leads as far as this node knows."""
    primary = node.mesh.primary if node.mesh is not None else None
    if node.role == "primary" or primary is None or primary.host == node.host:
        return None
    return primary, node.term


def idle_state(node: NodeView) -> str:
    """Return why there is nobody to work for."""
    if node.mesh is None:
        return NO_MESH
    return LED_HERE if node.role == "primary" else NO_PRIMARY


def waiting_state(error: MeshError, host: str) -> str:
    """Return what `certmesh ps` shows of a refusal that a person can end."""
    if error.code is ErrorCode.FORBIDDEN:
        return f"waiting for a grant: certmesh worker enroll {host} on the CA"
    return f"refused: {error.detail}"


def is_ungranted(error: MeshError) -> bool:
    """Whether asking again helps only after a person has acted."""
    return error.code in UNGRANTED


def next_round_ms(answered_ms: int) -> int:
    """Return when to ask the CA for work again: as it says, within bounds."""
    return max(ROUND_MS_MIN, min(answered_ms, ROUND_MS_MAX))
