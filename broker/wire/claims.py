"""What key holders claim, and what proves it: beats and heads signed by the issuing key.

A signed statement means the same whoever carries it: probes, other key holders, members. What it
does *not* prove is when it was made: only a beat that is newer than one already known shows that
its primary lived a moment ago.
"""

from typing import Annotated

from msgspec import Meta

from broker.wire.base import Body
from broker.wire.ids import DER, Count, Hex, Host, Role, Sequence, Term, Text, UnixSeconds

GOSSIP_BEATS_MAX = 8

Statement = Annotated[bytes, Meta(max_length=1024)]
Signature = Annotated[bytes, Meta(max_length=128)]


class PrimaryBeat(Body, frozen=True):
    """A primary lives: `number` grows with every beat, also over restarts of its broker.

    `left` is the last beat of a planned stop or a step-down; `successor` then names the standby
    that is asked to take over, or nobody.
    """

    mesh_id: Hex
    primary: Host
    term: Term
    number: Count
    left: bool = False
    successor: Text = ""


class SignedBeat(Body, frozen=True):
    """msgpack of a `PrimaryBeat` and the ECDSA signature of the issuing key over it."""

    body: Statement
    signature: Signature


class Head(Body, frozen=True):
    """Where the journal stood: grows in (term, sequence) order, never goes back."""

    term: Term
    sequence: Sequence
    hash: Hex
    primary: Host
    issued_at: UnixSeconds


class HeadStatement(Body, frozen=True):
    """Where a primary's journal stands; only what a standby has, while there is one."""

    mesh_id: Hex
    head: Head


class SignedHead(Body, frozen=True):
    """msgpack of a `HeadStatement` and the ECDSA signature of the issuing key over it."""

    body: Statement
    signature: Signature


class NameStatement(Body, frozen=True):
    """What a member is called, as its primary's journal said at (`term`, `sequence`)."""

    mesh_id: Hex
    member_id: Hex
    host: Host
    term: Term
    sequence: Sequence


class SignedName(Body, frozen=True):
    """msgpack of a `NameStatement` and the ECDSA signature of the issuing key over it."""

    body: Statement
    signature: Signature


class MandateStatement(Body, frozen=True):
    """A renewal worker on the machine `agent` may bring `host` its renewal, until `expires_at`.

    `member_id` is that of `host`; `term` is the one the signing primary serves in.
    """

    mesh_id: Hex
    agent: Host
    host: Host
    member_id: Hex
    term: Term
    expires_at: UnixSeconds


class SignedMandate(Body, frozen=True):
    """msgpack of a `MandateStatement` and the ECDSA signature of the issuing key over it."""

    body: Statement
    signature: Signature


class KeyProof(Body, frozen=True):
    """That whoever has the key of `leaf` asks for the certificate of a CSR: `rekey_statement`.

    It keeps a renewal worker on another machine from having a key of its own certified.
    """

    leaf: DER
    signature: Signature


class Gossip(Body, frozen=True):
    """The newest signed statements a node has, passed on with every probe and heartbeat."""

    beats: Annotated[tuple[SignedBeat, ...], Meta(max_length=GOSSIP_BEATS_MAX)] = ()
    head: SignedHead | None = None


class Claim(Body, frozen=True):
    """What a key holder says of itself over verified mutual TLS.

    `sequence` and `hash` are the end of its journal and `version_term` the term of that row.
    `promotable` false excuses it from the order of succession; `reason` says why. `called` means
    that an operator there asked for the primary's role.
    """

    host: Host
    role: Role
    serving: bool
    term: Term
    highest_term: Term
    version_term: Term
    sequence: Sequence
    hash: Hex
    promotable: bool
    reason: Text = ""
    called: bool = False
