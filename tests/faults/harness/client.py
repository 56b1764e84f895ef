"""A client outside the pool: it keeps its own keys, asks again when it is not told, and notes all.

A retry is the same request: the same key, the same secret, the same `Idempotency-Key`. What is a
final answer and what passes is the client's own opinion, as the product documents it.
"""

import contextlib
import os
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from random import Random

import msgspec

from broker.clock import boottime_ms
from broker.errors import ErrorCode
from broker.pki.request import parse_request
from broker.wire.operator import OPERATOR_HEADER
from tests.faults.harness.caller import Door, Question, Reply, ask
from tests.faults.harness.mesh import Mesh, Node
from tests.faults.harness.promises import Record, Told
from workers.keypair import make_key_and_csr
from workers.pem import certificate_pem

PATIENCE_S = 60.0
"""A client gives up after this; the harness says so, for whatever was broken is healed by then."""
PAUSE_S = 0.15
OPERATOR = "drill"
DEAF = 0.1
"""How often an answer is lost on its way: the network's doing, or the client's."""
DEAF_S = (0.0, 0.2)
UNDER_WAY = "under way"
PASSING = frozenset(
    {
        ErrorCode.UNAVAILABLE,
        ErrorCode.BUSY,
        ErrorCode.TIMEOUT,
        ErrorCode.STORAGE,
        ErrorCode.NOT_PRIMARY,
        ErrorCode.STALE_TERM,
        ErrorCode.CA_LOCKED,
        ErrorCode.WITHHELD,
        ErrorCode.UNREGISTERED,
        ErrorCode.RENEWAL_IN_PROGRESS,
        ErrorCode.LEDGER_DAMAGED,
        ErrorCode.PEER_UNREACHABLE,
    }
)
"""Refusals that say "not now" or "not here"."""


@dataclass
class Identity:
    """A member somebody outside the pool is: its name, its key and its newest certificate."""

    host: str
    member: str
    serial: str
    context: ssl.SSLContext
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True)
class Wish:
    """One operation as its client names it; `read` returns the facts of an answer."""

    op: str
    kind: str
    host: str
    question: Question
    read: Callable[[bytes], Mapping[str, str]]
    known: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FreshKey:
    """A key made for one request, and what the ledger will call it."""

    pem: bytes
    csr: bytes
    digest: str

    @classmethod
    def of(cls, host: str) -> "FreshKey":
        """Make one."""
        pem, csr = make_key_and_csr(host)
        return cls(pem, csr, parse_request(csr).key_hash)


class Client:
    """Asks the mesh, whoever leads it; safe for one thread."""

    def __init__(
        self, mesh: Mesh, record: Record, chance: Random, stopped: threading.Event
    ) -> None:
        self.mesh = mesh
        self.chance = chance
        self._record = record
        self._stopped = stopped
        self._at = 0
        self._enrol = {node.name: mesh.enrol_door(node) for node in mesh.nodes}
        self._root = mesh.root
        self._domain = mesh.domain
        self.pin = mesh.membership.pin

    @property
    def is_stopped(self) -> bool:
        """Whether it should begin nothing more."""
        return self._stopped.is_set()

    def rest(self, seconds: float) -> None:
        """Wait so long, or until it should stop."""
        self._stopped.wait(seconds)

    def at_console(self, wish: Wish) -> Told:
        """Insist as an operator with a name, on the node that leads."""
        return self._insist(named(wish), lambda node: node.console())

    def at_enrol(self, wish: Wish) -> Told:
        """Insist as a stranger."""
        return self._insist(wish, lambda node: self._enrol[node.name])

    def at_mesh(self, wish: Wish, identity: Identity) -> Told:
        """Insist as a member."""
        return self._insist(wish, lambda node: self.mesh_door(node, identity))

    def once(self, wish: Wish, door: Door) -> Told:
        """Ask one time, at one door."""
        began_ms = boottime_ms()
        deaf_s = self.chance.uniform(*DEAF_S) if self.chance.random() < DEAF else 0.0
        return self._note(wish, door.node, began_ms, ask(door, wish.question, deaf_s))

    def mesh_door(self, node: Node, identity: Identity) -> Door:
        """Return a node's mesh port as this member dials it."""
        place = (node.address, node.port + 1)
        return Door(node.name, place, identity.context, f"{node.name}.{self._domain}")

    def context_of(self, leaf: bytes, issuing: bytes, key: bytes) -> ssl.SSLContext:
        """Return what a member with this pair dials with."""
        context = ssl.create_default_context(cadata=self._root)
        with _file((certificate_pem(leaf) + certificate_pem(issuing)).encode() + key) as path:
            context.load_cert_chain(path)
        return context

    def _insist(self, wish: Wish, door_at: Callable[[Node], Door]) -> Told:
        """Ask until there is a final answer or patience ends; lost answers are asked for again."""
        pause, deadline_ms = threading.Event(), boottime_ms() + int(PATIENCE_S * 1000)
        while True:
            holders = self.mesh.key_holders
            node = holders[self._at % len(holders)]
            told = self.once(wish, door_at(node))
            if told.outcome in ("done", "wrong") or is_final(told):
                return told
            if boottime_ms() > deadline_ms:
                return told
            if told.code != ErrorCode.RENEWAL_IN_PROGRESS:
                self._at += 1
            pause.wait(PAUSE_S * (1 + self.chance.random()))

    def _note(self, wish: Wish, node: str, began_ms: int, reply: Reply) -> Told:
        facts = dict(wish.known)
        detail = "" if reply.outcome == "done" else reply.text.decode(errors="replace")
        outcome = reply.outcome
        if outcome == "done":
            try:
                facts |= wish.read(reply.text)
            except msgspec.MsgspecError as error:
                outcome, detail = "wrong", f"the answer is not what it should be: {error}"
        told = Told(
            wish.op,
            wish.kind,
            wish.host,
            node,
            began_ms,
            began_ms + reply.took_ms,
            outcome,
            reply.code,
            detail,
            facts,
        )
        self._record.note(told)
        return told


def named(wish: Wish) -> Wish:
    """Return the wish of an operator: the mesh takes no decision that nobody put a name to."""
    headers = {**(wish.question.headers or {}), OPERATOR_HEADER: OPERATOR}
    return replace(wish, question=replace(wish.question, headers=headers))


def is_final(told: Told) -> bool:
    """Return whether asking the same again is useless. Sans-IO."""
    if told.code == ErrorCode.CONFLICT and UNDER_WAY in told.detail:
        return False  # the first one of two equal requests is not answered yet
    return told.outcome == "refused" and told.code not in PASSING


def digest(leaf: bytes) -> str:
    """Return what identifies the very certificate, not only its serial."""
    return sha256(leaf).hexdigest()


@contextlib.contextmanager
def _file(content: bytes) -> Iterator[str]:
    """Show `content` as a file that lies on no disk: ssl reads files only."""
    descriptor = os.memfd_create("pair")
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
