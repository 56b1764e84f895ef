"""Two nodes that are primary by turns and sometimes at once: what each writes, and the way home."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hypothesis import strategies as st

from broker.core.adoption import Orphan, adopt_page
from broker.core.merge import FactSet
from broker.core.reading import read
from broker.ledger.lines import line_of
from broker.ledger.rows import JournalRow
from broker.ledger.sqlite import Ledger
from broker.units import UnixSeconds
from broker.wire import facts
from broker.wire.codec import decode_fact
from broker.wire.facts import AnyFact
from broker.wire.replica import OrphanLine
from broker.wire.stamp import Stamp
from tests.ledger.ledger_facts import (
    DAY_S,
    NOW,
    invited,
    issued,
    joined,
    mesh,
    promoted,
    renaming,
    renewed,
    revoked,
)
from tests.ledger.ledger_pair import ALL, copy_all, two_ledgers

HOSTS = ("db", "mail", "web1")
INVITES = ("b1", "b2")
KEYS = ("e1", "e2", "e3", "e4", "e5", "e6")

Op = tuple[str, int, int]
_WORDS = (
    *("invite", "redeem", "redeem", "code", "code", "renew", "revoke", "open", "close"),
    *("nominate", "ready", "remove", "move", "withdraw", "review"),
    *("rename", "rename", "rejoin", "reinstate"),
)
ops: st.SearchStrategy[list[Op]] = st.lists(
    st.tuples(st.sampled_from(_WORDS), st.integers(0, 5), st.integers(0, 5)), max_size=8
)
"""What operators and joiners ask of a primary."""


class Side:
    """A node; as primary it obeys its own ledger, as a broker does, and knows nothing else."""

    def __init__(self, ledger: Ledger, name: str) -> None:
        self.ledger = ledger
        self.name = name
        self.serials: set[str] = set()
        self.revoked: set[str] = set()
        self._count = 0

    def found(self) -> None:
        """Write the first rows of the mesh, with both nodes in it."""
        first = (joined("atlas", "f1", "primary"), joined("boreas", "f2"))
        self.write(mesh(), *first, facts.StandbyReady("f2", "boreas"))

    def promote(self, term: int, member_id: str) -> None:
        """Begin a term."""
        self.ledger.set_term(term)
        self.write(promoted(member_id, self.name))

    def do(self, asked: Sequence[Op]) -> None:
        """Carry out what a broker with this ledger would not refuse."""
        self.ledger.begin()
        for word, one, two in asked:
            self._append(tuple(getattr(self, f"_{word}")(one, two)))
        self.ledger.commit()

    def write(self, *rows: AnyFact) -> None:
        """Commit rows as one group."""
        self.ledger.begin()
        self._append(rows)
        self.ledger.commit()

    def _append(self, rows: Sequence[AnyFact]) -> None:
        for fact in rows:
            self.ledger.append(fact, actor=self.name, now=UnixSeconds(NOW + self._tick()))
            if isinstance(fact, facts.MemberRevoked):
                self.revoked.add(fact.member_id)

    def adopt(self, page: Sequence[Orphan]) -> tuple[AnyFact, ...]:
        """Take a page home; return what was written."""
        rows = adopt_page(page, self.ledger)
        if rows:
            self.write(*rows)
        return rows

    def journal(self) -> FactSet:
        """Return what the merge rules read in the whole journal."""
        return read(self.rows())

    def rows(self) -> list[tuple[Stamp, AnyFact]]:
        """Return the whole journal as stamped facts, adopted ones in their wrapper."""
        rows = self.ledger.audit(0, 100_000)
        return [(_stamp(row), decode_fact(row.payload)) for row in rows]

    def orphans(self) -> list[Orphan]:
        """Return what this node wrote and its journal holds in no form."""
        archived = [_orphan(row) for row in self.ledger.orphans(ALL)]
        return [one for one in archived if not self.ledger.holds_origin(one.origin)]

    def _tick(self) -> int:
        self._count += 1
        return self.ledger.head.sequence * 2 + (self.name == "boreas")

    def _id(self) -> str:
        return f"{ord(self.name[0]):x}{self._tick():02x}{self._count:02x}"

    def _enroll(self, host: str, key: str) -> Iterator[AnyFact]:
        member_id = self._id()
        yield joined(host, member_id)
        yield self._certificate(member_id, key)

    def _certificate(self, member_id: str, key: str) -> facts.CertificateIssued:
        serial = self._id()
        self.serials.add(serial)
        raw = issued(member_id, serial, NOW + self.ledger.head.sequence * DAY_S // 100)
        ends = (raw.not_before, raw.not_after, raw.renew_at)
        return facts.CertificateIssued(member_id, serial, key, *ends, raw.certificate)

    def _invite(self, one: int, two: int) -> Iterator[AnyFact]:
        if self.ledger.invite(INVITES[one % 2]) is None:
            yield invited(INVITES[one % 2], HOSTS[two % 3])

    def _redeem(self, one: int, two: int) -> Iterator[AnyFact]:
        invite = self.ledger.invite(INVITES[one % 2])
        if invite and invite.state == "open" and not self.ledger.member_by_host(invite.host):
            enrolled = list(self._enroll(invite.host, KEYS[two]))
            first = enrolled[0]
            assert isinstance(first, facts.MemberJoined)
            yield facts.InviteUsed(invite.invite_id, first.member_id, KEYS[two])
            yield from enrolled

    def _code(self, one: int, two: int) -> Iterator[AnyFact]:
        host = HOSTS[two % 3]
        if not self.ledger.totp_step_used(one % 2) and not self.ledger.member_by_host(host):
            yield facts.TOTPStepUsed(one % 2, KEYS[two])
            if one < 4:
                yield from self._enroll(host, KEYS[two])

    def _renew(self, one: int, two: int) -> Iterator[AnyFact]:
        member = self.ledger.member_by_host(HOSTS[one % 3])
        if member is not None:
            first = self._certificate(member.member_id, KEYS[two])
            yield renewed(member.member_id, first.serial, member.current_serial, first.not_before)

    def _revoke(self, one: int, _two: int) -> Iterator[AnyFact]:
        member = self.ledger.member_by_host(HOSTS[one % 3])
        if member is not None:
            yield revoked(member.member_id, member.host)

    def _open(self, _one: int, _two: int) -> Iterator[AnyFact]:
        yield facts.EnrollmentOpened()

    def _close(self, _one: int, _two: int) -> Iterator[AnyFact]:
        yield facts.EnrollmentClosed()

    def _nominate(self, one: int, _two: int) -> Iterator[AnyFact]:
        member = self.ledger.member_by_host(HOSTS[one % 3])
        if member is not None and member.role == "member":
            yield facts.StandbyNominated(member.member_id, member.host)

    def _ready(self, _one: int, _two: int) -> Iterator[AnyFact]:
        for member in self.ledger.nominated()[:1]:
            yield facts.StandbyReady(member.member_id, member.host)

    def _remove(self, one: int, _two: int) -> Iterator[AnyFact]:
        member = self.ledger.member_by_host((*HOSTS, "atlas", "boreas")[one % 5])
        if member is not None and member.host != self.name and member.role == "standby":
            yield facts.StandbyRemoved(member.member_id, member.host, "retired")

    def _move(self, one: int, two: int) -> Iterator[AnyFact]:
        member = self.ledger.member_by_host(HOSTS[one % 3])
        if member is not None:
            doors = joined(f"{member.host}{two}", "a1").endpoint
            yield facts.MemberMoved(member.member_id, doors)

    def _rename(self, one: int, two: int) -> Iterator[AnyFact]:
        member = self.ledger.member_by_host(HOSTS[one % 3])
        new = (*HOSTS, "media")[two % 4]
        if member is not None and self.ledger.member_by_host(new) is None:
            yield renaming(member.member_id, member.host, new)

    def _rejoin(self, one: int, two: int) -> Iterator[AnyFact]:
        member = self.ledger.member_by_host(HOSTS[one % 3])
        if member is not None and member.role == "member" and not member.nominated:
            yield facts.MemberRevoked(member.member_id, member.host, "again", "rejoined")
            yield from self._enroll(member.host, KEYS[two])

    def _reinstate(self, one: int, _two: int) -> Iterator[AnyFact]:
        bar = self.ledger.bar_of(HOSTS[one % 3])
        if bar is not None and self.ledger.member_by_host(HOSTS[one % 3]) is None:
            yield facts.MemberReinstated(HOSTS[one % 3], bar.member_id)

    def _withdraw(self, one: int, _two: int) -> Iterator[AnyFact]:
        yield facts.InviteRevoked(INVITES[one % 2])

    def _review(self, _one: int, _two: int) -> Iterator[AnyFact]:
        for review in self.ledger.reviews(1):
            yield facts.MergeReviewed(review.review_id)


@contextmanager
def two_sides() -> Iterator[tuple[Side, Side]]:
    """Yield the founder and its standby, with the same journal."""
    with two_ledgers() as (one, other):
        for ledger in (one, other):
            # Hundreds of forks; none of them is about power cuts.
            ledger._connection.execute("PRAGMA synchronous = OFF")
        founder, standby = Side(one, "atlas"), Side(other, "boreas")
        founder.found()
        copy_all(founder.ledger, standby.ledger)
        yield founder, standby


def _stamp(row: JournalRow) -> Stamp:
    return Stamp(row.term, row.sequence, row.node, row.incarnation)


def _orphan(row: JournalRow) -> Orphan:
    return Orphan.of(OrphanLine(row.sequence, row.hash.hex(), line_of(row)))
