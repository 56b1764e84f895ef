"""The mergeable roster: one test per line of the merge table, and the laws that hold for all."""

from hypothesis import given, settings
from hypothesis import strategies as st

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
    role_of,
)
from broker.core.merge import FactSet, merge
from broker.core.settle import Verdict, rulings, settle
from broker.wire.stamp import Stamp

LAWS = settings(max_examples=100, deadline=None)
LAST = Stamp(9, 99, "zz", "ff")


def at(term: int, sequence: int, node: str = "atlas") -> Stamp:
    """Return a stamp; the incarnation follows from the node."""
    return Stamp(term, sequence, node, f"{ord(node[0]):x}")


def settled(value: FactSet) -> FactSet:
    """Return `value` after a primary has carried out what the rules decide."""
    return merge(value, rulings(settle(value), LAST))


def losers(value: FactSet) -> list[tuple[str, str]]:
    """Return rule and member of each verdict that costs a member its place."""
    return [(verdict.rule, verdict.loser) for verdict in settle(value) if verdict.loser]


Draw = tuple[Stamp, int, int, int]
_stamps = st.builds(at, st.integers(1, 3), st.integers(1, 9), st.sampled_from(("atlas", "boreas")))
_small = st.integers(0, 3)
_draws = st.lists(
    st.tuples(_stamps, st.integers(0, 8), _small, _small), unique_by=lambda draw: draw[0]
)


def _entry(draw: Draw) -> Entry:
    """Return the fact of a drawn row: few names, so that facts meet and contradict each other."""
    stamp, kind, one, two = draw
    member_id, key = f"a{one}", ("", "k1", "k2", "k3")[two]
    register, value = (ENROLLMENT, role_of("a1"))[one % 2], ("open", "closed", "primary", "x")[two]
    seen = frozenset(older for older in (at(1, 1), at(1, two), at(2, two)) if older < stamp)
    facts: tuple[Entry, ...] = (
        Join(stamp, member_id, "db"),
        Join(stamp, member_id, "web1"),
        Certificate(stamp, member_id, stamp.text[-30:], one, key),
        Revocation(stamp, member_id),
        Redemption(stamp, f"b{two % 2}", member_id),
        Spending(stamp, one % 2, key),
        Promotion(stamp, member_id),
        Listed(stamp, f"c{two}"),
        Write(stamp, register, value, seen),
    )
    return facts[kind]


worlds = _draws.map(lambda draws: tuple(map(_entry, draws)))
"""Facts of a small mesh; no two rows share a stamp."""


def parts(count: int) -> st.SearchStrategy[list[FactSet]]:
    """Return what `count` nodes know of one world, with overlaps and gaps."""
    shares = st.lists(st.integers(0, 2**16 - 1), min_size=count, max_size=count)
    return st.builds(lambda world, masks: [_share(world, mask) for mask in masks], worlds, shares)


def _share(world: tuple[Entry, ...], mask: int) -> FactSet:
    return FactSet.of(entry for number, entry in enumerate(world) if mask >> (number % 16) & 1)


def roster(value: FactSet) -> tuple[object, ...]:
    """Return everything a node reads from its facts."""
    return (
        value.version,
        value.active,
        value.revoked,
        value.hosts,
        value.invites,
        value.steps,
        value.certificates,
        value.current,
        value.registers,
        value.primary,
        [value.role(member_id) for member_id in sorted(value.joins)],
        settle(value),
    )


@LAWS
@given(parts(3))
def test_merging_is_commutative_associative_and_idempotent(nodes: list[FactSet]) -> None:
    """Order, grouping and repetition of messages must not matter to what anybody reads (row 29)."""
    one, two, three = nodes
    assert roster(merge(one, two)) == roster(merge(two, one))
    assert roster(merge(merge(one, two), three)) == roster(merge(one, merge(two, three)))
    assert roster(merge(one, one)) == roster(one)
    assert merge(merge(one, two), two) == merge(one, two)


@LAWS
@given(parts(2))
def test_revoked_anywhere_is_revoked_everywhere_for_ever(nodes: list[FactSet]) -> None:
    """Absorbing: whatever is merged later, and the smallest stamp stays (row 29, P5)."""
    one, two = nodes
    both = merge(one, two)
    assert set(both.revoked) == set(one.revoked) | set(two.revoked)
    assert not set(both.revoked) & both.active
    for member_id, stamp in both.revoked.items():
        known = [side.revoked[member_id] for side in nodes if member_id in side.revoked]
        assert stamp == min(known)


@LAWS
@given(worlds, st.randoms(use_true_random=False))
def test_settling_depends_on_the_facts_alone(world: tuple[Entry, ...], luck: object) -> None:
    """Two primaries with the same facts, however these arrived, decide the same."""
    shuffled = list(world)
    luck.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis has no type for its Random
    grown = FactSet()
    for entry in shuffled:
        grown = merge(grown, FactSet.of([entry]))
    assert settle(grown) == settle(FactSet.of(world))


@LAWS
@given(parts(2))
def test_once_settled_there_is_nothing_left_to_settle(nodes: list[FactSet]) -> None:
    """Otherwise a primary would revoke and list for ever."""
    value = settled(merge(*nodes))
    assert settle(value) == ()


@LAWS
@given(parts(2))
def test_a_name_an_invite_and_a_step_have_one_active_member_at_most(nodes: list[FactSet]) -> None:
    """The promise of the merge (row 29, P6)."""
    value = settled(merge(*nodes))
    assert all(len(members) == 1 for members in value.hosts.values())
    for uses in value.invites.values():
        assert len({use.member_id for use in uses} & value.active) <= 1
    for spendings in value.steps.values():
        assert len({value.spender(spending) for spending in spendings} & value.active) <= 1


@LAWS
@given(parts(2))
def test_the_older_side_of_a_conflict_never_loses_it(nodes: list[FactSet]) -> None:
    """And a member is revoked by a rule only, never for company."""
    before = merge(*nodes)
    verdicts = settle(before)
    for verdict in verdicts:
        if verdict.loser:
            assert verdict.kept.stamp < verdict.lost.stamp
            assert verdict.kept.member_id != verdict.loser
    judged = {verdict.loser for verdict in verdicts}
    assert set(settled(before).revoked) - set(before.revoked) == judged - {""}


@LAWS
@given(parts(2))
def test_no_serial_is_ever_lost(nodes: list[FactSet]) -> None:
    """A certificate that no ledger knows could not be revoked (P6)."""
    one, two = nodes

    def serials(value: FactSet) -> set[tuple[str, str]]:
        return {(owner, serial) for owner, held in value.certificates.items() for serial in held}

    assert serials(merge(one, two)) == serials(one) | serials(two)


@LAWS
@given(parts(2))
def test_the_version_is_the_higher_one_and_never_goes_down(nodes: list[FactSet]) -> None:
    """Members refuse what is older than they have seen (P7)."""
    one, two = nodes
    assert merge(one, two).version == max(one.version, two.version)


def test_what_is_known_already_makes_no_new_value() -> None:
    """Nodes exchange the same facts over and over; that must cost nothing."""
    value = FactSet.of([Join(at(1, 2), "a1", "db")])
    assert merge(value, FactSet.of(value.entries)) is value


def test_the_newest_certificate_is_current_and_the_serial_decides_a_tie() -> None:
    """By `not_before`, not by who wrote last."""
    value = FactSet.of(
        [
            Certificate(at(1, 3), "a1", "0f", 50),
            Certificate(at(1, 4), "a1", "0b", 70),
            Certificate(at(2, 4), "a1", "0a", 70),
            Certificate(at(2, 5), "a1", "0c", 60),
        ]
    )
    assert value.current == {"a1": "0b"}
    assert set(value.certificates["a1"]) == {"0f", "0a", "0b", "0c"}


def test_of_two_revocations_the_older_is_told() -> None:
    """All nodes then tell the same moment."""
    value = FactSet.of([Revocation(at(2, 3), "a1"), Revocation(at(1, 9), "a1")])
    assert value.revoked == {"a1": at(1, 9)}


def test_a_name_belongs_to_its_oldest_unrevoked_enrollment() -> None:
    """The younger one is revoked, and the revocation of the older passes the name on."""
    joins = [Join(at(1, 12), "a1", "db"), Join(at(2, 12, "boreas"), "a2", "db")]
    assert losers(FactSet.of(joins)) == [("hostname", "a2")]
    gone = FactSet.of([*joins, Revocation(at(1, 13), "a1")])
    assert gone.hosts == {"db": ("a2",)}
    assert losers(gone) == []


def test_an_invite_belongs_to_its_oldest_redeemer_revoked_or_not() -> None:
    """Else revoking the first would let the second in: two uses of a single-use invite."""
    value = FactSet.of(
        [
            Redemption(at(1, 12), "b1", "a1"),
            Join(at(1, 13), "a1", "db"),
            Revocation(at(1, 14), "a1"),
            Redemption(at(2, 12), "b1", "a2"),
            Join(at(2, 13), "a2", "web1"),
        ]
    )
    assert losers(value) == [("invite", "a2")]
    assert settled(value).active == frozenset()


def test_a_redeemer_that_lost_is_revoked_before_it_has_joined() -> None:
    """The join may be on the next page; it must be revoked at birth."""
    value = FactSet.of([Redemption(at(1, 12), "b1", "a1"), Redemption(at(2, 12), "b1", "a2")])
    late = merge(settled(value), FactSet.of([Join(at(2, 13), "a2", "web1")]))
    assert late.active == frozenset()


def test_who_loses_an_invite_takes_no_name_with_it() -> None:
    """Credentials are judged first: the name stays with the member that keeps its place."""
    value = FactSet.of(
        [
            Redemption(at(1, 2), "b1", "a9"),
            Redemption(at(1, 12), "b1", "a1"),
            Join(at(1, 13), "a1", "db"),
            Join(at(2, 13), "a2", "db"),
        ]
    )
    assert losers(value) == [("invite", "a1")]
    assert settled(value).hosts == {"db": ("a2",)}


def spent(term: int, sequence: int, key: str, member_id: str, *, step: int = 7) -> list[Entry]:
    """Return what a join with a TOTP code writes."""
    return [
        Spending(at(term, sequence), step, key),
        Join(at(term, sequence + 1), member_id, f"host-{member_id}"),
        Certificate(at(term, sequence + 2), member_id, f"{term:x}{sequence:x}", 0, key),
    ]


def test_a_step_belongs_to_whoever_spent_it_first_revoked_or_not() -> None:
    """One code read over a shoulder must not make two members, one on each side."""
    both = [*spent(1, 12, "k1", "a1"), *spent(2, 12, "k2", "a2")]
    assert losers(FactSet.of(both)) == [("totp", "a2")]
    revoked = FactSet.of([*both, Revocation(at(1, 20), "a1")])
    assert settled(revoked).active == frozenset()


def test_a_step_names_the_first_member_that_joined_with_its_key_afterwards() -> None:
    """A key may come back: whoever had it before, or has it later, did not spend this step."""
    value = FactSet.of(
        [
            *spent(1, 3, "k1", "a1", step=5),
            *spent(1, 8, "k1", "a2", step=6),
            *spent(1, 12, "k1", "a3", step=7),
            *spent(2, 12, "k2", "a4", step=6),
        ]
    )
    assert losers(value) == [("totp", "a4")]
    assert [value.spender(value.steps[step][0]) for step in (5, 6, 7)] == ["a1", "a2", "a3"]


def test_a_step_spent_twice_with_one_key_still_makes_one_member() -> None:
    """A joiner that asked both sides with the same key and the same code."""
    value = FactSet.of([*spent(1, 12, "k1", "a1"), *spent(2, 12, "k1", "a2")])
    assert losers(value) == [("totp", "a2")]


def test_a_step_spent_by_nobody_known_is_listed_for_a_person() -> None:
    """Rows of older releases do not say who spent a step."""
    value = FactSet.of([Spending(at(1, 12), 7, "k1"), Spending(at(2, 12), 7, "")])
    [verdict] = settle(value)
    assert (verdict.rule, verdict.subject, verdict.loser) == ("totp", "7", "")


def test_the_name_of_a_conflict_tells_every_conflict_apart() -> None:
    """It is the key of the review list, on every node."""
    two = FactSet.of([Join(at(1, 12), "a1", "db"), Join(at(2, 12), "a2", "db")])
    other = FactSet.of([Join(at(1, 12), "a1", "db"), Join(at(2, 13), "a2", "db")])
    names = [_only(two).review_id, _only(other).review_id]
    assert len(set(names)) == 2
    assert names == [_only(two).review_id, _only(other).review_id]
    assert all(len(name) == 32 for name in names)


def _only(value: FactSet) -> Verdict:
    [verdict] = settle(value)
    return verdict
