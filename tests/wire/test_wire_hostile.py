"""Whatever a peer sends ends in a typed refusal."""

import contextlib

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker import errors
from broker.wire import codec
from broker.wire.events import RosterMoved
from broker.wire.ids import Service
from broker.wire.liveness import Goodbye, Ready
from broker.wire.messages import Call
from broker.wire.roster import SignedBundle
from tests.wire.golden import REQUEST_ID, stored

CALL = Call(request_id=REQUEST_ID, ttl_ms=5000, request=Goodbye(reason="stopping"))
HOSTILE = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


def _raw(request: object) -> list[bytes]:
    body = {"request_id": REQUEST_ID, "ttl_ms": 1, "request": request}
    return [codec.VERSION_FRAME, msgspec.msgpack.encode(body)]


@pytest.mark.parametrize("frames", [[], [b"\x01"], [b"\x01", b"", b""], [b""] * 9])
def test_a_wrong_number_of_frames_is_malformed(frames: list[bytes]) -> None:
    """Version and body, nothing else."""
    with pytest.raises(errors.MalformedMessageError):
        codec.decode_call(frames)


@pytest.mark.parametrize("version", [b"", b"\x00", b"\x01", b"\x03", b"\x02\x00", b"HTTP/1.1"])
def test_another_version_is_refused_by_name(version: bytes) -> None:
    """An old peer learns that both sides need the same release (row 54)."""
    with pytest.raises(errors.UnsupportedVersionError) as caught:
        codec.decode_call([version, codec.encode(CALL)[1]])
    assert "release" in caught.value.hint


def test_an_unknown_kind_is_told_apart_from_garbage() -> None:
    """A newer peer is not an attacker: its caller may fall back (row 54)."""
    with pytest.raises(errors.UnknownKindError):
        codec.decode_call(_raw({"kind": "brew-coffee"}))
    with pytest.raises(errors.UnknownKindError):
        codec.decode_event([codec.VERSION_FRAME, msgspec.msgpack.encode({"kind": "tea-time"})])
    with pytest.raises(errors.UnknownKindError):
        codec.decode_fact(msgspec.msgpack.encode({"kind": "coffee.brewed"}))


def test_a_message_of_another_conversation_is_an_unknown_kind() -> None:
    """A reply is no request: direction is part of the type."""
    with pytest.raises(errors.UnknownKindError):
        codec.decode_call(_raw({"kind": "ack"}))


@pytest.mark.parametrize(
    "request_body",
    [
        None,
        17,
        [],
        {},
        {"kind": 1},
        {"kind": "goodbye"},
        {"kind": "goodbye", "reason": 7},
        {"kind": "goodbye", "reason": "x" * 1025},
        {"kind": "ready", "service": "root", "instance": "", "boot_id": "", "pid": 1, "wire": 1},
        {"kind": "renew-with-lease", "lease_id": 1, "csr": b"0" * 65_537},
        {"kind": "get-member", "host": ""},
        {"kind": "get-member", "host": "h" * 254},
        {"kind": "get-approval", "approval_id": "../../etc"},
        {"kind": "get-approval", "approval_id": "ab\n"},
    ],
)
def test_a_body_outside_its_bounds_is_malformed(request_body: object) -> None:
    """Types and bounds are checked once, at the edge."""
    with pytest.raises(errors.MalformedMessageError):
        codec.decode_call(_raw(request_body))


def test_a_request_id_of_the_wrong_length_is_malformed() -> None:
    """Ids are the key of the reply memory: sixteen random bytes, always."""
    body = {"request_id": b"short", "ttl_ms": 1, "request": {"kind": "get-node"}}
    with pytest.raises(errors.MalformedMessageError):
        codec.decode_call([codec.VERSION_FRAME, msgspec.msgpack.encode(body)])


def test_an_oversized_frame_is_refused_before_it_is_decoded() -> None:
    """The frame holds a valid, small call padded to size: only the size check can refuse it."""
    valid = _raw({"kind": "goodbye", "reason": "x", "padding": b"\0" * codec.MESSAGE_BYTES_MAX})
    with pytest.raises(errors.OversizedMessageError):
        codec.decode_call(valid)
    with pytest.raises(errors.OversizedMessageError):
        codec.decode_answer(valid)
    with pytest.raises(errors.OversizedMessageError):
        codec.decode_event(valid)
    with pytest.raises(errors.OversizedMessageError):
        codec.decode_body(valid[1], SignedBundle)
    assert codec.request_id_of(valid) is None


def test_the_largest_allowed_frame_is_decoded() -> None:
    """The bound itself is allowed: no off-by-one between sender and receiver."""
    empty = len(_raw({"kind": "goodbye", "reason": "x", "padding": b"\0" * 70_000})[1])
    padding = b"\0" * (70_000 + codec.MESSAGE_BYTES_MAX - empty)
    frames = _raw({"kind": "goodbye", "reason": "x", "padding": padding})
    assert len(frames[1]) == codec.MESSAGE_BYTES_MAX
    assert codec.decode_call(frames).request == Goodbye(reason="x")


def test_deep_nesting_is_malformed_and_never_a_crash() -> None:
    """The decoder's recursion limit is a refusal like any other (row 39)."""
    for opener in (b"\x91", b"\x81\xa4kind"):
        bomb = opener * (codec.MESSAGE_BYTES_MAX // len(opener))
        with pytest.raises(errors.MalformedMessageError):
            codec.decode_call([codec.VERSION_FRAME, bomb])
        with pytest.raises(errors.MalformedMessageError):
            codec.decode_fact(bomb)
        assert codec.request_id_of([codec.VERSION_FRAME, bomb]) is None


def test_nesting_inside_a_field_nobody_knows_is_malformed() -> None:
    """Skipped fields are walked too, so they can be deep too."""
    head = msgspec.msgpack.encode({"kind": "roster-moved", "extra": None})
    bomb = head[:-1] + b"\x91" * 100_000
    with pytest.raises(errors.MalformedMessageError):
        codec.decode_event([codec.VERSION_FRAME, bomb])


def test_text_that_is_no_utf8_is_malformed() -> None:
    """The decoder's UnicodeDecodeError does not escape."""
    body = codec.encode(CALL)[1].replace(b"stopping", b"stop\xff\xfe\xfd\xfc")
    with pytest.raises(errors.MalformedMessageError):
        codec.decode_call([codec.VERSION_FRAME, body])


def test_the_refusal_of_an_unknown_kind_still_finds_its_caller() -> None:
    """The caller waits for this id; it must not wait until its deadline."""
    assert codec.request_id_of(_raw({"kind": "brew-coffee"})) == REQUEST_ID
    assert codec.request_id_of([b"\x01"]) is None
    assert codec.request_id_of([b"\x01", b"\xc1"]) is None


@HOSTILE
@given(frames=st.lists(st.binary(max_size=200), max_size=4))
def test_random_frames_only_ever_raise_mesh_errors(frames: list[bytes]) -> None:
    """By fault: what a peer sends can never be our traceback."""
    for decode in (codec.decode_call, codec.decode_answer, codec.decode_event):
        with contextlib.suppress(errors.MeshError):
            decode(frames)
    codec.request_id_of(frames)


@HOSTILE
@given(body=st.binary(max_size=400))
def test_random_bodies_only_ever_raise_mesh_errors(body: bytes) -> None:
    """The right version in front changes nothing."""
    for decode in (codec.decode_call, codec.decode_answer, codec.decode_event):
        with contextlib.suppress(errors.MeshError):
            decode([codec.VERSION_FRAME, body])
    with contextlib.suppress(errors.MeshError):
        codec.decode_fact(body)
    with contextlib.suppress(errors.MeshError):
        codec.decode_body(body, SignedBundle)


@HOSTILE
@given(
    name=st.sampled_from(sorted(stored())),
    place=st.integers(0, 10_000),
    flip=st.integers(1, 255),
    cut=st.integers(0, 50),
)
def test_damaged_real_messages_only_ever_raise_mesh_errors(
    name: str, place: int, flip: int, cut: int
) -> None:
    """Nearly right bytes reach deeper into the decoder than random ones (row 39)."""
    body = bytearray(stored()[name])
    body[place % len(body)] ^= flip
    damaged = bytes(body[: len(body) - cut])
    for decode in (codec.decode_call, codec.decode_answer, codec.decode_event):
        with contextlib.suppress(errors.MeshError):
            decode([codec.VERSION_FRAME, damaged])
    with contextlib.suppress(errors.MeshError):
        codec.decode_fact(damaged)
    codec.request_id_of([codec.VERSION_FRAME, damaged])


def test_an_event_is_no_call_and_a_call_is_no_event() -> None:
    """Frames of one socket fed to another are refused."""
    ready = Ready(service=Service.RENEWAL, instance="renewal-1", boot_id="b", pid=1, wire=1)
    with pytest.raises(errors.MeshError):
        codec.decode_event(codec.encode(Call(REQUEST_ID, 1, ready)))
    with pytest.raises(errors.MeshError):
        codec.decode_call(codec.encode(RosterMoved(term=1, sequence=1)))
