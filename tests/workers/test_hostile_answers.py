"""A member of the mesh that answers to do harm: it costs its own call, and no worker."""

import tracemalloc
from collections.abc import Iterator

import msgspec
import pytest

from broker.errors import ErrorCode, MeshError, OversizedMessageError
from broker.runtime.paths import Paths
from broker.wire.mesh_api import Problem
from broker.wire.renewal import InstallAnswer
from broker.wire.roster import WhoAmIAnswer
from broker.wire.work import Failed, Installed
from tests.workers.fake_node import FakeNode, Page
from tests.workers.loop_desk import enrol
from tests.workers.small_ca import SmallCA
from tests.workers.sweep_office import Book, Town, sweep
from workers.peer import PeerSession

PROBLEM = msgspec.json.encode(
    Problem("about:blank", "busy", 503, ErrorCode.UNAVAILABLE.value, "later")
)
HUGE = 48 * 1024 * 1024


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """The mesh's CA."""
    return SmallCA()


@pytest.fixture
def atlas(ca: SmallCA) -> Iterator[FakeNode]:
    """The node that means harm."""
    with FakeNode(ca, mutual=True) as node:
        yield node


@pytest.fixture
def session(paths: Paths, ca: SmallCA) -> Iterator[PeerSession]:
    """This node's calls."""
    with PeerSession(paths, enrol(paths, ca), timeout_s=5) as found:
        yield found


@pytest.mark.parametrize(
    "page",
    [
        Page(b"", 302, {"Location": "https://["}),
        Page(b"", 302, {"Location": "/\xff\xfe"}),
        Page(PROBLEM, 503, {"Retry-After": "9" * 5_000}),
    ],
    ids=["no URL", "no UTF-8", "more digits than Python reads"],
)
def test_whatever_a_header_holds_the_trouble_is_one_that_loops_know(
    session: PeerSession, atlas: FakeNode, page: Page
) -> None:
    """Anything but a MeshError ends the process that called, with all it had under way."""
    atlas.table["GET", "/v1/whoami"] = lambda _: page
    with pytest.raises(MeshError):
        session.call(atlas.endpoint(), "GET", "/v1/whoami", None, WhoAmIAnswer)


def test_a_wait_that_a_peer_asks_for_is_bounded(session: PeerSession, atlas: FakeNode) -> None:
    """A loop that obeyed would come back in thirty years."""
    page = Page(PROBLEM, 503, {"Retry-After": "999999999"})
    atlas.table["GET", "/v1/whoami"] = lambda _: page
    with pytest.raises(MeshError) as caught:
        session.call(atlas.endpoint(), "GET", "/v1/whoami", None, WhoAmIAnswer)
    assert caught.value.retry_after_ms == 3_600_000


def test_the_body_of_a_redirect_does_not_fill_our_memory(
    session: PeerSession, atlas: FakeNode
) -> None:
    """The library reads it whole before anybody can look at its size (row 33)."""
    page = Page(bytes(HUGE), 302, {"Location": "/elsewhere"})
    atlas.table["GET", "/v1/whoami"] = lambda _: page
    tracemalloc.start()
    try:
        with pytest.raises(OversizedMessageError):
            session.call(atlas.endpoint(), "GET", "/v1/whoami", None, WhoAmIAnswer)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < HUGE // 4


def test_an_error_that_nobody_foresaw_is_one_members_failure() -> None:
    """Its answer did something to a library; the others in flight must not pay for that."""
    book = Book(["pi", "nas"])
    tally, _ = sweep(book, Town(lambda host, _: ValueError("odd") if host == "pi" else None))
    assert (tally.renewed, tally.failed) == (1, 1)
    assert book.results["pi"] == Failed("the call failed (ValueError)")
    assert book.results["nas"] == Installed("1f", "served", "")


def test_a_member_that_answers_for_another_certificate_has_not_been_renewed() -> None:
    """An old serial of its own would count as a success: no backoff, `Certificate renewed`."""
    other = InstallAnswer("2e", "served", "")
    book = Book(["pi"])
    tally, _ = sweep(book, Town(lambda _, step: other if step == "install" else None))
    assert (tally.renewed, tally.failed) == (0, 1)
    (result,) = book.results.values()
    assert isinstance(result, Failed)
    assert "another certificate" in result.detail
