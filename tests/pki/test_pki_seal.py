"""Sealed keys: what opens them, and what never does."""

import base64
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import BadPassphraseError, LedgerDamagedError, MeshError, NotFoundError
from broker.pki.authority import CreatedAuthority
from broker.pki.seal import (
    SEAL_VERSION,
    KDFCost,
    KeyMaterial,
    SealedKeys,
    open_root,
    open_with_credential,
    open_with_passphrase,
    seal_for_standby,
    seal_keys,
)
from broker.pki.transfer import gather_material
from broker.wire.codec import decode_body, encode_body
from tests.pki.making import (
    CHEAP,
    CREDENTIAL,
    MESH_ID,
    NOW,
    PASSPHRASE,
    TOTP_SECRET,
    authority,
    counting_entropy,
    new_authority,
    sealed_keys,
)

replace = msgspec.structs.replace
OWN_CREDENTIAL = bytes(range(32, 64))
"""Of the standby."""

GOLDEN = base64.b64decode(
    "hqd2ZXJzaW9uAadtZXNoX2lk2SBhYmFiYWJhYmFiYWJhYmFiYWJhYmFiYWJhYmFiYWJhYqRyb290haRzYWx0xBCAyL"
    "5GXAwYZHse7MzNJXScqm1lbW9yeV9raWJApnBhc3NlcwGlbGFuZXMBo2JveIKlbm9uY2XEDODVIEXwubt/g3NVoqpj"
    "aXBoZXJ0ZXh0xBxLH/cDondIvVAefoVB6P5h1PxuL5dr9C6gQOBQq2lzc3Vpbmdfa2V5gqVub25jZcQMoI+mGqe++b"
    "cI0dApqmNpcGhlcnRleHTEHytxpt2b9gcNqf0escDOg6RpXFtcksIbqJIQZNHVU4ekdG90cIKlbm9uY2XEDFaGwPaA"
    "dNT8diFIZKpjaXBoZXJ0ZXh0xCTdm9J7dZj+PGgR+5cm9o0yoSwYn1c6+0jf1s+lncWUU0NsIaylc2xvdHOSiKdzbG"
    "90X2lksDFjOWI4NGQxYzFiMDM1ZmGka2luZKpwYXNzcGhyYXNlqmNyZWF0ZWRfYXTOahilAKRzYWx0xBCe2tMqMxSM"
    "P4uN456KPB7lqm1lbW9yeV9raWJApnBhc3NlcwGlbGFuZXMBo2JveIKlbm9uY2XEDNEdXIZ8MlDC2d/PC6pjaXBoZX"
    "J0ZXh0xDC4s8d55fXJMqE29a8ryAYifKYyixuhA5h2YSO7vF4HFVuJQG0pnR8M3fdQgyu64XKIp3Nsb3RfaWSwZDJi"
    "MzgxY2UxOWI4YTE5ZqRraW5kqmNyZWRlbnRpYWyqY3JlYXRlZF9hdM5qGKUApHNhbHTEEK9xsz2ycAguFehvFRQele"
    "WqbWVtb3J5X2tpYgCmcGFzc2VzAKVsYW5lcwCjYm94gqVub25jZcQMZX+WNVEXERQA0d0yqmNpcGhlcnRleHTEMAh9"
    "5hh+WVKeqLYLDWSR8uUj6c2wepxX+HGZf/Y5lG1VuzU3inCTGmdhlWYZ8LA1sg=="
)
"""`SealedKeys` as the first release wrote them, before standbys could have them."""


def _material(sealed: SealedKeys | None = None) -> KeyMaterial:
    """Return what the key holder with these sealed keys hands over."""
    sealed = sealed or sealed_keys()
    opened = open_with_passphrase(sealed, PASSPHRASE)
    return gather_material(sealed, opened, root=authority().root, issuing=authority().issuing)


def _standby_keys(
    credential: bytes | None = OWN_CREDENTIAL, material: KeyMaterial | None = None
) -> SealedKeys:
    return seal_for_standby(
        material or _material(),
        credential=credential,
        entropy=counting_entropy(b"standby"),
        now=NOW + 1,
    )


def test_the_passphrase_opens_the_everyday_keys_and_the_root() -> None:
    """One thing for the operator to remember."""
    opened = open_with_passphrase(sealed_keys(), PASSPHRASE)
    assert opened.issuing_key == authority().issuing_key
    assert opened.totp_secret == TOTP_SECRET
    assert opened.slot_id == sealed_keys().slots[0].slot_id
    assert open_root(sealed_keys(), PASSPHRASE) == authority().root_key


def test_the_credential_opens_the_everyday_keys_and_names_its_slot() -> None:
    """A node that restarts at night serves again without a person."""
    opened = open_with_credential(sealed_keys(), CREDENTIAL)
    assert opened.issuing_key == authority().issuing_key
    assert opened.totp_secret == TOTP_SECRET
    assert opened.slot_id == sealed_keys().slots[1].slot_id


def test_the_credential_never_opens_the_root() -> None:
    """Whoever copies the machine's disk gets the issuing key at most."""
    with pytest.raises(BadPassphraseError):
        open_root(sealed_keys(), CREDENTIAL)
    assert open_with_credential(sealed_keys(), CREDENTIAL).issuing_key != authority().root_key


@pytest.mark.parametrize("wrong", [b"", b"correct horse", PASSPHRASE + b" ", CREDENTIAL])
@pytest.mark.parametrize("opens", [open_with_passphrase, open_root])
def test_a_wrong_passphrase_gets_one_sentence_and_changes_nothing(
    opens: Callable[[SealedKeys, bytes], object], wrong: bytes
) -> None:
    """No oracle: every wrong passphrase reads the same (row 51)."""
    sealed = sealed_keys()
    before = encode_body(sealed)
    with pytest.raises(BadPassphraseError) as refused:
        opens(sealed, wrong)
    assert refused.value.detail == "the passphrase does not open the keys of this CA"
    assert encode_body(sealed) == before
    assert open_with_passphrase(sealed, PASSPHRASE).issuing_key == authority().issuing_key


@pytest.mark.parametrize("wrong", [b"", b"\x00" * 32, PASSPHRASE])
def test_a_wrong_credential_is_refused(wrong: bytes) -> None:
    """A file of another mesh, or a truncated one."""
    with pytest.raises(BadPassphraseError, match="credential file does not open"):
        open_with_credential(sealed_keys(), wrong)


def test_without_a_credential_slot_no_credential_opens() -> None:
    """An operator who wants a person present at each boot gets that."""
    sealed = sealed_keys(credential=None)
    assert [slot.kind for slot in sealed.slots] == ["passphrase"]
    with pytest.raises(BadPassphraseError):
        open_with_credential(sealed, CREDENTIAL)


def test_boxes_are_bound_to_the_mesh_and_to_their_place() -> None:
    """A box moved elsewhere is not a box."""
    sealed = sealed_keys()
    slot = sealed.slots[0]
    moved = [
        replace(sealed, mesh_id="ef" * 16),
        replace(sealed, slots=(replace(slot, slot_id="other"),)),
    ]
    for damaged in moved:
        with pytest.raises(BadPassphraseError):
            open_with_passphrase(damaged, PASSPHRASE)
    swapped = replace(sealed, issuing_key=sealed.totp, totp=sealed.issuing_key)
    with pytest.raises(LedgerDamagedError, match="damaged"):
        open_with_passphrase(swapped, PASSPHRASE)
    with pytest.raises(LedgerDamagedError, match="damaged"):
        open_with_credential(swapped, CREDENTIAL)


def test_an_impossible_derivation_is_damage_and_not_a_crash() -> None:
    """A flipped number must not take memory the machine does not have."""
    sealed = sealed_keys()
    slots = (replace(sealed.slots[0], memory_kib=0),)
    with pytest.raises(LedgerDamagedError, match="impossible"):
        open_with_passphrase(replace(sealed, slots=slots), PASSPHRASE)
    huge = replace(sealed.slots[0], memory_kib=2**40)
    with pytest.raises(MeshError):
        decode_body(encode_body(replace(sealed, slots=(huge,))), SealedKeys)


def test_sealed_keys_survive_their_wire_form() -> None:
    """What is written is what is read."""
    assert decode_body(encode_body(sealed_keys()), SealedKeys) == sealed_keys()


def test_no_secret_is_in_the_sealed_form_or_in_any_representation() -> None:
    """The file may be copied, the objects may be logged by mistake (P3)."""
    sealed = sealed_keys()
    opened = open_with_passphrase(sealed, PASSPHRASE)
    written = encode_body(sealed)
    for secret in (authority().issuing_key, authority().root_key, TOTP_SECRET, PASSPHRASE):
        assert secret not in written
        assert repr(secret)[2:-1] not in repr(opened)
    assert CREDENTIAL not in written


def test_every_salt_nonce_and_wrapped_key_is_drawn_anew() -> None:
    """A repeated GCM nonce under one key gives both texts away."""
    drawn: list[bytes] = []
    source = counting_entropy()

    def recording(count: int) -> bytes:
        drawn.append(source(count))
        return drawn[-1]

    sealed = _sealed_with(recording)
    assert sealed.root is not None
    nonces = [sealed.root.box.nonce, sealed.issuing_key.nonce, sealed.totp.nonce]
    nonces += [slot.box.nonce for slot in sealed.slots]
    salts = [sealed.root.salt, *(slot.salt for slot in sealed.slots)]
    assert len(set(nonces)) == 5
    assert len(set(salts)) == 3
    assert set(nonces) | set(salts) <= set(drawn)


def _sealed_with(entropy: Callable[[int], bytes]) -> SealedKeys:
    return seal_keys(
        new_authority(),
        mesh_id=MESH_ID,
        totp_secret=TOTP_SECRET,
        passphrase=PASSPHRASE,
        credential=CREDENTIAL,
        kdf=CHEAP,
        entropy=entropy,
        now=NOW,
    )


@pytest.mark.parametrize(("passphrase", "credential"), [(b"", None), (b"x", b"short")])
def test_sealing_with_nothing_is_the_callers_bug(
    passphrase: bytes, credential: bytes | None
) -> None:
    """An empty passphrase would open for everybody."""
    with pytest.raises(ValueError, match="empty passphrase"):
        seal_keys(
            authority(),
            mesh_id=MESH_ID,
            totp_secret=TOTP_SECRET,
            passphrase=passphrase,
            credential=credential,
            kdf=CHEAP,
            entropy=counting_entropy(),
            now=NOW,
        )


def test_the_cost_is_stored_with_the_slot() -> None:
    """A later release may raise it without locking anybody out."""
    slot = sealed_keys().slots[0]
    assert KDFCost(slot.memory_kib, slot.passes, slot.lanes) == CHEAP


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 100_000), bit=st.integers(0, 7))
def test_a_flipped_bit_never_yields_other_keys(position: int, bit: int) -> None:
    """Either refused, or (in fields that guard nothing) the very same keys (row 18)."""
    raw = bytearray(encode_body(sealed_keys()))
    raw[position % len(raw)] ^= 1 << bit
    try:
        sealed = decode_body(bytes(raw), SealedKeys)
        if any(slot.memory_kib > 4096 or slot.passes > 64 for slot in sealed.slots):
            return
        opened = open_with_passphrase(sealed, PASSPHRASE)
    except MeshError:
        return
    assert opened.issuing_key == authority().issuing_key
    assert opened.totp_secret == TOTP_SECRET


def test_the_passphrase_of_the_mesh_opens_the_keys_of_a_standby() -> None:
    """One passphrase for every key holder; nothing new to remember after a failover."""
    opened = open_with_passphrase(_standby_keys(), PASSPHRASE)
    assert opened.issuing_key == authority().issuing_key
    assert opened.totp_secret == TOTP_SECRET
    assert opened.wrapping_key == _material().wrapping_key


def test_a_standby_opens_its_keys_with_its_own_credential_and_no_other() -> None:
    """A credential file that was copied off one machine is no key to the next."""
    opened = open_with_credential(_standby_keys(), OWN_CREDENTIAL)
    assert opened.issuing_key == authority().issuing_key
    with pytest.raises(BadPassphraseError):
        open_with_credential(_standby_keys(), CREDENTIAL)
    with pytest.raises(BadPassphraseError):
        open_with_credential(sealed_keys(), OWN_CREDENTIAL)


def test_a_credential_slot_of_another_node_is_never_kept() -> None:
    """Also when a giver sends one."""
    everything = replace(_material(), slots=sealed_keys().slots)
    kept = _standby_keys(credential=None, material=everything)
    assert [slot.kind for slot in kept.slots] == ["passphrase"]
    with pytest.raises(BadPassphraseError):
        open_with_credential(kept, CREDENTIAL)


def test_a_standby_without_a_credential_waits_for_the_passphrase() -> None:
    """An operator who wants a person present at each boot gets that on every node."""
    sealed = _standby_keys(credential=None)
    assert sealed.slots == _material().slots
    assert open_with_passphrase(sealed, PASSPHRASE).totp_secret == TOTP_SECRET


def test_a_standby_holds_no_root_key_and_says_where_it_is() -> None:
    """Not a wrong passphrase: the operator is at the wrong machine."""
    sealed = _standby_keys()
    assert sealed.root is None
    for passphrase in (PASSPHRASE, b"wrong"):
        with pytest.raises(NotFoundError, match="does not hold the root key") as refused:
            open_root(sealed, passphrase)
        assert "node that made the mesh" in refused.value.hint
    assert authority().root_key not in encode_body(sealed)


def test_a_promoted_standby_hands_the_keys_on() -> None:
    """The third key holder has them from the second, and the passphrase still opens them."""
    second = _standby_keys()
    third = seal_for_standby(
        _material(second), credential=CREDENTIAL, entropy=counting_entropy(b"third"), now=NOW
    )
    assert open_with_passphrase(third, PASSPHRASE).issuing_key == authority().issuing_key
    with pytest.raises(BadPassphraseError):
        open_with_credential(third, OWN_CREDENTIAL)


def test_a_standby_draws_its_own_nonces_and_salt() -> None:
    """Two nodes seal under one wrapping key: a shared nonce would give both texts away."""
    first, standby = sealed_keys(), _standby_keys()
    nonces = [sealed.issuing_key.nonce for sealed in (first, standby)]
    nonces += [sealed.totp.nonce for sealed in (first, standby)]
    nonces += [sealed.slots[1].box.nonce for sealed in (first, standby)]
    assert len(set(nonces)) == 6
    assert first.slots[1].salt != standby.slots[1].salt
    assert first.slots[1].slot_id != standby.slots[1].slot_id


def test_the_keys_of_a_standby_survive_their_wire_form() -> None:
    """What is written is what is read, in the same version."""
    standby = _standby_keys()
    assert decode_body(encode_body(standby), SealedKeys) == standby
    assert standby.version == SEAL_VERSION


def test_keys_sealed_by_the_first_release_still_open() -> None:
    """An upgrade must not lock anybody out, nor change how anything is derived."""
    sealed = decode_body(GOLDEN, SealedKeys)
    assert open_with_passphrase(sealed, PASSPHRASE).issuing_key == b"the issuing key"
    assert open_with_credential(sealed, CREDENTIAL).totp_secret == TOTP_SECRET
    assert open_root(sealed, PASSPHRASE) == b"the root key"
    again = seal_keys(
        CreatedAuthority(b"", b"", b"the root key", b"the issuing key"),
        mesh_id=MESH_ID,
        totp_secret=TOTP_SECRET,
        passphrase=PASSPHRASE,
        credential=CREDENTIAL,
        kdf=CHEAP,
        entropy=counting_entropy(),
        now=NOW,
    )
    assert again.root is not None
    assert again.root.slot_id == again.slots[0].slot_id
    assert replace(again, root=replace(again.root, slot_id="")) == sealed


@pytest.mark.parametrize("credential", [b"", b"short", OWN_CREDENTIAL + b"x"])
def test_a_standby_with_a_bad_credential_is_the_callers_bug(credential: bytes) -> None:
    """An empty one would open for everybody."""
    with pytest.raises(ValueError, match="wrong length"):
        _standby_keys(credential)


def test_sealing_what_no_passphrase_would_open_is_the_callers_bug() -> None:
    """The keys would be lost with the credential file."""
    with pytest.raises(ValueError, match="no passphrase slot"):
        _standby_keys(material=replace(_material(), slots=()))


def test_the_wrapping_key_is_in_no_representation() -> None:
    """It opens everything but the root key."""
    opened = open_with_passphrase(sealed_keys(), PASSPHRASE)
    assert repr(opened) == f"OpenedKeys(slot_id={opened.slot_id!r})"
    assert opened.wrapping_key not in encode_body(sealed_keys())
    assert opened.wrapping_key not in encode_body(_standby_keys())
