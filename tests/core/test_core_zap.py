"""ZAP frames: what is not understood does not come in."""

import os
import random

import pytest

from broker.core.zap import (
    DOMAIN,
    ZAPMalformedError,
    ZAPRequest,
    answer,
    later,
    read_request,
    refuse_malformed,
)

KEY = bytes(range(32))
FRAMES = [b"1.0", b"7", DOMAIN, b"192.0.2.9", b"", b"CURVE", KEY]
ASKED = ZAPRequest(b"7", "192.0.2.9", KEY.hex())


def _with(place: int, frame: bytes) -> list[bytes]:
    return [*FRAMES[:place], frame, *FRAMES[place + 1 :]]


def test_a_question_of_our_socket_is_read() -> None:
    """RFC 27, section "The request message"."""
    assert read_request(FRAMES) == ASKED


@pytest.mark.parametrize(
    "frames",
    [
        [],
        FRAMES[:5],
        FRAMES[:6],
        [*FRAMES, KEY],
        _with(0, b"2.0"),
        _with(2, b"global"),
        _with(2, b""),
        _with(5, b"NULL"),
        _with(5, b"PLAIN"),
        _with(6, KEY[:31]),
        _with(6, KEY + b"x"),
        _with(6, b""),
        _with(1, b"i" * 256),
    ],
    ids=lambda frames: f"{len(frames)} frames, {sum(map(len, frames))} octets",
)
def test_anything_else_is_malformed_and_gets_status_500(frames: list[bytes]) -> None:
    """NULL and PLAIN above all: they would come without a key."""
    with pytest.raises(ZAPMalformedError) as problem:
        read_request(frames)
    version, request_id, status, _, user_id, metadata = refuse_malformed(problem.value)
    assert (version, status, user_id, metadata) == (b"1.0", b"500", b"", b"")
    assert request_id in {b"", b"7"}


def test_a_granted_key_becomes_the_user_id_of_the_connection() -> None:
    """With it the grant is looked up for every message."""
    assert answer(ASKED, granted=True) == [b"1.0", b"7", b"200", b"OK", KEY.hex().encode(), b""]


def test_a_key_without_a_grant_gets_400_and_no_user_id() -> None:
    """RFC 27: 400 tells the client to give up, 300 to come again."""
    denied = answer(ASKED, granted=False)
    assert denied[:3] == [b"1.0", b"7", b"400"]
    assert denied[4] == b""
    assert later(ASKED)[2] == b"300"


def test_random_frames_are_read_or_malformed_and_nothing_else() -> None:
    """What a stranger sends never becomes another error."""
    chance = random.Random(5)
    for _ in range(2000):
        frames = [os.urandom(chance.randrange(40)) for _ in range(chance.randrange(9))]
        if chance.random() < 0.5:
            frames = _with(chance.randrange(7), os.urandom(chance.randrange(40)))
        try:
            read_request(frames)
        except ZAPMalformedError:
            continue
