"""Beats and heads as an attacker on the LAN, or a confused member, would bring them."""

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import ClaimRejectedError
from broker.pki import statement as statement_module
from broker.pki.chain import p256_key, read_certificate
from broker.pki.statement import KNOWN_MAX, Statements, sign_beat, sign_head
from broker.units import UnixSeconds
from broker.wire.claims import Head, HeadStatement, PrimaryBeat, SignedBeat, SignedHead
from broker.wire.codec import encode_body
from tests.pki.making import MESH_ID, NOW, authority, issuer, issuer_of, new_authority

BEAT = PrimaryBeat(mesh_id=MESH_ID, primary="nas", term=3, number=(7 << 24) + 5)
HEAD = HeadStatement(
    mesh_id=MESH_ID,
    head=Head(term=3, sequence=41, hash="0a" * 32, primary="nas", issued_at=UnixSeconds(NOW)),
)
replace = msgspec.structs.replace


@pytest.fixture
def statements() -> Statements:
    """Return the verifier of a node of the shared mesh that has seen nothing yet."""
    return Statements(authority().issuing, MESH_ID)


class CountingKey:
    """The issuing certificate's own key, and how often it was asked."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        self._key = key
        self.verified = 0

    def verify(
        self, signature: bytes, message: bytes, algorithm: ec.EllipticCurveSignatureAlgorithm
    ) -> None:
        """Verify for real."""
        self.verified += 1
        self._key.verify(signature, message, algorithm)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> CountingKey:
    """Let verifiers made in this test count how often they verify."""
    key = CountingKey(p256_key(read_certificate(authority().issuing)))
    monkeypatch.setattr(statement_module, "p256_key", lambda _: key)
    return key


def _beat_refusal(statements: Statements, signed: SignedBeat) -> str:
    with pytest.raises(ClaimRejectedError) as rejected:
        statements.beat(signed)
    return rejected.value.detail


def _head_refusal(statements: Statements, signed: SignedHead) -> str:
    with pytest.raises(ClaimRejectedError) as rejected:
        statements.head(signed)
    return rejected.value.detail


def test_what_the_issuing_key_of_the_mesh_signed_is_believed(statements: Statements) -> None:
    """Whoever brings it; also a second time."""
    beat, head = sign_beat(issuer(), BEAT), sign_head(issuer(), HEAD)
    for _ in range(2):
        assert statements.beat(beat) == BEAT
        assert statements.head(head) == HEAD


@settings(max_examples=60, deadline=None)
@given(
    host=st.text(min_size=1, max_size=60),
    term=st.integers(0, 2**53 - 1),
    number=st.integers(0, 2**53 - 1),
    left=st.booleans(),
)
def test_every_beat_comes_back_as_it_was_signed(
    *, host: str, term: int, number: int, left: bool
) -> None:
    """Property: signing and reading are inverse."""
    beat = PrimaryBeat(MESH_ID, host, term, number, left, successor=host if left else "")
    assert Statements(authority().issuing, MESH_ID).beat(sign_beat(issuer(), beat)) == beat


def test_a_beat_signed_by_another_ca_is_rejected(statements: Statements) -> None:
    """The forger has a whole CA of its own, even for the same mesh id."""
    forger = issuer_of(new_authority())
    assert "signature of the beat" in _beat_refusal(statements, sign_beat(forger, BEAT))
    assert "signature of the head" in _head_refusal(statements, sign_head(forger, HEAD))


def test_a_beat_of_another_mesh_is_rejected(statements: Statements) -> None:
    """One household may run two meshes under one CA backup."""
    beat = sign_beat(issuer(), replace(BEAT, mesh_id="ef" * 16))
    head = sign_head(issuer(), replace(HEAD, mesh_id="ef" * 16))
    assert "another mesh" in _beat_refusal(statements, beat)
    assert "another mesh" in _head_refusal(statements, head)


def test_a_head_passed_off_as_a_beat_is_rejected(statements: Statements) -> None:
    """And the other way round; the label keeps them apart before a byte is decoded."""
    beat, head = sign_beat(issuer(), BEAT), sign_head(issuer(), HEAD)
    posing_beat = SignedBeat(head.body, head.signature)
    assert "signature of the beat" in _beat_refusal(statements, posing_beat)
    posing_head = SignedHead(beat.body, beat.signature)
    assert "signature of the head" in _head_refusal(statements, posing_head)


@pytest.mark.parametrize("context", [b"", b"certmesh bundle 1\x00", b"certmesh head 1\x00"])
def test_a_beat_signed_under_any_other_label_is_rejected(
    statements: Statements, context: bytes
) -> None:
    """The issuing key signs bundles, heads and certificates too."""
    raw = encode_body(BEAT)
    signed = SignedBeat(raw, issuer().sign(context + raw))
    assert "signature of the beat" in _beat_refusal(statements, signed)


def test_the_labels_are_those_of_the_protocol(statements: Statements) -> None:
    """Nodes of different releases must agree on them for ever."""
    beat, head = encode_body(BEAT), encode_body(HEAD)
    beat_signature = issuer().sign(b"certmesh beat 1\x00" + beat)
    head_signature = issuer().sign(b"certmesh head 1\x00" + head)
    assert statements.beat(SignedBeat(beat, beat_signature)) == BEAT
    assert statements.head(SignedHead(head, head_signature)) == HEAD


def test_every_flipped_bit_of_a_beat_is_rejected(statements: Statements) -> None:
    """Also after the genuine one is known."""
    signed = sign_beat(issuer(), BEAT)
    statements.beat(signed)
    for field in ("body", "signature"):
        raw = getattr(signed, field)
        for index in range(len(raw)):
            flipped = bytearray(raw)
            flipped[index] ^= 1 << (index % 8)
            _beat_refusal(statements, replace(signed, **{field: bytes(flipped)}))


@pytest.mark.parametrize("raw", [b"", b"\x00" * 16, b"\xff" * 128])
@pytest.mark.parametrize("field", ["body", "signature"])
def test_garbage_in_either_part_is_a_rejection(
    statements: Statements, field: str, raw: bytes
) -> None:
    """What a peer sends can only be refused."""
    _beat_refusal(statements, replace(sign_beat(issuer(), BEAT), **{field: raw}))
    _head_refusal(statements, replace(sign_head(issuer(), HEAD), **{field: raw}))


def test_a_known_body_with_a_foreign_signature_is_rejected(statements: Statements) -> None:
    """It would be passed on, and refused by everybody who has not seen the genuine one."""
    signed = sign_beat(issuer(), BEAT)
    assert statements.beat(signed) == BEAT
    foreign = sign_beat(issuer_of(new_authority()), BEAT)
    assert "signature" in _beat_refusal(statements, replace(signed, signature=foreign.signature))


def test_a_signed_body_that_is_no_beat_is_rejected(statements: Statements) -> None:
    """Even the CA's own signature does not make other bytes a beat."""
    raw = encode_body(HEAD)
    signed = SignedBeat(raw, issuer().sign(b"certmesh beat 1\x00" + raw))
    assert "cannot be read" in _beat_refusal(statements, signed)


def test_a_beat_of_a_newer_release_with_extra_fields_is_believed(statements: Statements) -> None:
    """Evolution: unknown fields are tolerated, and still covered by the signature (row 55)."""
    raw = msgspec.msgpack.encode({**msgspec.msgpack.decode(encode_body(BEAT)), "added_later": 1})
    signature = issuer().sign(b"certmesh beat 1\x00" + raw)
    assert statements.beat(SignedBeat(raw, signature)) == BEAT


def test_a_beat_that_arrives_by_many_members_is_verified_once(counted: CountingKey) -> None:
    """Thirty members bring the same one every few seconds."""
    statements = Statements(authority().issuing, MESH_ID)
    signed = sign_beat(issuer(), BEAT)
    for _ in range(30):
        again = msgspec.msgpack.decode(msgspec.msgpack.encode(signed), type=SignedBeat)
        assert statements.beat(again) == BEAT
    assert counted.verified == 1


def test_a_rejected_beat_is_never_remembered(counted: CountingKey) -> None:
    """Neither as believed, nor in the place of a genuine one, however many are sent."""
    statements = Statements(authority().issuing, MESH_ID)
    genuine = sign_beat(issuer(), BEAT)
    statements.beat(genuine)
    forged = replace(genuine, signature=sign_beat(issuer_of(new_authority()), BEAT).signature)
    for number in range(KNOWN_MAX + 1):
        body = encode_body(replace(BEAT, number=number))
        _beat_refusal(statements, replace(forged, body=body))
    before = counted.verified
    statements.beat(genuine)
    assert counted.verified == before
    _beat_refusal(statements, forged)
    assert counted.verified == before + 1


def test_what_is_remembered_is_bounded_and_the_newest_stay(counted: CountingKey) -> None:
    """A year of beats must not be a year of memory."""
    statements = Statements(authority().issuing, MESH_ID)
    signed = [sign_beat(issuer(), replace(BEAT, number=n)) for n in range(KNOWN_MAX + 1)]
    for each in signed:
        statements.beat(each)
    before = counted.verified
    statements.beat(signed[-1])
    assert counted.verified == before
    statements.beat(signed[0])
    assert counted.verified == before + 1


def test_a_verifier_of_no_certificate_is_the_callers_bug() -> None:
    """Only a certificate that was verified before may introduce a key."""
    with pytest.raises(ValueError, match="not a readable"):
        Statements(b"rubbish", MESH_ID)
