"""What the mesh allows: names, networks, lifetimes, who must agree. One value, kept in the journal.

Settings are read once, at init; from then on the policy is mesh state, the same on every key
holder, and changed by `certmesh ca policy set`.
"""

from typing import Annotated, Literal

from msgspec import Meta

from broker.wire.base import Body, Reply, Request
from broker.wire.ids import Count, Hex, Host, Term, Text

Profile = Literal["just-me", "my-team", "my-organization"]
Patterns = Annotated[tuple[Text, ...], Meta(max_length=64)]
Fraction = Annotated[float, Meta(gt=0.0, lt=1.0)]
LifetimeS = Annotated[int, Meta(ge=1, le=366 * 86_400)]
GraceS = Annotated[int, Meta(ge=0, le=366 * 86_400)]


class Policy(Body, frozen=True):
    """The whole policy of a mesh.

    `names` are patterns such as `*.home.arpa`, `networks` in CIDR form. `renew_at` is the fraction
    of the lifetime after which a certificate is due. `outage_budget_s` is how long every member
    has to survive without any CA. `expired_grace_s` lets a member renew with its old key that long
    after expiry. `approval` asks a person about joins by code, `operator_required` refuses a
    decision that nobody put a name to, `unattended` allows slots that open the CA without a person.
    """

    profile: Profile = "my-team"
    names: Patterns = ()
    networks: Patterns = ()
    wildcards: bool = False
    leaf_lifetime_s: LifetimeS = 30 * 86_400
    renew_at: Fraction = 0.667
    outage_budget_s: GraceS = 7 * 86_400
    expired_grace_s: GraceS = 0
    approval: bool = True
    operator_required: bool = True
    unattended: bool = True


class PolicyPatch(Body, frozen=True):
    """PUT /v1/ca/policy: what is None stays as it is."""

    profile: Profile | None = None
    names: Patterns | None = None
    networks: Patterns | None = None
    wildcards: bool | None = None
    leaf_lifetime_s: LifetimeS | None = None
    renew_at: Fraction | None = None
    outage_budget_s: GraceS | None = None
    expired_grace_s: GraceS | None = None
    approval: bool | None = None
    operator_required: bool | None = None
    unattended: bool | None = None


class PolicyBody(Body, frozen=True):
    """PUT /v1/ca/policy."""

    patch: PolicyPatch
    dry_run: bool = False


class OutsideLine(Body, frozen=True):
    """A member that the policy would not admit any more, and each of its names outside."""

    host: Host
    member_id: Hex
    names: tuple[Text, ...]


class GetPolicy(Request, frozen=True, tag="get-policy"):
    """Ask for the `PolicyView` of the policy in force."""


class SetPolicy(Request, frozen=True, tag="set-policy"):
    """Change the policy, or with `dry_run` tell what the change would do."""

    patch: PolicyPatch
    operator: Text
    dry_run: bool = False


class PolicyView(Reply, frozen=True, tag="policy-view"):
    """The policy (after the change, if there was one) and what it means for the mesh.

    `changed` names the fields that the request changed or would change. `outside` lists members
    whose certificates would not be issued under it; `outside_total` counts them all.
    `permitted_names` and `permitted_networks` are what the issuing certificate is constrained to:
    a policy beyond them needs a rollover first. `warnings` are full sentences.
    """

    policy: Policy
    permitted_names: tuple[Text, ...]
    permitted_networks: tuple[Text, ...]
    term: Term
    changed: tuple[Text, ...] = ()
    outside: tuple[OutsideLine, ...] = ()
    outside_total: Count = 0
    warnings: tuple[Text, ...] = ()
