"""Ways in that speak the wire contract: frames, facts, pages, invites, answers of peers."""

import base64
import contextlib
import zlib

import msgspec

from broker.cli.api import problem_of
from broker.cli.trailfile import exported, read_export
from broker.core.limiter import AttemptLimiter
from broker.core.pace import Pace
from broker.core.paging import pack_orphans, pack_page, unpack_orphans, unpack_page
from broker.core.zap import DOMAIN, MECHANISM, VERSION, ZAPMalformedError, read_request
from broker.errors import MeshError
from broker.units import Millis, UnixSeconds
from broker.wire import codec
from broker.wire.audit import AuditLine
from broker.wire.base import Body, Message
from broker.wire.chain import GENESIS, check_trail, fields_of, row_hash
from broker.wire.claims import SignedHead
from broker.wire.enrollment import JoinAnswer, MeshAnswer
from broker.wire.failover import HelloAnswer
from broker.wire.invite import PREFIX, decode_invite, encode_invite
from broker.wire.mesh_api import InviteTicket, Problem
from broker.wire.renewal import InstallAnswer, RekeyAnswer, RenewalAnswer
from broker.wire.replica import (
    AdoptAnswer,
    JournalLine,
    JournalPage,
    KeyPackage,
    Mark,
    OrphanLine,
    OrphanPage,
)
from broker.wire.roster import BundleAnswer, HeartbeatAnswer
from broker.wire.slot import HalfAnswer
from tests.fuzz.place import file_of
from tests.fuzz.target import Target
from tests.wire.golden import stored
from tests.wire.samples import sample
from workers.notify.logic import NotTakenError, check_status
from workers.roster_sync.logic import check_bundle
from workers.transport import decoded, error_of

ANSWERS: tuple[type[Message] | type[Body], ...] = (
    AdoptAnswer,
    BundleAnswer,
    HalfAnswer,
    HeartbeatAnswer,
    HelloAnswer,
    InstallAnswer,
    JoinAnswer,
    KeyPackage,
    MeshAnswer,
    RekeyAnswer,
    RenewalAnswer,
)
"""What this node asks of others, and reads."""

FRAME_MARK = b"\xfe|"
"""Stands between the frames of one message, for targets that take several."""


def frames_of(octets: bytes) -> list[bytes]:
    """Return the frames that the octets stand for."""
    return octets.split(FRAME_MARK)


def _golden(kind: str) -> tuple[bytes, ...]:
    return tuple(body for name, body in sorted(stored().items()) if name.startswith(f"{kind}/"))


def _call(octets: bytes) -> None:
    frames = [codec.VERSION_FRAME, octets]
    codec.request_id_of(frames)
    codec.decode_call(frames)


def _frames(octets: bytes) -> None:
    codec.request_id_of(frames_of(octets))
    codec.decode_call(frames_of(octets))


def _invite(octets: bytes) -> None:
    # As the arguments of a program arrive, so also octets that are no UTF-8.
    decode_invite(octets.decode(errors="surrogateescape"))


def _ticket(octets: bytes) -> None:
    decode_invite(PREFIX + base64.urlsafe_b64encode(octets).decode().rstrip("="))


def _line() -> JournalLine:
    return JournalLine(
        term=3,
        at=UnixSeconds(1_780_000_000),
        node="atlas",
        incarnation="0a",
        actor="gateway",
        event="member.added",
        payload=_golden("fact")[0],
    )


def _page() -> bytes:
    head = SignedHead(body=b"\x80", signature=bytes(70))
    return pack_page(JournalPage(Mark(4, "00" * 32), (_line(), _line()), head, 7))


def _orphans() -> bytes:
    return pack_orphans(OrphanPage((OrphanLine(5, "11" * 32, _line()),)))


def _packed(octets: bytes) -> None:
    unpack_page(zlib.compress(octets, 1))


def _packed_orphans(octets: bytes) -> None:
    unpack_orphans(zlib.compress(octets, 1))


def _trail(octets: bytes) -> None:
    check_trail(read_export(file_of(octets, "trail.ndjson")))


def _trail_line() -> bytes:
    payload = _golden("fact")[0]
    bare = (1, 3, UnixSeconds(1_780_000_000), "atlas", "0a", "gateway")
    event = codec.decode_fact(payload).__struct_config__.tag
    digest = row_hash(GENESIS, (*bare, event, payload))
    return exported(
        AuditLine(
            sequence=1,
            term=3,
            at=bare[2],
            node="atlas",
            incarnation="0a",
            actor="gateway",
            event=str(event),
            payload=payload,
            fields=fields_of(payload),
            previous_hash=GENESIS.hex(),
            hash=digest.hex(),
        )
    )


def _answer(octets: bytes) -> None:
    for kind in ANSWERS:
        with contextlib.suppress(MeshError):
            decoded(octets, kind)


def _problem(octets: bytes) -> None:
    error_of(404, octets, "5")
    problem_of(404, octets, "5")


def _wait(octets: bytes) -> None:
    text = octets.decode("latin-1")
    error_of(429, msgspec.json.encode(sample(Problem)), text)
    problem_of(429, msgspec.json.encode(sample(Problem)), text)
    with contextlib.suppress(NotTakenError):
        check_status(429, text)


def _zap(octets: bytes) -> None:
    read_request(frames_of(octets))


def _zap_frames() -> bytes:
    return FRAME_MARK.join((VERSION, b"1", DOMAIN, b"10.0.0.7", b"", MECHANISM, bytes(32)))


def _limiter(octets: bytes) -> None:
    limiter = AttemptLimiter(5, 60_000)
    limiter.restore(octets, Millis(10_000), UnixSeconds(1_780_000_000))
    limiter.restore(octets, Millis(10_000), UnixSeconds(1_780_009_999))


def _pace(octets: bytes) -> None:
    pace = Pace()
    pace.restore(octets, Millis(10_000), UnixSeconds(1_780_000_000))


def _json_answers() -> tuple[bytes, ...]:
    return tuple(msgspec.json.encode(sample(kind)) for kind in ANSWERS)


_LIMITS = {"at": 1_780_000_000, "tables": {"code": {"10.0.0.7": (3, 900)}}, "closed_ms": 70}
_PACE = {"at": 1_780_000_000, "gone_ms": {"0a": 7_000, "own": 1}}

WIRE_TARGETS = (
    Target("call", _call, lambda: _golden("call"), "msgpack"),
    Target(
        "answer",
        lambda raw: codec.decode_answer([codec.VERSION_FRAME, raw]),
        lambda: _golden("answer"),
        "msgpack",
    ),
    Target(
        "event",
        lambda raw: codec.decode_event([codec.VERSION_FRAME, raw]),
        lambda: _golden("event"),
        "msgpack",
    ),
    Target("fact", fields_of, lambda: _golden("fact"), "msgpack"),
    Target(
        "frames",
        _frames,
        lambda: (FRAME_MARK.join((codec.VERSION_FRAME, _golden("call")[0])),),
    ),
    Target("invite", _invite, lambda: (encode_invite(sample(InviteTicket)).encode(),), "text"),
    Target("ticket", _ticket, lambda: (msgspec.json.encode(sample(InviteTicket)),), "json"),
    Target("page", unpack_page, lambda: (_page(),)),
    Target("page-inside", _packed, lambda: (zlib.decompress(_page()),), "msgpack"),
    Target("orphans", unpack_orphans, lambda: (_orphans(),)),
    Target("orphans-inside", _packed_orphans, lambda: (zlib.decompress(_orphans()),), "msgpack"),
    Target("trail", _trail, lambda: (_trail_line(), _trail_line() * 2), "json"),
    Target("peer-answer", _answer, _json_answers, "json"),
    Target("problem", _problem, lambda: (msgspec.json.encode(sample(Problem)),), "json"),
    Target(
        "retry-after",
        _wait,
        lambda: (b"5", b"-1", "٣".encode(), b"Wed, 21 Oct 2026 07:28:00 GMT"),
        "text",
        bytes_max=65_536,
    ),
    Target("bundle-octets", check_bundle, lambda: _golden("body"), "msgpack"),
    Target("zap", _zap, lambda: (_zap_frames(),), refusals=(ZAPMalformedError,)),
    Target("saved-limits", _limiter, lambda: (msgspec.msgpack.encode(_LIMITS),), "msgpack"),
    Target("saved-pace", _pace, lambda: (msgspec.msgpack.encode(_PACE),), "msgpack"),
)
