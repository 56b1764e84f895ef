"""Replication of the journal, from the primary to standbys, and back after a fork.

A page of the journal is msgpack, compressed with zlib, and carries the head of its last row signed
by the issuing key: whoever brings it, the follower can prove that a primary of its mesh wrote it.
"""

from typing import Annotated, Literal

from msgspec import Meta

from broker.wire.base import Body, Reply, Request
from broker.wire.claims import SignedHead
from broker.wire.ids import Count, Hex, Host, Sequence, Term, Text, UnixSeconds
from broker.wire.node import Endpoint
from broker.wire.roster import Peer

MARKS_MAX = 64
PAGE_BYTES_MAX = 524_288
"""Uncompressed journal rows in one page; a page with its frame stays below a message."""

PageBytes = Annotated[bytes, Meta(max_length=786_432)]


class Mark(Body, frozen=True):
    """One row of a journal by number and hash; number 0 with 32 zero bytes precedes the first."""

    sequence: Sequence
    hash: Hex


Locator = Annotated[tuple[Mark, ...], Meta(max_length=MARKS_MAX)]
"""Rows a follower has, newest first and ever further apart, the beginning last."""


class JournalLine(Body, frozen=True):
    """One journal row on its way; its hash and the row before follow from the page."""

    term: Term
    at: UnixSeconds
    node: Host
    incarnation: Hex
    actor: Text
    event: Text
    payload: bytes


class JournalPage(Body, frozen=True):
    """Rows that follow `after`, oldest first; `head` speaks for the last of them.

    Without rows `head` speaks for `after` itself. `behind` is what is still missing afterwards.
    """

    after: Mark
    lines: tuple[JournalLine, ...]
    head: SignedHead
    behind: Count


class ReplicaBody(Body, frozen=True):
    """POST /v1/replica/events: a standby asks for what follows, waiting up to `wait_ms`."""

    locator: Locator
    wait_ms: Annotated[int, Meta(ge=0, le=60_000)] = 0


class ReadJournal(Request, frozen=True, tag="read-journal"):
    """A standby asks the primary for rows; what it has is durable there, so this acknowledges."""

    peer: Peer
    locator: Locator
    wait_ms: Annotated[int, Meta(ge=0, le=60_000)] = 0


class JournalAnswer(Reply, frozen=True, tag="journal-answer"):
    """zlib of the msgpack of a `JournalPage`."""

    page: PageBytes


class PlanSync(Request, frozen=True, tag="plan-sync"):
    """The roster-sync worker asks what to do next."""


class SyncPlan(Reply, frozen=True, tag="sync-plan"):
    """What this node has to fetch or bring, and where.

    `errand`: `none`; `bundle` (a member: the signed trust bundle); `accept` (a nominated node:
    fetch the key, sealed to `public_key`); `follow` (a standby: rows after `locator`); `return`
    (a standby with rows of its own that the primary does not have: bring `orphans`); `collect` (a
    node that was restored from a backup: ask the members what they know, see `PlanCollect`).
    """

    errand: Literal["none", "bundle", "accept", "follow", "return", "collect"]
    source: Endpoint | None = None
    locator: Locator = ()
    public_key: bytes = b""
    orphans: PageBytes = b""
    reason: Text = ""


class InstallPage(Request, frozen=True, tag="install-page"):
    """The worker fetched a page from `source`; the broker verifies and appends, or forks.

    `asked_after` is the hash that the question's locator began with: a page fetched for another
    end of this journal is late, and dropped.
    """

    source: Host
    page: PageBytes
    asked_after: Hex


class PageInstalled(Reply, frozen=True, tag="page-installed"):
    """Where this node's journal stands now; `orphaned` rows were set aside for the merge."""

    sequence: Sequence
    behind: Count
    rows: Count
    orphaned: Count = 0


class OrphanLine(Body, frozen=True):
    """A row that another primary wrote after the fork, with its place in its own journal."""

    sequence: Sequence
    hash: Hex
    line: JournalLine


class OrphanPage(Body, frozen=True):
    """Rows to be adopted, oldest first."""

    lines: tuple[OrphanLine, ...]


class AdoptBody(Body, frozen=True):
    """POST /v1/replica/adopt: zlib of the msgpack of an `OrphanPage`."""

    page: PageBytes


class AdoptRows(Request, frozen=True, tag="adopt-rows"):
    """A standby brings what it wrote while it was primary on its own."""

    peer: Peer
    page: PageBytes


class AdoptAnswer(Reply, frozen=True, tag="adopt-answer"):
    """How the rows were taken; `conflicts` were settled by the merge rules, visibly."""

    adopted: Count
    known: Count
    conflicts: Count


class NoteAdopted(Request, frozen=True, tag="note-adopted"):
    """The worker brought this page of orphans home; they need not be brought again."""

    page: PageBytes


class AcceptBody(Body, frozen=True):
    """POST /v1/standby/accept: a one-time HPKE public key (X25519, raw)."""

    public_key: Annotated[bytes, Meta(min_length=32, max_length=32)]


class AcceptKey(Request, frozen=True, tag="accept-key"):
    """A nominated node asks the primary for the issuing key."""

    peer: Peer
    public_key: Annotated[bytes, Meta(min_length=32, max_length=32)]


class KeyPackage(Reply, frozen=True, tag="key-package"):
    """The key material, sealed to the asker's one-time key and bound to both certificates."""

    sealed: Annotated[bytes, Meta(max_length=65_536)]
    term: Term
    giver: Hex
    """Fingerprint of the primary's own certificate, part of what the seal is bound to."""


class InstallKey(Request, frozen=True, tag="install-key"):
    """The worker fetched the package from `source`; the broker opens, checks and re-seals it."""

    source: Host
    package: KeyPackage


class ReportReady(Request, frozen=True, tag="report-ready"):
    """A nominated node has the key on disk and checked it: POST /v1/standby/ready."""

    peer: Peer
