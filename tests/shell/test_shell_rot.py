"""Bits that flip on the disk: the part is refused by its name or mended, never believed.

Every flip is tried on a copy of the files of one real node.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from broker.errors import BadPassphraseError, LedgerDamagedError, MeshError
from broker.ledger import projection
from broker.ledger.sqlite import Ledger
from broker.pki.issuer import Issuer
from broker.pki.seal import open_with_passphrase
from broker.shell.membership import read_membership
from broker.shell.vault import load_vault
from broker.shell.verified import open_ledger
from tests.ledger.ledger_facts import issued, joined, mesh, renewed, revoked
from tests.ledger.ledger_room import opened, write
from tests.shell.office import PASSPHRASE, Office

LEDGER_FLIPS = 240
FILE_FLIPS = 24
SEED = 18


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Office:
    """A node with some history, at rest."""
    made = Office.create(tmp_path_factory.mktemp("rot"))
    made.ledger.close()
    made.paths.broker_run.mkdir(mode=0o700, parents=True, exist_ok=True)
    return made


def flipped(path: Path, offset: int, bit: int) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(content)


def _history(home: Path) -> Path:
    """Return a closed ledger of one file, with members that are revoked and some that are not."""
    ledger = opened(home)
    write(ledger, mesh())
    for number in range(60):
        member_id, serial = f"{number:02x}", f"aa{number:02x}"
        write(ledger, joined(f"h{number}", member_id), issued(member_id, serial))
        if number % 2:
            write(ledger, renewed(member_id, f"bb{number:02x}", serial))
        if number % 5 == 0:
            write(ledger, revoked(member_id, f"h{number}"))
    ledger._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger.close()
    return home / "ledger.db"


def _offsets(content: bytes, chance: Random, count: int) -> list[int]:
    """Return places to flip: most of them where something is written."""
    written = [place for place, byte in enumerate(content) if byte]
    return chance.sample(written, count * 4 // 5) + chance.sample(range(len(content)), count // 5)


def test_no_flipped_bit_of_the_ledger_gives_another_roster(office: Office, home: Path) -> None:
    """Refused by name, or the very same history and the very same roster (row 18)."""
    chance = Random(SEED)
    content = _history(home).read_bytes()
    sound = Ledger.open(home / "ledger.db", node="atlas")
    head, roster = sound.head, projection.dump(sound._connection)
    sound.close()
    path, refused, mended = office.paths.ledger, 0, 0
    for offset in _offsets(content, chance, LEDGER_FLIPS):
        _forget(office)
        path.write_bytes(content)
        flipped(path, offset, chance.randrange(8))
        try:
            ledger = open_ledger(office.paths, node="atlas")
        except LedgerDamagedError as error:
            _check_words(error, path.name)
            refused += 1
            continue
        mended += 1
        assert ledger.head == head, offset
        assert projection.dump(ledger._connection) == roster, offset
        ledger.close()
    assert refused > LEDGER_FLIPS // 10, refused
    assert mended > LEDGER_FLIPS // 10, mended


def _check_words(error: MeshError, name: str) -> None:
    """Check that a refusal names the file, or was that of a passphrase that does not open it."""
    wrong_key = isinstance(error, BadPassphraseError)
    assert wrong_key or name in error.detail, error.detail
    assert error.hint, error.detail


def _forget(office: Office) -> None:
    """Remove what a start leaves: the next one is the first after a boot."""
    for leftover in (*office.paths.data.glob("ledger.db*"), *office.paths.home.rglob("*.verified")):
        leftover.unlink()


@pytest.mark.parametrize("name", ["keys.sealed", "root.pem", "issuing.pem"])
def test_a_flipped_bit_in_the_ca_never_signs(office: Office, home: Path, name: str) -> None:
    """The file is named, or the passphrase does not open it, or it is the same CA (row 18, P4)."""
    chance = Random(SEED)
    whole = _opened(office.paths.authority)
    for place in chance.sample(range((office.paths.authority / name).stat().st_size), FILE_FLIPS):
        copy = home / f"ca-{place}"
        shutil.copytree(office.paths.authority, copy)
        flipped(copy / name, place, chance.randrange(8))
        try:
            found = _opened(copy)
        except MeshError as error:
            _check_words(error, name)
        else:
            assert (found.root_der, found.issuing_der) == (whole.root_der, whole.issuing_der)


def _opened(directory: Path) -> Issuer:
    vault = load_vault(directory)
    assert vault is not None
    keys = open_with_passphrase(vault.sealed, PASSPHRASE.encode())
    return Issuer.open(root=vault.root, issuing=vault.issuing, issuing_key=keys.issuing_key)


def test_a_flipped_bit_in_the_membership_names_the_file_or_changes_nothing_vital(
    office: Office,
) -> None:
    """A node that took itself for another one would be a stranger to its own mesh (row 18)."""
    chance = Random(SEED)
    path = office.paths.membership
    sound, content = read_membership(office.paths), path.read_bytes()
    try:
        for place in chance.sample(range(len(content)), FILE_FLIPS * 4):
            path.write_bytes(content)
            flipped(path, place, chance.randrange(8))
            try:
                found = read_membership(office.paths)
            except LedgerDamagedError as error:
                _check_words(error, path.name)
            else:
                assert found == sound, (place, found)
    finally:
        path.write_bytes(content)


@pytest.mark.faults
@pytest.mark.parametrize("name", ["ledger.db", "membership.json", "ca/keys.sealed"])
def test_a_broker_that_starts_on_rot_names_the_file_and_ends(home: Path, name: str) -> None:
    """No traceback, no loop at full speed: what to do is in its last words (row 18)."""
    made = Office.create(home)
    made.ledger.close()
    path = made.paths.data / name
    content = bytearray(path.read_bytes())
    start = 0 if name == "ledger.db" else len(content) // 3
    content[start : start + 64] = b"\xa5" * 64
    path.write_bytes(content)
    made.paths.settings.write_text('[node]\nname = "atlas"\n[ca]\nkdf_memory = 8388608\n')
    command = [sys.executable, "-m", "broker", str(made.paths.settings), "--foreground"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    words = done.stdout + done.stderr
    assert done.returncode == 1, words
    assert str(path) in words, words
    assert "Traceback" not in words
