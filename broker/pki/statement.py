"""Beats, heads, names, mandates: statements of the issuing key, believed whoever brings them.

A statement is believed because of one thing: the key of the issuing certificate signed it for this
mesh. Nothing here says how old it is: whether a beat advances, or a head is newer than the one
held, is the caller's question.

The signature covers a context label and the body: a head is never a beat, and neither is anything
else that the issuing key signs. Only what verified is remembered, so that whoever floods a node
with forgeries cannot push the genuine ones out.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from broker.errors import ClaimRejectedError, MeshError
from broker.pki.chain import p256_key, read_certificate
from broker.pki.issuer import Issuer
from broker.wire.claims import (
    HeadStatement,
    MandateStatement,
    NameStatement,
    PrimaryBeat,
    SignedBeat,
    SignedHead,
    SignedMandate,
    SignedName,
)
from broker.wire.codec import decode_body, encode_body

BEAT = "beat"
HEAD = "head"
NAME = "name"
MANDATE = "mandate"
KNOWN_MAX = 256
"""Verified statements remembered of each kind: one beat arrives by way of many members."""

_ECDSA = ec.ECDSA(hashes.SHA256())

S = TypeVar("S", PrimaryBeat, HeadStatement, NameStatement, MandateStatement)
T = TypeVar("T")


def sign_beat(issuer: Issuer, beat: PrimaryBeat) -> SignedBeat:
    """Return `beat` signed by the issuing key."""
    raw = encode_body(beat)
    return SignedBeat(body=raw, signature=issuer.sign(_context(BEAT) + raw))


def sign_head(issuer: Issuer, statement: HeadStatement) -> SignedHead:
    """Return `statement` signed by the issuing key."""
    raw = encode_body(statement)
    return SignedHead(body=raw, signature=issuer.sign(_context(HEAD) + raw))


def sign_name(issuer: Issuer, statement: NameStatement) -> SignedName:
    """Return `statement` signed by the issuing key."""
    raw = encode_body(statement)
    return SignedName(body=raw, signature=issuer.sign(_context(NAME) + raw))


def sign_mandate(issuer: Issuer, statement: MandateStatement) -> SignedMandate:
    """Return `statement` signed by the issuing key."""
    raw = encode_body(statement)
    return SignedMandate(body=raw, signature=issuer.sign(_context(MANDATE) + raw))


class Statements:
    """What verifies the statements of one mesh; a new issuing certificate needs a new one.

    Args:
        issuing_der: An issuing certificate that the node has verified before.
        mesh_id: The mesh this node belongs to.
        others: Further ones, while the CA is being replaced: either may have signed.

    Raises:
        ValueError: Not a readable certificate with a P-256 key.
    """

    def __init__(self, issuing_der: bytes, mesh_id: str, *others: bytes) -> None:
        keys = [p256_key(read_certificate(der)) for der in (issuing_der, *others)]
        self._beats = [_reader(key, mesh_id, BEAT, PrimaryBeat) for key in keys]
        self._heads = [_reader(key, mesh_id, HEAD, HeadStatement) for key in keys]
        self._names = [_reader(key, mesh_id, NAME, NameStatement) for key in keys]
        self._mandates = [_reader(key, mesh_id, MANDATE, MandateStatement) for key in keys]

    def beat(self, signed: SignedBeat) -> PrimaryBeat:
        """Return the beat of a primary of this mesh.

        Raises:
            ClaimRejectedError: The detail says which check failed.
        """
        return _first(self._beats, signed.body, signed.signature)

    def head(self, signed: SignedHead) -> HeadStatement:
        """Return where the journal of a primary of this mesh stood.

        Raises:
            ClaimRejectedError: The detail says which check failed.
        """
        return _first(self._heads, signed.body, signed.signature)

    def name(self, signed: SignedName) -> NameStatement:
        """Return what a member of this mesh is called.

        Raises:
            ClaimRejectedError: The detail says which check failed.
        """
        return _first(self._names, signed.body, signed.signature)

    def mandate(self, signed: SignedMandate) -> MandateStatement:
        """Return whom a primary of this mesh lets bring a renewal to whom; it may be over.

        Raises:
            ClaimRejectedError: The detail says which check failed.
        """
        return _first(self._mandates, signed.body, signed.signature)


def _first(readers: Sequence[Callable[[bytes, bytes], T]], body: bytes, signature: bytes) -> T:
    """Return what the first key believes; the refusal is that of the last."""
    *earlier, last = readers
    for read in earlier:
        with contextlib.suppress(ClaimRejectedError):
            return read(body, signature)
    return last(body, signature)


def _reader(
    key: ec.EllipticCurvePublicKey, mesh_id: str, what: str, kind: type[S]
) -> Callable[[bytes, bytes], S]:
    context = _context(what)

    # The signature is part of what is remembered: a known body with a bad signature would
    # otherwise be believed here, passed on, and refused by everybody else.
    @functools.lru_cache(maxsize=KNOWN_MAX)
    def read(body: bytes, signature: bytes) -> S:
        try:
            key.verify(signature, context + body, _ECDSA)
        except InvalidSignature:
            raise ClaimRejectedError(f"the signature of the {what} does not verify") from None
        try:
            statement = decode_body(body, kind)
        except MeshError as error:
            raise ClaimRejectedError(f"the signed {what} cannot be read: {error.detail}") from None
        if statement.mesh_id != mesh_id:
            raise ClaimRejectedError(f"the {what} belongs to another mesh")
        return statement

    return read


def _context(what: str) -> bytes:
    return f"certmesh {what} 1\x00".encode()
