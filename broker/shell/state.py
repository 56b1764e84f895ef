"""What the running broker holds: the ledger, the key room, and everything that dies with it."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from broker.clock import boottime_ms
from broker.core.clockwatch import ClockWatch
from broker.core.election import Election
from broker.core.lease import LeaseTable
from broker.core.limiter import AttemptLimiter
from broker.core.liveness import WorkerTable
from broker.core.observation import Standing, Surroundings, Version
from broker.core.own import OwnCertificate
from broker.core.pace import Pace
from broker.core.presence import PresenceTable
from broker.core.quiet import Budget, Quiet
from broker.core.remote import GrantOf, RemotePort, nobody
from broker.core.renewal import Backoff
from broker.core.rotation import Rotation
from broker.core.witness import WitnessBook
from broker.errors import CALockedError, NoMeshError, NotPrimaryError, WithheldError
from broker.ledger.rows import CertificateRow, MemberRow, MeshRow, RolloverRow
from broker.ledger.sqlite import Ledger
from broker.pki.issuer import Issuer
from broker.pki.seal import OpenedKeys
from broker.pki.transfer import TransferKey
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.shell.books import GossipBook, HappeningBook, Leaving, Replication, TrustBook
from broker.shell.caller import Caller
from broker.shell.noticebook import NoticeBook
from broker.shell.offloop import OffLoop
from broker.shell.safekeeping import BackupBook, RestoreBook
from broker.shell.slotbook import Asks, SlotChange
from broker.shell.tasks import TaskQueue
from broker.shell.vault import Vault
from broker.units import Millis
from broker.wire.claims import Claim
from broker.wire.failover import Hint, Sighting
from broker.wire.ids import CAState, Role
from broker.wire.messages import AnyReply
from broker.wire.node import Endpoint, Membership, NodeView
from broker.wire.roster import BundleBody
from broker.wire.supervision import ProcessLine


@dataclass(slots=True)
class KeyRoom:
    """The CA's files and, while unlocked, its open key. Nothing else in the pool maps the key.

    `opened_by` is the slot that opened it while nobody could write that down: the audit trail gets
    the row as soon as this node serves. `totp_secret` is the first enrollment secret of the mesh
    (see `enrollment_secret` for the one in force), `rotation` one that waits for its proof.
    """

    vault: Vault | None = None
    issuer: Issuer | None = None
    totp_secret: bytes = field(default=b"", repr=False)
    opened: OpenedKeys | None = field(default=None, repr=False)
    rotation: Rotation | None = None
    opened_by: str = ""
    locks: int = 0
    change: SlotChange | None = None
    asks: Asks = field(default_factory=Asks)

    @property
    def state(self) -> CAState:
        """Lock state."""
        if self.vault is None:
            return "absent"
        return "locked" if self.issuer is None else "unlocked"


@dataclass(slots=True)
class Follow:
    """What this node knows of the mesh beyond its own ledger; durable parts live in `local`.

    `primary` is the newest verified doors of whoever leads, `nominated` whether the primary offers
    this node its key, `key_taken` whether it was fetched since this node last looked at the bundle.
    `renew_at` is the mesh's policy as the primary's last answer had it.
    """

    primary: Endpoint | None = None
    term: int = 1
    nominated: bool = False
    renew_at: float | None = None
    key_taken: bool = False
    still_revoked: tuple[str, ...] = ()
    bundle: BundleBody | None = None
    bundle_bytes: bytes = b""
    bundle_wanted: tuple[int, int] = (0, 0)
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
    election: Election | None = None
    gossip: GossipBook = field(default_factory=GossipBook)
    replication: Replication = field(default_factory=Replication)
    trust: TrustBook = field(default_factory=TrustBook)
    happenings: HappeningBook = field(default_factory=HappeningBook)
    leaving: Leaving | None = None
    backups: BackupBook = field(default_factory=BackupBook)
    restored: RestoreBook | None = None
    claims: dict[str, Claim] = field(default_factory=dict)
    stands: Standing | None = None
    transfer: TransferKey | None = None
    boot: int = 0
    clock_off_s: int = 0
    clock: ClockWatch = field(default_factory=ClockWatch)
    storage_failed_ms: Millis | None = None
    own: OwnCertificate = field(default_factory=OwnCertificate)
    tasks: TaskQueue = field(default_factory=TaskQueue)
    due: deque[tuple[MemberRow, CertificateRow]] = field(default_factory=deque)
    backoff: dict[object, Backoff] = field(default_factory=dict)
    departing: deque[str] = field(default_factory=deque)
    deferred_by: dict[str, set[bytes]] = field(default_factory=dict)
    refusals: Quiet = field(default_factory=Quiet)
    refusal_rows: Budget = field(default_factory=lambda: Budget(100, 10_000))
    bad_tokens: AttemptLimiter = field(default_factory=lambda: AttemptLimiter(20, 60_000))
    rows: Quiet = field(default_factory=Quiet)
    pace: Pace = field(default_factory=Pace)
    witnesses: WitnessBook = field(default_factory=WitnessBook)
    due_after: tuple[int, str] = (-1, "")
    due_not_before_ms: int = 0
    due_away: deque[tuple[MemberRow, CertificateRow]] = field(default_factory=deque)
    due_wake_ms: int = 0
    grant_of: GrantOf = nobody
    remote_port: RemotePort = field(default_factory=RemotePort)
    remote_renewals: Counter[str] = field(default_factory=Counter)
    notices: NoticeBook = field(default_factory=NoticeBook)
    force_renewal: bool = False
    wished_after: int = 0
    """The lease that was the newest when somebody wished for a renewal of this node."""
    own_failure: str = ""
    waiting: dict[bytes, Waiting] = field(default_factory=dict)
    late: list[tuple[Caller, AnyReply]] = field(default_factory=list)
    _mesh: tuple[str, MeshRow | None] = ("", None)
    _rollover: tuple[str, RolloverRow | None] = ("", None)
    _around: tuple[object, Surroundings | None] = (None, None)
    _view: tuple[object, NodeView | None] = (None, None)

    @property
    def role(self) -> Role:
        """This node's role as the election has it; the roster and terms decide, never a wish."""
        if self.membership is None or self.election is None:
            return "none"
        return self.election.role

    def wish_renewal(self) -> None:
        """Have this node renewed by the next lease, due or not."""
        self.force_renewal, self.wished_after = True, self.leases.newest

    def grant_wish(self, lease_id: int) -> None:
        """Forget the wish, unless it came after that lease: then another one has to be given."""
        if lease_id > self.wished_after:
            self.force_renewal = False

    @property
    def serves(self) -> bool:
        """Whether this node is the primary right now and may write the mesh's journal."""
        election = self.election
        return election is not None and election.serving and self.leaving is None

    @property
    def term(self) -> int:
        """The highest term whose primary this node knows."""
        leader = self.election.leader if self.election else None
        return max(self.follow.term, leader.term if leader else 0)

    def mesh_row(self) -> MeshRow | None:
        """Return the mesh this node's ledger tells of, read once per head.

        The head's hash is the key: after a rollback another row may get the same sequence.
        """
        head = self.ledger.head.hash
        if self._mesh[0] != head:
            self._mesh = (head, self.ledger.mesh())
        return self._mesh[1]

    def rollover(self) -> RolloverRow | None:
        """Return the open rollover this node's ledger tells of, read once per head."""
        head = self.ledger.head.hash
        if self._rollover[0] != head:
            self._rollover = (head, self.ledger.rollover())
        return self._rollover[1]

    def cached_view(self, powers: str, compose: Callable[[], NodeView]) -> NodeView:
        """Return this node's view, composed again only after something in it changed."""
        follow = self.follow
        key = (
            self.ledger.head.hash,
            self.keys.state,
            self.term,
            follow.bundle_bytes,
            follow.primary,
            self.membership,
            self.election.phase if self.election else None,
            self.election.leader if self.election else None,
            powers,
        )
        if self._view[0] != key or self._view[1] is None:
            self._view = (key, compose())
        assert self._view[1] is not None
        return self._view[1]

    def mesh(self) -> MeshRow:
        """Return the mesh row of the serving primary: what every change has to ask first.

        Raises:
            NoMeshError: This node belongs to no mesh.
            NotPrimaryError: It does not serve now; the hint names who does.
        """
        mesh, election = self.mesh_row(), self.election
        halted = ""
        if self.serves and mesh is not None and election is not None:
            # A pause of this process may end with a request, before the first tick.
            halted = election.halted(self.surroundings(), boottime_ms())
            if not halted:
                return mesh
        membership = self._require_membership()
        if self.role == "primary":
            raise NotPrimaryError(
                f"{self.host} is waiting to serve: {halted or self._hold()}",
                hint="try again in a few seconds",
                retry_after_ms=1000,
            )
        primary = self.leader() or membership.primary
        raise NotPrimaryError(
            f"{self.host} is not the primary of {membership.mesh_name}",
            hint=f"ask {primary.host} ({', '.join(primary.addresses)}:{primary.enroll_port})",
        )

    def known_mesh(self) -> MeshRow:
        """Return the mesh row of any node that has the roster: enough to read.

        Raises:
            NoMeshError: This node belongs to no mesh.
            NotPrimaryError: It is a member and has no roster; the hint names the primary.
        """
        mesh = self.mesh_row()
        if mesh is None or self.role not in {"primary", "standby"}:
            return self.mesh()
        return mesh

    def full_powers(self, now_ms: Millis) -> None:
        """Refuse what does not merge while another primary may exist unseen.

        Raises:
            WithheldError: Enrollment, policy and roles have to wait; the hint says for what.
        """
        assert self.election is not None
        powers = self.election.powers(self.surroundings(), now_ms)
        if powers != "full":
            raise WithheldError(
                f"{self.host} refuses this for now: {powers}",
                hint="confirm that the other node is down: certmesh standby promote"
                if powers.startswith("caretaker")
                else "wait until it hears the mesh again; renewals and revocations go on",
                retry_after_ms=5000,
            )

    def surroundings(self) -> Surroundings:
        """Return what the election needs to know of this node, read once per head."""
        unready = self._unready()
        held = self.restored.held if self.restored is not None else ""
        key = (self.ledger.head.hash, self.follow.bundle_bytes, unready, held)
        if self._around[0] != key or self._around[1] is None:
            self._around = (key, self._look_around(unready, held))
        assert self._around[1] is not None
        return self._around[1]

    def _look_around(self, unready: str, held: str) -> Surroundings:
        head = self.ledger.head
        if self.mesh_row() is not None:
            holders = tuple(row.host for row in self.ledger.key_holders())
            others = max(0, self.ledger.member_count() - 1)
        else:
            bundle = self.follow.bundle
            holders = tuple(h.endpoint.host for h in bundle.key_holders) if bundle else ()
            others = max(2, len(holders))
        return Surroundings(holders, others, Version(head.term, head.sequence), unready, held)

    def _unready(self) -> str:
        if self.keys.issuer is None:
            return "locked"
        if not self.own.present:
            return "no certificate of its own yet"
        failed_ms, grace_ms = self.storage_failed_ms, self.settings.failover.grace.ms
        if failed_ms is not None and boottime_ms() - failed_ms < grace_ms:
            return "its disk refused a write a moment ago"
        limit_s = self.settings.failover.skew_refuse.s
        off_s = abs(self.clock_off_s)
        return f"its clock is {off_s} s off" if off_s > limit_s else ""

    def leader(self) -> Endpoint | None:
        """Return the doors of the primary this node follows, None when it leads or knows none."""
        leader = self.election.leader if self.election else None
        if leader is None:
            return self.follow.primary
        if leader.host == self.host:
            return None
        if self.follow.primary is not None and self.follow.primary.host == leader.host:
            return self.follow.primary
        known = self.key_holder_doors().get(leader.host)
        if known is not None or self.mesh_row() is None:
            return known
        # Its beat proves that it leads, though the row that made it a standby is not here yet.
        member = self.ledger.member_by_host(leader.host)
        return member.endpoint if member is not None else None

    def key_holder_doors(self) -> dict[str, Endpoint]:
        """Return the doors of all key holders by host, this node's own excluded.

        Of roster and bundle the newer one is believed.
        """
        bundle, head = self.follow.bundle, self.ledger.head
        own = self.mesh_row() is not None and self.role in {"primary", "standby"}
        newer = bundle is not None and (bundle.head.term, bundle.head.sequence) > (
            head.term,
            head.sequence,
        )
        if own and not newer:
            holders = {row.host: row.endpoint for row in self.ledger.key_holders()}
        elif bundle is not None:
            holders = {h.endpoint.host: h.endpoint for h in bundle.key_holders}
        else:
            holders = {}
        if self.membership is not None and not holders:
            holders = {self.membership.primary.host: self.membership.primary}
        holders.pop(self.host, None)
        return holders

    def _require_membership(self) -> Membership:
        if self.membership is None:
            raise NoMeshError(
                "this node belongs to no mesh",
                hint="run `certmesh init NAME` to create one, or `certmesh join INVITE`",
            )
        return self.membership

    def _hold(self) -> str:
        if self.restored is not None and self.restored.held:
            return self.restored.held
        if self.leaving is not None:
            return f"it hands over to {self.leaving.successor}"
        return "it was away and asks the other key holders whether they replaced it"

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
