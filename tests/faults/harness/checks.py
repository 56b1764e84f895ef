"""The ledger against what clients were told: every promise as a function to list of violations.

Sans-IO. `Evidence` is one mesh at rest: everything ever told in it and a picture of each key
holder. `told` may be the whole life of a mesh, for what was promised once is promised for ever.

A change that the old primary acknowledged and did not replicate is missing at the new one until
they meet again: checks are made after they did, and what a person did in between by another term
(`calm` false) may have been refused for it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tests.faults.harness.client import is_final
from tests.faults.harness.picture import Picture
from tests.faults.harness.promises import Told, last_words

JOINED = frozenset({"join", "poll"})
CERTIFIED = JOINED | {"renew"}
MEMBERS_OWN = frozenset({"renew", "heartbeat", "report", "leave"})
NOT_DUE = "renewal_not_due"
LIMITS = frozenset({"throttled", NOT_DUE})


@dataclass(frozen=True)
class Evidence:
    """What is compared.

    Attributes:
        told: Every answer, in order.
        pictures: One per key holder.
        calm: Whether one primary served in one term while the newest answers were given.
        begun: How many answers had been given before these.
    """

    told: Sequence[Told]
    pictures: Sequence[Picture]
    calm: bool = True
    begun: int = 0

    @property
    def newest(self) -> Sequence[Told]:
        """Return the answers of a calm time, none of another."""
        return self.told[self.begun :] if self.calm else ()

    @property
    def done(self) -> tuple[Told, ...]:
        """Return the answers that promise something."""
        return tuple(item for item in self.told if item.is_done)


def ledgers_hold(found: Evidence) -> list[str]:
    """The chain of every ledger verifies, and its projections are the fold of it."""
    return [
        *(f"{p.node}: the chain is broken: {p.broken}" for p in found.pictures if p.broken),
        *(
            f"{p.node}: {', '.join(p.differing)} is not the fold of the journal"
            for p in found.pictures
            if p.differing
        ),
    ]


def nothing_told_is_lost(found: Evidence) -> list[str]:
    """Serials, members and invites that somebody was told of are in every ledger."""
    lost = []
    for told in found.done:
        for picture in found.pictures:
            lost += [f"{picture.node} lost {what}: {told}" for what in _missing(told, picture)]
    return lost


def _missing(told: Told, picture: Picture) -> Iterable[str]:
    facts = told.facts
    if "serial" in facts and facts["serial"] not in picture.certificates:
        yield f"certificate {facts['serial']}"
    if "member" in facts and facts["member"] not in picture.members:
        yield f"member {facts['member']}"
    if told.kind == "invite" and facts["invite"] not in picture.invites:
        yield f"invite {facts['invite']}"
    if "approval" in facts and facts["approval"] not in picture.approvals:
        yield f"request {facts['approval']}"


def nothing_is_issued_twice(found: Evidence) -> list[str]:
    """One serial is one certificate, and one key of a request gets one."""
    wrong = []
    leaves: dict[str, set[str]] = defaultdict(set)
    for told in found.done:
        if "leaf" in told.facts:
            leaves[told.facts["serial"]].add(told.facts["leaf"])
    wrong += [
        f"serial {serial} is {len(seen)} certificates"
        for serial, seen in leaves.items()
        if len(seen) > 1
    ]
    for picture in found.pictures:
        twice = [serial for serial, count in Counter(picture.issued).items() if count > 1]
        wrong += [f"{picture.node}: serial {serial} was issued twice" for serial in twice]
        keys = [key for (_, key), count in picture.keys.items() if count > 1]
        wrong += [f"{picture.node}: key {key[:16]} has two certificates" for key in keys]
    return wrong


def a_retry_gets_the_first_answer(found: Evidence) -> list[str]:
    """Whatever was told of one operation is the same every time it was told."""
    said: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for told in found.done:
        if told.kind in CERTIFIED and "serial" in told.facts:
            said[told.op].add((told.facts["serial"], told.facts.get("member", "")))
        if told.kind == "invite":
            said[told.op].add((told.facts["invite"],))
    return [f"{op} was answered {sorted(ways)}" for op, ways in said.items() if len(ways) > 1]


def an_order_has_one_effect(found: Evidence) -> list[str]:
    """However often an order was sent under one name, there is one invite for it."""
    orders = {told.op: told.host for told in found.newest if told.kind == "invite"}
    wanted = Counter(orders.values())
    return [
        f"{picture.node}: {count} invites for {host}, {wanted[host]} were ordered"
        for picture in found.pictures
        for host, count in Counter(host for host, _, _ in picture.invites.values()).items()
        if host in wanted and count > wanted[host]
    ]


def a_name_has_one_holder(found: Evidence) -> list[str]:
    """No name has two active members, no invite and no secret lets two in."""
    wrong = []
    for picture in found.pictures:
        active = {member for member, (_, state) in picture.members.items() if state == "active"}
        names = Counter(picture.members[member][0] for member in active)
        wrong += [f"{picture.node}: {host} is {n} members" for host, n in names.items() if n > 1]
        for secret, members in _by_secret(found).items():
            if len(members & active) > 1:
                wrong.append(f"{picture.node}: one invite ({secret[:16]}) let {members} in")
    return wrong


def _by_secret(found: Evidence) -> dict[str, set[str]]:
    members: dict[str, set[str]] = defaultdict(set)
    for told in found.done:
        if "secret" in told.facts and "member" in told.facts:
            members[told.facts["secret"]].add(told.facts["member"])
    return members


def the_revoked_stay_out(found: Evidence) -> list[str]:
    """What somebody was told is revoked is so in every ledger and in its list, and for ever."""
    wrong = []
    for told in _endings(found):
        member = told.facts.get("member") or told.facts["by"]
        for picture in found.pictures:
            if picture.members.get(member, ("", "revoked"))[1] != "revoked":
                wrong.append(f"{picture.node} has {told.host} active again: {told}")
            serials = {serial for serial, who in picture.certificates.items() if who == member}
            wrong += [
                f"{picture.node} does not list {serial} of {told.host}"
                for serial in sorted(serials - picture.listed if picture.listed is not None else ())
            ]
    return wrong


def _endings(found: Evidence) -> list[Told]:
    return [told for told in found.done if told.kind in {"revoke", "leave"}]


def the_revoked_are_refused_at_once(found: Evidence) -> list[str]:
    """The node that revoked answers nothing to the member from that moment on."""
    wrong = []
    for ending in _endings(found):
        member = ending.facts.get("member") or ending.facts["by"]
        wrong += [
            f"{told.node} served a revoked member: {told}"
            for told in found.done
            if told.kind in MEMBERS_OWN
            and told.op != ending.op
            and told.facts.get("by") == member
            and told.node == ending.node
            and told.began_ms > ending.ended_ms
        ]
    return wrong


def every_refusal_is_typed(found: Evidence) -> list[str]:
    """No caller saw a bare status, a page, a bug of ours, or waited for ever."""
    return [f"{told.detail}: {told}" for told in found.told if told.outcome == "wrong"]


def every_request_ends(found: Evidence) -> list[str]:
    """Whoever asks again is told at last."""
    return [
        f"no answer to {told.op} in the end ({told.detail}): {told}"
        for told in last_words(found.told).values()
        if told.outcome == "unknown" or (told.outcome == "refused" and not is_final(told))
    ]


def nobody_is_refused_without_cause(found: Evidence) -> list[str]:
    """While one primary served, what was asked rightly was done, the retry of a lost answer too."""
    ended = {told.facts.get("member") or told.facts["by"] for told in _endings(found)}
    ended |= _replaced(found)
    return [
        f"refused without cause ({told.detail}): {told}"
        for told in found.newest  # of a request sent two times at once each end counts
        if told.outcome == "refused" and is_final(told) and not _has_cause(told, found, ended)
    ]


def _replaced(found: Evidence) -> set[str]:
    """Return members whose name was given to somebody else."""
    return {
        member
        for picture in found.pictures
        for member, (_, state) in picture.members.items()
        if state == "revoked"
    }


def _has_cause(told: Told, found: Evidence, ended: set[str]) -> bool:
    match told.kind:
        case "renew" | "heartbeat" | "report" | "leave":
            if told.facts.get("by", "") in ended:
                return True
            return told.code in LIMITS and not (told.code == NOT_DUE and _is_issued(told, found))
        case "join":
            rivals = {item.op for item in found.told if _shares(item, told)}
            return (told.code == "invite_used" and len(rivals) > 1) or _is_throttled(told, found)
        case "poll":
            return _was_denied(told, found)
        case "invite":
            return told.code == "conflict"  # its secret was shown by an earlier process
        case _:
            return False


def _is_throttled(told: Told, found: Evidence) -> bool:
    """Whether its source has tried invites that a new primary had not heard of yet."""
    failed = any(item.code == "bad_credential" for item in found.told)
    return told.code == "throttled" and failed


def _is_issued(told: Told, found: Evidence) -> bool:
    """Whether the key of this very request has a certificate: only the answer was lost."""
    name = told.facts.get("by", ""), told.facts.get("key", "")
    return any(name in picture.keys for picture in found.pictures)


def _shares(one: Told, other: Told) -> bool:
    return "secret" in one.facts and one.facts["secret"] == other.facts.get("secret")


def _was_denied(told: Told, found: Evidence) -> bool:
    ticket = told.facts.get("approval", "")
    return told.code == "approval_denied" and any(
        item.kind == "deny" and item.facts.get("approval") == ticket for item in found.told
    )


def nobody_is_put_out_unasked(found: Evidence) -> list[str]:
    """While one primary served, only those are revoked about whom somebody said so."""
    words = {"revoke", "leave", "approve"}
    asked = {told.host for told in found.newest if told.kind in words}
    ours = {told.host for told in found.newest}
    return [
        f"{picture.node}: {host} was put out, and nobody asked for it"
        for picture in found.pictures
        for host, state in picture.members.values()
        if state == "revoked" and host in ours - asked
    ]


def nobody_gets_in_without_a_yes(found: Evidence) -> list[str]:
    """A certificate that waited for a person has a person's yes in the ledger."""
    denied = {told.facts["approval"] for told in found.done if told.kind == "deny"}
    wrong = []
    for picture in found.pictures:
        for ticket, (state, operator, _) in picture.approvals.items():
            if state == "issued" and not operator:
                wrong.append(f"{picture.node}: {ticket} was issued, and nobody said yes")
            if state in {"approved", "issued"} and ticket in denied:
                wrong.append(f"{picture.node}: {ticket} was denied, and is {state}")
    return wrong


CHECKS: tuple[Callable[[Evidence], list[str]], ...] = (
    ledgers_hold,
    nothing_told_is_lost,
    nothing_is_issued_twice,
    a_retry_gets_the_first_answer,
    an_order_has_one_effect,
    a_name_has_one_holder,
    the_revoked_stay_out,
    the_revoked_are_refused_at_once,
    every_refusal_is_typed,
    every_request_ends,
    nobody_is_refused_without_cause,
    nobody_is_put_out_unasked,
    nobody_gets_in_without_a_yes,
)


def violations(found: Evidence) -> list[str]:
    """Return everything that is not as it was promised, with the name of the check."""
    return [
        f"{check.__name__.replace('_', ' ')}: {line}" for check in CHECKS for line in check(found)
    ]
