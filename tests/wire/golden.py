"""Golden bytes: what every message looked like on the wire when it was first released.

After adding a message run `python -m tests.wire.golden`: it appends what is missing to
`golden.json` and never touches what is there. An entry may only be replaced by hand, together
with a new `WIRE_VERSION`.
"""

import json
from pathlib import Path

import msgspec

from broker.wire import roster
from broker.wire.codec import encode, encode_body, encode_fact
from broker.wire.facts import AnyFact
from broker.wire.messages import Answer, AnyEvent, Call
from broker.wire.work import CompleteWork, Lease, WorkAnswer, WorkItem, WorkResult
from tests.wire.samples import (
    EVENTS,
    FACTS,
    REPLIES,
    REQUESTS,
    WORK_ITEMS,
    WORK_RESULTS,
    sample,
    tag_of,
)

GOLDEN = Path(__file__).with_name("golden.json")
REQUEST_ID = bytes(range(16))
BODIES: tuple[type[msgspec.Struct], ...] = (roster.SignedBundle, roster.BundleBody)


def current() -> dict[str, bytes]:
    """Return the bytes of one sample of everything that crosses a process boundary."""
    return {**_calls(), **_answers(), **_hints(), **_facts(), **_bodies()}


def stored() -> dict[str, bytes]:
    """Return the golden bytes by name, such as `call/ready`."""
    return {name: bytes.fromhex(text) for name, text in json.loads(GOLDEN.read_text()).items()}


def _calls() -> dict[str, bytes]:
    found = {f"call/{tag_of(kind)}": _call(sample(kind)) for kind in REQUESTS}
    for kind in WORK_RESULTS:
        outcome = msgspec.convert(sample(kind), WorkResult)
        found[f"result/{tag_of(kind)}"] = _call(CompleteWork(lease_id=7, result=outcome))
    return found


def _call(request: msgspec.Struct) -> bytes:
    return encode(Call(request_id=REQUEST_ID, ttl_ms=5000, request=request))[1]  # type: ignore[arg-type]  # one of the union by construction


def _answers() -> dict[str, bytes]:
    found = {f"answer/{tag_of(kind)}": _answer(sample(kind)) for kind in REPLIES}
    for kind in WORK_ITEMS:
        item = msgspec.convert(sample(kind), WorkItem)
        lease = Lease(lease_id=7, ttl_ms=60_000, item=item)
        found[f"item/{tag_of(kind)}"] = _answer(WorkAnswer(lease=lease, next_in_ms=1))
    return found


def _answer(reply: msgspec.Struct) -> bytes:
    return encode(Answer(request_id=REQUEST_ID, reply=reply))[1]  # type: ignore[arg-type]  # one of the union by construction


def _hints() -> dict[str, bytes]:
    return {
        f"event/{tag_of(kind)}": encode(msgspec.convert(sample(kind), AnyEvent))[1]
        for kind in EVENTS
    }


def _facts() -> dict[str, bytes]:
    return {
        f"fact/{tag_of(kind)}": encode_fact(msgspec.convert(sample(kind), AnyFact))
        for kind in FACTS
    }


def _bodies() -> dict[str, bytes]:
    return {f"body/{kind.__name__}": encode_body(sample(kind)) for kind in BODIES}  # type: ignore[arg-type]  # all are Body


def append_missing() -> list[str]:
    """Add the bytes of kinds that have none yet; return their names."""
    kept = stored() if GOLDEN.exists() else {}
    made = current()
    missing = [name for name in made if name not in kept]
    merged = {**kept, **{name: made[name] for name in missing}}
    text = json.dumps({name: merged[name].hex() for name in sorted(merged)}, indent=1)
    GOLDEN.write_text(text + "\n")
    return missing


if __name__ == "__main__":
    print("\n".join(append_missing()) or "nothing to add")  # noqa: T201 (a script of the developer's)
