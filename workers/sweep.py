"""Renews members, several at a time, for the broker that leases them out.

The calls to members run in threads; whatever talks to the broker or to this process's host runs in
the thread that calls `run`. A member that hangs costs one place for its deadline, and nobody else
anything. The same sweep serves the renewal workers of the CA's node and those on other machines:
`broker` is whose members they are, `desk` hosts the process.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

from broker.clock import boottime_ms
from broker.errors import InternalError, LeaseLostError, MeshError, StorageError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.runtime.settings import Renewal
from broker.units import Millis
from broker.wire.base import Reply, Request
from broker.wire.control import Ack
from broker.wire.renewal import InstallAnswer, RekeyAnswer, RenewalAnswer, RenewWithLease
from broker.wire.work import (
    CompleteWork,
    ExtendLease,
    Lease,
    LeaseWork,
    ReleaseLease,
    RenewMember,
    WorkAnswer,
)
from workers.calls import Calls
from workers.fanout import Session, Vigil
from workers.flight import AGAIN_MS, EXTEND_EVERY_MS, Flight
from workers.renewed import Tally, tell_result

LOOK_MS = 1_000
"""Nothing sleeps longer than this while members are in flight."""

LEASE_AGAIN_MS_MIN = 20
LEASE_AGAIN_MS_MAX = 5_000
"""With members in flight nothing wakes the sweep for new work: it asks within these times."""

LAST_MS = 300
"""How long the calls under way may still take once a stop was asked."""

R = TypeVar("R", bound=Reply)
Opened = Callable[[], Session]


class Asker(Protocol):
    """The broker that leases the members: a `Desk` at home, a CURVE link from elsewhere.

    Both are used in the thread of `run` alone. An implementation beats at this process's host
    before an answer that may take long.
    """

    def ask(self, request: Request, kind: type[R], /) -> R:
        """Return the reply; raise the refusal."""
        ...

    def post(self, request: Request, /) -> object:
        """Send without waiting; the answer is not looked at."""
        ...


class Sweep:
    """Renews due members until none is left.

    Args:
        broker: Leases the members, signs, takes the results.
        desk: Waits, beats, knows of a stop.
        open_peers: Opens a session; each member gets one of its own, closed when it is done.
        policy: `[renewal]`: `in_flight` and `peer_timeout`.
    """

    def __init__(self, broker: Asker, desk: Vigil, open_peers: Opened, policy: Renewal) -> None:
        self._broker = broker
        self._desk = desk
        self._open_peers = open_peers
        self._policy = policy
        self._calls: Calls[int, Reply] = Calls()
        self._flights: dict[int, Flight] = {}
        self._sessions: dict[int, Session] = {}
        self._lease_again_ms: Millis | None = Millis(0)
        self._tally = Tally()

    def run(self, first: Lease, tally: Tally) -> None:
        """Renew the member of `first` and all others that are due.

        Asks for more with `LeaseWork(local=False)`. Ends when none is in flight: none is due, the
        broker's node has other work first, or a stop was asked; then what is not done goes back.

        Args:
            first: A lease of a `RenewMember`, granted a moment ago.
            tally: Counts what the broker took.
        """
        self._tally, self._lease_again_ms = tally, Millis(0)
        try:
            self._take_off(first)
            while not self._desk.stopping():
                self._fill()
                if not self._flights:
                    break
                self._desk.wait(self._wait_ms(), self._calls.bell)
                self._land()
                self._tend()
            self._hand_back()
        finally:
            self._drop_all()

    def close(self) -> None:
        """Drop what is left: the process ends, or its membership has changed."""
        self._calls.close()

    def _fill(self) -> None:
        """Lease members while there is room and the broker has any."""
        while self._may_lease():
            now_ms = boottime_ms()
            try:
                answer = self._broker.ask(LeaseWork(local=False), WorkAnswer)
            except MeshError as error:
                # Those in flight come first; when none is left, the loop hears of it itself.
                self._lease_again_ms = Millis(now_ms + max(AGAIN_MS, error.retry_after_ms))
                return
            if answer.lease is not None:
                self._take_off(answer.lease)
            elif answer.local_waits:
                self._lease_again_ms = None
            else:
                wait_ms = min(max(answer.next_in_ms, LEASE_AGAIN_MS_MIN), LEASE_AGAIN_MS_MAX)
                self._lease_again_ms = Millis(now_ms + wait_ms)

    def _may_lease(self) -> bool:
        again_ms = self._lease_again_ms
        return (
            len(self._flights) < self._policy.in_flight
            and again_ms is not None
            and boottime_ms() >= again_ms
            and not self._desk.stopping()
        )

    def _take_off(self, lease: Lease) -> None:
        assert isinstance(lease.item, RenewMember), "a sweep is given members only"
        extend_ms = Millis(boottime_ms() + min(EXTEND_EVERY_MS, lease.ttl_ms // 3))
        flight = Flight(lease.lease_id, lease.ttl_ms, lease.item, extend_ms)
        self._flights[lease.lease_id] = flight
        self._call(flight)

    def _call(self, flight: Flight) -> None:
        """Begin the call that is next for this member."""
        lease_id = flight.lease_id
        try:
            session = self._sessions.get(lease_id) or self._open_peers()
        except MeshError as error:
            flight.answered(error)
            return
        self._sessions[lease_id] = session
        path, body = flight.request()
        kind: type[Reply] = RekeyAnswer if flight.step == "csr" else InstallAnswer
        within_ms = flight.call_ms(self._policy.peer_timeout.ms)
        call = partial(
            session.call,
            flight.item.endpoint,
            "POST",
            path,
            body,
            kind,
            timeout_s=within_ms / 1000,
        )
        self._calls.start(lease_id, session, call, within_ms)

    def _land(self) -> None:
        """Take what members answered."""
        for lease_id, answer in self._calls.ended().items():
            flight = self._flights[lease_id]
            if isinstance(answer, OSError):
                flight.answered(StorageError(f"cannot read or write here: {answer}"))
            elif isinstance(answer, Exception) and not isinstance(answer, MeshError):
                # Whatever an answer did to a library, the others in flight do not pay for it.
                flight.answered(InternalError(f"the call failed ({type(answer).__name__})"))
            else:
                flight.answered(answer)

    def _tend(self) -> None:
        """Ask the broker what members in flight need of it now, and keep their leases."""
        for flight in list(self._flights.values()):
            if self._desk.stopping():
                return
            now_ms = boottime_ms()
            if now_ms >= flight.extend_ms:
                self._broker.post(ExtendLease(flight.lease_id, flight.ttl_ms))
                flight.extend_ms = Millis(now_ms + min(EXTEND_EVERY_MS, flight.ttl_ms // 3))
            if flight.asks and now_ms >= flight.again_ms:
                self._proceed(flight)

    def _proceed(self, flight: Flight) -> None:
        """Do the step of a flight that needs the broker, and begin the call after it."""
        if flight.step == "sign":
            self._sign(flight)
        else:
            self._tell(flight)
        if flight.step == "install":
            self._call(flight)
        elif flight.step == "over":
            self._forget(flight)

    def _sign(self, flight: Flight) -> None:
        asked_ms = boottime_ms()
        try:
            request = RenewWithLease(flight.lease_id, flight.csr, flight.proof)
            answer = self._broker.ask(request, RenewalAnswer)
        except MeshError as error:
            self._refused(flight, error)
        else:
            flight.signed(answer.issued, asked_ms, boottime_ms())

    def _tell(self, flight: Flight) -> None:
        assert flight.result is not None, "there is something to tell"
        if flight.refused_ms is None:
            tell_result(flight.item.host, flight.result)
        try:
            self._broker.ask(CompleteWork(flight.lease_id, flight.result), Ack)
        except MeshError as error:
            self._refused(flight, error)
        else:
            flight.told()
            self._tally.count(flight.result)

    def _refused(self, flight: Flight, error: MeshError) -> None:
        flight.refused(error, boottime_ms())
        if flight.step == "over":
            # Another worker has this member, or the lease runs out: either way it is done again.
            host, detail = flight.item.host, error.detail
            log(EventName.CERTIFICATE_RENEWAL_SKIPPED, host=host, detail=detail)

    def _wait_ms(self) -> int:
        """Return how long nothing happens that the poller does not wake for."""
        now_ms = boottime_ms()
        moments = [Millis(now_ms + LOOK_MS)]
        for flight in self._flights.values():
            moments.append(flight.extend_ms)
            if flight.asks:
                moments.append(Millis(flight.again_ms))
        cut_ms, lease_ms = self._calls.next_cut_ms(), self._lease_again_ms
        if cut_ms is not None:
            moments.append(cut_ms)
        if lease_ms is not None and len(self._flights) < self._policy.in_flight:
            moments.append(lease_ms)
        return max(0, min(moments) - now_ms)

    def _hand_back(self) -> None:
        """A stop was asked: take what ends at once, give the rest back untouched."""
        until_ms = boottime_ms() + LAST_MS
        while len(self._calls) and (left_ms := until_ms - boottime_ms()) > 0:
            self._calls.wait(left_ms)
            self._land()
        for flight in list(self._flights.values()):
            if flight.step == "tell":
                self._tell(flight)
            if flight.step != "over" and not self._release(flight):
                return

    def _release(self, flight: Flight) -> bool:
        """Give a member back; return whether there is a broker to give it to."""
        try:
            self._broker.ask(ReleaseLease(flight.lease_id), Ack)
        except LeaseLostError:
            return True
        except MeshError:
            # The goodbye, or the end of the leases, says the same.
            return False
        return True

    def _forget(self, flight: Flight) -> None:
        del self._flights[flight.lease_id]
        session = self._sessions.pop(flight.lease_id, None)
        if session is not None:
            session.close()

    def _drop_all(self) -> None:
        for flight in list(self._flights.values()):
            self._calls.give_up(flight.lease_id)
            self._forget(flight)
