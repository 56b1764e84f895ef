"""Ways to unlock on plain values: what each opens, what a change leaves, what never opens."""

from collections.abc import Callable

import msgspec
import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.hotp import HOTP

from broker.errors import (
    BadCredentialError,
    BadPassphraseError,
    ConflictError,
    LedgerDamagedError,
    NameNotAllowedError,
    NotFoundError,
)
from broker.pki.seal import (
    SLOTS_MAX,
    SealedKeys,
    open_root,
    open_root_with_recovery,
    open_with_credential,
    open_with_passphrase,
    open_with_recovery,
    open_with_secret,
    seal_for_standby,
    seal_keys,
)
from broker.pki.sealed import Sealer, Slot
from broker.pki.slots import PeerHalves, Typed, add_passphrase, add_secret, check_code, remove_slot
from broker.pki.totp import DIGITS, STEP_S
from broker.pki.transfer import gather_material
from broker.wire.codec import decode_body, encode_body
from broker.wire.slot import SlotKind
from tests.pki.making import (
    CHEAP,
    CREDENTIAL,
    MESH_ID,
    NOW,
    PASSPHRASE,
    TOTP_SECRET,
    authority,
    counting_entropy,
    sealed_keys,
)

SECOND = b"barman banknote islamic"
RECOVERY = bytes(range(64, 96))
SECRET = bytes(range(96, 128))
OTHER_SECRET = bytes(range(128, 160))
GUARDED = bytes(range(20))


def _sealer(seed: bytes = b"slots") -> Sealer:
    return Sealer(MESH_ID, counting_entropy(seed), NOW + 5)


def _with_second(sealed: SealedKeys | None = None) -> tuple[SealedKeys, Slot]:
    return add_passphrase(sealed or sealed_keys(), PASSPHRASE, SECOND, CHEAP, _sealer())


def _with_kind(kind: SlotKind, secret: bytes = SECRET) -> tuple[SealedKeys, Slot]:
    sealed = sealed_keys()
    opened = open_with_passphrase(sealed, PASSPHRASE)
    guarded = GUARDED if kind == "totp" else b""
    return add_secret(sealed, opened, kind, secret, _sealer(), guarded=guarded)


def _with_kit() -> SealedKeys:
    return seal_keys(
        authority(),
        mesh_id=MESH_ID,
        totp_secret=TOTP_SECRET,
        passphrase=PASSPHRASE,
        credential=CREDENTIAL,
        kdf=CHEAP,
        entropy=counting_entropy(),
        now=NOW,
        recovery=RECOVERY,
    )


def code_of(secret: bytes, step: int) -> str:
    """Return what the authenticator shows in this step."""
    return HOTP(secret, DIGITS, SHA1()).generate(step).decode()


def _opens_root(sealed: SealedKeys, passphrase: bytes) -> bool:
    try:
        return open_root(sealed, passphrase) == authority().root_key
    except BadPassphraseError:
        return False


def test_a_second_passphrase_opens_everything_the_first_one_does() -> None:
    """The root key included: else a changed passphrase would lose it for ever."""
    sealed, slot = _with_second()
    for passphrase in (PASSPHRASE, SECOND):
        assert open_with_passphrase(sealed, passphrase).issuing_key == authority().issuing_key
        assert open_root(sealed, passphrase) == authority().root_key
    assert open_with_passphrase(sealed, SECOND).slot_id == slot.slot_id
    assert slot.created_at == NOW + 5


def test_defect_32_a_wrong_passphrase_adds_nothing() -> None:
    """`rotate-auth` took any passphrase, and the typing error showed at the next unlock."""
    sealed = sealed_keys()
    with pytest.raises(BadPassphraseError):
        add_passphrase(sealed, PASSPHRASE + b" ", SECOND, CHEAP, _sealer())


def test_defect_32_the_old_passphrase_goes_only_for_one_that_was_proved() -> None:
    """A typing error in the new passphrase is found while the old one still opens."""
    sealed, slot = _with_second()
    first = sealed.slots[0].slot_id
    for unproved in (PASSPHRASE, SECOND + b"x"):
        with pytest.raises(BadPassphraseError):
            remove_slot(sealed, unproved, first)
    after = remove_slot(sealed, SECOND, first)
    assert open_with_passphrase(after, SECOND).slot_id == slot.slot_id
    with pytest.raises(BadPassphraseError):
        open_with_passphrase(after, PASSPHRASE)


def test_a_removed_passphrase_opens_no_root_key_either() -> None:
    """A passphrase that leaked must not keep the longest-lived key."""
    sealed, _ = _with_second()
    after = remove_slot(sealed, SECOND, sealed.slots[0].slot_id)
    assert _opens_root(after, SECOND)
    assert not _opens_root(after, PASSPHRASE)
    assert len(after.roots) == 1


def test_a_new_passphrase_may_go_again_and_leaves_the_first() -> None:
    """The other way round: it was a mistake."""
    sealed, slot = _with_second()
    after = remove_slot(sealed, PASSPHRASE, slot.slot_id)
    assert after == sealed_keys()


def test_the_last_passphrase_stays() -> None:
    """Without it a lost file would lock everybody out for ever."""
    sealed = sealed_keys()
    with pytest.raises(ConflictError, match="last passphrase"):
        remove_slot(sealed, PASSPHRASE, sealed.slots[0].slot_id)


def test_the_root_key_does_not_go_with_the_passphrase_that_alone_opens_it() -> None:
    """Also where its copy is of a release that noted no slot."""
    sealed, _ = _with_second()
    assert sealed.root is not None
    for slot_id in (sealed.slots[0].slot_id, ""):
        root = msgspec.structs.replace(sealed.root, slot_id=slot_id)
        only = msgspec.structs.replace(sealed, root=root, more_roots=())
        with pytest.raises(ConflictError, match="root key"):
            remove_slot(only, SECOND, only.slots[0].slot_id)


def test_a_root_key_of_a_passphrase_that_is_not_here_is_left_alone() -> None:
    """A former primary keeps its root key while the passphrases of the new one come and go."""
    sealed, _ = _with_second()
    assert sealed.root is not None
    foreign = msgspec.structs.replace(sealed.root, slot_id="ff" * 8)
    kept = msgspec.structs.replace(sealed, root=foreign, more_roots=())
    assert remove_slot(kept, SECOND, sealed.slots[0].slot_id).roots == (foreign,)


def test_keys_of_the_first_release_get_a_second_passphrase_and_lose_the_first() -> None:
    """Their root copy names no slot."""
    old = sealed_keys()
    assert old.root is not None
    old = msgspec.structs.replace(old, root=msgspec.structs.replace(old.root, slot_id=""))
    sealed, _ = _with_second(old)
    after = remove_slot(sealed, SECOND, old.slots[0].slot_id)
    assert _opens_root(after, SECOND)
    assert not _opens_root(after, PASSPHRASE)


@pytest.mark.parametrize("new", [b"", b"eleven char", b"x" * 257])
def test_a_new_passphrase_has_a_length_that_can_be_typed_again(new: bytes) -> None:
    """One that `ca unlock` would not take is a lost passphrase."""
    with pytest.raises(NameNotAllowedError, match="12 to 256"):
        add_passphrase(sealed_keys(), PASSPHRASE, new, CHEAP, _sealer())


def test_the_same_passphrase_again_is_no_change() -> None:
    """Who thinks they changed it has to learn that they did not."""
    with pytest.raises(ConflictError, match="the old one"):
        add_passphrase(sealed_keys(), PASSPHRASE, PASSPHRASE, CHEAP, _sealer())


@pytest.mark.parametrize("kind", ["credential", "systemd", "totp", "peer"])
def test_a_secret_opens_its_own_kind_of_slot_and_no_other(kind: SlotKind) -> None:
    """A file that is moved to another place opens nothing."""
    sealed, slot = _with_kind(kind)
    opened = open_with_secret(sealed, kind, SECRET, slot.slot_id)
    assert (opened.slot_id, opened.issuing_key) == (slot.slot_id, authority().issuing_key)
    kinds: tuple[SlotKind, ...] = ("credential", "systemd", "totp", "peer", "recovery")
    for other in kinds:
        if other != kind:
            with pytest.raises(BadPassphraseError):
                open_with_secret(sealed, other, SECRET)
    with pytest.raises(BadPassphraseError):
        open_with_secret(sealed, kind, SECRET, "00" * 8)


def test_a_slot_that_is_called_by_another_kind_does_not_open() -> None:
    """Who edits the file must not turn a slot that needs consent into one that needs none."""
    sealed, slot = _with_kind("peer")
    renamed = msgspec.structs.replace(slot, kind="credential")
    forged = msgspec.structs.replace(sealed, slots=(sealed.slots[0], renamed))
    with pytest.raises(BadPassphraseError):
        open_with_credential(forged, SECRET)


def test_half_of_a_peer_slot_opens_nothing() -> None:
    """Neither the thief of the box nor the peer holds a key."""
    halves = PeerHalves(SECRET, OTHER_SECRET)
    sealed, slot = _with_kind("peer", halves.secret)
    assert open_with_secret(sealed, "peer", halves.secret, slot.slot_id).slot_id == slot.slot_id
    noise = bytes(32)
    for wrong in (
        SECRET,
        OTHER_SECRET,
        PeerHalves(OTHER_SECRET, SECRET).secret,
        PeerHalves(SECRET, noise).secret,
        PeerHalves(noise, OTHER_SECRET).secret,
    ):
        with pytest.raises(BadPassphraseError):
            open_with_secret(sealed, "peer", wrong, slot.slot_id)


@pytest.mark.parametrize(("own", "peers"), [(b"", SECRET), (SECRET, b""), (SECRET, SECRET + b"x")])
def test_a_half_of_another_length_is_no_half(own: bytes, peers: bytes) -> None:
    """Else 16 and 48 bytes would stand for 32 and 32."""
    with pytest.raises(ValueError, match="32 bytes"):
        assert PeerHalves(own, peers).secret


@pytest.mark.parametrize("remove", ["credential", "systemd", "totp", "peer"])
def test_removing_a_slot_leaves_the_others_and_the_root_key(remove: SlotKind) -> None:
    """The keys are not sealed anew: nothing else can break."""
    sealed, slot = _with_kind(remove)
    after = remove_slot(sealed, PASSPHRASE, slot.slot_id)
    assert after == sealed_keys()
    with pytest.raises(BadPassphraseError):
        open_with_secret(after, remove, SECRET)


def test_removing_needs_a_passphrase_and_a_slot_that_is_there() -> None:
    """A file is no right to change anything."""
    sealed, slot = _with_kind("systemd")
    with pytest.raises(BadPassphraseError):
        remove_slot(sealed, SECRET, slot.slot_id)
    with pytest.raises(NotFoundError, match="no slot"):
        remove_slot(sealed, PASSPHRASE, "00" * 8)


def test_there_is_an_end_to_slots() -> None:
    """The file has a size that every release reads."""
    sealed = sealed_keys()
    opened = open_with_passphrase(sealed, PASSPHRASE)
    sealer = _sealer()
    while len(sealed.slots) < SLOTS_MAX:
        sealed, _ = add_secret(sealed, opened, "systemd", SECRET, sealer)
    with pytest.raises(ConflictError, match="the most there can be"):
        add_secret(sealed, opened, "systemd", SECRET, sealer)
    with pytest.raises(ConflictError, match="the most there can be"):
        add_passphrase(sealed, PASSPHRASE, SECOND, CHEAP, sealer)


@pytest.mark.parametrize(
    ("kind", "secret", "guarded"),
    [("credential", b"short", b""), ("totp", SECRET, b""), ("systemd", SECRET, GUARDED)],
)
def test_a_weak_secret_or_a_guard_out_of_place_is_the_callers_bug(
    kind: SlotKind, secret: bytes, guarded: bytes
) -> None:
    """Nothing here is stretched: the secret has to be random and long."""
    opened = open_with_passphrase(sealed_keys(), PASSPHRASE)
    with pytest.raises(ValueError, match="another secret"):
        add_secret(sealed_keys(), opened, kind, secret, _sealer(), guarded=guarded)


# Codes.


def _check(code: str, last_step: int = 0, secret: bytes = SECRET, now: int = NOW) -> int:
    sealed, slot = _with_kind("totp")
    return check_code(sealed, slot, secret, Typed(code, now, last_step))


def test_a_code_is_good_for_its_step_and_the_ones_beside_it() -> None:
    """Clocks differ by seconds, and people type slowly."""
    step = NOW // STEP_S
    for off in (-1, 0, 1):
        assert _check(code_of(GUARDED, step + off)) == step + off
    for off in (-2, 2):
        with pytest.raises(BadCredentialError):
            _check(code_of(GUARDED, step + off))


def test_a_step_that_was_taken_and_all_before_it_are_refused() -> None:
    """A code seen over somebody's shoulder is worth nothing a second later."""
    step = NOW // STEP_S
    for last in (step, step + 1):
        with pytest.raises(BadCredentialError, match="used before"):
            _check(code_of(GUARDED, step), last_step=last)


def test_a_code_for_another_file_is_no_code() -> None:
    """The guard opens with its own file alone, and says so in its own words."""
    with pytest.raises(LedgerDamagedError, match="does not belong"):
        _check(code_of(GUARDED, NOW // STEP_S), secret=OTHER_SECRET)


def test_the_guard_of_another_slot_does_not_fit() -> None:
    """Whoever can write the file could else put the guard of their own authenticator in."""
    sealed, slot = _with_kind("totp")
    opened = open_with_passphrase(sealed, PASSPHRASE)
    mine = add_secret(
        sealed, opened, "totp", SECRET, _sealer(b"mine"), guarded=b"my own secret, twenty"
    )[1]
    forged = msgspec.structs.replace(slot, guard=mine.guard)
    with pytest.raises(LedgerDamagedError):
        check_code(sealed, forged, SECRET, Typed("000000", NOW, 0))


# The recovery kit.


def test_the_recovery_secret_opens_the_keys_and_the_root() -> None:
    """A new machine, the backup and the kit are enough."""
    sealed = _with_kit()
    assert open_with_recovery(sealed, RECOVERY).issuing_key == authority().issuing_key
    assert open_root_with_recovery(sealed, RECOVERY) == authority().root_key
    assert open_root(sealed, PASSPHRASE) == authority().root_key


@pytest.mark.parametrize("opens", [open_with_recovery, open_root_with_recovery])
def test_nothing_but_the_kit_opens_what_is_the_kits(
    opens: Callable[[SealedKeys, bytes], object],
) -> None:
    """Neither a passphrase nor another kit; and without a kit nothing does."""
    for wrong in (b"", PASSPHRASE, CREDENTIAL, bytes(32)):
        with pytest.raises(BadPassphraseError):
            opens(_with_kit(), wrong)
    with pytest.raises(BadPassphraseError):
        opens(sealed_keys(), RECOVERY)


def test_a_standby_gets_the_slots_of_the_mesh_and_no_slot_of_one_machine() -> None:
    """Its backups have to open with the same kit; its file is its own."""
    sealed = _with_kit()
    opened = open_with_passphrase(sealed, PASSPHRASE)
    for kind in ("systemd", "peer"):
        sealed, _ = add_secret(sealed, opened, kind, SECRET, _sealer(kind.encode()))
    material = gather_material(sealed, opened, root=authority().root, issuing=authority().issuing)
    standby = seal_for_standby(material, credential=None, entropy=counting_entropy(), now=NOW)
    assert [slot.kind for slot in standby.slots] == ["passphrase", "recovery"]
    assert open_with_recovery(standby, RECOVERY).issuing_key == authority().issuing_key
    with pytest.raises(NotFoundError):
        open_root_with_recovery(standby, RECOVERY)


def test_removing_the_recovery_slot_takes_its_copy_of_the_root_key_too() -> None:
    """A kit that was lost must open nothing."""
    sealed = _with_kit()
    (kit,) = sealed.of_kind("recovery")
    after = remove_slot(sealed, PASSPHRASE, kit.slot_id)
    assert [root.is_stretched for root in after.roots] == [True]
    with pytest.raises(BadPassphraseError):
        open_root_with_recovery(after, RECOVERY)


def test_the_kit_is_not_what_keeps_the_root_key_when_a_passphrase_goes() -> None:
    """A person must be able to open it: the kit may lie in a bank."""
    sealed, _ = _with_second(_with_kit())
    root = tuple(each for each in sealed.roots if each.slot_id != sealed.slots[-1].slot_id)
    without = msgspec.structs.replace(sealed, root=root[0], more_roots=root[1:])
    with pytest.raises(ConflictError, match="root key"):
        remove_slot(without, SECOND, sealed.slots[0].slot_id)


def test_every_secret_is_in_no_representation_and_survives_its_wire_form() -> None:
    """What is written is what is read."""
    sealed, slot = _with_kind("totp")
    assert decode_body(encode_body(sealed), SealedKeys) == sealed
    assert slot.guard is not None
    assert GUARDED not in encode_body(sealed)
    assert repr(PeerHalves(SECRET, OTHER_SECRET)) == "PeerHalves()"
    assert "123456" not in repr(Typed("123456", NOW, 0))
