"""What a laboratory asks its switch: one JSON object per packet of a socket pair, one answer each.

The switch ends when the other end of the socket is closed; everything it started ends with it.
"""

import msgspec

from tests.lab.link import Quality

PACKET_BYTES_MAX = 65_536


class Boot(msgspec.Struct, frozen=True, tag="boot"):
    """Make the namespaces of a host and plug it in; answered by `Booted`."""

    host: str
    address: str


class PowerOff(msgspec.Struct, frozen=True, tag="power-off"):
    """Unplug a host first, then kill all that runs in it: nobody on the LAN hears a goodbye."""

    host: str


class SetLink(msgspec.Struct, frozen=True, tag="set-link"):
    """Make one direction between two hosts this good."""

    source: str
    target: str
    quality: Quality


class Heal(msgspec.Struct, frozen=True, tag="heal"):
    """Make all links perfect."""


class CountFrames(msgspec.Struct, frozen=True, tag="count-frames"):
    """Ask what one direction did so far; answered by `Frames`."""

    source: str
    target: str


class Done(msgspec.Struct, frozen=True, tag="done"):
    """It is so now."""


class Booted(msgspec.Struct, frozen=True, tag="booted"):
    """The host runs; `pid` is its first process, as the switch's namespace numbers it."""

    pid: int


class Frames(msgspec.Struct, frozen=True, tag="frames"):
    """Frames of one direction since the laboratory was opened."""

    passed: int
    dropped: int


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """It could not be done."""

    reason: str


Question = Boot | PowerOff | SetLink | Heal | CountFrames
Answer = Done | Booted | Frames | Failed

_questions: msgspec.json.Decoder[Question] = msgspec.json.Decoder(Question)
_answers: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)


def question_of(packet: bytes) -> Question:
    """Return the question in a packet.

    Raises:
        msgspec.MsgspecError: It is none.
    """
    return _questions.decode(packet)


def answer_of(packet: bytes) -> Answer:
    """Return the answer in a packet."""
    return _answers.decode(packet)
