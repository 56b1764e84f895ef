"""Halves of peer slots on their way: brought to the peer that is to keep one, fetched at a boot.

The broker decides whether anything is to be brought or fetched, and tries what comes back; a half
passes through here and is kept nowhere.
"""

from dataclasses import replace
from functools import partial

from broker.wire.control import Ack
from broker.wire.node import Endpoint, NodeView
from broker.wire.slot import (
    GiveHalfBody,
    HalfAnswer,
    KeepHalfBody,
    NoteHalf,
    PlanUnlock,
    UnlockPlan,
)
from workers.fanout import Session
from workers.process import Desk, Outcome
from workers.roster_sync.trips import BrokenOffError, TripError, Trips

SUBJECT = "unlock"
ERRANDS_MAX = 8
"""In one round; a node has a few peer slots at most."""
PROBLEM_LENGTH_MAX = 512


class UnlockErrand:
    """Carries halves between this node's broker and the peers of its slots."""

    def __init__(self, trips: Trips) -> None:
        self._trips = trips
        self._retry_in_ms: int | None = None

    def run(self, desk: Desk, node: NodeView) -> None:
        """Do what the broker plans, until it plans nothing; only key holders have slots.

        A peer's trouble is told to the broker, which tries again in its own time, and keeps
        nobody from syncing.
        """
        self._retry_in_ms = None
        if node.ca == "absent":
            return
        for _ in range(ERRANDS_MAX):
            plan = desk.ask(PlanUnlock(), UnlockPlan)
            if plan.errand == "none" or plan.peer is None:
                self._retry_in_ms = plan.retry_in_ms or None
                return
            try:
                noted = self._note(desk, plan, plan.peer)
            except BrokenOffError:
                return  # the process stops, and the broker plans the same again
            desk.ask(noted, Ack)
        self._retry_in_ms = 0

    def sooner(self, outcome: Outcome) -> Outcome:
        """Return the outcome of a round, with a wake-up for the next errand of this kind."""
        if self._retry_in_ms is None:
            return outcome
        in_ms = self._retry_in_ms if outcome.next_in_ms is None else outcome.next_in_ms
        return replace(outcome, next_in_ms=min(in_ms, self._retry_in_ms))

    def _note(self, desk: Desk, plan: UnlockPlan, peer: Endpoint) -> NoteHalf:
        """Do one errand and return what the broker is to know of it."""
        try:
            half = b""
            if plan.errand == "give":
                body = KeepHalfBody(plan.slot_id, plan.half)
                self._trips.ask(desk, peer, partial(_bring, peer, body))
            else:
                ask = GiveHalfBody(plan.slot_id)
                half = self._trips.ask(desk, peer, partial(_fetch, peer, ask)).half
        except TripError as error:
            self._trips.complain(SUBJECT, error)
            problem = error.reason[:PROBLEM_LENGTH_MAX]
            return NoteHalf(plan.slot_id, peer.host, problem=problem)
        self._trips.praise(SUBJECT, peer.host)
        return NoteHalf(plan.slot_id, peer.host, half)


def _bring(peer: Endpoint, body: KeepHalfBody, session: Session) -> Ack:
    return session.call(peer, "POST", "/v1/unlock/keep", body, Ack)


def _fetch(peer: Endpoint, body: GiveHalfBody, session: Session) -> HalfAnswer:
    return session.call(peer, "POST", "/v1/unlock/ask", body, HalfAnswer)
