"""Finds who leads, shows it this machine's key, and renews its members while there are any.

The machine needs a grant of a person on the CA. Without one it waits and says so; when the CA
moves, it follows; when the CA is away, it asks again, less and less often. What it does for the CA
is the sweep that the CA's own workers do; members let it in by the mandate of each lease.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from broker.client import Link
from broker.client.remote import RemoteDoor
from broker.errors import KeyRejectedError, MeshError, NotPrimaryError
from broker.runtime.curve import CurvePair, worker_pair
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.base import Event
from broker.wire.events import RoleMoved
from broker.wire.ids import Service
from broker.wire.node import Endpoint, Membership
from broker.wire.remote import WorkerBody, WorkerDoor
from broker.wire.work import LeaseWork, WorkAnswer
from workers.calls import Calls
from workers.fanout import Session
from workers.membership import load_membership
from workers.process import Desk, Outcome, instance_name
from workers.remote_renewal.key import pair_after
from workers.remote_renewal.logic import (
    NO_MESH,
    NOT_LEADING,
    ROUND_MS_MAX,
    ROUND_MS_MIN,
    Seat,
    idle_state,
    is_ungranted,
    next_round_ms,
    seat_of,
    waiting_state,
)
from workers.remote_renewal.outpost import Outpost
from workers.renewed import Tally
from workers.repeats import Repeats
from workers.sessions import opener
from workers.sweep import Sweep

INTRODUCE_MS = 3_000
NOT_LEADING_AGAIN_MS = 1_000
LOOK_MS = 1_000
REFUSAL = "refusal"

OpenSession = Callable[[Paths, Membership], Session]
Connect = Callable[[RemoteDoor, Desk], Link]


class StoppedError(Exception):
    """A stop was asked while the CA was being called."""


@dataclass(frozen=True, slots=True)
class Post:
    """Where this worker works now: a link to the CA's broker, and what renews its members."""

    seat: Seat
    membership: Membership
    link: Link
    outpost: Outpost
    sweep: Sweep

    def leave(self) -> None:
        """Say goodbye, which gives back what is held, and drop the connections."""
        self.link.goodbye("stopping")
        self.sweep.close()
        self.link.close()


class RemoteRenewalLoop:
    """One remote renewal process; what reaches the CA is injected."""

    service = Service.REMOTE_RENEWAL
    wakes: tuple[type[Event], ...] = (RoleMoved,)
    period_ms = ROUND_MS_MAX

    def __init__(
        self,
        settings: Settings,
        paths: Paths,
        open_session: OpenSession | None = None,
        connect: Connect | None = None,
    ) -> None:
        self._policy = settings.renewal
        self._paths = paths
        self._open = open_session or opener(settings.renewal.peer_timeout.seconds)
        self._connect = connect or connect_by_curve
        self._calls: Calls[str, WorkerDoor] = Calls()
        self._repeats = Repeats()
        self._post: Post | None = None

    def round(self, desk: Desk) -> Outcome:
        """Renew members of whoever leads, until there is no more to do."""
        membership = load_membership(self._paths)
        if membership is None:
            self._leave()
            return Outcome(state=NO_MESH)
        node = desk.node()
        seat = seat_of(node)
        if self._post is not None and (self._post.seat, self._post.membership) != (
            seat,
            membership,
        ):
            self._leave()
        if seat is None:
            return Outcome(state=idle_state(node))
        try:
            return self._serve(desk, membership, seat)
        except StoppedError:
            return Outcome()
        except MeshError as error:
            return self._refused(error, membership.host)

    def close(self) -> None:
        """Leave the CA; the process ends."""
        self._leave()
        self._calls.close()

    def _serve(self, desk: Desk, membership: Membership, seat: Seat) -> Outcome:
        """Work at the CA, after going there if need be."""
        if self._post is None:
            self._post = self._take_up(desk, membership, seat)
            self._repeats.forget(REFUSAL)
        next_ms = _work(self._post)
        return Outcome(next_in_ms=next_ms, state=f"works for {seat[0].host}")

    def _refused(self, error: MeshError, host: str) -> Outcome:
        """Return what to do about a CA that does not want this worker, or is not there.

        Raises:
            MeshError: It may pass by itself: the host of this loop tries again, less often.
        """
        worked = self._post is not None
        self._leave()
        if isinstance(error, NotPrimaryError):
            return Outcome(next_in_ms=NOT_LEADING_AGAIN_MS, state=NOT_LEADING)
        if not is_ungranted(error):
            raise error
        if self._repeats.is_news(REFUSAL, error.detail):
            log(EventName.WORKER_REFUSED, host=host, detail=error.detail, hint=error.hint)
        # Whoever is turned away at work may have been granted anew: a look at the door tells.
        next_ms = ROUND_MS_MIN if worked else ROUND_MS_MAX
        return Outcome(next_in_ms=next_ms, state=waiting_state(error, host))

    def _take_up(self, desk: Desk, membership: Membership, seat: Seat) -> Post:
        """Bind this machine's key and connect.

        Raises:
            MeshError: The CA refuses, is away, or the key cannot be kept.
            StoppedError: A stop was asked meanwhile.
        """
        primary = seat[0]
        pair = worker_pair(self._paths)
        try:
            door = self._bind(desk, membership, primary, pair)
        except KeyRejectedError:
            pair = pair_after(self._paths, pair.public)
            door = self._bind(desk, membership, primary, pair)
        way = RemoteDoor(primary.addresses, door.port, door.server_key, pair)
        link = self._connect(way, desk)
        try:
            desk.beat(INTRODUCE_MS)
            link.introduce(timeout_ms=INTRODUCE_MS)
        except MeshError:
            link.close()
            raise
        outpost = Outpost(desk, link)
        open_peers = partial(self._open, self._paths, membership)
        sweep = Sweep(outpost, outpost, open_peers, self._policy)
        return Post(seat, membership, link, outpost, sweep)

    def _bind(
        self, desk: Desk, membership: Membership, primary: Endpoint, pair: CurvePair
    ) -> WorkerDoor:
        """Tell the CA the public key over mutual TLS; return where its broker listens."""
        session = self._open(self._paths, membership)
        within_ms = self._policy.peer_timeout.ms
        call = partial(
            session.call,
            primary,
            "POST",
            "/v1/worker",
            WorkerBody(pair.public),
            WorkerDoor,
            timeout_s=within_ms / 1000,
        )
        self._calls.start("bind", session, call, within_ms)
        try:
            while True:
                desk.wait(LOOK_MS, self._calls.bell)
                answer = self._calls.ended().get("bind")
                if isinstance(answer, Exception):
                    raise answer
                if answer is not None:
                    return answer
                if desk.stopping():
                    raise StoppedError
        finally:
            if len(self._calls):
                self._calls.give_up("bind")
            else:
                session.close()

    def _leave(self) -> None:
        if self._post is not None:
            self._post.leave()
        self._post = None


def connect_by_curve(way: RemoteDoor, desk: Desk) -> Link:
    """Return a link to the CA's broker."""
    service = Service.REMOTE_RENEWAL
    return Link(way, service, instance_name(service), stopping=desk.stopping)


def _work(post: Post) -> int:
    """Renew until the CA has nobody due or a stop is asked; return when to ask again."""
    tally = Tally()
    try:
        while not post.outpost.stopping():
            answer = post.outpost.ask(LeaseWork(local=False), WorkAnswer)
            if answer.lease is None:
                next_ms = next_round_ms(answer.next_in_ms)
                post.outpost.beat(next_ms)
                return next_ms
            post.sweep.run(answer.lease, tally)
    finally:
        tally.tell()
    return 0
