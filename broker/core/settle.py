"""Which conflicts a set of facts holds, and how the merge rules decide them.

Credentials come first, names second: a member that loses its invite takes no name with it. The
verdicts depend on the facts alone, so whoever settles the same set decides the same; once the
losers are revoked and the reviews listed there is nothing left to settle.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from broker.core.entries import Entry, Listed, Revocation, Write
from broker.core.merge import FactSet
from broker.wire.stamp import Stamp


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two facts of a conflict; `member_id` is empty where no member depends on it."""

    stamp: Stamp
    member_id: str
    value: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """A conflict and its end; the loser's member is to be revoked, everything is to be listed.

    `rule`: `hostname`, `invite`, `totp`, `enrollment`, `policy`, `totp-secret`, `role`, `name`.
    `subject`: the name, the invite, the step, the register, the member (for `role` and `name`).
    """

    rule: str
    subject: str
    kept: Side
    lost: Side

    @property
    def loser(self) -> str:
        """Return the member to be revoked, empty when the conflict is only listed."""
        return self.lost.member_id

    @property
    def review_id(self) -> str:
        """Return the name of this very conflict, the same on every node."""
        parts = (self.rule, self.subject, self.kept.stamp.text, self.lost.stamp.text)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def settle(value: FactSet) -> tuple[Verdict, ...]:
    """Return what the rules decide and nobody has carried out yet, in a fixed order."""
    credentials = [
        verdict
        for verdict in chain(_invites(value), _steps(value))
        if verdict.loser not in value.revoked
    ]
    out = {verdict.loser for verdict in credentials}
    listed = [
        verdict
        for verdict in chain(_unknown_spenders(value), _registers(value))
        if verdict.review_id not in value.listed
    ]
    return (*credentials, *_names(value, out), *listed)


def rulings(verdicts: Sequence[Verdict], stamp: Stamp) -> FactSet:
    """Return the facts that carry out `verdicts`, written at `stamp`."""
    entries: set[Entry] = {Listed(stamp, verdict.review_id) for verdict in verdicts}
    entries.update(Revocation(stamp, verdict.loser) for verdict in verdicts if verdict.loser)
    return FactSet.of(entries)


def _invites(value: FactSet) -> Iterator[Verdict]:
    for invite_id, uses in sorted(value.invites.items()):
        sides = [Side(use.stamp, use.member_id, "") for use in uses]
        yield from _against_the_first("invite", invite_id, sides)


def _steps(value: FactSet) -> Iterator[Verdict]:
    for step, uses in sorted(value.steps.items()):
        sides = [Side(use.stamp, value.spender(use), "") for use in uses]
        yield from _against_the_first("totp", str(step), sides)


def _against_the_first(rule: str, subject: str, sides: Sequence[Side]) -> Iterator[Verdict]:
    """Yield a verdict for each member but the first user's; a member is judged once."""
    kept, *others = sides
    judged = {kept.member_id, ""}
    for lost in others:
        if lost.member_id not in judged:
            judged.add(lost.member_id)
            yield Verdict(rule, subject, kept, lost)


def _unknown_spenders(value: FactSet) -> Iterator[Verdict]:
    for step, uses in sorted(value.steps.items()):
        kept, *others = uses
        for use in others:
            if not use.key_hash:
                sides = (Side(kept.stamp, "", ""), Side(use.stamp, "", ""))
                yield Verdict("totp", str(step), *sides)


def _names(value: FactSet, out: Iterable[str]) -> Iterator[Verdict]:
    gone = frozenset(out)
    for host, members in sorted(value.hosts.items()):
        sides = [
            Side(value.joins[member_id].stamp, member_id, "")
            for member_id in members
            if member_id not in gone
        ]
        if sides:
            yield from _against_the_first("hostname", host, sides)


def _registers(value: FactSet) -> Iterator[Verdict]:
    """Yield a verdict for each write that lost although its writer did not see the winner's."""
    for register, writes in sorted(value.registers.items()):
        rule, _, member_id = register.partition(" ")
        if member_id in value.revoked:
            continue
        kept = writes[max(writes)]
        for stamp in sorted(value.heads(register)):
            lost = writes[stamp]
            if lost.value != kept.value:
                yield Verdict(rule, member_id or rule, _written(kept), _written(lost))


def _written(write: Write) -> Side:
    return Side(write.stamp, "", write.value)
