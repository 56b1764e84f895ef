"""This node: its role, its mesh, its processes, and the one-screen status."""

from broker.wire.base import Body, Reply, Request
from broker.wire.ids import (
    CAState,
    Count,
    DeliveryState,
    Hex,
    Host,
    Port,
    Role,
    Sequence,
    ServedState,
    Term,
    Text,
    UnixSeconds,
)
from broker.wire.standby import StandbyLine
from broker.wire.supervision import ProcessLine


class Endpoint(Body, frozen=True):
    """Where a node's doors are: addresses without port, best first, and the two ports.

    `server_name` is the DNS SAN a caller must ask for and verify.
    """

    host: Host
    addresses: tuple[Text, ...]
    enroll_port: Port
    mesh_port: Port
    server_name: Host


class Membership(Body, frozen=True):
    """What a node keeps after joining: enough to find and to verify its mesh again.

    Written atomically to `membership.json` by init and join; `root_pem` is the trust anchor and
    `pin` its SHA-256 (over DER, hex). While the CA is being replaced, the broker keeps in
    `other_roots` (PEM) what a signed bundle says to trust besides.
    """

    mesh_id: Hex
    mesh_name: Text
    pin: Hex
    root_pem: Text
    host: Host
    member_id: Hex
    server_name: Host
    primary: Endpoint
    term: Term = 1
    other_roots: tuple[Text, ...] = ()


class MeshView(Body, frozen=True):
    """The mesh as this node knows it."""

    mesh_id: Hex
    name: Text
    domain: Host
    pin: Hex
    term: Term
    primary: Endpoint | None


class NodeView(Reply, frozen=True, tag="node-view"):
    """Role gate of every loop: who this node is right now.

    `mesh` is None while the node belongs to no mesh (`role` is then "none"). `bundle_sequence`
    is the newest verified trust bundle installed here, `bundle_term` its term: bundles are ordered
    by both. `key_holders` are the other nodes that are primary or standby. `phase` is the word of
    the failover's transition table. `powers` is `full`, or why a primary refuses enrollment, policy
    and roles.
    """

    host: Host
    role: Role
    ca: CAState
    term: Term
    sequence: Sequence
    bundle_sequence: Sequence
    mesh: MeshView | None
    member_id: Hex = ""
    key_holders: tuple[Endpoint, ...] = ()
    phase: Text = ""
    powers: Text = "full"
    bundle_term: Term = 0


class GetNode(Request, frozen=True, tag="get-node"):
    """Ask for the `NodeView`."""


class WorkerView(Body, frozen=True):
    """One process as `certmesh ps` shows it.

    `liveness`: `ready`, `suspect` (one deadline missed), `dead`, `left`, or `absent` (known to
    the supervisor, never introduced here). `supervisor` is supervisord's word for it. `last_exit`
    says how the process before this one ended; `next_start_ms` is set while one that ended again
    and again waits, `ends` how many ended quickly in a row. `next_run_ms` counts from its last sign
    of life, `silent_ms` ago.
    """

    instance: Text
    service: Text
    pid: Count
    liveness: Text
    supervisor: Text
    restarts: Count
    state: Text
    last_success_at: UnixSeconds | None
    last_error: Text
    next_run_ms: Count | None
    silent_ms: Count
    uptime_ms: Count = 0
    last_exit: Text = ""
    last_exit_at: UnixSeconds | None = None
    next_start_ms: Count | None = None
    ends: Count = 0


class WorkersView(Reply, frozen=True, tag="workers-view"):
    """All processes of this node; `broker` is the broker as supervisord sees it, if it is asked."""

    workers: tuple[WorkerView, ...]
    broker_pid: Count
    broker_uptime_ms: Count
    broker: ProcessLine | None = None


class ListWorkers(Request, frozen=True, tag="list-workers"):
    """Ask for the `WorkersView`."""


class MemberLine(Body, frozen=True):
    """One row of the status table; times are wall clock, None when unknown.

    `delivery` is how it stands with its certificate. `survives_until` is the end of the certificate
    that it really serves: until then it works without any CA. `served_detail` is why it does not
    serve the newest one, since `served_at`.
    """

    host: Host
    member_id: Hex
    role: Role
    state: Text
    serial: Hex
    not_before: UnixSeconds | None
    not_after: UnixSeconds | None
    renew_at: UnixSeconds | None
    served: ServedState
    served_serial: Hex
    last_seen_at: UnixSeconds | None
    address: Text
    sans: tuple[Text, ...] = ()
    joined_at: UnixSeconds | None = None
    last_error: Text = ""
    delivery: DeliveryState = "unknown"
    survives_until: UnixSeconds | None = None
    served_detail: Text = ""
    served_at: UnixSeconds | None = None


class OutageView(Body, frozen=True):
    """How long the mesh lives without any CA, against the policy's budget.

    `weakest` is the active member that ends first, at `survives_until`. `met` false: some member
    ends inside the budget, `short_members` of them (counted up to 10,000), or nobody has a
    certificate yet. `planned_s` is what the policy leaves a member that renews on time; below the
    budget it is met by luck at most. `advice` says what to change, empty when all is well.
    """

    budget_s: Count
    planned_s: Count
    met: bool
    weakest: Text = ""
    survives_until: UnixSeconds | None = None
    short_members: Count = 0
    advice: Text = ""


class StatusView(Reply, frozen=True, tag="status-view"):
    """Mesh and node in one screen.

    `members` is the roster on a CA node, only this node elsewhere. `warnings` are full
    sentences. `survives_until` is when the first active member ends: how long the mesh lives
    without any CA.
    """

    node: NodeView
    enrollment_open: bool
    approvals_pending: Count
    members: tuple[MemberLine, ...]
    member_count: Count
    warnings: tuple[Text, ...]
    survives_until: UnixSeconds | None
    own: MemberLine | None
    now: UnixSeconds
    standbys: tuple[StandbyLine, ...] = ()
    outage: OutageView | None = None


class GetStatus(Request, frozen=True, tag="get-status"):
    """Ask for the `StatusView`; at most `limit` members are listed."""

    limit: Count = 500
