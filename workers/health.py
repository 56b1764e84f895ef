"""Health answers of every listener: the process answers, and the node can do its role.

Vault's status codes for `?role=primary`, so that balancers configured for it work unchanged.
Nobody is asked for a credential here and nothing but the state is told.
"""

from collections.abc import Callable
from dataclasses import dataclass

from broker.clock import boottime_ms, wall_s
from broker.errors import MeshError
from broker.units import Millis, UnixSeconds
from broker.wire.console_api import Health
from broker.wire.mesh_api import REPLY_JSON
from broker.wire.node import GetNode, NodeView
from workers.query import Text
from workers.route import Asker, Page, Route, Visit

GLANCE_MS = 500
"""One question to the broker serves all callers for so long: strangers may ask here."""
NODE_TIMEOUT_MS = 1000
READY = 200
STANDBY = 429
NO_MESH = 501
UNREADY = 503

ExpiresAt = Callable[[], UnixSeconds | None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Status and reason; an empty reason means ready."""

    status: int = READY
    reason: str = ""


def readiness(node: NodeView | None, expires_at: UnixSeconds | None, now: UnixSeconds) -> Verdict:
    """Return whether this node can do its role; `node` None means the broker is silent."""
    if node is None:
        return Verdict(UNREADY, "broker_down")
    if node.role == "none":
        return Verdict(UNREADY, "no_mesh")
    if expires_at is None or now > expires_at:
        return Verdict(UNREADY, "certificate_expired")
    if node.role == "primary" and node.ca != "unlocked":
        return Verdict(UNREADY, "ca_locked")
    return Verdict()


def readiness_as_primary(node: NodeView | None) -> Verdict:
    """Return whether this node is the unlocked primary, in Vault's codes."""
    if node is None:
        return Verdict(UNREADY, "broker_down")
    if node.role == "none":
        return Verdict(NO_MESH, "no_mesh")
    if node.role == "standby":
        return Verdict(STANDBY, "standby")
    if node.role != "primary":
        return Verdict(UNREADY, "not_primary")
    return Verdict() if node.ca == "unlocked" else Verdict(UNREADY, "ca_locked")


class HealthDesk:
    """Answers `/healthz` and `/readyz`."""

    def __init__(self, expires_at: ExpiresAt) -> None:
        self._expires_at = expires_at
        self._node: NodeView | None = None
        self._fresh_until = Millis(0)

    def routes(self) -> tuple[Route, ...]:
        """Return the routes every listener has."""
        return (
            Route(
                method="GET",
                path="/healthz",
                summary="The process answers.",
                reply=Health,
                serve=self._alive,
                scope="none",
            ),
            Route(
                method="GET",
                path="/readyz",
                summary="The node can do its role, or the one in ?role=primary.",
                reply=Health,
                serve=self._ready,
                scope="none",
                query=(Text(name="role", summary="Ready for this role.", choices=("primary",)),),
                statuses=(READY, STANDBY, NO_MESH, UNREADY),
            ),
        )

    async def _alive(self, _visit: Visit, _asker: Asker) -> Page:
        return Page(REPLY_JSON.encode(Health(status="ok")))

    async def _ready(self, visit: Visit, asker: Asker) -> Page:
        node = await self._glance(asker)
        if visit.query.get("role") == "primary":
            verdict = readiness_as_primary(node)
        else:
            verdict = readiness(node, self._expires_at(), wall_s())
        status = "unready" if verdict.reason else "ready"
        health = Health(status=status, reason=verdict.reason)
        return Page(REPLY_JSON.encode(health), verdict.status)

    async def _glance(self, asker: Asker) -> NodeView | None:
        if boottime_ms() < self._fresh_until:
            return self._node
        try:
            self._node = await asker.ask(GetNode(), NodeView, timeout_ms=NODE_TIMEOUT_MS)
        except MeshError:
            self._node = None
        self._fresh_until = Millis(boottime_ms() + GLANCE_MS)
        return self._node
