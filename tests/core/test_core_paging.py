"""Pages: whatever bytes come, they are a page or one refusal, and never cost much memory."""

import tracemalloc
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.paging import (
    PACKED_BYTES_MAX,
    UNPACKED_BYTES_MAX,
    pack_orphans,
    pack_page,
    unpack_orphans,
    unpack_page,
)
from broker.errors import MalformedMessageError, MeshError, OversizedMessageError
from broker.units import UnixSeconds
from broker.wire import codec, replica
from broker.wire.claims import SignedHead
from broker.wire.messages import Answer
from broker.wire.replica import JournalLine, JournalPage, Mark, OrphanLine, OrphanPage

HASH = "5a" * 32
HEAD = SignedHead(b"head", b"signature")


def _line(payload: bytes = b"payload") -> JournalLine:
    return JournalLine(3, UnixSeconds(1_700_000_000), "atlas", "ab", "ann", "ca.locked", payload)


def _page(*payloads: bytes, after: str = HASH) -> JournalPage:
    return JournalPage(Mark(7, after), tuple(map(_line, payloads)), HEAD, 12)


def _orphans(row_hash: str = HASH) -> OrphanPage:
    return OrphanPage((OrphanLine(9, row_hash, _line()),))


def _frames(packed: bytes) -> list[bytes]:
    return codec.encode(Answer(bytes(16), replica.JournalAnswer(packed)))


def _packed(body: object) -> bytes:
    return zlib.compress(msgspec.msgpack.encode(body))


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_a_page_comes_out_as_it_went_in(payloads: list[bytes]) -> None:
    """The follower's hashes are made of these very bytes."""
    page = _page(*payloads)
    assert unpack_page(pack_page(page)) == page
    assert unpack_orphans(pack_orphans(_orphans())) == _orphans()


@given(st.binary(max_size=400))
def test_noise_is_refused_and_nothing_else_escapes(noise: bytes) -> None:
    """Also noise that unpacks."""
    for packed in (noise, zlib.compress(noise)):
        for unpack in (unpack_page, unpack_orphans):
            with pytest.raises(MalformedMessageError):
                unpack(packed)


@given(st.data())
def test_a_damaged_page_is_refused_or_whole(data: st.DataObject) -> None:
    """The checksum of zlib leaves nothing in between."""
    page = _page(b"one", b"two")
    packed = bytearray(pack_page(page))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        assert unpack_page(bytes(packed)) == page
    except MalformedMessageError:
        return


@pytest.mark.parametrize("cut", [1, 4, 20, 60])
def test_a_torn_page_is_refused(cut: int) -> None:
    """Its rows may all be there; its checksum is not."""
    with pytest.raises(MalformedMessageError, match="torn"):
        unpack_page(pack_page(_page(b"one"))[:-cut])


def test_something_behind_a_page_is_refused() -> None:
    """A page is one stream and nothing else."""
    with pytest.raises(MalformedMessageError, match="follows"):
        unpack_page(pack_page(_page(b"one")) + b"x")


def test_a_decompression_bomb_is_refused_without_inflating_it() -> None:
    """A hundred megabytes of nothing fit into a hundred kilobytes."""
    squeeze = zlib.compressobj(9)
    bomb = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(100)) + squeeze.flush()
    assert len(bomb) < PACKED_BYTES_MAX
    tracemalloc.start()
    with pytest.raises(MalformedMessageError, match="at most"):
        unpack_page(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * UNPACKED_BYTES_MAX


def test_a_page_that_no_message_carries_is_not_even_looked_at() -> None:
    """The size is checked before anything is unpacked."""
    with pytest.raises(MalformedMessageError, match="bytes are no page"):
        unpack_page(bytes(PACKED_BYTES_MAX + 1))


@pytest.mark.parametrize("text", ["", "5a", "5a" * 31, "5a" * 33, "5" * 63])
def test_a_mark_without_a_whole_hash_is_refused(text: str) -> None:
    """Hashes are computed from it; half a byte is none."""
    with pytest.raises(MalformedMessageError):
        unpack_page(pack_page(_page(b"one", after=text)))
    with pytest.raises(MalformedMessageError):
        unpack_orphans(pack_orphans(_orphans(text)))


@pytest.mark.parametrize("body", [[], {}, 7, {"after": {"sequence": -1, "hash": HASH}}])
def test_a_well_made_body_that_is_no_page_is_refused(body: object) -> None:
    """One page is not the other kind either."""
    with pytest.raises(MalformedMessageError):
        unpack_page(_packed(body))
    with pytest.raises(MalformedMessageError):
        unpack_page(pack_orphans(_orphans()))


def test_a_page_that_no_reader_would_take_is_not_sent() -> None:
    """Its sender hears of it, not every reader for ever."""
    with pytest.raises(OversizedMessageError):
        pack_page(_page(bytes(UNPACKED_BYTES_MAX)))


def test_a_full_page_of_rows_that_do_not_shrink_fits_into_a_message() -> None:
    """Certificates hardly shrink; the largest page and its frame still go through."""
    digest = zlib.crc32(b"")
    noise = bytearray()
    while len(noise) < replica.PAGE_BYTES_MAX:
        digest = zlib.crc32(digest.to_bytes(4)) ^ len(noise) * 2_654_435_761 & 0xFFFFFFFF
        noise += digest.to_bytes(4)
    packed = pack_page(_page(bytes(noise)))
    assert codec.encode(codec.decode_answer(_frames(packed))) == _frames(packed)
    assert unpack_page(packed).lines[0].payload == bytes(noise)


@pytest.mark.parametrize("beyond", [0, 1])
def test_the_packed_limit_is_the_one_of_the_message(beyond: int) -> None:
    """Two numbers for one thing would part some day."""
    try:
        codec.decode_answer(_frames(bytes(PACKED_BYTES_MAX + beyond)))
    except MeshError:
        assert beyond
    else:
        assert not beyond
