"""Sealed keys: what opens them, and what never does."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import BadPassphraseError, LedgerDamagedError, MeshError
from broker.pki.seal import (
    KDFCost,
    SealedKeys,
    open_root,
    open_with_credential,
    open_with_passphrase,
    seal_keys,
)
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
    """No oracle: every wrong passphrase reads the same."""
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
    """The file may be copied, the objects may be logged by mistake."""
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
    """Either refused, or (in fields that guard nothing) the very same keys."""
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
