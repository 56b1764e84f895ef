"""Signed statements in and out: what this node passes on, and what it believes of what it hears.

A statement is believed for its signature alone; who brought it does not matter. A bad one is
dropped with a line in the log, at most one a minute per sender: it must not cost the rest of the
message its effect.
"""

from broker.core.observation import Observation, Version
from broker.errors import ClaimRejectedError, MeshError
from broker.pki.statement import Statements, sign_beat, sign_head
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.issuers import issuers_of
from broker.shell.state import BrokerState
from broker.units import Millis, UnixSeconds
from broker.wire.claims import (
    GOSSIP_BEATS_MAX,
    Claim,
    Gossip,
    Head,
    HeadStatement,
    MandateStatement,
    NameStatement,
    PrimaryBeat,
    SignedBeat,
    SignedHead,
    SignedMandate,
    SignedName,
)

REJECTED_EVERY_MS = 60_000
BOOT_BITS = 24
"""Beats of one broker lifetime: two thirds of a year at one a second."""


def observe(
    state: BrokerState, now_ms: Millis, sender: str, gossip: Gossip, claim: Claim | None = None
) -> Observation:
    """Return what of a message may be believed; keep its newer statements for others."""
    verifier = _statements(state)
    if verifier is None:
        return Observation(sender, claim=claim)
    beats = []
    for signed in gossip.beats:
        beat = _verified_beat(state, verifier, signed, (sender, now_ms))
        if beat is not None:
            beats.append(beat)
    head = _verified_head(state, verifier, gossip.head, (sender, now_ms))
    return Observation(sender, tuple(beats), head, claim)


def verified_head(state: BrokerState, signed: SignedHead) -> Head:
    """Return a head of this mesh.

    Raises:
        ClaimRejectedError: The issuing key of this mesh did not sign it.
    """
    verifier = _statements(state)
    if verifier is None:
        raise ClaimRejectedError("this node has no issuing certificate to verify a head with")
    return verifier.head(signed).head


def verified_name(state: BrokerState, signed: SignedName) -> NameStatement:
    """Return what a member of this mesh is called.

    Raises:
        ClaimRejectedError: The issuing key of this mesh did not sign it.
    """
    verifier = _statements(state)
    if verifier is None:
        raise ClaimRejectedError("this node has no issuing certificate to verify a name with")
    return verifier.name(signed)


def verified_mandate(state: BrokerState, signed: SignedMandate) -> MandateStatement:
    """Return whom a primary of this mesh lets bring a renewal to whom; it may be over.

    Raises:
        ClaimRejectedError: The issuing key of this mesh did not sign it.
    """
    verifier = _statements(state)
    if verifier is None:
        raise ClaimRejectedError("this node has no issuing certificate to verify a mandate with")
    return verifier.mandate(signed)


def keep_newest(state: BrokerState, gossip: Gossip) -> None:
    """Keep the signatures of the beats that the election took as the newest."""
    verifier, election, book = state.gossip.statements, state.election, state.gossip
    if verifier is None or election is None:
        return
    for signed in gossip.beats:
        try:
            beat = verifier.beat(signed)
        except ClaimRejectedError:
            continue
        if election.beats.get(beat.primary) == beat:
            book.signed[beat.primary] = signed
    for host in [host for host in book.signed if host not in election.beats]:
        del book.signed[host]


def gossip_of(state: BrokerState, now_ms: Millis, now: UnixSeconds) -> Gossip:
    """Return the newest statements this node has."""
    if state.serves and state.keys.issuer is not None:
        show_head(state, now_ms, now)
    return Gossip(beats=_newest(state), head=state.gossip.head)


def _newest(state: BrokerState) -> tuple[SignedBeat, ...]:
    """Return this node's own beat and those of the newest terms."""
    election, signed = state.election, state.gossip.signed
    if election is None:
        return ()

    def freshness(host: str) -> tuple[bool, int]:
        beat = election.beats.get(host)
        return host == state.host, beat.term if beat is not None else 0

    chosen = sorted(signed, key=freshness, reverse=True)[:GOSSIP_BEATS_MAX]
    return tuple(signed[host] for host in chosen)


def sign_next_beat(state: BrokerState, *, left: bool = False, successor: str = "") -> PrimaryBeat:
    """Sign and keep this primary's next beat."""
    issuer, election, membership = state.keys.issuer, state.election, state.membership
    assert issuer is not None
    assert election is not None
    assert membership is not None
    state.gossip.number += 1
    beat = PrimaryBeat(
        mesh_id=membership.mesh_id,
        primary=state.host,
        term=election.term,
        number=(state.boot << BOOT_BITS) + state.gossip.number,
        left=left,
        successor=successor,
    )
    state.gossip.signed[state.host] = sign_beat(issuer, beat)
    election.beat(beat)
    return beat


def show_head(state: BrokerState, now_ms: Millis, now: UnixSeconds) -> None:
    """Sign the newest head that may be shown, if it is not the one shown already.

    A head that only this disk knows would stop every standby from taking over when the disk is
    gone: while standbys follow, only what one of them has durable is shown.
    """
    sequence = shown_sequence(state, now_ms)
    if not sequence:
        return
    mark = state.ledger.mark_at(sequence)
    rows = state.ledger.audit(sequence - 1, 1)
    version = Version(rows[0].term, mark.sequence)
    if version <= state.gossip.head_version and state.gossip.head is not None:
        return
    state.gossip.head = head_for(
        state, Head(version.term, mark.sequence, mark.hash, state.host, now)
    )
    state.gossip.head_version = version


def head_for(state: BrokerState, head: Head) -> SignedHead:
    """Sign that this journal has the row `head` names."""
    assert state.keys.issuer is not None
    assert state.membership is not None
    return sign_head(state.keys.issuer, HeadStatement(state.membership.mesh_id, head))


def shown_sequence(state: BrokerState, now_ms: Millis) -> int:
    """Return the newest row that a living standby has durable; our own newest without any."""
    own, followers = state.ledger.durable_head.sequence, state.replication.followers
    if followers is None:
        return own
    since_ms = Millis(now_ms - state.settings.failover.grace.ms)
    assert state.election is not None
    company = state.election.company
    expected = any(company.heard_since(host, since_ms) for host in state.key_holder_doors())
    return min(own, followers.shown(own, now_ms, expected=expected))


def _statements(state: BrokerState) -> Statements | None:
    """Return what verifies statements: the issuing certificates of vault, rows and bundle."""
    book, membership = state.gossip, state.membership
    if membership is None:
        return None
    issuing = issuers_of(state)
    if not issuing:
        return None
    if book.statements is None or issuing != book.issuing:
        statements = Statements(issuing[0], membership.mesh_id, *issuing[1:])
        book.statements, book.issuing = statements, issuing
    return book.statements


def _verified_beat(
    state: BrokerState, verifier: Statements, signed: SignedBeat, source: tuple[str, Millis]
) -> PrimaryBeat | None:
    try:
        return verifier.beat(signed)
    except ClaimRejectedError as error:
        _reject(state, source, error)
        return None


def _verified_head(
    state: BrokerState, verifier: Statements, signed: SignedHead | None, source: tuple[str, Millis]
) -> Version | None:
    if signed is None:
        return None
    try:
        head = verifier.head(signed).head
    except ClaimRejectedError as error:
        _reject(state, source, error)
        return None
    version, book = Version(head.term, head.sequence), state.gossip
    if version > book.head_version and not state.serves:
        book.head, book.head_version = signed, version
    return version


def _reject(state: BrokerState, source: tuple[str, Millis], error: MeshError) -> None:
    sender, now_ms = source
    if state.refusals.passes(("claim", sender), now_ms, REJECTED_EVERY_MS):
        log(EventName.CLAIM_REJECTED, sender=sender, detail=error.detail)
