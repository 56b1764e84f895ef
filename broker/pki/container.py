"""The form of a backup file: who made it, of what, and how its content is sealed.

`MAGIC`, the sealed chunks, and a trailer: header, signature, their length, `MAGIC` again. The
header names the digest of the chunks, and the issuing key signs the header: so everybody who
has the pin can tell a tampered file, without being able to open it. A file that a locked node made
carries no signature; its content opens all the same, but nothing in it says who wrote it.

The content is AES-256-GCM in chunks under a key of this one file. Each nonce is the number of the
chunk and whether it is the last one, so chunks can be neither moved nor cut off the end (the STREAM
construction; Hoang, Reyhanitabar, Rogaway, Vizar 2015). That key is sealed to the recovery key by
HPKE (RFC 9180), bound to mesh, host and head.
"""

from dataclasses import dataclass, field
from typing import Annotated

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from msgspec import Meta

from broker.errors import BackupRejectedError, BadPassphraseError, MeshError
from broker.pki.authority import fingerprint
from broker.pki.chain import check_authority, check_issued, p256_key, read_certificate
from broker.pki.kit import recovery_key, recovery_public
from broker.wire.base import Body
from broker.wire.codec import decode_body, encode_body
from broker.wire.ids import DER, Count, Hex, Host, Sequence, Term, Text, UnixSeconds

MAGIC = b"certmesh backup\x00"
VERSION = 1
CHUNK_BYTES = 65_536
TAG_BYTES = 16
KEY_BYTES = 32
LENGTH_BYTES = 4
HEADER_BYTES_MAX = 131_072
SIGNATURE_BYTES_MAX = 128
TRAILER_BYTES_MAX = HEADER_BYTES_MAX + 1024
CONTEXT = b"certmesh backup 1\x00"
KEY_LABEL = b"certmesh backup key 1\x00"
_LAST, _MORE = b"\x01", b"\x00"


class BackupHeader(Body, frozen=True):
    """What anybody may read of a backup.

    `digest` is the SHA-256 of the sealed chunks, `body_bytes` their length. `recipient` is the
    public recovery key, `sealed_key` the key of the chunks.
    """

    version: Count
    mesh_id: Hex
    mesh_name: Text
    pin: Hex
    host: Host
    created_at: UnixSeconds
    term: Term
    sequence: Sequence
    head_hash: Hex
    recipient: Hex
    sealed_key: Annotated[bytes, Meta(max_length=256)]
    body_bytes: Count
    digest: Hex
    root: DER
    issuing: DER


class SignedHeader(Body, frozen=True):
    """The header as it lies in the file; `signature` is empty when the CA was locked."""

    header: Annotated[bytes, Meta(max_length=HEADER_BYTES_MAX)]
    signature: Annotated[bytes, Meta(max_length=SIGNATURE_BYTES_MAX)] = b""


@dataclass(frozen=True, slots=True)
class Subject:
    """Which journal of which node a backup holds; bound into the sealing of its key."""

    mesh_id: str
    host: str
    term: int
    sequence: int
    head_hash: str

    @property
    def info(self) -> bytes:
        """The `info` of HPKE; each part with its length, so no two subjects agree."""
        parts = (self.mesh_id, self.host, str(self.term), str(self.sequence), self.head_hash)
        framed = (len(part).to_bytes(LENGTH_BYTES) + part for part in map(str.encode, parts))
        return KEY_LABEL + b"".join(framed)


def subject_of(header: BackupHeader) -> Subject:
    """Return what the key of this backup is bound to."""
    return Subject(header.mesh_id, header.host, header.term, header.sequence, header.head_hash)


def seal_content_key(key: bytes, recipient: str, subject: Subject) -> bytes:
    """Return the content key for the holder of the recovery secret alone.

    Raises:
        ValueError: `recipient` is no usable public key.
    """
    public = X25519PublicKey.from_public_bytes(bytes.fromhex(recipient))
    return _suite().encrypt(key, public, info=subject.info)


def open_content_key(header: BackupHeader, secret: bytes) -> bytes:
    """Return the content key.

    Raises:
        BadPassphraseError: The kit belongs to another mesh, or to an older kit of this one.
        BackupRejectedError: It is the right kit; the header is not what was sealed.
    """
    if recovery_public(secret) != header.recipient:
        raise BadPassphraseError(
            "this recovery kit does not open this backup: it was sealed for another kit",
            hint=f"look for the kit of the mesh {header.mesh_name}, sha256 {header.pin[:16]}",
        )
    try:
        return _suite().decrypt(
            header.sealed_key, recovery_key(secret), info=subject_of(header).info
        )
    except (InvalidTag, ValueError):
        raise BackupRejectedError(
            "the header of this backup has been changed", hint="take another backup"
        ) from None


@dataclass(slots=True)
class ChunkSealer:
    """Seals or opens the chunks of one file, in their order."""

    key: bytes = field(repr=False)
    number: int = 0

    def seal(self, chunk: bytes, *, last: bool) -> bytes:
        """Return the next chunk, sealed."""
        return AESGCM(self.key).encrypt(self._nonce(last=last), chunk, None)

    def open(self, sealed: bytes, *, last: bool) -> bytes:
        """Return the next chunk in the clear.

        Raises:
            BackupRejectedError: It is not the chunk that was sealed at this place.
        """
        place = self.number
        try:
            return AESGCM(self.key).decrypt(self._nonce(last=last), sealed, None)
        except InvalidTag:
            raise BackupRejectedError(
                f"the content is damaged at chunk {place}", hint="take another backup"
            ) from None

    def _nonce(self, *, last: bool) -> bytes:
        nonce = self.number.to_bytes(11) + (_LAST if last else _MORE)
        self.number += 1
        return nonce


def signed_part(header: bytes) -> bytes:
    """Return what the issuing key signs for an encoded header."""
    return CONTEXT + header


def trailer(signed: SignedHeader) -> bytes:
    """Return the end of the file, behind the last chunk."""
    raw = encode_body(signed)
    return raw + len(raw).to_bytes(LENGTH_BYTES) + MAGIC


def split_trailer(end: bytes) -> tuple[SignedHeader, int]:
    """Return what the end of a file says, and how many bytes of `end` that is.

    Args:
        end: The last bytes of the file, `TRAILER_BYTES_MAX` of them or the whole file.

    Raises:
        BackupRejectedError: This is no backup, or it was cut off.
    """
    tail = LENGTH_BYTES + len(MAGIC)
    size = int.from_bytes(end[-tail : -len(MAGIC)])
    if not end.endswith(MAGIC) or len(end) < tail or not 0 < size <= len(end) - tail:
        raise BackupRejectedError(
            "this is no backup of certmesh, or its end is missing", hint="take another file"
        )
    try:
        signed = decode_body(end[-tail - size : -tail], SignedHeader)
    except MeshError:
        raise BackupRejectedError("the header of this backup cannot be read") from None
    return signed, size + tail


def read_header(raw: bytes) -> BackupHeader:
    """Return the decoded header.

    Raises:
        BackupRejectedError: Not one of this release.
    """
    try:
        header = decode_body(raw, BackupHeader)
    except MeshError:
        raise BackupRejectedError("the header of this backup cannot be read") from None
    if header.version != VERSION:
        raise BackupRejectedError(
            f"this backup has version {header.version}, this release reads {VERSION}",
            hint="use the release that wrote it",
        )
    return header


def verify_header(signed: SignedHeader, pin: str = "") -> BackupHeader:
    """Return the header of a backup that the CA it names has signed.

    Without a pin to compare with, this says that the file is whole, not whose it is.

    Args:
        signed: As it lies in the file.
        pin: Hex SHA-256 of the root that is expected, or empty.

    Raises:
        BackupRejectedError: The detail says which check failed.
    """
    header = read_header(signed.header)
    if fingerprint(header.root) != header.pin or (pin and header.pin != pin):
        raise BackupRejectedError(
            f"this is a backup of another mesh ({header.mesh_name}, sha256 {header.pin[:16]})"
        )
    if not signed.signature:
        raise BackupRejectedError(
            "this backup is not signed: the CA was locked when it was made",
            hint="its content can be restored with the kit all the same, if you know who made it",
        )
    try:
        key = p256_key(_chained(header))
        key.verify(signed.signature, signed_part(signed.header), ec.ECDSA(hashes.SHA256()))
    except (ValueError, InvalidSignature):
        raise BackupRejectedError(
            "the signature of this backup does not verify: it was changed", hint="take another one"
        ) from None
    return header


def _chained(header: BackupHeader) -> x509.Certificate:
    root, issuing = read_certificate(header.root), read_certificate(header.issuing)
    check_authority(root)
    check_authority(issuing)
    check_issued(issuing, root)
    return issuing


def _suite() -> Suite:
    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
