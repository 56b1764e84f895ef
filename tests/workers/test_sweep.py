"""Several members in flight: order, bounds, hung members, lost leases, stops, absent brokers."""

import threading
from typing import Any

import pytest

from broker.errors import (
    DeadlineError,
    LeaseLostError,
    NotAMemberError,
    PeerUnreachableError,
    StorageError,
    UnavailableError,
)
from broker.wire.mesh_api import InstallBody, RekeyBody
from broker.wire.renewal import RenewWithLease
from broker.wire.work import (
    CompleteWork,
    ExtendLease,
    Failed,
    Installed,
    LeaseWork,
    ReleaseLease,
)
from tests.support import eventually
from tests.workers.sweep_office import TERM, Book, Seat, Town, member, policy, sweep
from workers import calls, flight
from workers.renewed import Tally
from workers.sweep import Sweep

MANY = [f"m{number:03d}" for number in range(40)]


def calling() -> list[threading.Thread]:
    """Return the threads that call members."""
    return [thread for thread in threading.enumerate() if thread.name == "call"]


def test_every_due_member_gets_a_key_a_certificate_and_a_delivery() -> None:
    """Reference defect 13: renewed certificates were never sent."""
    book, town = Book(MANY), Town()
    tally, _ = sweep(book, town)
    assert (tally.renewed, tally.failed) == (40, 0)
    assert book.results == dict.fromkeys(MANY, Installed("1f", "served", ""))
    assert all(town.steps(host) == ["csr", "install"] for host in MANY)
    assert set(book.signed.values()) == {1}


def test_a_delivery_carries_what_was_signed_and_both_calls_the_term_and_the_mandate() -> None:
    """The member refuses a primary that was replaced, and a stranger without a mandate."""
    book, town = Book(["pi"]), Town()
    sweep(book, town)
    rekey, install = town.bodies
    assert rekey == RekeyBody(TERM, None)
    assert install == InstallBody(leaf=b"pi", issuing=b"issuing", term=TERM, mandate=None)


def test_no_more_members_are_in_flight_than_the_settings_say() -> None:
    """Threads, sockets and leases of one process are bounded."""
    for bound in (1, 5):
        gate, most = threading.Barrier(bound), [0]
        book, town = Book(MANY[:20]), Town()

        def together(_host: str, _step: str, gate: threading.Barrier = gate) -> None:
            gate.wait(5)

        def look(_: object, book: Book = book, most: list[int] = most) -> None:
            most.append(len(book.granted))

        town.says, book.before = together, look
        sweep(book, town, in_flight=bound)
        assert town.in_call_max == bound
        assert max(most) == bound
        assert len(book.results) == 20


def test_a_hung_member_costs_one_place_and_nobody_elses_time() -> None:
    """One in a hundred members hangs in any large mesh: the others must not wait for it.

    (row 33, P10)
    """
    stuck = threading.Event()
    hung = {"m000", "m001"}

    def says(host: str, _: str) -> Any:
        if host in hung and not stuck.wait(20):
            raise AssertionError("the others were never done")
        return PeerUnreachableError("did not answer in time") if host in hung else None

    book, town = Book(MANY), Town(says)

    def freed(_: object) -> None:
        if set(book.results) >= set(MANY) - hung:
            stuck.set()

    book.before = freed
    tally, _ = sweep(book, town, in_flight=3)
    assert (tally.renewed, tally.failed) == (38, 2)
    assert book.results["m000"] == Failed("did not answer in time")


def test_a_call_that_never_ends_by_itself_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a member does to our connection, its place is free again after the deadline."""
    monkeypatch.setattr(calls, "GRACE_MS", 50)
    book = Book(["pi", "nas"])
    town = Town(lambda host, _: ... if host == "pi" else None)
    tally, took_ms = sweep(book, town, peer_timeout="100ms")
    assert (tally.renewed, tally.failed) == (1, 1)
    assert book.results["pi"] == Failed("no answer within 0.1 s")
    assert took_ms < 2000
    eventually(lambda: not calling())
    assert town.open == set()


def test_a_key_is_asked_for_with_the_peers_deadline_and_a_delivery_has_time_for_hooks() -> None:
    """A member answers a delivery when its hooks have run."""
    town = Town()
    sweep(Book(["pi"]), town, peer_timeout="7s")
    assert town.timeouts == {"csr": 7.0, "install": 125.0}


def test_one_members_failure_is_reported_and_does_not_stop_the_others() -> None:
    """Reference: one member's failure never stops the batch."""
    lost = PeerUnreachableError("refused the connection", hint="is it on?")
    book, town = Book(MANY[:5]), Town(lambda host, _: lost if host == "m002" else None)
    tally, _ = sweep(book, town)
    assert (tally.renewed, tally.failed) == (4, 1)
    assert book.results["m002"] == Failed("refused the connection (is it on?)")
    assert book.signed["m002"] == 0


def test_a_member_that_goes_on_installing_has_not_failed_for_another_reason() -> None:
    """Its gateway stops waiting after two minutes; the report follows."""
    late = DeadlineError("the broker did not answer")
    book = Book(["pi"])
    sweep(book, Town(lambda _, step: late if step == "install" else None))
    assert book.results == {"pi": Failed(flight.STILL_INSTALLING)}


def test_nothing_is_delivered_under_a_lease_that_was_lost_meanwhile() -> None:
    """Another worker has the member; two deliveries would race."""
    book = Book(["pi", "nas"])
    town = Town(lambda host, _: book.lose("pi") if host == "pi" else None)
    tally, _ = sweep(book, town)
    assert town.steps("pi") == ["csr"]
    assert (tally.renewed, list(book.results)) == (1, ["nas"])
    assert len([one for one in book.asked if isinstance(one, CompleteWork)]) == 1


def test_a_lease_lost_during_the_delivery_drops_the_result() -> None:
    """The answer of whoever holds the lease counts."""
    book = Book(["pi"])
    town = Town(lambda _, step: book.lose("pi") if step == "install" else None)
    tally, _ = sweep(book, town)
    assert (tally.renewed, tally.failed, book.results) == (0, 0, {})
    assert len([one for one in book.asked if isinstance(one, CompleteWork)]) == 1


def test_a_signature_that_came_late_is_asked_for_again_before_the_delivery(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker frozen between signature and delivery would deliver under another one's lease."""
    monkeypatch.setattr(flight, "PROOF_MS", 100)
    monkeypatch.setattr(flight, "AGAIN_MS", 10)
    book, town, frozen = Book(["pi"]), Town(), threading.Event()

    def freeze(request: object) -> None:
        if book.signed["pi"] == 0 and not isinstance(request, LeaseWork):
            frozen.wait(0.3)

    book.before = freeze
    sweep(book, town)
    assert book.signed["pi"] == 2
    assert town.steps("pi") == ["csr", "install"]


def test_leases_are_kept_for_as_long_as_the_members_take() -> None:
    """A slow member must not be given to a second worker meanwhile."""
    book, enough = Book(["pi"], ttl_ms=90), threading.Event()
    town = Town(lambda _host, step: enough.wait(5) and None if step == "install" else None)

    def often() -> None:
        if len(book.posted) > 4:
            enough.set()

    book.after_post = often
    sweep(book, town)
    assert enough.is_set()
    assert {type(one) for one in book.posted} == {ExtendLease}
    assert {one.ttl_ms for one in book.posted if isinstance(one, ExtendLease)} == {90}


@pytest.mark.parametrize("trouble", [UnavailableError("gone"), StorageError("no space left")])
def test_what_the_broker_cannot_take_now_is_offered_again(
    monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    """A broker that restarts, or a full disk: the work is done and must not be forgotten."""
    monkeypatch.setattr(flight, "AGAIN_MS", 10)
    book = Book(MANY[:3])
    book.refusals = {CompleteWork: [trouble] * 5}  # type: ignore[list-item]  # MeshErrors
    tally, _ = sweep(book, Town())
    assert (tally.renewed, tally.failed, len(book.results)) == (3, 0, 3)
    assert set(book.signed.values()) == {1}


def test_a_broker_that_stays_away_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease ends by itself, and the loop says that there is no broker."""
    monkeypatch.setattr(flight, "AGAIN_MS", 10)
    monkeypatch.setattr(flight, "GIVE_UP_MS", 100)
    book = Book(["pi"])
    book.refusals = {CompleteWork: [UnavailableError("gone")] * 1000}
    tally, took_ms = sweep(book, Town())
    assert (tally.renewed, tally.failed) == (0, 0)
    assert took_ms < 2000


def test_a_refused_signature_fails_at_once_with_its_reason() -> None:
    """A locked CA, a revoked member: asking again changes nothing."""
    book = Book(["pi"])
    book.refusals = {RenewWithLease: [NotAMemberError("the member was revoked meanwhile")]}
    tally, _ = sweep(book, Town())
    assert (tally.failed, book.results) == (1, {"pi": Failed("the member was revoked meanwhile")})


def test_work_of_the_node_itself_ends_the_sweep_when_those_in_flight_have_landed() -> None:
    """A person waits for a rekey, and a sweep of thousands must not keep it from them."""
    book, town = Book(MANY), Town()

    def local(_: object) -> None:
        book.local_waits = len(book.results) >= 3

    book.before = local
    tally, _ = sweep(book, town, in_flight=4)
    assert 3 <= tally.renewed < 12
    assert book.granted == {}
    assert len(book.due) == 40 - tally.renewed


def test_a_stop_gives_back_what_is_not_done_and_ends_soon() -> None:
    """Within a second, and at once free for another worker."""
    seat, book = Seat(), Book(MANY)
    town = Town(lambda _host, _step: ...)
    town_full = threading.Event()

    def says(_host: str, _step: str) -> Any:
        if town.in_call >= 8:
            seat.asked_to_stop = True
            town_full.set()
        return ...

    town.says = says
    found = Sweep(book, seat, town.session, policy())
    found.run(book.first(), Tally())
    assert town_full.is_set()
    assert sorted(book.released) == MANY[:8]
    assert len(book.due) == 32
    eventually(lambda: town.in_call == 0)
    found.close()


def test_a_stop_ends_the_leasing_at_once() -> None:
    """What is leased now would only be given back."""
    seat, book = Seat(), Book(MANY)

    def stop(request: object) -> None:
        seat.asked_to_stop = seat.asked_to_stop or isinstance(request, LeaseWork)

    book.before = stop
    sweep(book, Town(lambda _host, _step: ...), seat)
    assert len([one for one in book.asked if isinstance(one, LeaseWork)]) == 1
    assert sorted(book.released) == MANY[:2]


def test_a_stop_without_a_broker_does_not_wait_for_it_eight_times() -> None:
    """The goodbye, or the end of the leases, says the same."""
    seat, book = Seat(), Book(MANY[:8])

    def says(_host: str, _step: str) -> Any:
        seat.asked_to_stop = town.in_call >= 8
        return ...

    town = Town(says)
    book.refusals = {ReleaseLease: [UnavailableError("no broker answered within 300 ms")] * 8}
    sweep(book, town, seat)
    assert len([one for one in book.asked if isinstance(one, ReleaseLease)]) == 1


def test_a_result_that_came_in_the_last_moment_is_told_before_the_stop() -> None:
    """It was installed: giving the member back would renew it twice."""
    seat, book = Seat(), Book(["pi"])

    def says(_host: str, step: str) -> Any:
        seat.asked_to_stop = step == "install"

    sweep(book, Town(says), seat)
    assert (list(book.results), book.released) == (["pi"], [])


def test_a_stop_loses_no_lease_that_is_lost_already() -> None:
    """The others still go back."""
    seat, book = Seat(), Book(["pi", "nas"])

    def says(_host: str, _step: str) -> Any:
        seat.asked_to_stop = town.in_call >= 2
        return ...

    town = Town(says)
    book.refusals = {ReleaseLease: [LeaseLostError("over")]}
    sweep(book, town, seat)
    assert len(book.released) == 1


def test_there_is_no_thread_and_no_session_left_when_all_is_done() -> None:
    """An idle renewal process costs what it cost before."""
    town = Town()
    sweep(Book(MANY), town)
    eventually(lambda: not calling())
    assert town.open == set()


def test_members_that_are_due_later_are_asked_for_while_others_fly() -> None:
    """A hung member must not keep a process from what becomes due meanwhile."""
    book, done = Book(["slow"]), threading.Event()
    book.next_in_ms = 0

    def says(host: str, _: str) -> Any:
        if host == "slow":
            assert done.wait(10)

    def later(_: object) -> None:
        asked = [one for one in book.asked if isinstance(one, LeaseWork)]
        if len(asked) == 2 and "late" not in book.results and not book.due:
            book.due.append(member("late"))
        if "late" in book.results:
            done.set()

    book.before = later
    tally, took_ms = sweep(book, Town(says))
    assert tally.renewed == 2
    assert took_ms < 800
    assert len([one for one in book.asked if isinstance(one, LeaseWork)]) < 20
