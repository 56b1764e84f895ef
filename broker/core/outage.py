"""How long the mesh lives without any CA, against the budget of its policy. Sans-IO.

The one place that knows the formula: status, compliance, and the warnings about a policy ask here.

Every active member counts, whether it is new, silent or late: a promise to all is broken by one,
and who is gone for good is to be revoked. What counts of a member is the end of the certificate it
really serves: one that the CA signed and nobody picked up keeps no service alive. Grace after
expiry counts for nothing, because without a CA there is nobody to grant it.
"""

from broker.core.renewal import PULL_DELAY_FRACTION
from broker.core.spans import seconds_up, span_down, span_up
from broker.units import UnixSeconds
from broker.wire.node import MemberLine, OutageView
from broker.wire.policy import Policy

LIFETIME_S_MAX = 366 * 86_400
ADVICE_LENGTH_MAX = 1024
REASON_LENGTH_MAX = 400
SET = "certmesh ca policy set"


def planned_s(policy: Policy) -> int:
    """Return how long a member lives without any CA that renewed on time, in the worst case.

    That is what is left of a certificate when it falls due, less what a member waits for the CA's
    sweep before it pulls by itself. Attempts that fail are not planned for: who fails is named.
    """
    return _plan_s(policy.leaf_lifetime_s, policy.renew_at)


def _plan_s(lifetime_s: int, renew_at: float) -> int:
    return int(lifetime_s * max(0.0, 1 - renew_at - PULL_DELAY_FRACTION))


def plan_advice(policy: Policy) -> str:
    """Return which setting brings the plan up to the budget, empty when it is.

    Each value in the sentence satisfies the budget by itself: they are rounded to the safe side.
    """
    plan_s, budget_s = planned_s(policy), policy.outage_budget_s
    if plan_s >= budget_s:
        return ""
    first, *others = _ways(policy)
    also = f" (or {', or '.join(others)})" if others else ""
    return (
        f"a member that renews on time has {span_down(plan_s)} left without a CA, and "
        f"{span_down(budget_s)} are promised (outage_budget): {SET} {first}{also}"
    )


def _ways(policy: Policy) -> list[str]:
    budget_s, ways = policy.outage_budget_s, []
    reserve = 1 - policy.renew_at - PULL_DELAY_FRACTION
    if reserve > 0:
        # Two seconds more than the quotient: it was rounded down, and the plan will be as well.
        needed_s = int(budget_s / reserve) + 2
        if seconds_up(needed_s) <= LIFETIME_S_MAX:
            ways.append(f"leaf_lifetime={span_up(needed_s)}")
    fraction = int((1 - PULL_DELAY_FRACTION - budget_s / policy.leaf_lifetime_s) * 100) / 100
    if fraction > 0 and _plan_s(policy.leaf_lifetime_s, fraction) >= budget_s:
        ways.append(f"renew_at={fraction:g}")
    return [*ways, f"outage_budget={span_down(planned_s(policy))}"]


def assess(
    policy: Policy,
    weakest: MemberLine | None,
    short_members: int,
    *,
    now: UnixSeconds,
    ca_not_after: int | None,
) -> OutageView:
    """Return how the mesh stands.

    Args:
        policy: In force.
        weakest: The active member whose certificate ends first; None when nobody has one.
        short_members: How many end inside the budget.
        now: Wall time.
        ca_not_after: End of the issuing certificate, None when this node does not have it.
    """
    plan_s, budget_s = planned_s(policy), policy.outage_budget_s
    until = weakest.survives_until if weakest is not None else None
    if weakest is None or until is None:
        return OutageView(budget_s, plan_s, met=False, advice=plan_advice(policy))
    met = until - now >= budget_s
    advice = plan_advice(policy)
    if not advice and not met:
        advice = _member_advice(policy, weakest, now, ca_not_after)
    return OutageView(
        budget_s=budget_s,
        planned_s=plan_s,
        met=met,
        weakest=weakest.host,
        survives_until=until,
        short_members=0 if met else max(1, short_members),
        advice=advice[:ADVICE_LENGTH_MAX],
    )


def _member_advice(
    policy: Policy, line: MemberLine, now: UnixSeconds, ca_not_after: int | None
) -> str:
    """Return what is to be done about the member that ends first, and why it does."""
    host = line.host
    if ca_not_after is not None and ca_not_after < now + policy.outage_budget_s:
        return "the issuing certificate itself ends inside the budget: certmesh ca rollover start"
    if line.delivery == "expired":
        return f"{host} has expired: {_comeback(policy, line, now)}"
    if line.delivery == "away":
        return (
            f"{host} is away: start it, it renews by itself; or, if it is gone for good, "
            f"certmesh member revoke {host}"
        )
    if line.delivery in {"stale", "failed"}:
        why = f" ({line.served_detail[:REASON_LENGTH_MAX]})" if line.served_detail else ""
        return f"{host} serves an old certificate{why}: certmesh hook log, on {host}"
    if line.last_error:
        why = line.last_error[:REASON_LENGTH_MAX]
        return f"renewing {host} fails ({why}): certmesh cert renew, on {host}"
    return f"renew {host}, its certificate ends too soon: certmesh cert renew, on {host}"


def _comeback(policy: Policy, line: MemberLine, now: UnixSeconds) -> str:
    host, until, grace_s = line.host, line.survives_until, policy.expired_grace_s
    if grace_s and until is not None and now <= until + grace_s:
        return f"start it, it may still renew; or certmesh member revoke {host}"
    return (
        f"certmesh invite create {host} --rejoin, then certmesh join there; "
        f"or certmesh member revoke {host}"
    )
