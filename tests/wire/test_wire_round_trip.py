"""Every message survives the wire unchanged, and old bytes stay readable."""

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.wire import mesh_api, node, roster
from broker.wire.codec import (
    VERSION_FRAME,
    WIRE_VERSION,
    decode_answer,
    decode_body,
    decode_call,
    decode_event,
    decode_fact,
    encode,
    encode_body,
    encode_fact,
)
from broker.wire.messages import Answer, AnyEvent, AnyReply, AnyRequest, Call
from tests.wire.golden import REQUEST_ID, current, stored
from tests.wire.samples import (
    EVENTS,
    FACTS,
    REPLIES,
    REQUESTS,
    WORK_ITEMS,
    WORK_RESULTS,
    instances,
    tag_of,
)

if TYPE_CHECKING:
    from broker.wire.facts import AnyFact

QUICK = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
JSON_BODIES = (
    mesh_api.JoinBody,
    mesh_api.RenewBody,
    mesh_api.InstalledBody,
    mesh_api.HeartbeatBody,
    mesh_api.InstallBody,
    mesh_api.HelloBody,
    mesh_api.Problem,
    node.Membership,
)


@pytest.mark.parametrize("kind", REQUESTS, ids=tag_of)
@QUICK
@given(data=st.data())
def test_a_request_arrives_as_it_was_sent(kind: type[Any], data: st.DataObject) -> None:
    """Encoder and decoder agree on every field of every request."""
    request: AnyRequest = data.draw(instances(kind))
    call = Call(request_id=REQUEST_ID, ttl_ms=1, request=request)
    assert decode_call(encode(call)) == call


@pytest.mark.parametrize("kind", REPLIES, ids=tag_of)
@QUICK
@given(data=st.data())
def test_a_reply_arrives_as_it_was_sent(kind: type[Any], data: st.DataObject) -> None:
    """Encoder and decoder agree on every field of every reply."""
    reply: AnyReply = data.draw(instances(kind))
    answer = Answer(request_id=REQUEST_ID, reply=reply)
    assert decode_answer(encode(answer)) == answer


@pytest.mark.parametrize("kind", EVENTS, ids=tag_of)
@QUICK
@given(data=st.data())
def test_an_event_arrives_as_it_was_sent(kind: type[Any], data: st.DataObject) -> None:
    """Encoder and decoder agree on every field of every event."""
    event: AnyEvent = data.draw(instances(kind))
    assert decode_event(encode(event)) == event


@pytest.mark.parametrize("kind", FACTS, ids=tag_of)
@QUICK
@given(data=st.data())
def test_a_fact_reads_back_as_it_was_written(kind: type[Any], data: st.DataObject) -> None:
    """The journal gives back what was committed, byte for byte."""
    fact: AnyFact = data.draw(instances(kind))
    written = encode_fact(fact)
    assert decode_fact(written) == fact
    assert encode_fact(decode_fact(written)) == written


@QUICK
@given(bundle=instances(roster.SignedBundle), body=instances(roster.BundleBody))
def test_a_signed_bundle_reads_back(bundle: roster.SignedBundle, body: roster.BundleBody) -> None:
    """Standbys and members verify exactly the octets that were signed."""
    assert decode_body(encode_body(bundle), roster.SignedBundle) == bundle
    assert decode_body(encode_body(body), roster.BundleBody) == body


@pytest.mark.parametrize("kind", JSON_BODIES, ids=lambda kind: kind.__name__)
@QUICK
@given(data=st.data())
def test_a_json_body_between_nodes_reads_back(kind: type[Any], data: st.DataObject) -> None:
    """Bodies over HTTP lose nothing, bytes travel as base64."""
    body = data.draw(instances(kind))
    assert msgspec.json.decode(msgspec.json.encode(body), type=kind) == body


def test_every_kind_has_golden_bytes_and_none_disappeared() -> None:
    """After adding a message run `python -m tests.wire.golden`; a removed one breaks old peers."""
    assert set(stored()) == set(current())


@pytest.mark.parametrize("name", sorted(stored()))
def test_bytes_of_the_first_release_still_mean_the_same(name: str) -> None:
    """Fields may be added last with a default; nothing may be renamed, retyped or removed."""
    golden = stored()[name]
    again = _again(name.partition("/")[0], name, golden)
    assert _missing_from(msgspec.msgpack.decode(golden), msgspec.msgpack.decode(again)) == []


def _again(family: str, name: str, golden: bytes) -> bytes:
    frames = [VERSION_FRAME, golden]
    match family:
        case "call" | "result":
            return encode(decode_call(frames))[1]
        case "answer" | "item":
            return encode(decode_answer(frames))[1]
        case "event":
            return encode(decode_event(frames))[1]
        case "fact":
            return encode_fact(decode_fact(golden))
        case _:
            return encode_body(decode_body(golden, getattr(roster, name.partition("/")[2])))


def _missing_from(old: Any, new: Any, path: str = "$") -> list[str]:
    """Return the paths of `old` that `new` lacks or says differently."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key, value in old.items()
            for line in (
                _missing_from(value, new[key], f"{path}.{key}")
                if key in new
                else [f"{path}.{key} is gone"]
            )
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            line
            for index, value in enumerate(old)
            for line in _missing_from(value, new[index], f"{path}[{index}]")
        ]
    return [] if old == new else [f"{path}: {old!r} became {new!r}"]


def test_every_message_carries_the_version_in_a_frame_of_its_own() -> None:
    """A peer can refuse another version without decoding anything."""
    for kind in REQUESTS[:1]:
        frames = encode(Call(REQUEST_ID, 1, msgspec.convert(_plain(kind), AnyRequest)))
        assert frames[0] == bytes([WIRE_VERSION])
        assert len(frames) == 2


def _plain(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {"kind": tag_of(kind), "service": "renewal"} | {
        "instance": "renewal-1",
        "boot_id": "b",
        "pid": 1,
        "wire": WIRE_VERSION,
    }


def test_no_two_kinds_share_a_tag() -> None:
    """A tag names one meaning for ever; facts are the audit trail's event names."""
    for family in (REQUESTS, REPLIES, EVENTS, FACTS, WORK_ITEMS, WORK_RESULTS):
        tags = [tag_of(kind) for kind in family]
        assert sorted(tags) == sorted(set(tags))


def test_every_fact_is_named_noun_dot_past_verb() -> None:
    """`certificate.issued`, not `IssueCertificate`: the journal tells what happened."""
    for kind in FACTS:
        noun, _, verb = tag_of(kind).partition(".")
        assert noun.isalpha(), kind
        assert verb.replace("_", "").isalpha(), kind


def test_a_field_from_the_future_is_tolerated() -> None:
    """A newer peer may say more than we understand (row 54)."""
    future = {"kind": "roster-moved", "term": 1, "sequence": 2, "weather": "fine"}
    event = decode_event([VERSION_FRAME, msgspec.msgpack.encode(future)])
    assert tag_of(type(event)) == "roster-moved"
