"""The sealed form of a backup: chunks in their order and all of them, for one kit, one journal."""

import hashlib

import pytest
from msgspec.structs import replace

from broker.errors import BackupRejectedError, BadPassphraseError
from broker.pki.container import (
    VERSION,
    BackupHeader,
    ChunkSealer,
    SignedHeader,
    open_content_key,
    seal_content_key,
    split_trailer,
    subject_of,
    trailer,
)
from broker.pki.kit import recovery_public
from broker.units import UnixSeconds
from broker.wire.codec import encode_body

SECRET, KEY = bytes(range(32)), bytes(32)


def header() -> BackupHeader:
    """Return a header whose key is sealed to the kit of `SECRET`."""
    blank = BackupHeader(
        version=VERSION,
        mesh_id="aa",
        mesh_name="home",
        pin="bb",
        host="atlas",
        created_at=UnixSeconds(1),
        term=1,
        sequence=7,
        head_hash="cc",
        recipient=recovery_public(SECRET),
        sealed_key=b"",
        body_bytes=0,
        digest=hashlib.sha256(b"").hexdigest(),
        root=b"",
        issuing=b"",
    )
    return replace(blank, sealed_key=seal_content_key(KEY, blank.recipient, subject_of(blank)))


def sealed() -> list[bytes]:
    """Return three chunks."""
    sealer = ChunkSealer(KEY)
    return [sealer.seal(chunk, last=chunk == b"three") for chunk in (b"one", b"two", b"three")]


def test_chunks_open_in_their_order() -> None:
    """What went in."""
    opener = ChunkSealer(KEY)
    opened = [opener.open(c, last=number == 2) for number, c in enumerate(sealed())]
    assert opened == [b"one", b"two", b"three"]


def test_chunks_cannot_change_places() -> None:
    """A backup put together from pieces of itself is another backup."""
    one, two, _ = sealed()
    opener = ChunkSealer(KEY)
    with pytest.raises(BackupRejectedError, match="chunk 0"):
        opener.open(two, last=False)
    with pytest.raises(BackupRejectedError):
        opener.open(one, last=False)


def test_a_shorter_content_does_not_pass_for_a_whole_one() -> None:
    """The end says that it is the end."""
    one, two, _ = sealed()
    opener = ChunkSealer(KEY)
    opener.open(one, last=False)
    with pytest.raises(BackupRejectedError, match="chunk 1"):
        opener.open(two, last=True)


def test_the_content_key_opens_for_its_kit_and_its_journal_alone() -> None:
    """A key moved into another header would vouch for another journal."""
    good = header()
    assert open_content_key(good, SECRET) == KEY
    with pytest.raises(BadPassphraseError, match="another kit"):
        open_content_key(good, bytes(32))
    changes = {"host": "birch", "term": 2, "sequence": 8, "head_hash": "dd", "mesh_id": "ab"}
    for name, value in changes.items():
        with pytest.raises(BackupRejectedError):
            open_content_key(replace(good, **{name: value}), SECRET)


def test_the_trailer_is_found_at_the_end_and_nowhere_else() -> None:
    """Whatever precedes it."""
    signed = SignedHeader(encode_body(header()), b"sig")
    end = trailer(signed)
    assert split_trailer(b"chunks" + end) == (signed, len(end))
    for wrong in (b"", end[:-1], end[1:], end + b"x", end[-16:]):
        with pytest.raises(BackupRejectedError):
            split_trailer(wrong)
