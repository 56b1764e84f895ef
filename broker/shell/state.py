"""What the running broker holds: the ledger, the key room, and everything that dies with it."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from broker.core.lease import LeaseTable
from broker.core.limiter import AttemptLimiter
from broker.core.liveness import WorkerTable
from broker.core.own import OwnCertificate
from broker.core.presence import PresenceTable
from broker.core.quiet import Quiet
from broker.core.renewal import Backoff
from broker.errors import CALockedError, NoMeshError, NotPrimaryError
from broker.ledger.rows import CertificateRow, MemberRow, MeshRow
from broker.ledger.sqlite import Ledger
from broker.pki.issuer import Issuer
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.shell.caller import Caller
from broker.shell.offloop import OffLoop
from broker.shell.tasks import TaskQueue
from broker.shell.vault import Vault
from broker.units import Millis
from broker.wire.failover import Hint, Sighting
from broker.wire.ids import CAState, Role
from broker.wire.messages import AnyReply
from broker.wire.node import Endpoint, Membership, NodeView
from broker.wire.roster import BundleBody
from broker.wire.supervision import ProcessLine


@dataclass(slots=True)
class KeyRoom:
    """The CA's files and, while unlocked, its open key. Nothing else in the pool maps the key."""

    vault: Vault | None = None
    issuer: Issuer | None = None
    totp_secret: bytes = b""
    locks: int = 0

    @property
    def state(self) -> CAState:
        """Lock state."""
        if self.vault is None:
            return "absent"
        return "locked" if self.issuer is None else "unlocked"


@dataclass(slots=True)
class Follow:
    """What this node knows of the mesh beyond its own ledger; durable parts live in `local`."""

    primary: Endpoint | None = None
    term: int = 1
    bundle: BundleBody | None = None
    bundle_bytes: bytes = b""
    bundle_wanted: int = 0
    sightings: tuple[Sighting, ...] = ()
    hints: tuple[Hint, ...] = ()
    processes: dict[str, ProcessLine] = field(default_factory=dict)


@dataclass(slots=True)
class Waiting:
    """A caller whose reply comes later."""

    caller: Caller
    deadline_ms: int


@dataclass(slots=True)
class BrokerState:
    """Everything the verbs work on; one per process, owned by the loop."""

    settings: Settings
    paths: Paths
    ledger: Ledger
    boot_id: str
    started_ms: Millis
    workers: WorkerTable
    leases: LeaseTable
    limiter: AttemptLimiter
    presence: PresenceTable
    offloop: OffLoop
    draw: Callable[[int], bytes]
    chance: Callable[[], float]
    host: str
    keys: KeyRoom = field(default_factory=KeyRoom)
    membership: Membership | None = None
    follow: Follow = field(default_factory=Follow)
    own: OwnCertificate = field(default_factory=OwnCertificate)
    tasks: TaskQueue = field(default_factory=TaskQueue)
    due: deque[tuple[MemberRow, CertificateRow]] = field(default_factory=deque)
    backoff: dict[object, Backoff] = field(default_factory=dict)
    deferred_by: dict[str, set[bytes]] = field(default_factory=dict)
    refusals: Quiet = field(default_factory=Quiet)
    rows: Quiet = field(default_factory=Quiet)
    pulls: Quiet = field(default_factory=Quiet)
    due_after: tuple[int, str] = (-1, "")
    due_not_before_ms: int = 0
    force_renewal: bool = False
    own_failure: str = ""
    waiting: dict[bytes, Waiting] = field(default_factory=dict)
    late: list[tuple[Caller, AnyReply]] = field(default_factory=list)
    _mesh: tuple[str, MeshRow | None] = ("", None)
    _view: tuple[object, NodeView | None] = (None, None)

    @property
    def role(self) -> Role:
        """This node's role; the roster decides, never a wish."""
        if self.membership is None:
            return "none"
        if self.keys.vault is not None and self.mesh_row() is not None:
            return "primary"
        return "member"

    def mesh_row(self) -> MeshRow | None:
        """Return the mesh this node's ledger tells of, read once per head.

        The head's hash is the key: after a rollback another row may get the same sequence.
        """
        head = self.ledger.head.hash
        if self._mesh[0] != head:
            self._mesh = (head, self.ledger.mesh())
        return self._mesh[1]

    def cached_view(self, compose: Callable[[], NodeView]) -> NodeView:
        """Return this node's view, composed again only after something in it changed."""
        follow = self.follow
        key = (
            self.ledger.head.hash,
            self.keys.state,
            follow.term,
            follow.bundle_bytes,
            follow.primary,
            self.membership,
        )
        if self._view[0] != key or self._view[1] is None:
            self._view = (key, compose())
        assert self._view[1] is not None
        return self._view[1]

    def mesh(self) -> MeshRow:
        """Return the mesh row of a CA node.

        Raises:
            NoMeshError: This node belongs to no mesh.
            NotPrimaryError: This node is a member; the hint names the primary.
        """
        mesh = self.mesh_row()
        if self.role == "primary" and mesh is not None:
            return mesh
        if self.membership is None:
            raise NoMeshError(
                "this node belongs to no mesh",
                hint="run `certmesh init NAME` to create one, or `certmesh join INVITE`",
            )
        primary = self.follow.primary or self.membership.primary
        raise NotPrimaryError(
            f"{self.host} is not the primary of {self.membership.mesh_name}",
            hint=f"ask {primary.host} ({', '.join(primary.addresses)}:{primary.enroll_port})",
        )

    def issuer(self) -> Issuer:
        """Return the open issuing key.

        Raises:
            CALockedError: Somebody has to unlock it first.
        """
        self.mesh()
        if self.keys.issuer is None:
            raise CALockedError(f"the CA key on {self.host} is locked", hint="certmesh ca unlock")
        return self.keys.issuer

    def wait(self, caller: Caller, deadline_ms: int) -> None:
        """Keep the caller of this request until `resolve`."""
        self.waiting[caller.request_id] = Waiting(caller, deadline_ms)

    def resolve(self, request_id: bytes, reply: AnyReply) -> None:
        """Answer a waiting caller with this drain's replies; nobody waiting is no trouble."""
        waiting = self.waiting.pop(request_id, None)
        if waiting is not None:
            self.late.append((waiting.caller, reply))
