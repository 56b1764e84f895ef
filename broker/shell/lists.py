"""Revocation lists: signed by the primary, verified and kept by everybody else, served by all.

A list is for software that knows nothing of bundles. Its number never goes back on any node, so
whoever asks this node after another one is not sent back either.
"""

from broker.errors import BundleRejectedError, MeshError
from broker.pki.authority import der_of_pem, fingerprint
from broker.pki.crl import RevocationList, read_lists, sign_crl, verified_list
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.issuers import issuers_of
from broker.shell.state import BrokerState
from broker.shell.trust import anchors_of, other_issuer
from broker.units import UnixSeconds
from broker.wire.base import Body
from broker.wire.codec import decode_body, decode_fact, encode_body
from broker.wire.enrollment import CRLInstalled, InstallCRL
from broker.wire.facts import MeshCreated
from broker.wire.ids import Hex
from broker.wire.roster import SignedBundle

CRL_LIFETIME_S = 7 * 86_400
"""A relying party may use a CRL this long; a new one is signed at half of it."""
CRL_TERM_SHIFT = 40
CRL_REISSUE_BITS = 8
LOCAL_CRL = "crl"
NUMBER_MAX = 1 << 63
"""What can be stored; RFC 5280 5.2.3 allows longer ones, which this mesh never makes."""
OTHERS_MAX = 4
CRL_BYTES_MAX = 900_000
"""A larger CRL would not fit into one answer; the enrol port then serves none, and says so."""


class StoredCRL(Body, frozen=True):
    """The newest lists as kept in the ledger's local part.

    `root_crl` is the root's, empty in a mesh that was made before there was one. `others` are those
    of the other CA while one replaces the other. `signer` is the
    fingerprint of the issuing certificate: after a rollover another one signs.
    """

    number: int
    bundle_sequence: int
    this_update: UnixSeconds
    crl: bytes
    term: int = 0
    next_update: int = 0
    root_crl: bytes = b""
    signer: Hex = ""
    others: tuple[bytes, ...] = ()


def current_lists(state: BrokerState, batch: Batch, now: UnixSeconds) -> StoredCRL | None:
    """Return the newest lists, signing anew when needed and possible; None before the first."""
    raw = state.ledger.local_get(LOCAL_CRL)
    stored = decode_body(raw, StoredCRL) if raw else None
    if not state.serves or state.keys.issuer is None:
        return stored
    sequence, term = state.ledger.bundle_sequence(), state.ledger.term
    signer = fingerprint(state.keys.issuer.issuing_der)
    if (
        stored is not None
        and (stored.term, stored.bundle_sequence, stored.signer) == (term, sequence, signer)
        and now - stored.this_update < CRL_LIFETIME_S // 2
    ):
        return stored
    # Numbers grow over changes of the primary too (RFC 5280 5.2.3): the term leads.
    base = (term << CRL_TERM_SHIFT) + (sequence << CRL_REISSUE_BITS)
    number = max((stored.number if stored else 0) + 1, base)
    revoked = [(int(serial, 16), at) for serial, at in _revoked(state, now)]
    next_update = now + CRL_LIFETIME_S
    crl = sign_crl(state.keys.issuer, revoked, number=number, now=now, next_update=next_update)
    if len(crl) > CRL_BYTES_MAX:
        log(EventName.CRL_PUBLISHED, level="error", number=number, bytes=len(crl), served=False)
        crl = b""
    fresh = StoredCRL(
        number=number,
        bundle_sequence=sequence,
        this_update=now,
        crl=crl,
        term=term,
        next_update=next_update,
        root_crl=_root_crl(state, stored, _pinned_root(state)),
        signer=signer,
        others=_lists_of_other(state, (number, now), revoked),
    )
    batch.keep(LOCAL_CRL, encode_body(fresh))
    return fresh


def take_lists(
    state: BrokerState, batch: Batch, now: UnixSeconds, request: InstallCRL
) -> CRLInstalled:
    """Verify fetched lists against the pinned CA and go forward, never back.

    Raises:
        BundleRejectedError: See `install_crl`.
    """
    raw = state.ledger.local_get(LOCAL_CRL)
    stored = decode_body(raw, StoredCRL) if raw else None
    if state.serves:
        return CRLInstalled(stored.number if stored else 0, changed=False)
    lists, others = _sorted_out(state, request.lists)
    found, roots = _verified(lists, issuing_of(state), _pinned_root(state), now)
    # Numbers are those of one CA (RFC 5280 5.2.3): what the replaced one counted binds no other.
    same = stored is not None and _is_of(stored, issuing_of(state))
    if stored is not None and same and not _is_forward(stored, found, request.source):
        return CRLInstalled(stored.number, changed=False)
    kept_root = roots or (stored.root_crl if stored else b"")
    fresh = StoredCRL(
        number=found.number,
        bundle_sequence=0,
        this_update=UnixSeconds(found.this_update),
        crl=found.der,
        next_update=found.next_update,
        root_crl=kept_root,
        others=others,
    )
    batch.keep(LOCAL_CRL, encode_body(fresh))
    state.happenings.lists += 1
    log(EventName.CRL_PUBLISHED, level="debug", number=found.number, source=request.source)
    return CRLInstalled(found.number, changed=True)


def issuing_of(state: BrokerState) -> bytes:
    """Return the issuing certificate (DER) this node goes by, empty while it knows none.

    A bundle was verified against the pinned root before it was kept.
    """
    if state.keys.vault is not None:
        return state.keys.vault.issuing
    if state.follow.bundle_bytes:
        return decode_body(state.follow.bundle_bytes, SignedBundle).issuing
    return b""


def _sorted_out(state: BrokerState, lists: bytes) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return the lists without, and those of the other CA that is trusted while one replaces it."""
    assert state.membership is not None
    _, *issuers = issuers_of(state) or (b"",)
    others = (*issuers, *anchors_of(state.membership).others)
    try:
        found = tuple(read_lists(lists))
        theirs = tuple(
            der for der in found if any(verified_list(der, ca, None) is not None for ca in others)
        )
    except ValueError as error:
        raise BundleRejectedError(f"the revocation list: {error}") from None
    return tuple(der for der in found if der not in theirs), theirs[:OTHERS_MAX]


def _lists_of_other(
    state: BrokerState, version: tuple[int, UnixSeconds], revoked: list[tuple[int, int]]
) -> tuple[bytes, ...]:
    """Return the lists of the other CA and its root while one replaces the other.

    Software that checks them refuses a certificate whose authority has none in its file.
    """
    row, membership, (number, now) = state.rollover(), state.membership, version
    if row is None or membership is None:
        return ()
    issuer = other_issuer(state)
    roots = [_root_crl(state, None, root) for root in anchors_of(membership).others]
    if issuer is None:
        return tuple(filter(None, roots))
    crl = sign_crl(issuer, revoked, number=number, now=now, next_update=now + CRL_LIFETIME_S)
    fits = len(crl) <= CRL_BYTES_MAX // 2
    return tuple(filter(None, (crl if fits else b"", *roots)))


def _verified(
    lists: tuple[bytes, ...], issuing: bytes, root: bytes, now: UnixSeconds
) -> tuple[RevocationList, bytes]:
    """Return the issuing CA's list, and the root's as DER or nothing."""
    if not issuing:
        raise BundleRejectedError("this node has no issuing certificate to verify a list with yet")
    ours: RevocationList | None = None
    of_root = b""
    try:
        for der in lists:
            if (found := verified_list(der, issuing, now)) is not None:
                ours = found
            elif verified_list(der, root, now) is not None:
                of_root = der
            else:
                raise BundleRejectedError("a revocation list of another CA")
    except ValueError as error:
        raise BundleRejectedError(f"the revocation list: {error}") from None
    if ours is None:
        raise BundleRejectedError("no revocation list of this mesh's issuing CA")
    if ours.number >= NUMBER_MAX:
        raise BundleRejectedError("a revocation list with a number that no primary comes to")
    return ours, of_root


def _is_of(stored: StoredCRL, issuing: bytes) -> bool:
    try:
        return verified_list(stored.crl, issuing, None) is not None
    except ValueError:
        return True  # none was served: only its number is here


def _is_forward(stored: StoredCRL, found: RevocationList, source: str) -> bool:
    if found.number < stored.number:
        raise BundleRejectedError(
            f"{source} offered revocation list {found.number}, this node has seen {stored.number}",
            hint="an old copy is being replayed, or the primary was restored from a backup",
        )
    if found.number == stored.number and found.der != stored.crl:
        raise BundleRejectedError(
            f"{source} offered another content under revocation list {found.number}",
            hint="two primaries may have signed under one term: certmesh status on each CA node",
        )
    return found.number > stored.number


def _root_crl(state: BrokerState, stored: StoredCRL | None, root: bytes) -> bytes:
    """Return the list of a root: from the row that brought it, or as fetched."""
    rows = state.ledger.audit(0, 1)
    first = decode_fact(rows[0].payload) if rows else None
    candidates = (
        first.root_crl if isinstance(first, MeshCreated) else b"",
        *(row.root_crl for row in state.ledger.rollovers()),
        stored.root_crl if stored is not None else b"",
    )
    for der in candidates:
        try:
            if der and verified_list(der, root, None) is not None:
                return der
        except (ValueError, MeshError):
            continue
    return b""


def _pinned_root(state: BrokerState) -> bytes:
    assert state.membership is not None
    return der_of_pem(state.membership.root_pem)


def _revoked(state: BrokerState, now: UnixSeconds) -> list[tuple[str, int]]:
    """Return serial and moment of what the list has to name.

    After a restoration the living told of serials that this ledger never knew, and who takes over
    after that goes on with them; when they were revoked nobody here can say, but not later than now
    and than the restoration.
    """
    known = state.ledger.revoked_serials(now)
    if not state.follow.still_revoked:
        return known
    at = state.restored.mark.at if state.restored is not None else now
    listed = {serial for serial, _ in known}
    learnt = (serial for serial in state.follow.still_revoked if serial not in listed)
    return [*known, *((serial, at) for serial in learnt)]
