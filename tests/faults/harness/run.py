"""One seed on one mesh: work, break, heal, settle, compare."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random

import msgspec

from broker.clock import boottime_ms
from broker.wire.approval import ApprovalsView
from broker.wire.console_api import ReasonBody
from broker.wire.node import NodeView
from broker.wire.standby import ReviewsView
from tests.faults.harness import leftovers
from tests.faults.harness.caller import Question, ask
from tests.faults.harness.checks import Evidence, violations
from tests.faults.harness.client import Client, Identity, Wish, named
from tests.faults.harness.injector import Harm, Injector
from tests.faults.harness.mesh import Mesh, Node
from tests.faults.harness.picture import Picture, take_picture
from tests.faults.harness.promises import Record
from tests.faults.harness.schedule import Blow, Plan
from tests.faults.harness.workload import Actor
from tests.support import eventually

AFTER_S = 0.4
"""The workload goes on for so long after the last fault is healed."""
PROBED_MAX = 4
CLOCK = "clock"
"""Where this was done invites end early and nothing is issued: a refusal has its cause."""


@dataclass
class Settled:
    """How long one seed took to come to rest."""

    injectors: tuple[str, ...]
    settled_ms: int
    served_ms: int


@dataclass
class Verdict:
    """What became of one seed."""

    plan: Plan
    harms: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    settled: Settled | None = None
    answers: int = 0
    took_ms: int = 0
    terms: tuple[int, ...] = ()


@dataclass
class Life:
    """What outlives a seed: a mesh, and everything that was ever promised in it."""

    mesh: Mesh
    record: Record = field(default_factory=Record)
    seeds: int = 0


class Seed:
    """One run of one plan.

    Args:
        plan: What to do.
        life: Where to do it.
        injectors: By name.
        patience: Factor on every bound, for a machine that does other things too.
    """

    def __init__(
        self, plan: Plan, life: Life, injectors: Mapping[str, Injector], patience: float = 1.0
    ) -> None:
        self._plan = plan
        self._life = life
        self._injectors = injectors
        self._patience = patience
        self._verdict = Verdict(plan)
        self._used: list[Injector] = []
        self._began_ms = 0
        self._terms: set[int] = set()
        self._begun = len(life.record.all())

    def play(self) -> Verdict:
        """Return what became of it; whatever breaks is a violation, never an exception."""
        began_ms = boottime_ms()
        self._life.seeds += 1
        try:
            self._note_terms()
            actors = self._work_and_break()
            self._settle()
            self._compare(actors)
        except Exception as error:  # noqa: BLE001 (whatever breaks, the seed is worth knowing)
            self._verdict.wrong.append(f"{type(error).__name__}: {error}")
        self._verdict.terms = tuple(sorted(self._terms))
        self._verdict.answers = len(self._life.record.since(self._begun))
        self._verdict.took_ms = boottime_ms() - began_ms
        return self._verdict

    def _work_and_break(self) -> list[Actor]:
        stopped = threading.Event()
        actors = [self._actor(number, stopped) for number in range(len(self._plan.actors))]
        with ThreadPoolExecutor(len(actors)) as pool:
            running = [pool.submit(actor.run) for actor in actors]
            try:
                self._break()
                self._healed_ms = boottime_ms()
                threading.Event().wait(AFTER_S)
            finally:
                stopped.set()
            for actor in running:
                actor.result()
        return actors

    def _actor(self, number: int, stopped: threading.Event) -> Actor:
        chance = Random(self._plan.actors[number])
        name = f"s{self._plan.seed}x{self._life.seeds}a{number}"
        client = Client(self._life.mesh, self._life.record, Random(chance.random()), stopped)
        return Actor(name, client, chance)

    def _break(self) -> None:
        """Strike each blow of the plan, and heal it before the next one or after it."""
        open_harms: list[tuple[Harm, Blow]] = []
        try:
            for blow in self._plan.blows:
                if not blow.overlaps:
                    self._heal(open_harms)
                threading.Event().wait(blow.after_s)
                open_harms.append((self._strike(blow), blow))
        finally:
            self._heal(open_harms)

    def _strike(self, blow: Blow) -> Harm:
        nodes = self._life.mesh.nodes
        fitting = [self._injectors[name] for name in blow.wishes if name in self._injectors]
        injector = next(found for found in fitting if found.fits(nodes))
        harm = injector.harm(nodes, Random(blow.chance))
        self._began_ms = self._began_ms or boottime_ms()
        self._used.append(injector)
        self._verdict.harms.append(f"{injector.name}: {harm.what}")
        return harm

    def _heal(self, open_harms: list[tuple[Harm, Blow]]) -> None:
        """Put everything right, the last first: it may be in the way of the one before."""
        trouble = ""
        while open_harms:
            harm, blow = open_harms.pop()
            threading.Event().wait(blow.lasts_s)
            try:
                harm.heal()
            except Exception as error:  # noqa: BLE001 (the others must be healed too)
                trouble = trouble or f"{harm.what} could not be healed: {error}"
        if trouble:
            raise AssertionError(trouble)

    def _settle(self) -> None:
        """Wait until the mesh is content, within the bound of what was done to it."""
        bound_s = max(injector.settles_s for injector in self._used) * self._patience
        tidy(self._life)

        def content() -> bool:
            why = self._life.mesh.discontent()
            if "wait for a look" in why:
                tidy(self._life)
            assert not why, why
            return True

        left_s = bound_s - (boottime_ms() - self._healed_ms) / 1000
        try:
            eventually(content, within_s=max(1.0, left_s))
        except AssertionError as error:
            raise AssertionError(f"not content {bound_s:.0f} s after healing: {error}") from None
        self._verdict.settled = Settled(
            tuple(injector.name for injector in self._used),
            boottime_ms() - self._healed_ms,
            self._served_ms(),
        )

    def _served_ms(self) -> int:
        """Return how long after the first blow somebody was told "done" on a new request."""
        told = self._life.record.all()
        ends = [item.ended_ms for item in told if item.is_done and item.began_ms >= self._began_ms]
        return min(ends, default=boottime_ms()) - self._began_ms

    def _note_terms(self) -> None:
        views = self._life.mesh.views().values()
        self._terms |= {view.term for view in views if view is not None}

    def _compare(self, actors: Sequence[Actor]) -> None:
        self._note_terms()
        self._probe_the_revoked(actors)
        pictures = [picture_of(node, self._life.mesh) for node in self._life.mesh.key_holders]
        told = self._life.record.all()
        lied = any(injector.name == CLOCK for injector in self._used)
        calm = len(self._terms) == 1 and not lied
        evidence = Evidence(told, pictures, calm, self._begun)
        self._verdict.wrong += violations(evidence)
        self._verdict.wrong += leftovers.found_in(self._life.mesh)

    def _probe_the_revoked(self, actors: Sequence[Actor]) -> None:
        """Let members that were put out knock at every node: none may let them in."""
        gone = {
            told.facts.get("member") or told.facts["by"]
            for told in self._life.record.all()
            if told.is_done and told.kind in {"revoke", "leave"}
        }
        client = Client(self._life.mesh, self._life.record, Random(0), threading.Event())
        victims = [who for actor in actors for who in actor.members if who.member in gone]
        for victim in victims[-PROBED_MAX:]:
            for node in self._life.mesh.nodes:
                self._knock(client, victim, node)

    def _knock(self, client: Client, victim: Identity, node: Node) -> None:
        reply = ask(client.mesh_door(node, victim), Question("GET", "/v1/whoami"))
        if reply.outcome == "done" or reply.code not in {"revoked", "not_a_member"}:
            said = reply.code or reply.outcome
            self._verdict.wrong.append(
                f"{node.name} says {said} to {victim.host}, which is revoked: {reply.text!r}"
            )


def picture_of(node: Node, mesh: Mesh) -> Picture:
    """Return what a node's ledger and, if it is the primary, its list say."""
    view = node.local("/v1/node", NodeView)
    if view is None or view.role != "primary":
        return take_picture(node.name, node.paths.ledger, None)
    crl = ask(mesh.enrol_door(node), Question("GET", "/v1/crl.der"))
    return take_picture(node.name, node.paths.ledger, crl.text if crl.outcome == "done" else b"")


def tidy(life: Life) -> None:
    """Do what a person would: answer what still waits for one, and look at what was merged."""
    for node in life.mesh.key_holders:
        waiting = node.local("/v1/approvals?state=pending", ApprovalsView)
        for approval in waiting.approvals if waiting else ():
            _tell(life, node, f"/v1/approvals/{approval.approval_id}/deny", ReasonBody("tidy"))
        reviews = node.local("/v1/reviews", ReviewsView)
        for review in reviews.reviews if reviews else ():
            _tell(life, node, f"/v1/reviews/{review.review_id}/close", None)


def _tell(life: Life, node: Node, path: str, body: msgspec.Struct | None) -> None:
    facts = {"approval": path.split("/")[3]} if body is not None else {}
    kind = "deny" if body is not None else "look"
    client = Client(life.mesh, Record(), Random(0), threading.Event())
    question = Question("POST", path, body)
    client.once(named(Wish("tidy", kind, "", question, lambda _: {}, facts)), node.console())
