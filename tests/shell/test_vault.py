"""The CA's directory after crashes, damage and careless permissions."""

import itertools
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from broker.errors import LedgerDamagedError, MeshExistsError, StorageError
from broker.pki.authority import pem
from broker.pki.issuer import Issuer
from broker.pki.seal import (
    SealedKeys,
    open_root,
    open_with_credential,
    open_with_passphrase,
    seal_for_standby,
)
from broker.pki.transfer import gather_material
from broker.runtime.files import fsync_directory
from broker.shell import vault as vault_module
from broker.shell.vault import (
    Vault,
    create_vault,
    install_vault,
    load_vault,
    read_credential,
    remove_vault,
    write_credential,
)
from tests.pki.making import (
    CREDENTIAL,
    NOW,
    PASSPHRASE,
    authority,
    counting_entropy,
    new_authority,
    sealed_keys,
)

FILES = {"root.pem", "issuing.pem", "keys.sealed"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return where a vault may be made."""
    return tmp_path / "ca"


def _create(directory: Path) -> None:
    create_vault(directory, authority(), sealed_keys())


def _load(directory: Path) -> Vault:
    vault = load_vault(directory)
    assert vault is not None
    return vault


def _damage(directory: Path) -> str:
    with pytest.raises(LedgerDamagedError) as damaged:
        load_vault(directory)
    return damaged.value.detail


def test_a_vault_gives_back_what_was_put_in(directory: Path) -> None:
    """And its parts make a working issuer."""
    _create(directory)
    vault = _load(directory)
    assert (vault.root, vault.issuing) == (authority().root, authority().issuing)
    assert vault.sealed == sealed_keys()
    opened = open_with_passphrase(vault.sealed, PASSPHRASE)
    Issuer.open(root=vault.root, issuing=vault.issuing, issuing_key=opened.issuing_key)


def test_only_the_owner_can_read_it(directory: Path) -> None:
    """Also under a careless umask."""
    before = os.umask(0)
    try:
        _create(directory)
    finally:
        os.umask(before)
    assert {path.name for path in directory.iterdir()} == FILES
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "keys.sealed").stat().st_mode) == 0o600


def test_no_vault_and_an_empty_directory_are_both_no_vault(directory: Path) -> None:
    """An installer may make the directory beforehand."""
    assert load_vault(directory) is None
    directory.mkdir()
    assert load_vault(directory) is None
    _create(directory)
    assert _load(directory).root == authority().root


def test_a_second_creation_is_refused_and_touches_nothing(directory: Path) -> None:
    """A CA that is overwritten is a mesh that is lost."""
    _create(directory)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(MeshExistsError):
        create_vault(directory, new_authority(), sealed_keys())
    assert not directory.with_name("ca.new").exists()
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_of_two_creations_at_once_the_second_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rename itself decides, not the look beforehand."""

    def overtaken(path: Path) -> None:
        fsync_directory(path)
        if path.name == "ca.new":
            directory.mkdir()
            (directory / "root.pem").write_bytes(b"theirs")

    monkeypatch.setattr(vault_module, "fsync_directory", overtaken)
    with pytest.raises(MeshExistsError):
        _create(directory)
    assert (directory / "root.pem").read_bytes() == b"theirs"


def test_a_damaged_vault_is_not_replaced_by_a_new_one(directory: Path) -> None:
    """Unreadable is never the same as uninitialized (row 18)."""
    directory.mkdir()
    (directory / "keys.sealed").write_bytes(b"half")
    with pytest.raises(MeshExistsError):
        _create(directory)
    assert (directory / "keys.sealed").read_bytes() == b"half"


class Crash(BaseException):
    """The process dies here."""


STEPS = ["write_new", "fsync_directory", "private_directory"]


@pytest.mark.parametrize("step", range(6))
def test_a_crash_at_any_step_leaves_no_vault_or_a_whole_one(
    directory: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Dies before step n; whatever is left, the next attempt succeeds."""
    with monkeypatch.context() as patch:
        _crash_before(patch, step)
        with pytest.raises(Crash):
            _create(directory)
    vault = load_vault(directory)
    if vault is not None:
        assert vault.sealed == sealed_keys()
        return
    _create(directory)
    assert _load(directory).sealed == sealed_keys()
    assert not directory.with_name("ca.new").exists()


def _crash_before(patch: pytest.MonkeyPatch, step: int) -> None:
    """Let the process die before the n-th of the six file operations of a creation."""
    taken = 0

    def dying(name: str) -> None:
        original = getattr(vault_module, name)

        def operation(*args: object) -> object:
            nonlocal taken
            if taken == step:
                raise Crash
            taken += 1
            return original(*args)

        patch.setattr(vault_module, name, operation)

    for name in STEPS:
        dying(name)


def test_files_are_durable_before_the_rename_and_the_rename_before_success(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Order is what survives a power cut: files, their directory, rename, its directory.

    (row 11)
    """
    order: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(descriptor: int) -> None:
        order.append("fsync")
        fsync(descriptor)

    def noted_directory(path: Path) -> None:
        order.append(f"directory {path.name}")
        fsync_directory(path)

    def noted_rename(path: Path, target: Path) -> Path:
        order.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(vault_module, "fsync_directory", noted_directory)
    monkeypatch.setattr(Path, "rename", noted_rename)
    _create(directory)
    parent = f"directory {directory.parent.name}"
    assert [step for step in order if step != "fsync"] == ["directory ca.new", "rename", parent]
    assert order[:3] == ["fsync"] * 3
    assert order.index("directory ca.new") == 3


def test_a_rubbish_staging_directory_is_cleared(directory: Path) -> None:
    """Left by a crash of an older attempt, with files of any name."""
    staged = directory.with_name("ca.new")
    (staged / "deep").mkdir(parents=True)
    (staged / "root.pem").write_text("half", encoding="ascii")
    _create(directory)
    assert {path.name for path in directory.iterdir()} == FILES
    assert not staged.exists()


def test_a_refusing_disk_is_a_storage_error_and_no_vault(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full disk: nothing acknowledged, nothing half there."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(vault_module, "write_new", full)
        with pytest.raises(StorageError, match="No space left"):
            _create(directory)
    assert load_vault(directory) is None
    _create(directory)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_file_is_damage_and_is_named(directory: Path, name: str) -> None:
    """A CA with a part missing is not a new node."""
    _create(directory)
    (directory / name).unlink()
    assert str(directory / name) in _damage(directory)


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("content", [b"", b"rubbish", b"\xff\xfe", b"\x00" * 200_000])
def test_rubbish_in_a_file_is_damage_and_is_named(
    directory: Path, name: str, content: bytes
) -> None:
    """The operator must know which file to restore."""
    _create(directory)
    (directory / name).write_bytes(content)
    assert str(directory / name) in _damage(directory)


@pytest.mark.parametrize("name", ["issuing.pem", "root.pem"])
def test_certificates_of_another_mesh_do_not_fit(directory: Path, name: str) -> None:
    """A restored backup of the wrong mesh is noticed at start, not at the first join."""
    _create(directory)
    other = new_authority()
    foreign = other.issuing if name == "issuing.pem" else other.root
    (directory / name).write_text(pem(foreign), encoding="ascii")
    assert "issuing.pem" in _damage(directory)


def test_every_flipped_bit_of_the_sealed_keys_is_noticed(directory: Path) -> None:
    """A damaged slot must not look like a wrong passphrase (row 18)."""
    _create(directory)
    path = directory / "keys.sealed"
    content = path.read_bytes()
    for index in range(len(content)):
        flipped = bytearray(content)
        flipped[index] ^= 1 << (index % 8)
        path.write_bytes(bytes(flipped))
        assert str(path) in _damage(directory)


@pytest.mark.parametrize("name", ["root.pem", "issuing.pem"])
def test_a_flipped_bit_in_a_certificate_is_noticed_or_changes_nothing(
    directory: Path, name: str
) -> None:
    """Sampled; only the armour of PEM tolerates any change."""
    _create(directory)
    path, good = directory / name, _load(directory)
    content = path.read_bytes()
    for index in range(0, len(content), 3):
        flipped = bytearray(content)
        flipped[index] ^= 1 << (index % 8)
        path.write_bytes(bytes(flipped))
        try:
            vault = load_vault(directory)
        except LedgerDamagedError:
            continue
        assert vault == good


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601])
def test_sealed_keys_open_to_others_are_refused_with_the_command(
    directory: Path, mode: int
) -> None:
    """Whoever read them may try passphrases at leisure; say so before using them."""
    _create(directory)
    path = directory / "keys.sealed"
    path.chmod(mode)
    with pytest.raises(LedgerDamagedError, match="open to other users") as refused:
        load_vault(directory)
    assert refused.value.hint == f"chmod 600 {path}"
    path.chmod(0o600)
    assert _load(directory).root == authority().root


def test_sealed_keys_of_another_version_are_named_as_such(directory: Path) -> None:
    """Not damage: the release is the wrong one."""
    newer = msgspec.structs.replace(sealed_keys(), version=2)
    create_vault(directory, authority(), newer)
    assert "version 2" in _damage(directory)


def test_no_key_is_in_the_files_or_in_the_representation(directory: Path) -> None:
    """Private keys exist on disk only sealed (P3)."""
    _create(directory)
    written = b"".join(path.read_bytes() for path in directory.iterdir())
    for key in (authority().root_key, authority().issuing_key):
        assert key not in written
        assert repr(key)[2:-1] not in repr(_load(directory))
    assert b"PRIVATE KEY" not in written


def test_a_credential_is_private_and_opens_the_vault(tmp_path: Path, directory: Path) -> None:
    """The way a node unlocks itself at boot."""
    path = tmp_path / "credentials" / "ca-unlock"
    assert read_credential(path) is None
    write_credential(path, CREDENTIAL)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    secret = read_credential(path)
    assert secret == CREDENTIAL
    _create(directory)
    opened = open_with_credential(_load(directory).sealed, CREDENTIAL)
    assert opened.issuing_key == authority().issuing_key


def test_a_credential_open_to_others_is_refused_with_the_command(tmp_path: Path) -> None:
    """It is the CA key for whoever can also read the sealed file."""
    path = tmp_path / "ca-unlock"
    write_credential(path, CREDENTIAL)
    path.chmod(0o640)
    with pytest.raises(LedgerDamagedError, match="open to other users") as refused:
        read_credential(path)
    assert refused.value.hint == f"chmod 600 {path}"


def test_a_truncated_credential_is_damage(tmp_path: Path) -> None:
    """Not a wrong one: the file is to be restored, not the passphrase remembered."""
    path = tmp_path / "ca-unlock"
    write_credential(path, CREDENTIAL[:-1])
    with pytest.raises(LedgerDamagedError, match="31 bytes instead of 32"):
        read_credential(path)


def _standby_keys(seed: bytes = b"first") -> SealedKeys:
    """Return the keys of the shared CA as a standby has them."""
    opened = open_with_passphrase(sealed_keys(), PASSPHRASE)
    root, issuing = authority().root, authority().issuing
    material = gather_material(sealed_keys(), opened, root=root, issuing=issuing)
    return seal_for_standby(material, credential=None, entropy=counting_entropy(seed), now=NOW)


OLDER, NEWER = _standby_keys(b"older"), _standby_keys(b"newer")


def _install(directory: Path, sealed: SealedKeys, *, replace: bool = False) -> None:
    install_vault(directory, authority().root, authority().issuing, sealed, replace=replace)


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.parent.iterdir()}


def test_a_standby_keeps_what_it_received(directory: Path) -> None:
    """And its parts make a working issuer after the passphrase of the mesh."""
    _install(directory, OLDER)
    vault = _load(directory)
    assert vault == Vault(authority().root, authority().issuing, OLDER)
    opened = open_with_passphrase(vault.sealed, PASSPHRASE)
    Issuer.open(root=vault.root, issuing=vault.issuing, issuing_key=opened.issuing_key)
    assert stat.S_IMODE((directory / "keys.sealed").stat().st_mode) == 0o600


def test_received_keys_do_not_replace_a_vault_by_accident(directory: Path) -> None:
    """A CA that is overwritten is a mesh that is lost."""
    _install(directory, OLDER)
    with pytest.raises(MeshExistsError):
        _install(directory, NEWER)
    assert _load(directory).sealed == OLDER
    assert _names(directory) == {"ca"}


def test_received_keys_replace_older_ones_when_told_to(directory: Path) -> None:
    """Nominated again: the same key under a new credential."""
    _install(directory, OLDER, replace=True)
    _install(directory, NEWER, replace=True)
    assert _load(directory).sealed == NEWER
    assert _names(directory) == {"ca"}


def test_the_root_key_survives_that_received_keys_replace_the_vault(directory: Path) -> None:
    """The first node comes back as a standby; the root key exists nowhere else."""
    _create(directory)
    _install(directory, NEWER, replace=True)
    vault = _load(directory)
    assert (vault.sealed.slots, vault.sealed.issuing_key) == (NEWER.slots, NEWER.issuing_key)
    assert open_root(vault.sealed, PASSPHRASE) == authority().root_key


def test_a_vault_with_the_root_key_of_another_ca_is_never_replaced(directory: Path) -> None:
    """It would be the end of that mesh."""
    other = new_authority()
    create_vault(directory, other, sealed_keys())
    with pytest.raises(MeshExistsError, match="root key of another"):
        _install(directory, NEWER, replace=True)
    assert _load(directory).root == other.root


def test_a_damaged_vault_is_not_replaced_by_received_keys(directory: Path) -> None:
    """The root key may be in it; a person decides."""
    _create(directory)
    (directory / "keys.sealed").write_bytes(b"half")
    with pytest.raises(LedgerDamagedError):
        _install(directory, NEWER, replace=True)
    assert (directory / "keys.sealed").read_bytes() == b"half"


def test_a_removed_vault_is_gone_with_everything_beside_it(directory: Path) -> None:
    """The standby was dismissed: no sealed key stays behind, also none that a crash left."""
    _install(directory, OLDER)
    for ending in ("new", "old", "removed"):
        shutil.copytree(directory, directory.with_name(f"ca.{ending}"))
    assert remove_vault(directory) is None
    assert load_vault(directory) is None
    assert _names(directory) == set()


def test_removing_no_vault_is_harmless(directory: Path) -> None:
    """Dismissed before it was ready, or dismissed twice; an installer's directory stays."""
    assert remove_vault(directory) is None
    directory.mkdir()
    assert remove_vault(directory) is None
    assert _names(directory) == {"ca"}


def test_a_vault_with_the_root_key_is_set_aside_and_never_deleted(directory: Path) -> None:
    """The first node was dismissed as a key holder; the root key exists nowhere else."""
    _create(directory)
    kept = remove_vault(directory)
    assert load_vault(directory) is None
    assert kept == directory.with_name("ca.kept")
    assert open_root(_load(kept).sealed, PASSPHRASE) == authority().root_key
    _create(directory)
    with pytest.raises(StorageError):
        remove_vault(directory)
    assert _load(kept) == _load(directory)


def test_a_damaged_vault_is_set_aside_and_not_deleted(directory: Path) -> None:
    """Whether the root key is in it, nobody can tell any more."""
    _install(directory, OLDER)
    (directory / "keys.sealed").write_bytes(b"half")
    assert remove_vault(directory) == directory.with_name("ca.kept")
    assert load_vault(directory) is None
    assert (directory.with_name("ca.kept") / "keys.sealed").read_bytes() == b"half"


@pytest.mark.parametrize("ending", ["new", "old", "removed", "kept"])
@pytest.mark.parametrize("content", [b"", b"rubbish"])
def test_a_leftover_beside_the_vault_never_harms_it(
    directory: Path, ending: str, content: bytes
) -> None:
    """Whatever an older attempt left there."""
    leftover = directory.with_name(f"ca.{ending}")
    leftover.mkdir()
    (leftover / "keys.sealed").write_bytes(content)
    if ending != "old":
        assert load_vault(directory) is None
        _install(directory, OLDER)
    else:
        leftover.rename(directory.with_name("elsewhere"))
        _install(directory, OLDER)
        directory.with_name("elsewhere").rename(leftover)
    assert _load(directory).sealed == OLDER
    _install(directory, NEWER, replace=True)
    assert _load(directory).sealed == NEWER


def _deaths(
    tmp_path: Path, prepare: Callable[[Path], object], act: Callable[[Path], object]
) -> Iterator[Path]:
    """Yield the directory after a death before each file operation of `act`, in order."""
    for step in itertools.count():
        directory = tmp_path / str(step) / "ca"
        directory.parent.mkdir()
        prepare(directory)
        with pytest.MonkeyPatch.context() as patch:
            _die_before(patch, step)
            try:
                act(directory)
            except Crash:
                pass
            else:
                return
        yield directory


def _die_before(patch: pytest.MonkeyPatch, step: int) -> None:
    """Let the process die before the n-th file operation; removing a tree also dies half way."""
    taken = itertools.count()

    def dying(original: Callable[..., object]) -> Callable[..., object]:
        def operation(*args: object) -> object:
            if next(taken) == step:
                raise Crash
            return original(*args)

        return operation

    def torn(path: Path) -> None:
        if path.exists() and next(taken) == step:
            next(path.iterdir()).unlink()
            raise Crash
        rmtree(path)

    rmtree = shutil.rmtree
    for name in STEPS:
        patch.setattr(vault_module, name, dying(getattr(vault_module, name)))
    patch.setattr(Path, "rename", dying(Path.rename))
    patch.setattr(shutil, "rmtree", dying(torn))


def _mid_exchange(directory: Path) -> None:
    """Leave what a death between the two renames of an exchange leaves."""
    _install(directory, NEWER)
    directory.rename(directory.with_name("ca.new"))
    _install(directory.with_name("ca.old"), OLDER)


def _cluttered(directory: Path) -> None:
    """Leave a vault, and half of several others beside it."""
    _install(directory, OLDER)
    for ending in ("new", "old", "removed"):
        leftover = directory.with_name(f"ca.{ending}")
        leftover.mkdir()
        (leftover / "root.pem").write_text("half", encoding="ascii")


PREPARED = pytest.mark.parametrize(
    "prepare", [lambda path: _install(path, OLDER), _mid_exchange, _cluttered]
)


@PREPARED
def test_a_crash_at_any_step_of_an_exchange_leaves_the_old_or_the_new_vault(
    tmp_path: Path, prepare: Callable[[Path], object]
) -> None:
    """Never none and never half of one; the next attempt succeeds and clears up."""
    seen = []
    for directory in _deaths(tmp_path, prepare, lambda path: _install(path, NEWER, replace=True)):
        seen.append(_load(directory).sealed)
        _install(directory, NEWER, replace=True)
        assert _load(directory).sealed == NEWER
        assert _names(directory) <= {"ca", "ca.removed"}
    changed = seen.index(NEWER)
    assert set(map(OLDER.__eq__, seen[:changed])) == {True}
    assert set(map(NEWER.__eq__, seen[changed:])) == {True}
    assert len(seen) >= 10


@PREPARED
def test_a_crash_at_any_step_of_a_removal_leaves_the_whole_vault_or_none(
    tmp_path: Path, prepare: Callable[[Path], object]
) -> None:
    """And what was removed never comes back, whatever was beside it."""
    gone = []
    for directory in _deaths(tmp_path, prepare, remove_vault):
        vault = load_vault(directory)
        assert vault is None or vault.sealed == OLDER
        gone.append(vault is None)
        remove_vault(directory)
        assert load_vault(directory) is None
        assert _names(directory) == set()
    assert gone == sorted(gone)
    assert any(gone)
    assert not all(gone)


def test_a_crash_at_any_step_of_an_exchange_never_loses_the_root_key(tmp_path: Path) -> None:
    """It exists nowhere else."""
    for directory in _deaths(tmp_path, _create, lambda path: _install(path, NEWER, replace=True)):
        assert open_root(_load(directory).sealed, PASSPHRASE) == authority().root_key


def test_a_vault_that_a_crash_left_aside_is_not_overwritten_as_if_there_were_none(
    directory: Path,
) -> None:
    """Between the two renames of an exchange there is a vault, only not in its place."""
    _mid_exchange(directory)
    with pytest.raises(MeshExistsError):
        _create(directory)
    assert _load(directory).sealed == OLDER


def test_an_old_vault_is_durably_gone_before_the_newer_one_is_moved(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut the leftover of an earlier exchange would otherwise be taken for it."""
    _cluttered(directory)
    order: list[str] = []
    rmtree, rename = shutil.rmtree, Path.rename

    def noted_directory(path: Path) -> None:
        order.append(f"fsync {path.name}")
        fsync_directory(path)

    def noted_rename(path: Path, target: Path) -> Path:
        order.append(f"rename {path.name} {target.name}")
        return rename(path, target)

    def noted_rmtree(path: Path) -> None:
        order.append(f"rmtree {path.name}")
        rmtree(path)

    monkeypatch.setattr(vault_module, "fsync_directory", noted_directory)
    monkeypatch.setattr(Path, "rename", noted_rename)
    monkeypatch.setattr(shutil, "rmtree", noted_rmtree)
    parent = f"fsync {directory.parent.name}"
    _install(directory, NEWER, replace=True)
    exchange = ["rmtree ca.old", parent, "rename ca ca.old", "rename ca.new ca", parent]
    assert order == ["rmtree ca.new", "fsync ca.new", *exchange, "rmtree ca.old", parent]
    order.clear()
    remove_vault(directory)
    removal = ["rename ca ca.removed", parent, "rmtree ca.removed", parent]
    assert order == ["rmtree ca.removed", parent, *removal]
