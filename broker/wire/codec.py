"""Frames: `[version, body]`, msgpack inside, size checked before decoding.

Whatever a peer sends ends in one of four typed refusals; nothing else can escape from here.
"""

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from broker.errors import (
    MalformedMessageError,
    MeshError,
    OversizedMessageError,
    UnknownKindError,
    UnsupportedVersionError,
)
from broker.wire.base import Body
from broker.wire.control import Fault
from broker.wire.facts import AnyFact
from broker.wire.messages import Answer, AnyEvent, Call

WIRE_VERSION = 2
"""Raised by a change that the other side could misread, never by a field or a kind that is new.

Within one version an older side ignores fields it does not know and refuses kinds it does not know
by name. Between versions nothing is read but who asks: the frames and the request id of a `Call`
and an `Answer` are the same in every version, so that a refusal finds its way. Nobody speaks two
versions: whoever is refused leaves, and its supervisor starts it from the release on disk.
"""
VERSION_FRAME = bytes([WIRE_VERSION])
MESSAGE_BYTES_MAX = 1_048_576
"""Largest body; the biggest real ones are a page of 500 members and a CRL."""

REASON_LENGTH_MAX = 160
"""Of what a decoder says; it quotes what a peer sent."""

_encoder = msgspec.msgpack.Encoder()
_calls: msgspec.msgpack.Decoder[Call] = msgspec.msgpack.Decoder(Call)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
_events: msgspec.msgpack.Decoder[AnyEvent] = msgspec.msgpack.Decoder(AnyEvent)
_facts: msgspec.msgpack.Decoder[AnyFact] = msgspec.msgpack.Decoder(AnyFact)

T = TypeVar("T")
B = TypeVar("B", bound=Body)


def encode(message: Call | Answer | AnyEvent) -> list[bytes]:
    """Return the frames of a message."""
    return [VERSION_FRAME, _encoder.encode(message)]


def decode_call(frames: Sequence[bytes]) -> Call:
    """Return the call in `frames`.

    Raises:
        MalformedMessageError: Not two frames, or bytes that are no message of this protocol.
        OversizedMessageError: Body over `MESSAGE_BYTES_MAX`; it was not decoded.
        UnsupportedVersionError: Another protocol version.
        UnknownKindError: A well-formed message of a kind this side does not know.
    """
    return _decode(frames, _calls)


def decode_answer(frames: Sequence[bytes]) -> Answer:
    """Return the answer in `frames`; raises as `decode_call`."""
    return _decode(frames, _answers)


def decode_event(frames: Sequence[bytes]) -> AnyEvent:
    """Return the event in `frames`; raises as `decode_call`."""
    return _decode(frames, _events)


def encode_fact(fact: AnyFact) -> bytes:
    """Return the canonical bytes of a fact, the input of the hash chain."""
    return _encoder.encode(fact)


def decode_fact(body: bytes) -> AnyFact:
    """Return the fact in journal bytes; raises `MalformedMessageError` or `UnknownKindError`."""
    return _guarded(body, _facts)


def encode_body(body: Body) -> bytes:
    """Return the msgpack bytes of a plain struct (signed bundles)."""
    return _encoder.encode(body)


def decode_body(raw: bytes, kind: type[B]) -> B:
    """Return the struct in `raw`; raises as `decode_call`."""
    if len(raw) > MESSAGE_BYTES_MAX:
        raise OversizedMessageError(f"{len(raw)} bytes, at most {MESSAGE_BYTES_MAX} are allowed")
    decoder: msgspec.msgpack.Decoder[B] = msgspec.msgpack.Decoder(kind)
    return _guarded(raw, decoder)


def request_id_of(frames: Sequence[bytes]) -> bytes | None:
    """Return the request id of a call or an answer that could not be decoded, if it has one.

    Lets a refusal reach the caller that waits for it, also when only the kind is unknown or when
    the version is another one.
    """
    if len(frames) != len((VERSION_FRAME, b"")) or len(frames[1]) > MESSAGE_BYTES_MAX:
        return None
    try:
        raw = msgspec.msgpack.decode(frames[1], type=_Envelope)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
        return None
    return raw.request_id


class _Envelope(Body, frozen=True):
    """Just enough of a `Call` to answer it, and of an `Answer` to know whose it is."""

    request_id: bytes


def _decode(frames: Sequence[bytes], decoder: msgspec.msgpack.Decoder[T]) -> T:
    if len(frames) != len((VERSION_FRAME, b"")):
        raise MalformedMessageError(f"expected 2 frames, got {len(frames)}")
    version, body = frames
    if len(body) > MESSAGE_BYTES_MAX:
        raise OversizedMessageError(f"{len(body)} bytes, at most {MESSAGE_BYTES_MAX} are allowed")
    if version != VERSION_FRAME:
        raise UnsupportedVersionError(
            f"wire version {version[:8].hex() or 'missing'}, this side speaks {WIRE_VERSION}",
            hint="bring both sides to the same release and start them again",
        )
    return _guarded(body, decoder)


def _guarded(body: bytes, decoder: msgspec.msgpack.Decoder[T]) -> T:
    # msgspec raises UnicodeDecodeError and RecursionError on hostile bytes, not only its own.
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        if "Invalid value" in str(error) and "kind" in str(error):
            raise UnknownKindError(
                f"message of an unknown kind: {str(error)[:REASON_LENGTH_MAX]!a}",
                hint="one side is newer: bring both to the same release and start them again",
            ) from None
        raise MalformedMessageError(f"not a valid message: {error}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
        raise MalformedMessageError("not a message of this protocol") from None


def fault_of(error: MeshError) -> Fault:
    """Return `error` in the form that crosses the wire."""
    return Fault(
        code=error.code.value,
        detail=error.detail[:1024],
        hint=error.hint[:1024],
        retry_after_ms=error.retry_after_ms,
    )
