"""What roster-sync asks for, how patiently, and how each failure is called."""

from typing import Any

import msgspec
import pytest

from broker.errors import (
    BundleRejectedError,
    ClaimRejectedError,
    ForkedError,
    KeyRejectedError,
    MalformedMessageError,
    PeerUnreachableError,
)
from broker.wire.node import Endpoint, NodeView
from broker.wire.replica import PageInstalled
from broker.wire.roster import SignedBundle
from tests.workers.loop_desk import endpoint, node_in_mesh
from workers.roster_sync.logic import (
    BUNDLE_BYTES_MAX,
    BUNDLE_EVERY,
    EARLY_MS,
    PAGE_BYTES_MAX,
    SETTLE_MS,
    SOURCES_MAX,
    WAIT_MS,
    Pace,
    backoff_ms,
    bundle_path,
    check_bundle,
    check_page,
    in_own_words,
    is_askable,
    sources,
    state_of,
)

BUNDLE = msgspec.msgpack.encode(SignedBundle(body=b"body", issuing=b"der", signature=b"sig"))
HUGE = msgspec.msgpack.encode(SignedBundle(bytes(BUNDLE_BYTES_MAX), b"der", b"sig"))


def member(*key_holders: Endpoint) -> NodeView:
    """Return node-b, which knows these key holders."""
    return node_in_mesh(key_holders=key_holders)


def installed(**changes: Any) -> PageInstalled:
    """Return what the broker says of an empty page; `changes` replace fields."""
    return msgspec.structs.replace(PageInstalled(sequence=9, behind=0, rows=0), **changes)


def test_the_primary_comes_first_and_a_node_is_never_its_own_source() -> None:
    """A standby that syncs from itself is always in sync."""
    node = member(endpoint("NODE-B"), endpoint("node-a"), endpoint("node-s"))

    assert [source.host for source in sources(node, endpoint("node-a"))] == ["node-a", "node-s"]
    assert sources(member(), endpoint("node-b")) == ()
    assert sources(member(), None) == ()


def test_only_another_node_with_an_address_can_be_asked() -> None:
    """Also when the broker's plan says otherwise."""
    nowhere = Endpoint("node-a", (), 7642, 7643, "node-a.home.internal")

    assert is_askable(endpoint("node-a"), "node-b")
    assert not is_askable(endpoint("Node-B"), "node-b")
    assert not is_askable(nowhere, "node-b")
    assert not is_askable(None, "node-b")


def test_sources_are_bounded() -> None:
    """A broken roster must not make a round last for ever."""
    many = [endpoint(f"node-{number}") for number in range(40)]

    assert len(sources(member(*many), endpoint("node-a"))) == SOURCES_MAX


def test_only_news_are_asked_for_by_term_and_sequence() -> None:
    """An unchanged bundle costs no octets, and another primary's number is not mistaken for it."""
    assert bundle_path(member()) == "/v1/bundle?after=7&term=3"


@pytest.mark.parametrize(
    "octets",
    [b"\xc1", b"{}", BUNDLE[:-1], b"\x81\xa4body\xa3\xff\xff\xff", HUGE],
    ids=["reserved byte", "JSON", "torn", "no text", "oversized"],
)
def test_what_is_no_bundle_is_refused(octets: bytes) -> None:
    """Garbage never reaches the broker."""
    with pytest.raises(MalformedMessageError):
        check_bundle(octets)
    check_bundle(BUNDLE)


def test_a_page_that_no_message_could_carry_is_refused() -> None:
    """What is in a page is for the broker; its size is for the worker."""
    for octets in (b"", bytes(PAGE_BYTES_MAX + 1)):
        with pytest.raises(MalformedMessageError):
            check_page(octets)
    check_page(bytes(PAGE_BYTES_MAX))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BundleRejectedError("x"), "verification failed: x"),
        (ClaimRejectedError("x"), "verification failed: x"),
        (KeyRejectedError("x"), "verification failed: x"),
        (ForkedError("x"), "forked: x"),
        (MalformedMessageError("x"), "bad format: x"),
        (PeerUnreachableError("x"), "fetch failed: x"),
        (KeyError("x"), "crashed fetch: KeyError: 'x'"),
    ],
)
def test_each_failure_has_its_own_words(error: Exception, words: str) -> None:
    """The log tells them apart."""
    assert in_own_words(error) == words


def test_the_first_question_is_short_and_looks_for_the_bundle_as_well() -> None:
    """Nobody knows yet how far behind this node is, and `--once` must end."""
    assert Pace().wait_ms == SETTLE_MS
    assert Pace().asks_bundle


def test_a_lagging_standby_asks_again_at_once_and_acknowledges_before_the_bundle() -> None:
    """The primary shows a bundle only when a standby has said that it has the rows."""
    pace, next_ms = Pace(is_level=True).after(installed(rows=3, behind=40), spent_ms=5)

    assert next_ms == 0
    assert pace.wait_ms == SETTLE_MS
    assert not pace.asks_bundle


def test_a_level_standby_waits_with_patience() -> None:
    """One request in twenty seconds when nothing happens."""
    pace, next_ms = Pace(pages=1).after(installed(), spent_ms=SETTLE_MS)

    assert (pace.wait_ms, pace.asks_bundle, next_ms) == (WAIT_MS, True, 0)
    assert pace.after(installed(), spent_ms=WAIT_MS) == (pace, 0)


def test_rows_without_a_pause_do_not_keep_a_revocation_away() -> None:
    """The bundle comes along with every tenth page."""
    pace, asked = Pace(is_level=True), 0
    for _ in range(2 * BUNDLE_EVERY):
        pace, _next_ms = pace.after(installed(rows=1), spent_ms=5)
        asked += pace.asks_bundle

    assert asked == 2


@pytest.mark.parametrize("behind", [0, 7])
def test_a_primary_that_never_waits_does_not_cause_a_storm(behind: int) -> None:
    """Empty answers at once, whatever it says of rows to come."""
    pace = Pace(is_level=True)
    for _ in range(5):
        pace, next_ms = pace.after(installed(behind=behind), spent_ms=10)
        assert next_ms == EARLY_MS - 10


def test_a_fork_is_progress() -> None:
    """Rows were cut off and none added yet: the next page continues at once."""
    assert Pace(is_level=True).after(installed(orphaned=4), spent_ms=5)[1] == 0


def test_the_wait_after_failures_is_short_and_bounded() -> None:
    """A standby that waits for minutes cannot take over."""
    assert [backoff_ms(count) for count in (1, 2, 3, 4, 1000)] == [1000, 2000, 5000, 5000, 5000]


def test_the_state_says_how_far_behind() -> None:
    """For `certmesh ps`."""
    assert state_of("node-a", installed(behind=3)) == "3 rows behind node-a"
    assert state_of("node-a", installed()) == "in step with node-a"
