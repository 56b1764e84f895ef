"""Many members under one primary, played against a pushed clock: what they hold and what it cost.

Each member does what a real one does: it makes a fresh key for a push, installs what comes, pulls
by itself when the sweep is late, and keeps its own pace. `Trouble` says what is wrong with it.
"""

import random
import secrets
from dataclasses import dataclass, field
from typing import Any, Literal

from broker.clock import boottime_ms, wall_s
from broker.core.renewal import BACKDATE_S, pull_at, renew_at
from broker.units import UnixSeconds
from broker.wire.control import Fault
from broker.wire.enrollment import Issued
from broker.wire.renewal import RenewalAnswer, RenewAsPeer, RenewWithLease
from broker.wire.work import (
    CompleteWork,
    Failed,
    Installed,
    LeaseWork,
    RenewMember,
    WorkAnswer,
)
from tests.shell.office import make_csr, peer_of
from tests.shell.paced import Paced, beat_of

Trouble = Literal["", "unreachable", "flaky", "off"]
"""Well; push never arrives; a third of everything fails; neither push nor pull ever arrives."""
FRACTION = 0.59
PACE_MS = 60_000


@dataclass
class Member:
    """One host: what it serves, and every attempt that was made for it."""

    host: str
    issued: Issued
    trouble: Trouble = ""
    pending: bytes = b""
    pulled_ms: int = -PACE_MS
    attempts_ms: list[int] = field(default_factory=list)
    renewals: list[int] = field(default_factory=list)

    @property
    def pulls_from(self) -> int:
        """Wall time from which it pulls by itself."""
        begin = UnixSeconds(self.issued.not_before + BACKDATE_S)
        end = self.issued.not_after
        return pull_at(renew_at(begin, end, fraction=FRACTION, jitter=0.0), begin, end)

    def csr(self) -> bytes:
        """Return the request for its pending key, made when there is none."""
        self.pending = self.pending or make_csr(self.host)
        return self.pending

    def install(self, issued: Issued) -> None:
        """Serve a new certificate."""
        self.issued, self.pending = issued, b""
        self.renewals.append(wall_s())


class Fleet:
    """The members, and the workers that sweep them."""

    def __init__(self, mesh: Paced, troubles: dict[str, Trouble], seed: int) -> None:
        self.mesh = mesh
        self.drawn = random.Random(seed)
        self.members = {
            host: Member(host, mesh.enroll(host), trouble) for host, trouble in troubles.items()
        }
        self.lost: list[str] = []
        self.failures = 0
        self.signed: set[str] = set()

    def run(self, seconds: int, step_s: int = 5) -> None:
        """Let time pass; everybody does what is theirs, and nobody may run out."""
        for _ in range(seconds // step_s):
            self.mesh.wait(step_s)
            self.sweep()
            self.pull()
            now = wall_s()
            self.lost += [
                f"{member.host} at {now}"
                for member in self.members.values()
                if member.trouble != "off" and member.issued.not_after <= now
            ]

    def beat(self) -> None:
        """Let everybody who is on say so."""
        mesh = self.mesh.office.ledger.mesh()
        assert mesh is not None
        calls = [
            (self.mesh.gateway, beat_of(peer_of(member.issued, member.host), mesh.pin))
            for member in self.members.values()
            if member.trouble != "off" and member.issued.not_after > wall_s()
        ]
        self.mesh.office.turn([(who, what, secrets.token_bytes(16)) for who, what in calls])

    def sweep(self) -> None:
        """Play the renewal worker: lease everything, rekey, sign, deliver."""
        leases = []
        while True:
            answers = self._turn([(self.mesh.worker, LeaseWork())] * 16)
            granted = [a.lease for a in answers if isinstance(a, WorkAnswer) and a.lease]
            leases += granted
            if len(granted) < 16:
                break
        reached, results = [], []
        for lease in leases:
            assert isinstance(lease.item, RenewMember)
            member = self.members[lease.item.host]
            member.attempts_ms.append(boottime_ms())
            if self._fails(member, "push"):
                results.append(CompleteWork(lease.lease_id, Failed("no route")))
            else:
                reached.append((lease, member))
        signing = [RenewWithLease(lease.lease_id, member.csr()) for lease, member in reached]
        signed = self._turn([(self.mesh.worker, request) for request in signing])
        for (lease, member), answer in zip(reached, signed, strict=True):
            assert isinstance(answer, RenewalAnswer), answer
            self.signed.add(answer.issued.serial)
            if self._fails(member, "deliver"):
                results.append(CompleteWork(lease.lease_id, Failed("connection lost")))
                continue
            member.install(answer.issued)
            done = Installed(answer.issued.serial, "served", "")
            results.append(CompleteWork(lease.lease_id, done))
        self.failures += sum(isinstance(result.result, Failed) for result in results)
        self._turn([(self.mesh.worker, result) for result in results])

    def pull(self) -> None:
        """Let members ask for themselves whose certificate is late."""
        now, now_ms = wall_s(), boottime_ms()
        late = [
            member
            for member in self.members.values()
            if member.pulls_from <= now < member.issued.not_after
            and now_ms - member.pulled_ms >= PACE_MS
            and not self._fails(member, "pull")
        ]
        requests = [RenewAsPeer(peer_of(m.issued, m.host), m.csr()) for m in late]
        for member in late:
            member.pulled_ms = now_ms
        answers = self._turn([(self.mesh.gateway, request) for request in requests])
        for member, answer in zip(late, answers, strict=True):
            if isinstance(answer, RenewalAnswer):
                if answer.issued.serial not in self.signed:
                    member.attempts_ms.append(now_ms)  # else the answer to a push that was lost
                member.install(answer.issued)
            else:
                assert isinstance(answer, Fault), answer
                assert answer.code in {"throttled", "renewal_in_progress"}, answer

    def _fails(self, member: Member, way: str) -> bool:
        if member.trouble == "off":
            return True
        if member.trouble == "unreachable":
            return way != "pull"
        return member.trouble == "flaky" and self.drawn.random() < 1 / 3

    def _turn(self, calls: list[tuple[bytes, Any]]) -> list[Any]:
        """Do these in one drain and return the replies in order."""
        if not calls:
            return []
        numbered = [(who, what, secrets.token_bytes(16)) for who, what in calls]
        entries = self.mesh.office.turn(numbered)
        replies = {entry.caller.request_id: entry.reply for entry in entries}
        return [replies[request_id] for _, _, request_id in numbered]
