"""What a broker remembers about other key holders: signed statements, followers, a leave-taking.

Plain memory of one broker lifetime; nothing here is needed to start again.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from broker.core.followers import Followers
from broker.core.observation import Version
from broker.pki.statement import Statements
from broker.units import UnixSeconds
from broker.wire.base import Body
from broker.wire.claims import SignedBeat, SignedHead
from broker.wire.ids import Hex, Text
from broker.wire.replica import Locator, OrphanLine


@dataclass(slots=True)
class GossipBook:
    """The newest signed statements, to be passed on; `statements` verifies what comes in."""

    signed: dict[str, SignedBeat] = field(default_factory=dict)
    head: SignedHead | None = None
    head_version: Version = field(default_factory=lambda: Version(0, 0))
    statements: Statements | None = None
    issuing: tuple[bytes, ...] = ()
    number: int = 0
    next_beat_ms: int = 0
    kept_hash: str = ""


@dataclass(frozen=True, slots=True)
class Poll:
    """A follower that waits for the next row."""

    host: str
    locator: Locator
    until_ms: int


@dataclass(slots=True)
class Replication:
    """What standbys have durable, and those that wait for more, by request.

    `followers` begins anew with each reign; None on a node that does not serve. `brought` are
    orphans that the primary took over; they are home when its rows say so here.
    """

    followers: Followers | None = None
    brought: tuple[OrphanLine, ...] = ()
    bring_again_ms: int = 0
    polls: OrderedDict[bytes, Poll] = field(default_factory=OrderedDict)
    behind: int | None = None


@dataclass(slots=True)
class TrustBook:
    """What `broker.shell.trust` followed last, and what it found out about this node's certificate.

    `due_at` is when that has to be renewed for the sake of `wanted`, the pins to trust; `serial`
    was live then. `asked` is the member up to which the search for certificates of a retiring CA
    came; `making` is true while the keys of a new one are made. `signer` signed `bundle`.
    """

    followed: tuple[object, ...] = ()
    again_ms: int = 0
    said: str = ""
    wanted: tuple[str, ...] = ()
    serial: str = ""
    due_at: UnixSeconds | None = None
    asked: str = ""
    making: bool = False
    bundle: bytes = b""
    signer: bytes = b""


class Happenings(Body, frozen=True):
    """What `broker.shell.happenings` keeps in the ledger.

    `waiting` are events that hooks are still to be told, `roots` those of the chain file when they
    were told last, `revoked` the member id that they were told is revoked, `lists` the SHA-256 of
    the revocation lists that they were told of.
    """

    waiting: tuple[Text, ...] = ()
    roots: tuple[Hex, ...] = ()
    revoked: Hex = ""
    lists: Hex = ""


@dataclass(slots=True)
class HappeningBook:
    """What was read from the ledger, and what was looked at; `lists` counts lists that came.

    `seen` is the file of revocation lists that was read last: inode, time and size.
    """

    kept: Happenings | None = None
    looked: tuple[object, ...] = ()
    lists: int = 0
    seen: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Leaving:
    """A hand-over under way: no more writes; over when the successor has `sequence`."""

    successor: str
    sequence: int
    until_ms: int
