"""What the steps of one run share: options, nodes, and what earlier steps learnt."""

import ssl
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.cli.demo.board import Board
from broker.cli.demo.failure import require
from broker.cli.demo.node import Node
from broker.cli.demo.tls import Identity, client_context, identity_of


@dataclass(frozen=True, slots=True)
class Options:
    """The command line of the demo."""

    home: Path = Path(".demo")
    keep: bool = False
    manual: bool = False
    json: bool = False
    colour: bool = False
    slow_s: float = 0.0
    only: frozenset[int] = frozenset()


@dataclass(slots=True)
class Stage:
    """One run. Steps write down here what later ones need, nowhere else."""

    options: Options
    board: Board
    home: Path
    node_a: Node
    node_b: Node
    node_c: Node
    creation: dict[str, Any] = field(default_factory=dict)
    passphrase: str = ""
    app: subprocess.Popen[bytes] | None = None
    heir: Node | None = None

    @property
    def nodes(self) -> tuple[Node, Node, Node]:
        """All three, the founder first."""
        return (self.node_a, self.node_b, self.node_c)

    @property
    def primary(self) -> Node:
        """Whoever leads the mesh now."""
        return self.heir or self.node_a

    @property
    def trust(self) -> Path:
        """The mesh's root certificate, fetched once from the primary, as any client would."""
        return self.home / "root.pem"

    @property
    def pin(self) -> str:
        """SHA-256 of the root, as `certmesh init` showed it."""
        pin = self.creation.get("pin")
        require(pin, "certmesh init showed no CA fingerprint")
        return str(pin)

    def context_as(self, node: Node) -> ssl.SSLContext:
        """Return a client context with the identity now live on `node`."""
        return client_context(self.trust, identity_of(node))

    def context_of(self, identity: Identity | None) -> ssl.SSLContext:
        """Return a client context with any identity, or none."""
        return client_context(self.trust, identity)
