"""The mergeable roster: facts are added, never overwritten, and the rules say how to read them.

A `FactSet` is a set of stamped entries, and merging is the union: commutative, associative and
idempotent by construction. Each line of the merge table is a view of the set, so two nodes with the
same facts read the same roster, in whatever order and however often the facts arrived.

Revocation absorbs: no view ever takes a revoked member back, because no entry ever leaves.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from broker.core.entries import (
    ENROLLMENT,
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
from broker.wire.stamp import Stamp

Version = tuple[int, int]
"""(term, sequence); never goes down."""

E = TypeVar("E", bound=Entry)
M = TypeVar("M", Join, Revocation)


@dataclass(frozen=True)
class FactSet:
    """Immutable and shared freely: a copy is the same object. Views are made when first read."""

    entries: frozenset[Entry] = frozenset()
    version: Version = (0, 0)

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> "FactSet":
        """Return the set of these entries; its version is the newest of their rows."""
        kept = frozenset(entries)
        stamps = (entry.stamp for entry in kept)
        return cls(kept, max(((stamp.term, stamp.sequence) for stamp in stamps), default=(0, 0)))

    def plus(self, *entries: Entry) -> "FactSet":
        """Return this set with more entries."""
        return merge(self, FactSet.of(entries))

    @cached_property
    def joins(self) -> Mapping[str, Join]:
        """Every enrollment by member id, revoked or not."""
        return _oldest(self._kind(Join))

    @cached_property
    def revoked(self) -> Mapping[str, Stamp]:
        """Members that are out for ever, joined here or not, with the smallest stamp."""
        oldest = _oldest(self._kind(Revocation))
        return {member_id: entry.stamp for member_id, entry in oldest.items()}

    @cached_property
    def active(self) -> frozenset[str]:
        """Members that joined and are not revoked."""
        return frozenset(self.joins) - frozenset(self.revoked)

    @cached_property
    def certificates(self) -> Mapping[str, Mapping[str, Certificate]]:
        """Every certificate by member id and serial."""
        found: dict[str, dict[str, Certificate]] = {}
        for entry in sorted(self._kind(Certificate), reverse=True):
            found.setdefault(entry.member_id, {})[entry.serial] = entry
        return found

    @cached_property
    def current(self) -> Mapping[str, str]:
        """The serial of each member's current certificate: newest `not_before`, then serial."""
        return {
            member_id: max((entry.not_before, serial) for serial, entry in held.items())[1]
            for member_id, held in self.certificates.items()
        }

    @cached_property
    def hosts(self) -> Mapping[str, tuple[str, ...]]:
        """Active members by the name they have now, oldest first: the first one owns the name.

        A renamed member is as old as its enrollment: seniority decides, not who took a name first.
        """
        found: dict[str, list[str]] = {}
        for join in sorted(self.joins.values()):
            if join.member_id in self.active:
                found.setdefault(self.host(join.member_id), []).append(join.member_id)
        return {host: tuple(members) for host, members in found.items()}

    def host(self, member_id: str) -> str:
        """Return the name a member has now; empty while its join is not known."""
        join = self.joins.get(member_id)
        return self.value(name_of(member_id)) or ("" if join is None else join.host)

    @cached_property
    def invites(self) -> Mapping[str, tuple[Redemption, ...]]:
        """Redemptions of each invite, oldest first: it belongs to the first, revoked or not."""
        found: dict[str, list[Redemption]] = {}
        for entry in sorted(self._kind(Redemption)):
            found.setdefault(entry.invite_id, []).append(entry)
        return {invite_id: tuple(uses) for invite_id, uses in found.items()}

    @cached_property
    def steps(self) -> Mapping[int, tuple[Spending, ...]]:
        """Uses of each TOTP step, oldest first: it belongs to the first, revoked or not."""
        found: dict[int, list[Spending]] = {}
        for entry in sorted(self._kind(Spending)):
            found.setdefault(entry.step, []).append(entry)
        return {step: tuple(uses) for step, uses in found.items()}

    def spender(self, spending: Spending) -> str:
        """Return the member that joined with the spent step, or nothing if none has so far.

        The step's row names a key; of the members that ever had a certificate for it, the spender
        is the first that joined after the step was spent.
        """
        joined = (
            self.joins[member_id]
            for member_id in self._holders.get(spending.key_hash, ())
            if member_id in self.joins and self.joins[member_id].stamp > spending.stamp
        )
        first = min(joined, default=None)
        return "" if first is None else first.member_id

    @cached_property
    def registers(self) -> Mapping[str, Mapping[Stamp, Write]]:
        """Every write of each register by stamp; the newest is the value."""
        found: dict[str, dict[Stamp, Write]] = {}
        for entry in sorted(self._kind(Write), key=lambda entry: (entry.stamp, entry.value)):
            writes = found.setdefault(entry.register, {})
            known = writes.get(entry.stamp, entry)
            over = known.over | entry.over
            writes[entry.stamp] = Write(entry.stamp, entry.register, entry.value, over)
        return found

    def value(self, register: str) -> str:
        """Return what the last writer wrote, nothing when nobody did."""
        writes = self.registers.get(register)
        return writes[max(writes)].value if writes else ""

    def heads(self, register: str) -> frozenset[Stamp]:
        """Return the writes that no later writer had seen: what a next write is `over`."""
        writes = self.registers.get(register, {})
        return frozenset(writes).difference(*(write.over for write in writes.values()))

    @property
    def enrollment_open(self) -> bool:
        """Whether the last writer opened the enrollment window."""
        return self.value(ENROLLMENT) == "open"

    @cached_property
    def promotions(self) -> tuple[Promotion, ...]:
        """Every promotion, oldest first."""
        return tuple(sorted(self._kind(Promotion)))

    @cached_property
    def primary(self) -> str:
        """The member promoted last; before any promotion the oldest that joined as primary."""
        if self.promotions:
            return self.promotions[-1].member_id
        firsts = [
            join
            for join in self.joins.values()
            if (write := self.registers.get(role_of(join.member_id), {}).get(join.stamp))
            and write.value == "primary"
        ]
        return min(firsts).member_id if firsts else ""

    def role(self, member_id: str) -> str:
        """Return a member's role; who was promoted once but not last is a standby."""
        written = self.value(role_of(member_id))
        return "standby" if written == "primary" and member_id != self.primary else written

    @cached_property
    def listed(self) -> frozenset[str]:
        """Reviews that a person was already asked for."""
        return frozenset(entry.review_id for entry in self._kind(Listed))

    @cached_property
    def _holders(self) -> Mapping[str, frozenset[str]]:
        found: dict[str, set[str]] = {}
        for entry in self._kind(Certificate):
            if entry.key_hash:
                found.setdefault(entry.key_hash, set()).add(entry.member_id)
        return {key_hash: frozenset(members) for key_hash, members in found.items()}

    @cached_property
    def _by_kind(self) -> Mapping[type, list[Entry]]:
        found: dict[type, list[Entry]] = {}
        for entry in self.entries:
            found.setdefault(type(entry), []).append(entry)
        return found

    def _kind(self, kind: type[E]) -> list[E]:
        found: list[E] = self._by_kind.get(kind, [])  # type: ignore[assignment]  # keyed by type
        return found


def merge(one: FactSet, other: FactSet) -> FactSet:
    """Return what both sides know together: all facts, the higher version."""
    if other.entries <= one.entries and other.version <= one.version:
        return one
    return FactSet(one.entries | other.entries, max(one.version, other.version))


def _oldest(entries: Iterable[M]) -> dict[str, M]:
    return {entry.member_id: entry for entry in sorted(entries, reverse=True)}
