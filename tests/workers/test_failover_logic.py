"""Hints find addresses; only verified claims are evidence."""

from typing import Any

import msgspec
import pytest

from broker.errors import PeerUnreachableError
from broker.wire.claims import Gossip
from broker.wire.failover import FailoverPlan, HelloAnswer, Hint, Sighting
from broker.wire.mesh_api import HelloBody
from broker.wire.node import Endpoint
from tests.workers.loop_desk import GOSSIP, PIN, claim_of, endpoint
from workers.failover.logic import (
    HINT_ADDRESSES_MAX,
    HINTED_PROBES_MAX,
    HINTS_MAX,
    LABEL_BYTES_MAX,
    best,
    hello,
    hint_of,
    instance_label,
    keep,
    others,
    probes,
    sighting,
)

TXT: dict[bytes, bytes | None] = {
    b"role": b"primary",
    b"fingerprint": PIN.encode(),
    b"term": b"3",
}


def plan(*targets: Endpoint, host: str = "node-b") -> FailoverPlan:
    """Return the plan of `host`."""
    return FailoverPlan(announce=None, targets=targets, discovery=True, pin=PIN, host=host)


def hint(instance: str = "certmesh-ca-node-a", **changes: Any) -> Hint:
    """Return a well-formed hint; `changes` replace fields."""
    made = hint_of(instance, ["127.0.0.9"], 7642, TXT)
    assert made is not None
    return msgspec.structs.replace(made, **changes)


def answer(host: str = "node-a") -> HelloAnswer:
    """Return what a primary says of itself, and what it has heard."""
    return HelloAnswer(claim_of(host), GOSSIP)


def test_a_record_becomes_a_hint() -> None:
    """The fields an honest announcer sends."""
    assert hint() == Hint(
        instance="certmesh-ca-node-a",
        addresses=("127.0.0.9",),
        port=7642,
        role="primary",
        fingerprint=PIN,
        term="3",
    )


@pytest.mark.parametrize(
    "txt",
    [
        {b"role": b"\xff\xfe\x00king", b"fingerprint": b"<script>", b"term": b"-1"},
        {b"role": None, b"fingerprint": None, b"term": None},
        {b"role": b"x" * 5000, b"fingerprint": b"AB" * 32, b"term": "\N{SUPERSCRIPT TWO}".encode()},
        {},
    ],
)
def test_garbage_in_txt_leaves_empty_fields(txt: dict[bytes, bytes | None]) -> None:
    """What is not a role, a fingerprint or a number is nothing."""
    made = hint_of("x", ["127.0.0.9"], 7642, txt)

    assert made is not None
    assert (made.role, made.fingerprint, made.term) == ("", "", "")


def test_control_characters_and_length_of_a_name_are_cut() -> None:
    """Names end up on screens and in logs (row 25)."""
    made = hint("evil\x1b[2J\n\u202e" + "x" * 500)

    assert made.instance.isprintable()
    assert len(made.instance) == LABEL_BYTES_MAX


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "2001:4860:4860::8888", "0.0.0.0", "224.0.0.251", "nonsense", ""],  # noqa: S104 (data)
)
def test_a_stranger_cannot_send_this_node_out_of_the_lan(address: str) -> None:
    """A hint must not make this node dial anything but its own network."""
    assert hint_of("x", [address], 7642, TXT) is None


@pytest.mark.parametrize("port", [None, 0, -1, 65_536])
def test_a_record_without_a_port_is_no_hint(port: int | None) -> None:
    """Nobody could be asked there."""
    assert hint_of("x", ["127.0.0.9"], port, TXT) is None


def test_addresses_of_a_hint_are_bounded() -> None:
    """One record must not cost hundreds of connections."""
    made = hint_of("x", [f"10.0.0.{number}" for number in range(99)], 7642, TXT)

    assert made is not None
    assert len(made.addresses) == HINT_ADDRESSES_MAX


def test_a_flood_of_foreign_records_is_bounded_and_our_own_stay() -> None:
    """64 hints, and a record of our CA is not pushed out by those of others (row 23)."""
    hints = keep({}, "ours", hint(), PIN)
    for number in range(500):
        foreign = hint(f"flood-{number}", fingerprint="cd" * 32)
        hints = keep(hints, f"flood-{number}", foreign, PIN)

    assert len(hints) == HINTS_MAX
    assert "ours" in hints


def test_a_flood_that_claims_our_ca_does_not_push_out_what_was_there() -> None:
    """The fingerprint is public; anybody can repeat it."""
    hints = keep({}, "ours", hint(), PIN)
    for number in range(500):
        hints = keep(hints, f"flood-{number}", hint(f"flood-{number}"), PIN)

    assert len(hints) == HINTS_MAX
    assert "ours" in hints


def test_an_update_replaces_a_hint_also_when_full() -> None:
    """A new term is news about a known record, not one more."""
    hints: dict[str, Hint] = {}
    for number in range(HINTS_MAX):
        hints = keep(hints, f"n{number}", hint(), PIN)

    hints = keep(hints, "n5", hint(term="4"), PIN)

    assert len(hints) == HINTS_MAX
    assert hints["n5"].term == "4"


def test_this_node_is_never_probed() -> None:
    """A node that asks itself would find that somebody lives."""
    assert probes(plan(endpoint("node-b"), endpoint("NODE-B")), [hint("certmesh-ca-node-b")]) == ()


def test_each_key_holder_is_probed_once() -> None:
    """In the plan's order."""
    given = plan(endpoint("node-a"), endpoint("node-c"), endpoint("Node-A"))

    assert [target.host for target in others(given)] == ["node-a", "node-c"]


def test_a_hint_adds_an_address_for_a_known_key_holder_and_nothing_else() -> None:
    """Name and port stay what the roster says; the hint only says where else to look."""
    found = probes(plan(endpoint("node-a")), [hint()])

    assert found[0] == endpoint("node-a")
    assert found[1] == endpoint("node-a", address="127.0.0.9")
    assert len(found) == 2


def test_a_hint_of_an_unknown_node_is_not_probed() -> None:
    """Only the roster says who is a key holder."""
    assert probes(plan(), [hint("certmesh-ca-node-z")]) == ()
    assert len(probes(plan(endpoint("node-a")), [hint("certmesh-ca-node-z")])) == 1


def test_a_hint_of_another_ca_adds_nothing() -> None:
    """Two meshes may share a LAN."""
    assert len(probes(plan(endpoint("node-a")), [hint(fingerprint="cd" * 32)])) == 1
    assert len(probes(plan(endpoint("node-a")), [hint(fingerprint="")])) == 1


def test_hinted_probes_are_bounded() -> None:
    """A spoofer with many records for one host costs a few connections."""
    many = [hint(addresses=(f"10.0.0.{number}",)) for number in range(50)]

    assert len(probes(plan(endpoint("node-a")), many)) == 1 + HINTED_PROBES_MAX


def test_a_claim_under_another_name_is_no_claim() -> None:
    """Verified is not enough: it must be the one that was asked."""
    seen = sighting(endpoint("node-a"), answer("node-c"))

    assert (seen.claim, seen.gossip) == (None, Gossip())
    assert "answered as node-c" in seen.error


def test_a_sighting_carries_the_claim_and_what_its_owner_has_heard() -> None:
    """The broker verifies the beats; whoever brings them does not matter."""
    seen = sighting(endpoint("node-a"), answer("Node-A"))

    assert seen == Sighting("node-a", "127.0.0.1", claim_of("Node-A"), "", GOSSIP)


def test_a_node_without_a_claim_has_nothing_to_say() -> None:
    """None: no key holder, so nobody is asked."""
    assert hello(plan()) is None
    speaking = msgspec.structs.replace(plan(), claim=claim_of("node-b"), gossip=GOSSIP)
    assert hello(speaking) == HelloBody(claim_of("node-b"), GOSSIP)


def test_a_failed_probe_says_why() -> None:
    """In words for people, without control characters."""
    seen = sighting(endpoint("node-a"), PeerUnreachableError("refused\x1b[2J"))

    assert seen == Sighting("node-a", "127.0.0.1", None, "refused[2J")
    assert sighting(endpoint("node-a"), KeyError("bug")).error == "KeyError: 'bug'"


def test_a_verified_claim_beats_failures_at_other_addresses() -> None:
    """One living address is enough to be alive."""
    dead = sighting(endpoint("node-a"), PeerUnreachableError("refused"))
    alive = sighting(endpoint("node-a", address="127.0.0.9"), answer())

    assert best([dead, alive, dead]) == (alive,)
    assert best([dead]) == (dead,)


def test_long_instance_names_fit_a_label_and_stay_apart() -> None:
    """Host names may have 253 characters, a DNS label 63 bytes."""
    labels = {instance_label("certmesh-ca-" + "h" * 200 + str(number)) for number in range(3)}

    assert len(labels) == 3
    assert all(len(label.encode()) <= LABEL_BYTES_MAX for label in labels)
    assert instance_label("certmesh-ca-node-a") == "certmesh-ca-node-a"


def test_a_hint_for_a_long_host_name_is_recognised() -> None:
    """The announcer cuts the name the same way."""
    host = "h" * 200
    found = probes(plan(endpoint(host)), [hint(instance_label(f"certmesh-ca-{host}"))])

    assert len(found) == 2
