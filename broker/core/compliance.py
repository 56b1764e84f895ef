"""The rules of a well-kept mesh, each with its state: one pure function over plain values.

`fail` is what would hurt on a bad day or differs from what the profile promises; `warn` is what a
person should know and may have reasons for. A rule that cannot be judged here says so as `warn`:
silence is not evidence.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from broker.units import UnixSeconds
from broker.wire.audit import ComplianceLine
from broker.wire.node import OutageView
from broker.wire.policy import Policy
from broker.wire.profiles import PROFILES

DAY_S = 86_400
BACKUP_AGE_S_MAX = 2 * DAY_S
NAMED_MAX = 5
TEXT_MAX = 1024

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Checkup:
    """What the rules look at.

    Attributes:
        policy: In force.
        enrollment_open: Strangers with a code may ask.
        slots: Kinds of the slots of this node.
        unattended: Those of them that open the CA without a person.
        locked: The CA is locked on this node.
        is_primary: This node leads: only then it knows what members remember and serve.
        members: Active members, this node included.
        standbys: Hosts of standbys.
        ready: Those of them that could take over now.
        last_backup_at: Of this node, None when there was none.
        outage: How long the mesh lives without any CA.
        expired: Hosts whose certificate is over.
        outside: Hosts with names outside the policy.
        clock_off_s: How far this node's clock is off the members'.
        clock_limit_s: How far it may be.
        reviews: Decisions of a merge nobody has looked at.
        rows: Rows of the journal whose chain holds.
        first_bad: Number of the first row that does not, None when all hold.
        witnesses: Members that vouched for this journal lately.
        contradicted_by: Hosts that remember another one.
    """

    policy: Policy
    enrollment_open: bool
    slots: tuple[str, ...]
    unattended: tuple[str, ...]
    locked: bool
    is_primary: bool
    members: int
    standbys: tuple[str, ...]
    ready: tuple[str, ...]
    last_backup_at: UnixSeconds | None
    outage: OutageView
    expired: tuple[str, ...]
    outside: tuple[str, ...]
    clock_off_s: int
    clock_limit_s: int
    reviews: int
    rows: int
    first_bad: int | None
    witnesses: int
    contradicted_by: tuple[str, ...]


def judge(checkup: Checkup, now: UnixSeconds) -> tuple[ComplianceLine, ...]:
    """Return one line for each rule, in a fixed order."""
    return (
        *_of_door(checkup),
        *_of_keys(checkup),
        *_of_continuity(checkup, now),
        *_of_members(checkup),
        *_of_trail(checkup),
        *_of_node(checkup),
    )


def _of_door(found: Checkup) -> Iterator[ComplianceLine]:
    policy, promised = found.policy, PROFILES[found.policy.profile]
    who = policy.profile
    yield _promise(
        "approval",
        wanted=promised.approval,
        found=policy.approval,
        words=("a person decides about joins by code", "joins by code are decided by nobody"),
        hint=f"{who} promises it: certmesh ca policy set approval=yes",
    )
    yield _promise(
        "operator",
        wanted=promised.operator_required,
        found=policy.operator_required,
        words=("every decision has a name", "decisions may go without a name"),
        hint=f"{who} promises it: certmesh ca policy set operator_required=yes",
    )
    if found.enrollment_open and not promised.enrollment_open:
        detail = f"{who} keeps the door for codes closed, and it is open"
        yield _line("enrollment", "fail", detail, "certmesh enrollment close")
    else:
        yield _line("enrollment", "ok", "open" if found.enrollment_open else "closed")


def _of_keys(found: Checkup) -> Iterator[ComplianceLine]:
    passphrases = found.slots.count("passphrase")
    if passphrases:
        yield _line("ca-at-rest", "ok", f"encrypted, {passphrases} passphrase slots")
    else:
        hint = "certmesh ca slot add passphrase"
        yield _line("ca-at-rest", "fail", "no passphrase opens the CA on this node", hint)
    kinds = ", ".join(found.unattended)
    if found.unattended and not found.policy.unattended:
        detail = f"the policy wants a person, and this node opens the CA by itself ({kinds})"
        yield _line("unlock", "fail", detail, "certmesh ca slot list; certmesh ca slot remove ID")
    elif not found.unattended and found.policy.unattended:
        yield _line("unlock", "ok", "a person unlocks, though the policy would not ask for it")
    else:
        yield _line("unlock", "ok", f"by itself ({kinds})" if kinds else "a person unlocks")
    if found.locked:
        detail = "the CA key is locked on this node"
        yield _line("unlocked", "warn", detail, "certmesh ca unlock")


def _of_continuity(found: Checkup, now: UnixSeconds) -> Iterator[ComplianceLine]:
    if found.ready:
        yield _line("standby", "ok", f"ready: {_named(found.ready)}")
    elif found.standbys:
        detail = f"none is ready: {_named(found.standbys)}"
        yield _line("standby", "fail", detail, "certmesh standby list")
    else:
        detail = "nobody could take over"
        yield _line("standby", "fail", detail, "certmesh standby nominate HOST")
    yield _backup(found, now)
    yield _outage(found.outage, now)


def _outage(outage: OutageView, now: UnixSeconds) -> ComplianceLine:
    promised = f"{_span(outage.budget_s)} are promised"
    if outage.survives_until is None:
        hint = outage.advice or "certmesh status"
        return _line("outage-budget", "warn", "nobody has a certificate yet", hint)
    left = _span(max(0, outage.survives_until - now))
    if not outage.met:
        detail = f"without a CA {outage.weakest} ends in {left}, {promised}"
        return _line("outage-budget", "fail", detail, outage.advice)
    if outage.advice:
        detail = f"{left} by luck, the policy plans {_span(outage.planned_s)}, {promised}"
        return _line("outage-budget", "warn", detail, outage.advice)
    return _line("outage-budget", "ok", f"{left}, {promised}")


def _backup(found: Checkup, now: UnixSeconds) -> ComplianceLine:
    if found.last_backup_at is None:
        return _line("backup", "fail", "there is none of this node", "certmesh backup create")
    age_s = now - found.last_backup_at
    if age_s > BACKUP_AGE_S_MAX:
        detail = f"the newest one is {_span(age_s)} old"
        return _line("backup", "fail", detail, "certmesh backup create")
    return _line("backup", "ok", f"the newest one is {_span(max(0, age_s))} old")


def _of_members(found: Checkup) -> Iterator[ComplianceLine]:
    if found.expired:
        detail = f"over: {_named(found.expired)}"
        yield _line("certificates", "fail", detail, "certmesh member show HOST")
    else:
        yield _line("certificates", "ok", f"all {found.members} are valid")
    if found.outside:
        detail = f"names outside the policy: {_named(found.outside)}"
        yield _line("policy", "fail", detail, "certmesh ca policy show")
    else:
        yield _line("policy", "ok", "every member is inside it")


def _of_trail(found: Checkup) -> Iterator[ComplianceLine]:
    if found.first_bad is not None:
        detail = f"the chain does not hold from row {found.first_bad} on"
        yield _line("audit", "fail", detail, "certmesh audit verify")
    else:
        yield _line("audit", "ok", f"{found.rows} rows, the chain holds")
    if found.contradicted_by:
        detail = f"another journal is remembered by {_named(found.contradicted_by)}"
        yield _line("witnesses", "fail", detail, "certmesh audit verify")
    elif found.witnesses:
        yield _line("witnesses", "ok", f"{found.witnesses} members vouch for the journal")
    elif not found.is_primary:
        detail = "only the primary hears what members remember"
        yield _line("witnesses", "warn", detail, "ask there: certmesh status --compliance")
    else:
        detail = "no member vouches for the journal: an older copy of it would not be noticed"
        yield _line("witnesses", "fail", detail, "certmesh invite create HOST")


def _of_node(found: Checkup) -> Iterator[ComplianceLine]:
    off_s = abs(found.clock_off_s)
    if off_s > found.clock_limit_s:
        hint = "set this machine's clock (chrony, timesyncd)"
        yield _line("clock", "fail", f"{off_s} s off most members", hint)
    else:
        yield _line("clock", "ok", f"{off_s} s off")
    if found.reviews:
        detail = f"{found.reviews} decisions of a merge wait for a look"
        yield _line("reviews", "fail", detail, "certmesh review list")
    else:
        yield _line("reviews", "ok", "none open")


def _promise(
    rule: str, *, wanted: bool, found: bool, words: tuple[str, str], hint: str
) -> ComplianceLine:
    """Return the line of something a profile promises; more than it promises is fine."""
    if wanted and not found:
        return _line(rule, "fail", words[1], hint)
    return _line(rule, "ok", words[0] if found else words[1])


def _line(rule: str, state: State, detail: str, hint: str = "") -> ComplianceLine:
    return ComplianceLine(rule, state, detail[:TEXT_MAX], hint)


def _named(hosts: tuple[str, ...]) -> str:
    more = len(hosts) - NAMED_MAX
    return ", ".join(hosts[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def _span(seconds: int) -> str:
    if seconds >= 2 * DAY_S:
        return f"{seconds // DAY_S} days"
    return f"{seconds // 3600} h" if seconds >= 2 * 3600 else f"{seconds // 60} min"
