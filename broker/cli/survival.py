"""Would this mesh survive the loss of its primary now? Pure: what is known in, verdicts out.

`Rehearsal` is what a takeover on copies came to; `StandbysView` is what the running node knows of
the others. Neither alone is an answer: a copy cannot know who is awake, and a live view cannot
know whether the files would open.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from broker.cli.shape import ago, duration_text, rfc3339, span
from broker.cli.succession import (
    SUSPECT_TICKS,
    condition,
    limits_of,
    ordered,
    silent_hosts,
    standbys,
)
from broker.runtime.settings import Failover
from broker.units import UnixSeconds
from broker.wire.console_api import Rehearsal, RehearsalStep
from broker.wire.standby import StandbyLine, StandbysView

REMEDIES: Mapping[str, str] = MappingProxyType(
    {
        "locked": "certmesh ca unlock, on {host}",
        "lagging": "certmesh standby sync, on {host}",
        "away": "certmesh up, on {host}",
        "nominated": "certmesh up, on {host}: it fetches the key by itself",
    }
)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is known about the succession at one moment.

    Args:
        view: The order of succession, as this node sees it.
        copy: The rehearsal on copies.
        rules: `[failover]` of this node.
        now: Wall time.
    """

    view: StandbysView
    copy: Rehearsal
    rules: Failover
    now: UnixSeconds

    @property
    def heir(self) -> StandbyLine | None:
        """The first standby that could take over and that the copied roster knows."""
        known = set(self.copy.standbys)
        ready = (line for line in ordered(self.view.lines) if line.state == "ready")
        return next((line for line in ready if line.host in known), None)

    @property
    def takeover_ms(self) -> int | None:
        """How long a crash leaves the mesh without a primary, at most; None when for ever."""
        if self.heir is None or self._stops:
            return None
        rules = self.rules
        staggers = len(silent_hosts(self.view.lines, self.heir)) * rules.stagger.ms
        return rules.grace.ms + staggers + SUSPECT_TICKS * rules.tick.ms

    def steps(self) -> Iterator[RehearsalStep]:
        """Yield the verdicts, in the order a person reads them."""
        yield from self._each_standby()
        yield self._succession()
        yield self._takeover()
        yield self._survival()

    def _each_standby(self) -> Iterator[RehearsalStep]:
        for line in standbys(self.view.lines):
            lag = "unknown" if line.lag is None else str(line.lag)
            facts = f"lag {lag}, CA {line.ca or 'unknown'}, heard {self._heard(line)}"
            name = f"standby {line.host}"
            if line.state == "ready" and line.host not in self.copy.standbys:
                detail = f"ready, but the copied roster does not name it: {facts}"
                yield RehearsalStep(name, "warn", detail, "certmesh standby sync, here")
            elif line.state == "ready":
                yield RehearsalStep(name, "ok", f"ready; {facts}")
            else:
                hint = REMEDIES.get(line.state, "").format(host=line.host)
                yield RehearsalStep(name, "warn", f"{condition(line)}; {facts}", hint)

    def _heard(self, line: StandbyLine) -> str:
        return "here" if line.host == self.view.host else ago(line.last_heard_at, self.now)

    def _succession(self) -> RehearsalStep:
        if self.heir is None:
            hint = "certmesh standby nominate HOST --wait 1m, on the primary"
            detail = "no standby is ready to take over"
            return RehearsalStep("succession", "fail", detail, hint)
        doubts = [limits_of(self.view, "certmesh standby promote"), self.view.withheld]
        if doubt := next(filter(None, doubts), ""):
            return RehearsalStep("succession", "warn", doubt, "certmesh standby list")
        return RehearsalStep("succession", "ok", f"{self.heir.host} is next")

    @property
    def _stops(self) -> str:
        """Why nobody would take over by itself, or nothing."""
        plain = self.copy.others - len(self.copy.standbys)
        if self.copy.host != self.copy.primary:
            plain = self.copy.others + 1 - len({self.copy.primary, *self.copy.standbys} - {""})
        if self.rules.mode == "manual":
            return "failover.mode is manual: a person has to promote"
        if self._is_pair and self.rules.lone_pair == "wait":
            return "failover.lone_pair is wait: a person has to promote"
        if self.rules.mode == "witnessed" and not self._is_pair and plain < self.rules.witnesses:
            return f"{self.rules.witnesses} witnesses are wanted, the roster has {max(0, plain)}"
        return ""

    @property
    def _is_pair(self) -> bool:
        return self.copy.others <= 1

    def _takeover(self) -> RehearsalStep:
        takeover_ms, heir, rules = self.takeover_ms, self.heir, self.rules
        if heir is None:
            return RehearsalStep("takeover time", "skip", "nobody takes over")
        if takeover_ms is None:
            hint = f"certmesh standby promote, on {heir.host}"
            return RehearsalStep("takeover time", "fail", self._stops, hint)
        silent = silent_hosts(self.view.lines, heir)
        staggers = f" + stagger {duration_text(rules.stagger.ms)} for each of {', '.join(silent)}"
        detail = (
            f"at most {span(takeover_ms / 1000)}: grace {duration_text(rules.grace.ms)}"
            f"{staggers if silent else ''}"
            f" + {SUSPECT_TICKS} ticks of {duration_text(rules.tick.ms)}"
        )
        if self._is_pair and rules.lone_pair == "caretaker":
            hint = "certmesh standby promote there, or add a third node"
            alone = f"{detail}; two nodes alone: {heir.host} enrolls nobody until confirmed"
            return RehearsalStep("takeover time", "warn", alone, hint)
        return RehearsalStep("takeover time", "ok", detail)

    def _survival(self) -> RehearsalStep:
        until = self.copy.survives_until
        if until is None:
            return RehearsalStep("without any CA", "warn", "no member has a certificate yet")
        if until <= self.now:
            hint = "certmesh member list shows whose"
            return RehearsalStep("without any CA", "fail", "a certificate has expired", hint)
        detail = f"every member survives until {rfc3339(until)} ({span(until - self.now)})"
        if (until - self.now) * 1000 < (self.takeover_ms or 0):
            hint = "certmesh member list shows whose certificate ends first"
            return RehearsalStep("without any CA", "warn", f"{detail}, a takeover is slower", hint)
        return RehearsalStep("without any CA", "ok", detail)
