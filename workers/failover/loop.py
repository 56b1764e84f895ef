"""One round: announce what the plan says, probe all other key holders, report what was proved.

This worker decides nothing about roles. Hints of mDNS add addresses to ask at; only claims made
over verified mutual TLS are reported as such. A change of this node's own role does not wait for
dead key holders: the round that it comes in is cut short, and the next one tells everybody.
"""

from collections.abc import Callable, Mapping
from functools import partial

from broker.clock import boottime_ms
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.base import Event
from broker.wire.control import Ack
from broker.wire.events import AuthorityMoved, BundleMoved, CertificateMoved, RoleMoved
from broker.wire.failover import (
    FailoverPlan,
    HelloAnswer,
    Hint,
    PlanFailover,
    ReportSightings,
    Sighting,
)
from broker.wire.ids import Service
from broker.wire.mesh_api import HelloBody
from broker.wire.node import Endpoint, Membership
from workers.failover.logic import best, hello, probes, sighting
from workers.failover.radio import Radio
from workers.fanout import Fanout, Session
from workers.interruption import Interruption
from workers.process import Desk, Outcome
from workers.repeats import Repeats

DEADLINE_MS_MAX = 4_000
PATIENCE_MS = 200
"""A living key holder answers within this, also while events want the next round."""

NO_MDNS = "mDNS is off (discovery.mdns): nothing is announced, known key holders are still probed"


class FailoverLoop:
    """The loop; the radio (None: mDNS is off) and sessions are injected."""

    service = Service.FAILOVER
    wakes: tuple[type[Event], ...] = (RoleMoved, AuthorityMoved, BundleMoved, CertificateMoved)

    def __init__(
        self,
        settings: Settings,
        radio: Radio | None,
        open_session: Callable[[Paths, Membership], Session],
    ) -> None:
        self.period_ms = settings.failover.tick.ms
        self._radio = radio
        self._fanout: Fanout[Endpoint] = Fanout(open_session)
        self._repeats = Repeats()

    def round(self, desk: Desk) -> Outcome:
        """Plan, announce, probe, report."""
        started_ms = boottime_ms()
        node = desk.node()
        if node.mesh is None:
            self._want(None)
            return Outcome(state="no mesh")
        plan = desk.ask(PlanFailover(), FailoverPlan)
        self._want(plan)
        hints = self._radio.hints() if self._radio is not None else ()
        interruption = Interruption(desk, PATIENCE_MS)
        sightings = self._probe(interruption, plan, hints)
        if desk.stopping():
            return Outcome()
        desk.ask(ReportSightings(sightings=sightings, hints=hints), Ack)
        next_ms = max(0, self.period_ms - (boottime_ms() - started_ms))
        return Outcome(
            next_in_ms=0 if interruption.came else next_ms,
            error=self._radio.trouble() if self._radio is not None else "",
            state=self._state(plan, sightings, hints),
        )

    def _want(self, plan: FailoverPlan | None) -> None:
        """Renew the lease on what the air should carry."""
        if self._radio is None or not (plan is None or plan.discovery):
            if self._repeats.is_news("discovery", NO_MDNS):
                log(EventName.DISCOVERY_DISABLED, detail=NO_MDNS)
            if self._radio is not None and self._radio.is_announcing():
                self._radio.want(None, "")
            return
        self._repeats.forget("discovery")
        if plan is None:
            self._radio.want(None, "")
        else:
            self._radio.want(plan.announce, plan.pin)

    def _probe(
        self, vigil: Interruption, plan: FailoverPlan, hints: tuple[Hint, ...]
    ) -> tuple[Sighting, ...]:
        body = hello(plan)
        targets = probes(plan, hints) if body is not None else ()
        self._fanout.keep(set(targets))
        if body is None or not targets:
            return ()
        errands = {target: partial(_hello, target, body) for target in targets}
        answers: Mapping[Endpoint, HelloAnswer | Exception]
        answers = self._fanout.ask(errands, vigil, deadline_ms(self.period_ms))
        seen = best(sighting(target, answer) for target, answer in answers.items())
        if vigil.stopping():
            # Whoever has not answered yet is asked again at once: silence proves nothing now.
            self._fanout.abandon(targets)
            seen = tuple(one for one in seen if one.claim is not None)
        for one in seen:
            self._say(one)
        return seen

    def _say(self, seen: Sighting) -> None:
        if seen.claim is None:
            if self._repeats.is_news(seen.host, seen.error):
                log(EventName.PEER_UNREACHABLE, host=seen.host, reason=seen.error)
        elif self._repeats.forget(seen.host):
            log(EventName.PEER_REACHED, host=seen.host, term=seen.claim.term)

    def _state(
        self, plan: FailoverPlan, sightings: tuple[Sighting, ...], hints: tuple[Hint, ...]
    ) -> str:
        on_air = self._radio is not None and self._radio.is_announcing()
        proved = sum(1 for seen in sightings if seen.claim is not None)
        asked = f"{proved} of {len(sightings)} key holders answer"
        parts = [
            "announcing" if on_air else "not announcing",
            asked if plan.claim is not None else "nothing to claim",
            f"{len(hints)} hints" if self._radio is not None else "mDNS is off",
        ]
        return ", ".join(parts)


def deadline_ms(tick_ms: int) -> int:
    """Return the patience of one round of probes: always below the tick."""
    return min(DEADLINE_MS_MAX, tick_ms * 4 // 5)


def _hello(target: Endpoint, hello: HelloBody, session: Session) -> HelloAnswer:
    return session.call(target, "POST", "/v1/hello", hello, HelloAnswer)
