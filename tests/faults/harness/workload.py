"""What clients do while things break: joins, renewals, heartbeats, revocations, approvals.

Every actor has members of its own, so what each operation must come to is known beforehand. Which
operations follow each other comes from the seed; how far an actor gets is up to the machine.
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from random import Random

import msgspec

from broker.clock import wall_s
from broker.wire.console_api import InviteBody, InviteCreated, ReasonBody, RevokeBody
from broker.wire.control import Ack
from broker.wire.enrollment import JoinAnswer
from broker.wire.invite import decode_invite
from broker.wire.mesh_api import HeartbeatBody, InstalledBody, JoinBody, RenewBody
from broker.wire.renewal import RenewalAnswer
from broker.wire.roster import HeartbeatAnswer, RevocationAnswer
from tests.faults.harness.caller import Question
from tests.faults.harness.client import Client, FreshKey, Identity, Wish, digest
from tests.faults.harness.promises import Told
from workers.idempotency import IDEMPOTENCY_HEADER

MEMBERS_MAX = 6
POLLS_MAX = 40
BREATH_S = 0.02
"""Between two operations: the ledger of a mesh stays small enough to be folded after each seed."""
POLL_S = 0.1
OPERATIONS: Mapping[str, int] = {
    "enroll": 5,
    "renew": 6,
    "twice": 2,
    "beat": 4,
    "revoke": 3,
    "race": 2,
    "again": 2,
    "replace": 2,
    "leave": 1,
}
"""How often each is chosen."""


class Actor:
    """One thread of the workload.

    Args:
        name: Prefix of its operations and hosts; unique in the life of a mesh.
        client: Whom it asks through.
        chance: Decides what it does next.
    """

    def __init__(self, name: str, client: Client, chance: Random) -> None:
        self._name = name
        self._client = client
        self._chance = chance
        self._count = 0
        self._members: list[Identity] = []
        self.members: list[Identity] = []
        """Everybody it ever was, also those that are no members any more."""

    def run(self) -> None:
        """Work until the client is stopped; what was begun is ended."""
        self._enroll()
        words, weights = list(OPERATIONS), list(OPERATIONS.values())
        while not self._client.is_stopped:
            self._step(self._chance.choices(words, weights)[0])
            self._client.rest(BREATH_S)

    def _step(self, word: str) -> None:
        """Do one thing; without members there is only one."""
        may_grow = len(self._members) < MEMBERS_MAX
        if not self._members or (word == "enroll" and may_grow):
            self._enroll()
            return
        alone = {"race": self._race, "again": self._order_again, "replace": self._replace}
        if word in alone:
            alone[word]()
            return
        member = self._chance.choice(self._members)
        as_member: Mapping[str, Callable[[Identity], object]] = {
            "twice": self._renew_twice,
            "beat": self._beat,
            "revoke": self._revoke,
            "leave": self._leave,
        }
        as_member.get(word, self._renew)(member)

    def _next(self) -> str:
        self._count += 1
        return f"{self._name}-{self._count}"

    def _enroll(self) -> None:
        host = f"{self._name}n{self._count}"
        invite = self._invite(host, rejoin=False)
        if invite:
            self._join(host, invite, FreshKey.of(host), self._next())

    def _order_again(self) -> None:
        """Send one order two times at once, under one name: it is one order."""
        host, op = f"{self._name}o{self._count}", self._next()
        with ThreadPoolExecutor(2) as both:
            list(both.map(lambda _: self._invite(host, rejoin=False, op=op), (0, 1)))

    def _invite(self, host: str, *, rejoin: bool, op: str = "") -> str:
        """Return the text of a fresh invite, empty when there is none."""
        op = op or self._next()
        text: list[str] = []

        def read(raw: bytes) -> Mapping[str, str]:
            made = msgspec.json.decode(raw, type=InviteCreated)
            text.append(made.invite)
            return {"invite": made.invite_id}

        body = InviteBody(host, rejoin=rejoin)
        question = Question("POST", "/v1/invites", body, {IDEMPOTENCY_HEADER: op})
        self._client.at_console(Wish(op, "invite", host, question, read))
        return text[-1] if text else ""

    def _join(self, host: str, invite: str, key: FreshKey, op: str) -> Told:
        """Join until there is an answer; a certificate makes another member of this actor."""
        ticket = decode_invite(invite)
        body = JoinBody(
            host=host,
            csr=key.csr,
            ticket_hash=_sha(op),
            nonce="00" * 16,
            invite=ticket.secret,
            addresses=("127.0.0.1",),
            mesh_port=9,
            enroll_port=9,
        )
        known = {"key": key.digest, "secret": _sha(ticket.secret)}
        wish = Wish(op, "join", host, Question("POST", "/v1/join", body), _joined, known)
        told = self._client.at_enrol(wish)
        return self._became(told, key)

    def _became(self, told: Told, key: FreshKey) -> Told:
        """Be the member that an answer made; who had the name before is nobody any more."""
        if told.is_done and "serial" in told.facts:
            self._members = [member for member in self._members if member.host != told.host]
            leaf, issuing = (bytes.fromhex(told.facts[name]) for name in ("der", "issuing"))
            context = self._client.context_of(leaf, issuing, key.pem)
            member = Identity(told.host, told.facts["member"], told.facts["serial"], context)
            self._members.append(member)
            self.members.append(member)
        return told

    def _race(self) -> None:
        """Two hosts find the same invite: at most one of them gets in."""
        host = f"{self._name}r{self._count}"
        invite = self._invite(host, rejoin=False)
        if not invite:
            return
        keys = [FreshKey.of(host), FreshKey.of(host)]
        ops = [self._next(), self._next()]
        with ThreadPoolExecutor(2) as both:
            list(both.map(lambda at: self._join(host, invite, keys[at], ops[at]), (0, 1)))

    def _renew(self, member: Identity) -> Told:
        told = self._renew_with(member, FreshKey.of(member.host), self._next())
        self._report(member)
        return told

    def _renew_with(self, member: Identity, key: FreshKey, op: str) -> Told:
        question = Question("POST", "/v1/renew", RenewBody(key.csr))
        known = {"key": key.digest, "by": member.member}
        told = self._client.at_mesh(
            Wish(op, "renew", member.host, question, _renewed, known), member
        )
        if told.is_done:
            leaf, issuing = (bytes.fromhex(told.facts[name]) for name in ("der", "issuing"))
            context = self._client.context_of(leaf, issuing, key.pem)
            with member.lock:
                member.serial, member.context = told.facts["serial"], context
        return told

    def _renew_twice(self, member: Identity) -> None:
        """Send the same request two times at once: a network that repeats, or a hasty client."""
        key, op = FreshKey.of(member.host), self._next()
        with ThreadPoolExecutor(2) as both:
            list(both.map(lambda _: self._renew_with(member, key, op), (0, 1)))
        self._report(member)

    def _report(self, member: Identity) -> None:
        body = InstalledBody(serial=member.serial, state="served")
        self._as_member(member, "report", Question("POST", "/v1/installed", body), Ack)

    def _beat(self, member: Identity) -> None:
        body = HeartbeatBody(
            pin=self._client.pin,
            served_serial=member.serial,
            served="served",
            clock=wall_s(),
            bundle_sequence=0,
            term=1,
        )
        question = Question("POST", "/v1/heartbeat", body)
        self._as_member(member, "heartbeat", question, HeartbeatAnswer)

    def _as_member(
        self, member: Identity, kind: str, question: Question, answer: type[msgspec.Struct]
    ) -> Told:
        def read(raw: bytes) -> Mapping[str, str]:
            msgspec.json.decode(raw, type=answer)
            return {}

        known = {"by": member.member}
        return self._client.at_mesh(
            Wish(self._next(), kind, member.host, question, read, known), member
        )

    def _revoke(self, member: Identity) -> None:
        """Put a member out, and let it try to come back at once."""
        op = self._next()

        def read(raw: bytes) -> Mapping[str, str]:
            answer = msgspec.json.decode(raw, type=RevocationAnswer)
            return {"member": answer.member_id, "serials": ",".join(answer.serials)}

        path = f"/v1/members/{member.host}/revoke"
        question = Question("POST", path, RevokeBody("lost"), {IDEMPOTENCY_HEADER: op})
        known = {"member": member.member}
        wish = Wish(op, "revoke", member.host, question, read, known)
        with ThreadPoolExecutor(2) as both:  # one order, sometimes sent two times at once
            times = self._chance.randint(1, 2)
            list(both.map(lambda _: self._client.at_console(wish), range(times)))
        self._members.remove(member)
        self._renew_with(member, FreshKey.of(member.host), self._next())

    def _leave(self, member: Identity) -> None:
        told = self._as_member(member, "leave", Question("POST", "/v1/leave"), Ack)
        self._members.remove(member)
        if told.is_done:
            self._renew_with(member, FreshKey.of(member.host), self._next())

    def _replace(self) -> None:
        """Join under a name that is taken: a person decides, and only a yes lets the host in."""
        host = f"{self._name}p{self._count}"
        first, second = self._invite(host, rejoin=False), self._invite(host, rejoin=False)
        if not first or not second:
            return
        before = self._join(host, first, FreshKey.of(host), self._next())
        key = FreshKey.of(host)
        op = self._next()
        told = self._join(host, second, key, op)
        ticket = told.facts.get("approval", "")
        if not (before.is_done and ticket):
            return
        is_yes = self._chance.random() < 0.6
        self._decide(ticket, host, yes=is_yes)
        self._poll(ticket, host, key, op)

    def _decide(self, ticket: str, host: str, *, yes: bool) -> Told:
        op = self._next()
        word = "approve" if yes else "deny"
        question = Question(
            "POST", f"/v1/approvals/{ticket}/{word}", ReasonBody("drill"), {IDEMPOTENCY_HEADER: op}
        )
        return self._client.at_console(
            Wish(op, word, host, question, lambda _: {}, {"approval": ticket})
        )

    def _poll(self, ticket: str, host: str, key: FreshKey, secret: str) -> None:
        """Ask what became of a ticket until somebody says."""
        op, pause = self._next(), threading.Event()
        headers = {"Authorization": f"Bearer {secret}"}
        question = Question("GET", f"/v1/join/{ticket}", None, headers)
        known = {"key": key.digest, "approval": ticket}
        for _ in range(POLLS_MAX):
            told = self._client.at_enrol(Wish(op, "poll", host, question, _joined, known))
            if not told.is_done or "serial" in told.facts:
                self._became(told, key)
                return
            pause.wait(POLL_S)


def _joined(raw: bytes) -> Mapping[str, str]:
    answer = msgspec.json.decode(raw, type=JoinAnswer)
    if answer.issued is None:
        return {"approval": answer.ticket_id}
    issued = answer.issued
    return {
        "member": answer.member_id,
        "serial": issued.serial,
        "leaf": digest(issued.leaf),
        "der": issued.leaf.hex(),
        "issuing": issued.issuing.hex(),
    }


def _renewed(raw: bytes) -> Mapping[str, str]:
    issued = msgspec.json.decode(raw, type=RenewalAnswer).issued
    return {
        "serial": issued.serial,
        "leaf": digest(issued.leaf),
        "der": issued.leaf.hex(),
        "issuing": issued.issuing.hex(),
    }


def _sha(text: str) -> str:
    return digest(text.encode())
