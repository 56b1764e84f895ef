"""Pages of the journal and of orphans: packed small, unpacked with suspicion.

Whoever sends a page may be anybody until the signed head in it is verified, so nothing is inflated
beyond a fixed size, and whatever is wrong with the bytes ends in one refusal.
"""

import zlib
from typing import TypeVar

from broker.errors import MalformedMessageError, MeshError, OversizedMessageError
from broker.wire.base import Body
from broker.wire.codec import decode_body, encode_body
from broker.wire.replica import PAGE_BYTES_MAX, JournalPage, OrphanPage

UNPACKED_BYTES_MAX = 2 * PAGE_BYTES_MAX
"""Rows up to `PAGE_BYTES_MAX` and their frame; one row alone may be larger than that."""

PACKED_BYTES_MAX = 786_432
"""What a message carries of a page, as `PageBytes` says."""

HASH_HEX_LENGTH = 64

_LEVEL = 1
"""The fastest: a page is packed between two requests of others."""

Page = TypeVar("Page", bound=Body)


def pack_page(page: JournalPage) -> bytes:
    """Return the bytes that carry `page`.

    Raises:
        OversizedMessageError: No reader would take it.
    """
    return _pack(page)


def unpack_page(packed: bytes) -> JournalPage:
    """Return the page in `packed`.

    Raises:
        MalformedMessageError: It is none.
    """
    page = _unpack(packed, JournalPage)
    _check_hash(page.after.hash)
    return page


def pack_orphans(page: OrphanPage) -> bytes:
    """Return the bytes that carry `page`; raises as `pack_page`."""
    return _pack(page)


def unpack_orphans(packed: bytes) -> OrphanPage:
    """Return the page in `packed`; raises as `unpack_page`."""
    page = _unpack(packed, OrphanPage)
    for orphan in page.lines:
        _check_hash(orphan.hash)
    return page


def _pack(page: Body) -> bytes:
    plain = encode_body(page)
    packed = zlib.compress(plain, _LEVEL)
    if len(plain) > UNPACKED_BYTES_MAX or len(packed) > PACKED_BYTES_MAX:
        raise OversizedMessageError(f"a page of {len(plain)} bytes, {len(packed)} packed")
    return packed


def _unpack(packed: bytes, kind: type[Page]) -> Page:
    plain = _inflate(packed)
    try:
        return decode_body(plain, kind)
    except MeshError as error:
        raise MalformedMessageError(f"not a page: {error.detail}") from None


def _inflate(packed: bytes) -> bytes:
    if len(packed) > PACKED_BYTES_MAX:
        raise MalformedMessageError(f"{len(packed)} bytes are no page")
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(packed, UNPACKED_BYTES_MAX + 1)
    except zlib.error:
        raise MalformedMessageError("not a page: it cannot be unpacked") from None
    if len(plain) > UNPACKED_BYTES_MAX:
        raise MalformedMessageError(f"a page holds at most {UNPACKED_BYTES_MAX} bytes")
    if not stream.eof or stream.unused_data:
        raise MalformedMessageError("not a page: torn, or something follows it")
    return plain


def _check_hash(text: str) -> None:
    if len(text) != HASH_HEX_LENGTH:
        raise MalformedMessageError("not a page: a row without a hash")
