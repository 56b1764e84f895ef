"""What a broker was asked and what it promised, and whether its disk keeps the promises.

Requests are drawn from a seed. Each keeps its id until it is answered, over as many lives of the
broker as it takes; some that were answered are asked again. After every death the ledger on the
disk is compared with the answers.
"""

import hashlib
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

from broker.errors import error_classes
from broker.ledger.rows import Head
from broker.ledger.sqlite import Ledger
from broker.wire.base import Reply, Request
from broker.wire.codec import decode_fact, encode
from broker.wire.control import Fault
from broker.wire.enrollment import CreateInvite, JoinAnswer
from broker.wire.facts import (
    CertificateIssued,
    CertificateRenewed,
    InviteCreated,
    MemberJoined,
    MemberRevoked,
    TokenMade,
)
from broker.wire.ids import Service
from broker.wire.messages import Answer
from broker.wire.renewal import RenewalAnswer, RenewAsPeer
from broker.wire.roster import RevokeMember
from broker.wire.token import CreateToken
from tests.shell.office import issued_of, join_request, make_csr, peer_of

AGAIN = 0.1
"""Share of the requests that were answered and are asked again."""
INVITES_OPEN_MAX = 40

_PASSING = {code.value for code, kind in error_classes().items() if kind.retryable}

Holds = Callable[[Ledger], bool]


@dataclass
class Promise:
    """One request, and what must be on the disk once it was answered."""

    request_id: bytes
    service: Service
    request: Request
    learn: Callable[[Reply], Holds]
    answer: bytes = b""
    holds: Holds | None = None


@dataclass
class _Host:
    name: str
    secret: str
    csr: bytes
    answer: JoinAnswer | None = None


@dataclass
class Book:
    """All requests of one campaign.

    Attributes:
        chance: Draws which request comes next.
        open: Asked and not answered yet, oldest first.
        kept: Answered.
        broken: Sentences; empty while every promise was kept.
    """

    chance: Random
    open: dict[bytes, Promise] = field(default_factory=dict)
    kept: list[Promise] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    _invited: list[_Host] = field(default_factory=list)
    _members: list[_Host] = field(default_factory=list)
    _number: int = 0
    _read: int = 0
    _checked: int = 0
    _head: Head | None = None
    _seen: set[tuple[str, str]] = field(default_factory=set)

    def draw(self) -> Promise:
        """Return the next request, an answered one now and then."""
        if self.kept and self.chance.random() < AGAIN:
            return self.chance.choice(self.kept)
        kinds = [self._invite, self._token]
        if self._invited:
            kinds += [self._join] * 3
        if len(self._members) > 3:
            kinds += [self._renew, self._renew, self._revoke]
        promise = self.chance.choice(kinds)()
        self.open[promise.request_id] = promise
        return promise

    def note(self, answer: Answer) -> None:
        """Take an answer: a new one is a promise, another one must be word for word the same."""
        words = encode(answer)[1]
        promise = self.open.pop(answer.request_id, None)
        if promise is None:
            self._compare(answer, words)
        elif isinstance(answer.reply, Fault):
            self.refused[f"{type(promise.request).__name__}: {answer.reply.detail[:60]}"] += 1
            if not self._has_cause(promise.request, answer.reply):
                self.broken.append(f"{promise.request} was refused: {answer.reply}")
        else:
            promise.answer, promise.holds = words, promise.learn(answer.reply)
            self.kept.append(promise)

    def check(self, ledger: Ledger, *, all_of_them: bool = False) -> None:
        """Compare the disk with the promises made since the last time, or with all.

        The rows that were there the last time must be there, and by the chain no other ones in
        their place: that vouches for older promises.
        """
        rows, _head, first_bad, detail = ledger.verify_chain()
        if first_bad is not None:
            self.broken.append(f"the chain breaks at row {first_bad} of {rows}: {detail}")
        if tables := ledger.differing_projections():
            self.broken.append(f"not the fold of the journal: {tables}")
        if self._head is not None and not ledger.holds_row(self._head.sequence, self._head.hash):
            self.broken.append(f"the journal lost row {self._head.sequence}, seen before")
        self._head = ledger.head
        for promise in self.kept[0 if all_of_them else self._checked :]:
            if promise.holds is not None and not promise.holds(ledger):
                self.broken.append(f"acknowledged and lost: {promise.request}")
        self._checked = len(self.kept)
        self._one_effect(ledger)

    def _has_cause(self, request: Request, refusal: Fault) -> bool:
        """Whether it passes, or a renewal came behind the order to put its member out.

        Nothing else here can be refused: names are new, and who is asked for is there.
        """
        if isinstance(request, RenewAsPeer) and refusal.code == "revoked":
            return request.peer.host not in {host.name for host in self._members}
        return refusal.code in _PASSING

    def _compare(self, answer: Answer, words: bytes) -> None:
        for promise in self.kept:
            if promise.request_id == answer.request_id and promise.answer != words:
                self.broken.append(f"two answers to one id: {promise.request} -> {answer.reply}")

    def _one_effect(self, ledger: Ledger) -> None:
        while rows := ledger.audit(self._read, 500):
            self._read = rows[-1].sequence
            for row in rows:
                for key in _keys(decode_fact(row.payload)):
                    if key in self._seen:
                        self.broken.append(f"row {row.sequence} is a second {key}")
                    self._seen.add(key)

    def _promise(self, service: Service, request: Request, learn: Callable[..., Holds]) -> Promise:
        return Promise(secrets.token_bytes(16), service, request, learn)

    def _invite(self) -> Promise:
        self._number += 1
        host = _Host(f"h{self._number}", secrets.token_urlsafe(16), b"")
        host.csr = make_csr(host.name)
        invite_id = hashlib.sha256(host.secret.encode()).hexdigest()

        def learn(_reply: Reply) -> Holds:
            if len(self._invited) < INVITES_OPEN_MAX:
                self._invited.append(host)
            return lambda ledger: ledger.invite(invite_id) is not None

        return self._promise(
            Service.CONSOLE, CreateInvite(invite_id, host.name, (), 3600, "root"), learn
        )

    def _token(self) -> Promise:
        self._number += 1
        token_id = secrets.token_hex(32)
        request = CreateToken(token_id, f"t{self._number}", ("read",), 3600, "root")
        return self._promise(
            Service.CONSOLE,
            request,
            lambda _reply: lambda ledger: ledger.token(token_id) is not None,
        )

    def _join(self) -> Promise:
        host = self._invited.pop(self.chance.randrange(len(self._invited)))

        def learn(reply: Reply) -> Holds:
            assert isinstance(reply, JoinAnswer), reply
            host.answer = reply
            self._members.append(host)
            return partial(_has_serial, issued_of(reply).serial)

        request = join_request(host.name, host.csr, invite_secret=host.secret)
        return self._promise(Service.GATEWAY, request, learn)

    def _renew(self) -> Promise:
        host = self.chance.choice(self._members)
        assert host.answer is not None
        peer = peer_of(issued_of(host.answer), host.name)

        def learn(reply: Reply) -> Holds:
            assert isinstance(reply, RenewalAnswer), reply
            return partial(_has_serial, reply.issued.serial)

        request = RenewAsPeer(peer, make_csr(host.name))
        return self._promise(Service.GATEWAY, request, learn)

    def _revoke(self) -> Promise:
        host = self._members.pop(self.chance.randrange(len(self._members)))
        assert host.answer is not None
        member_id = host.answer.member_id
        request = RevokeMember(host.name, "lost", "root")
        return self._promise(
            Service.CONSOLE,
            request,
            lambda _reply: lambda ledger: member_id in set(ledger.revoked_members()),
        )


def _has_serial(serial: str, ledger: Ledger) -> bool:
    return ledger.certificate(serial) is not None


def _keys(fact: object) -> list[tuple[str, str]]:
    """Return what of this fact may be in the journal once only."""
    match fact:
        case InviteCreated(invite_id=name):
            return [("invite", name)]
        case TokenMade(token_id=name):
            return [("token", name)]
        case MemberJoined(member_id=name, host=host):
            return [("member", name), ("host", host)]
        case MemberRevoked(member_id=name):
            return [("revocation", name)]
        case CertificateIssued() | CertificateRenewed():
            return [("serial", fact.serial), ("key", fact.key_hash)]
        case _:
            return []
