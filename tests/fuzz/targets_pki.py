"""Ways in that speak X.509 and sealed containers, with real keys behind them."""

import contextlib
import functools
import io
import shutil

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from broker.core.policy import check_names, host_sans, policy_note
from broker.errors import MeshError
from broker.pki.authority import der_of_pem, fingerprint, pem
from broker.pki.bundle import CONTEXT, sign_bundle, verify_bundle
from broker.pki.chain import read_certificate
from broker.pki.container import (
    MAGIC,
    TAG_BYTES,
    BackupHeader,
    ChunkSealer,
    SignedHeader,
    open_content_key,
    trailer,
    verify_header,
)
from broker.pki.crl import lists_serial, read_lists, sign_crl, verified_list
from broker.pki.kit import recovery_secret, recovery_text
from broker.pki.profile import lint_leaf
from broker.pki.request import parse_request
from broker.pki.seal import KeyMaterial, open_with_passphrase
from broker.pki.statement import BEAT, HEAD, MANDATE, NAME, Statements, _context
from broker.pki.transfer import (
    Binding,
    TransferKey,
    check_material,
    gather_material,
    new_transfer_key,
    open_material,
    seal_material,
)
from broker.shell.backup_file import OpenedStream, Piece, read_end, unpack
from broker.units import UnixSeconds
from broker.wire.claims import (
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
from broker.wire.codec import decode_body, encode_body
from broker.wire.policy import Policy
from broker.wire.roster import BundleBody, SignedBundle
from tests.fuzz.place import file_of, place
from tests.fuzz.target import Target
from tests.pki import making
from tests.pki.making import MESH_ID, NOW, authority, csr, issuer
from tests.pki.test_pki_container import KEY, SECRET, header
from workers.gateway.identity import peer_from

POLICY = Policy(names=("*.home.arpa", "*.home.internal"), networks=making.NETWORKS)
DOMAIN = "home.internal"
BINDING = Binding(mesh_id=MESH_ID, giver="1a" * 32, taker="2b" * 32, term=3)


def request(der: bytes) -> None:
    """Take a CSR as the broker does: parse, policy, lint of what would be signed."""
    found = parse_request(der)
    policy_note(POLICY, "10.0.0.9", found.sans)
    sans = host_sans(POLICY, "web", DOMAIN, ("10.0.0.9",), found.sans)
    check_names(POLICY, DOMAIN, sans)
    lint_leaf(making.leaf_profile(sans=sans), issuer().facts)


def _requests() -> tuple[bytes, ...]:
    return (
        csr(),
        csr(ed25519.Ed25519PrivateKey.generate(), algorithm=None),
        csr(rsa.generate_private_key(65_537, 2048)),
        csr(ec.generate_private_key(ec.SECP384R1())),
        csr(extensions=[x509.BasicConstraints(ca=False, path_length=None)]),
    )


@functools.cache
def _statements() -> Statements:
    return Statements(authority().issuing, MESH_ID)


def _beat(octets: bytes) -> None:
    _statements().beat(SignedBeat(octets, issuer().sign(_context(BEAT) + octets)))


def _head(octets: bytes) -> None:
    _statements().head(SignedHead(octets, issuer().sign(_context(HEAD) + octets)))


def _name(octets: bytes) -> None:
    _statements().name(SignedName(octets, issuer().sign(_context(NAME) + octets)))


def _mandate(octets: bytes) -> None:
    _statements().mandate(SignedMandate(octets, issuer().sign(_context(MANDATE) + octets)))


def _unsigned(octets: bytes) -> None:
    _statements().head(decode_body(octets, SignedHead))


def _head_body() -> HeadStatement:
    return HeadStatement(MESH_ID, Head(3, 41, "00" * 32, "nas", UnixSeconds(NOW)))


def _signed_head() -> bytes:
    raw = encode_body(_head_body())
    return encode_body(SignedHead(raw, issuer().sign(_context(HEAD) + raw)))


def _bundle_body() -> BundleBody:
    return BundleBody(
        mesh_id=MESH_ID,
        pin=fingerprint(authority().root),
        head=_head_body().head,
        bundle_sequence=40,
        key_holders=(),
        revoked_serials=("0a",),
        revoked_members=("0b",),
        roots=(authority().root,),
        issuers=(authority().issuing,),
    )


def _verify(signed: SignedBundle) -> None:
    pin = fingerprint(authority().root)
    verify_bundle(signed, root=authority().root, pin=pin, mesh_id=MESH_ID, now=NOW)


def _bundle(octets: bytes) -> None:
    _verify(decode_body(octets, SignedBundle))


def _bundle_inside(octets: bytes) -> None:
    _verify(SignedBundle(octets, issuer().issuing_der, issuer().sign(CONTEXT + octets)))


def _bundle_issuing(octets: bytes) -> None:
    raw = encode_body(_bundle_body())
    _verify(SignedBundle(raw, octets, issuer().sign(CONTEXT + raw)))


def _crl(octets: bytes) -> None:
    lists_serial(octets, 10)
    verified_list(octets, authority().issuing, NOW)


def _a_crl() -> bytes:
    return sign_crl(issuer(), [(10, NOW)], number=4, now=NOW, next_update=NOW + 9000)


def _crl_pem() -> bytes:
    found = x509.load_der_x509_crl(_a_crl())
    return found.public_bytes(Encoding.PEM) * 2


def _leaf() -> bytes:
    return issuer().sign_leaf(parse_request(csr()), making.leaf_profile())


def _certificate(octets: bytes) -> None:
    with contextlib.suppress(MeshError):
        peer_from(octets, "10.0.0.9")
    read_certificate(octets)


def _pem(octets: bytes) -> None:
    der_of_pem(octets.decode("latin-1"))


@functools.cache
def _transfer_key() -> TransferKey:
    return new_transfer_key()


def _package(octets: bytes) -> None:
    open_material(octets, _transfer_key(), BINDING)


def _a_package() -> bytes:
    return seal_material(decode_body(_material(), KeyMaterial), _transfer_key().public, BINDING)


@functools.cache
def _material() -> bytes:
    sealed = making.sealed_keys()
    opened = open_with_passphrase(sealed, making.PASSPHRASE)
    root, issuing = authority().root, authority().issuing
    return encode_body(gather_material(sealed, opened, root=root, issuing=issuing))


def _material_inside(octets: bytes) -> None:
    material = decode_body(octets, KeyMaterial)
    check_material(material, pin=fingerprint(authority().root), mesh_id=MESH_ID, now=NOW)


def _backup(octets: bytes) -> None:
    signed, _ = read_end(file_of(octets, "some.cmbak"))
    open_content_key(verify_header(signed), SECRET)


def _a_backup() -> bytes:
    sealed = ChunkSealer(KEY).seal(b"\x00\x00\x00\x01x", last=True)
    return MAGIC + sealed + trailer(_signed_header(_header()))


def _header() -> BackupHeader:
    made = header()
    fields = {name: getattr(made, name) for name in BackupHeader.__struct_fields__}
    chain = {"root": authority().root, "issuing": authority().issuing}
    return BackupHeader(**{**fields, **chain, "pin": fingerprint(authority().root)})


def _signed_header(made: BackupHeader) -> SignedHeader:
    raw = encode_body(made)
    return SignedHeader(raw, issuer().sign(b"certmesh backup 1\x00" + raw))


def _backup_header(octets: bytes) -> None:
    signed = SignedHeader(octets, issuer().sign(b"certmesh backup 1\x00" + octets))
    open_content_key(verify_header(signed), SECRET)


def backup_content(octets: bytes) -> None:
    """Unpack what somebody with the key could have sealed; nothing lands outside the directory."""
    outer = place() / "restore"
    room = outer / "deep" / "unpacked"
    room.mkdir(mode=0o700, parents=True)
    source = io.BytesIO(ChunkSealer(KEY).seal(octets, last=True))
    try:
        unpack(OpenedStream(source, ChunkSealer(KEY), len(octets) + TAG_BYTES), room)
    finally:
        stray = {path for path in outer.rglob("*") if room not in (path, *path.parents)}
        shutil.rmtree(outer)
        assert stray == {room.parent}, stray


def piece(name: str, content: bytes) -> bytes:
    """Return one file as it lies in the stream of a backup."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(content)
    raw = encode_body(Piece(name, len(content), digest.finalize()))
    return len(raw).to_bytes(4) + raw + content


def _kit(octets: bytes) -> None:
    recovery_secret(octets.decode(errors="surrogateescape"))


PKI_TARGETS = (
    Target("csr", request, _requests, bytes_max=70_000),
    Target("beat", _beat, lambda: (encode_body(PrimaryBeat(MESH_ID, "nas", 3, 7)),), "msgpack"),
    Target("head", _head, lambda: (encode_body(_head_body()),), "msgpack"),
    Target(
        "name-statement",
        _name,
        lambda: (encode_body(NameStatement(MESH_ID, "0a", "nas", 3, 9)),),
        "msgpack",
    ),
    Target(
        "mandate",
        _mandate,
        lambda: (encode_body(MandateStatement(MESH_ID, "nas", "web", "0a", 3, UnixSeconds(NOW))),),
        "msgpack",
    ),
    Target("signed-head", _unsigned, lambda: (_signed_head(),), "msgpack"),
    Target(
        "bundle", _bundle, lambda: (encode_body(sign_bundle(issuer(), _bundle_body())),), "msgpack"
    ),
    Target("bundle-inside", _bundle_inside, lambda: (encode_body(_bundle_body()),), "msgpack"),
    Target("bundle-issuing", _bundle_issuing, lambda: (authority().issuing,)),
    Target("crl", _crl, lambda: (_a_crl(),), refusals=(ValueError,)),
    Target("crl-pem", read_lists, lambda: (_crl_pem(),), "text", refusals=(ValueError,)),
    Target(
        "certificate",
        _certificate,
        lambda: (_leaf(), authority().root, authority().issuing),
        refusals=(ValueError,),
    ),
    Target("pem", _pem, lambda: (pem(authority().root).encode(),), "text"),
    Target("key-package", _package, lambda: (_a_package(), bytes(48))),
    Target("key-material", _material_inside, lambda: (_material(),), "msgpack"),
    Target("backup", _backup, lambda: (_a_backup(),)),
    Target("backup-header", _backup_header, lambda: (encode_body(_header()),), "msgpack"),
    Target(
        "backup-content",
        backup_content,
        lambda: (piece("ledger.db", b"x" * 99) + piece("ca/keys.sealed", b"y"),),
        bytes_max=65_536,
    ),
    Target("kit", _kit, lambda: (recovery_text(SECRET).encode(),), "text", bytes_max=65_536),
)
