"""Read facts of the journal as entries of the mergeable roster.

A primary has seen every row before the one it writes, so its write into a register is over all of
them. Who wrote an adopted fact has not: it has seen the writes of its own journal line alone, and
those are found as in any replicated log with terms: a row was there when a term began if its number
is lower than that of the first row of the term.
"""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from broker.core.entries import (
    ENROLLMENT,
    POLICY,
    TOTP_SECRET,
    Certificate,
    Entry,
    Join,
    Listed,
    Promotion,
    Redemption,
    Revocation,
    Spending,
    Write,
    name_of,
    role_of,
)
from broker.core.merge import FactSet
from broker.wire import facts
from broker.wire.codec import decode_fact
from broker.wire.stamp import Stamp, Stamped, stamp_of


def read(rows: Iterable[tuple[Stamp, facts.AnyFact]], orphans: Iterable[Stamped] = ()) -> FactSet:
    """Return the entries of journal rows in their order, and of orphans that come behind them.

    Raises:
        MalformedMessageError: An adopted row holds no fact.
        UnknownKindError: An adopted row is of a newer release.
    """
    reader = _Reader()
    for stamp, fact in rows:
        reader.row(stamp, fact)
    for stamp, fact in orphans:
        reader.orphan(stamp, fact)
    return reader.found()


class _Reader:
    def __init__(self) -> None:
        self._entries: set[Entry] = set()
        self._writes: dict[str, list[Stamp]] = {}
        self._terms: list[Stamp] = []
        self._version = (0, 0)

    def found(self) -> FactSet:
        return FactSet(frozenset(self._entries), self._version)

    def row(self, stamp: Stamp, fact: facts.AnyFact) -> None:
        self._saw(stamp)
        if isinstance(fact, facts.FactAdopted):
            self.orphan(stamp_of(fact.origin), decode_fact(fact.payload))
            return
        self._add(stamp, fact, lambda _older: True)

    def orphan(self, stamp: Stamp, fact: facts.AnyFact) -> None:
        self._saw(stamp)
        if isinstance(fact, facts.MemberJoined) and fact.role == "primary":
            # Nobody becomes the primary by being adopted: that takes a promotion.
            fact = replace(fact, role="standby")
        self._add(stamp, fact, lambda older: self._knew(stamp, older))

    def _saw(self, stamp: Stamp) -> None:
        self._version = max(self._version, (stamp.term, stamp.sequence))

    def _add(self, stamp: Stamp, fact: facts.AnyFact, saw: Callable[[Stamp], bool]) -> None:
        for entry in entries_of(stamp, fact):
            if isinstance(entry, Promotion):
                self._terms.append(stamp)
            self._entries.add(self._over(entry, saw) if isinstance(entry, Write) else entry)

    def _over(self, write: Write, saw: Callable[[Stamp], bool]) -> Write:
        known = self._writes.setdefault(write.register, [])
        over = frozenset(older for older in known if older < write.stamp and saw(older))
        known.append(write.stamp)
        return Write(write.stamp, write.register, write.value, over)

    def _knew(self, younger: Stamp, older: Stamp) -> bool:
        if (older.term, older.node, older.incarnation) == (
            younger.term,
            younger.node,
            younger.incarnation,
        ):
            return True
        between = [start for start in self._terms if older.term < start.term <= younger.term]
        return older.term < younger.term and all(older.sequence < s.sequence for s in between)


def entries_of(stamp: Stamp, fact: facts.AnyFact) -> tuple[Entry, ...]:
    """Return what the merge rules look at in `fact`; most facts are history and have nothing."""
    reading = _READINGS.get(type(fact))
    return () if reading is None else reading(stamp, fact)


def _mesh(stamp: Stamp, fact: facts.MeshCreated) -> tuple[Entry, ...]:
    return (Write(stamp, ENROLLMENT, "open" if fact.enrollment_open else "closed"),)


def _window(stamp: Stamp, fact: facts.EnrollmentOpened | facts.EnrollmentClosed) -> tuple[Entry]:
    value = "open" if isinstance(fact, facts.EnrollmentOpened) else "closed"
    return (Write(stamp, ENROLLMENT, value),)


def _policy(stamp: Stamp, fact: facts.PolicyChanged) -> tuple[Entry, ...]:
    return (Write(stamp, POLICY, f"policy {_digest(msgspec.json.encode(fact.policy))}"),)


def _secret(stamp: Stamp, fact: facts.TOTPRotated) -> tuple[Entry, ...]:
    return (Write(stamp, TOTP_SECRET, f"secret {_digest(fact.nonce + fact.ciphertext)}"),)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _join(stamp: Stamp, fact: facts.MemberJoined) -> tuple[Entry, ...]:
    first_role = Write(stamp, role_of(fact.member_id), fact.role)
    return (Join(stamp, fact.member_id, fact.host), first_role)


def _renamed(stamp: Stamp, fact: facts.MemberRenamed) -> tuple[Entry, ...]:
    return (Write(stamp, name_of(fact.member_id), fact.host),)


def _certificate(
    stamp: Stamp, fact: facts.CertificateIssued | facts.CertificateRenewed
) -> tuple[Entry, ...]:
    issued = (fact.member_id, fact.serial, fact.not_before, fact.key_hash)
    return (Certificate(stamp, *issued),)


def _revocation(stamp: Stamp, fact: facts.MemberRevoked) -> tuple[Entry, ...]:
    return (Revocation(stamp, fact.member_id),)


def _redemption(stamp: Stamp, fact: facts.InviteUsed) -> tuple[Entry, ...]:
    return (Redemption(stamp, fact.invite_id, fact.member_id),)


def _spending(stamp: Stamp, fact: facts.TOTPStepUsed) -> tuple[Entry, ...]:
    return (Spending(stamp, fact.step, fact.key_hash),)


def _nominated(stamp: Stamp, fact: facts.StandbyNominated) -> tuple[Entry, ...]:
    return (Write(stamp, role_of(fact.member_id), "nominated"),)


def _ready(stamp: Stamp, fact: facts.StandbyReady) -> tuple[Entry, ...]:
    return (Write(stamp, role_of(fact.member_id), "standby"),)


def _removed(stamp: Stamp, fact: facts.StandbyRemoved) -> tuple[Entry, ...]:
    return (Write(stamp, role_of(fact.member_id), "member"),)


def _promoted(stamp: Stamp, fact: facts.FailoverPromoted) -> tuple[Entry, ...]:
    chosen = Write(stamp, role_of(fact.member_id), "primary")
    return (Promotion(stamp, fact.member_id), chosen)


def _listed(stamp: Stamp, fact: facts.MergeConflict) -> tuple[Entry, ...]:
    return (Listed(stamp, fact.review_id),)


_READINGS: dict[type, Callable[[Stamp, Any], tuple[Entry, ...]]] = {
    facts.MeshCreated: _mesh,
    facts.EnrollmentOpened: _window,
    facts.EnrollmentClosed: _window,
    facts.PolicyChanged: _policy,
    facts.TOTPRotated: _secret,
    facts.MemberJoined: _join,
    facts.MemberRenamed: _renamed,
    facts.CertificateIssued: _certificate,
    facts.CertificateRenewed: _certificate,
    facts.MemberRevoked: _revocation,
    facts.InviteUsed: _redemption,
    facts.TOTPStepUsed: _spending,
    facts.StandbyNominated: _nominated,
    facts.StandbyReady: _ready,
    facts.StandbyRemoved: _removed,
    facts.FailoverPromoted: _promoted,
    facts.MergeConflict: _listed,
}
