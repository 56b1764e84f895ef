"""A real mesh of one to three nodes under supervisord: a founder, a standby, a member.

    mesh = Mesh.found(size=3, port=30000)
    try:
        eventually(lambda: not mesh.discontent(), within_s=60)
        ...
    finally:
        mesh.remove()

Every node listens at a loopback address of its own and announces another one, behind which a
`Wire` of the harness forwards to it: what nodes say to each other can be cut and slowed, what
outside clients say goes to the node directly.
"""

import contextlib
import os
import signal
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import msgspec

from broker.runtime.paths import Paths, node_paths
from broker.runtime.settings import load_settings
from broker.wire.node import Membership, NodeView, StatusView
from tests.faults.harness.caller import Door, Question, ask
from tests.faults.harness.wire import Wire
from tests.faults.pool import Pool
from tests.support import eventually
from workers.root import root_der_of

NAMES = ("atlas", "birch", "cedar")
STANDBYS = 1
SETTINGS = (
    'failover.tick="500ms"',
    'failover.grace="5s"',
    'failover.stagger="1s"',
    'broker.worker_dead_after="4s"',
    'renewal.attempt_every="0s"',
)
START_S = 120.0

T = TypeVar("T", bound=msgspec.Struct)


def _nothing(_name: str) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True)
class Node(Pool):
    """A node of a mesh; `wires` are what other nodes reach it by."""

    wires: tuple[Wire, ...] = ()

    @property
    def paths(self) -> Paths:
        """Where its files are."""
        file = self.home / "certmesh.toml"
        return node_paths(file, load_settings(file))

    def local(self, path: str, kind: type[T]) -> T | None:
        """Return what its console answers to a question, None when it does not."""
        reply = ask(self.console(), Question("GET", path))
        return msgspec.json.decode(reply.text, type=kind) if reply.outcome == "done" else None

    def console(self) -> Door:
        """Return the door of the local command."""
        return Door(self.name, path=self.home / "run" / "api.sock")

    def processes(self) -> dict[int, str]:
        """Return pid and command line of every process of this node, supervisord included."""
        mark, found = str(self.home).encode() + b"/", {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes()
                if mark in line and (b"supervisord" in line or b"certmesh.toml" in line):
                    found[int(entry.name)] = line.replace(b"\0", b" ").decode(errors="replace")
        return found

    def cut_power(self) -> None:
        """End supervisord and everything below it at once."""
        pids = sorted(self.processes())
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        eventually(lambda: not self.processes(), within_s=20)


@dataclass(frozen=True)
class Mesh:
    """Nodes that belong together; the first one founded the mesh."""

    nodes: tuple[Node, ...]

    @classmethod
    def found(
        cls, size: int, port: int, *more: str, inside: Callable[[str], Mapping[str, str]] = _nothing
    ) -> "Mesh":
        """Found a mesh of `size` nodes, started and content with each other.

        Args:
            size: 1 to 3; the second node becomes a standby, the third one stays a member.
            port: Enrol port of all of them; the mesh port is the next one.
            more: Settings of all of them.
            inside: Environment of the processes of the node with this name.
        """
        settings = (*SETTINGS, *more)
        nodes: list[Node] = []
        try:
            words = (*settings, *_announced(0))
            founder = Pool.create(port, *words, environment=inside(NAMES[0]))
            nodes.append(_wired(founder, 0))
            founder.certmesh("up")
            for number in range(1, size):
                name, place = NAMES[number], f"127.0.0.{1 + number}"
                words = (*settings, *_announced(number))
                joined = founder.joined(name, place, *words, environment=inside(name))
                nodes.append(_wired(joined, number))
                joined.certmesh("up")
            for node in nodes[1 : 1 + STANDBYS]:
                founder.certmesh("standby", "nominate", node.name, "--wait", "60s")
            mesh = cls(tuple(nodes))
            eventually(lambda: _raise_if(mesh.discontent()), within_s=START_S)
        except BaseException:
            for node in nodes:
                _remove(node)
            raise
        return mesh

    @property
    def root(self) -> bytes:
        """The root certificate (DER)."""
        return root_der_of(self.membership)

    @property
    def membership(self) -> Membership:
        """What the founder knows of its mesh."""
        raw = self.nodes[0].paths.membership.read_bytes()
        return msgspec.json.decode(raw, type=Membership)

    @property
    def key_holders(self) -> tuple[Node, ...]:
        """The nodes that can be primary."""
        return self.nodes[: 1 + STANDBYS]

    def enrol_door(self, node: Node) -> Door:
        """Return a node's enrol port as a joiner with the pinned root dials it."""
        name = f"{node.name}.{self.domain}"
        return Door(
            node.name, (node.address, node.port), ssl.create_default_context(cadata=self.root), name
        )

    @property
    def domain(self) -> str:
        """The mesh's own domain."""
        return self.membership.server_name.partition(".")[2]

    def views(self) -> dict[str, NodeView | None]:
        """Return what every node says of itself, None for one that does not answer."""
        return {node.name: node.local("/v1/node", NodeView) for node in self.nodes}

    def discontent(self) -> str:
        """Return why the mesh is not well yet; empty when it is.

        Content means: one primary that all follow, standbys that have all its rows, one bundle,
        and no warning on any node.
        """
        views = self.views()
        if silent := [name for name, view in views.items() if view is None]:
            return f"no answer from {', '.join(silent)}"
        known = {name: view for name, view in views.items() if view is not None}
        return disagreement(known) or self._warnings()

    def _warnings(self) -> str:
        for node in self.nodes:
            status = node.local("/v1/status", StatusView)
            if status is None:
                return f"{node.name} tells no status"
            if status.warnings:
                return f"{node.name} warns: {status.warnings[0]}"
        return ""

    def remove(self) -> None:
        """Stop and forget all of it."""
        for node in reversed(self.nodes):
            _remove(node)


def disagreement(views: Mapping[str, NodeView]) -> str:
    """Return why these nodes are not of one mind; empty when they are. Sans-IO."""
    leading = [name for name, view in views.items() if view.role == "primary"]
    if len(leading) != 1:
        return f"primaries: {leading}"
    (leader,) = leading
    first = views[leader]
    if first.phase != "serving" or first.powers != "full":
        return f"{leader} is {first.phase}, powers {first.powers}"
    for name, view in views.items():
        followed = view.mesh.primary.host if view.mesh and view.mesh.primary else "nobody"
        if followed != leader:
            return f"{name} follows {followed}, not {leader}"
        if (view.bundle_term, view.bundle_sequence) != (first.bundle_term, first.bundle_sequence):
            return f"{name} has bundle {view.bundle_sequence}, {leader} {first.bundle_sequence}"
        if view.role == "standby" and (view.term, view.sequence) != (first.term, first.sequence):
            return f"{name} has row {view.sequence}, {leader} row {first.sequence}"
    return ""


def _raise_if(reason: str) -> bool:
    if reason:
        raise AssertionError(reason)
    return True


def _announced(number: int) -> tuple[str, ...]:
    return (f'node.addresses=["127.0.1.{1 + number}"]',)


def _wired(pool: Pool, number: int) -> Node:
    ports = (pool.port, pool.port + 1)
    wires = tuple(
        Wire((f"127.0.1.{1 + number}", port), (f"127.0.0.{1 + number}", port)) for port in ports
    )
    kept = {field.name: getattr(pool, field.name) for field in fields(Pool)}
    return Node(**kept, wires=wires)


def _remove(node: Node) -> None:
    node.remove()
    for wire in node.wires:
        wire.close()
