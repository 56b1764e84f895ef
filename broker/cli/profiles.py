"""What a new mesh is for, as one table: the answers to every question that init asks.

Each answer can be overridden, at init by an option and later by `certmesh ca policy set`,
`certmesh enrollment open|close` and `certmesh ca slot`.
"""

from collections.abc import Mapping

from broker.runtime.settings import Policy as PolicySettings
from broker.wire.policy import Policy, Profile
from broker.wire.profiles import PROFILES, ProfileRow

USUAL_PROFILE: Profile = "my-team"
ANSWERS = ("enrollment_open", "approval", "operator_required", "unattended")
SHORT_NAMES: dict[str, Profile] = {
    "solo": "just-me",
    "team": "my-team",
    "org": "my-organization",
}


def profile_named(text: str) -> ProfileRow:
    """Return the profile of this name, long or short."""
    return PROFILES[SHORT_NAMES.get(text, text)]


def overridden(row: ProfileRow, answers: Mapping[str, bool | None]) -> ProfileRow:
    """Return `row` with the answers that were given; None and what is missing stay as they are."""
    given = ((answers.get(field), getattr(row, field)) for field in ANSWERS)
    return ProfileRow(row.name, *(usual if said is None else said for said, usual in given))


def answers_of(row: ProfileRow) -> str:
    """Return the answers in words, for whoever just made a mesh."""
    person = "a named person" if row.operator_required else "a person"
    parts = (
        "TOTP codes are taken" if row.enrollment_open else "enrollment is closed",
        f"{person} approves each join by code" if row.approval else "nobody is asked",
        "the CA unlocks itself at boot" if row.unattended else "a person unlocks the CA",
    )
    return ", ".join(parts)


def first_policy(profile: ProfileRow, settings: PolicySettings) -> Policy:
    """Return the policy of a new mesh: the profile's answers, and the names of the settings."""
    return Policy(
        profile=profile.name,
        names=settings.names,
        networks=settings.networks,
        wildcards=settings.wildcards,
        leaf_lifetime_s=settings.leaf_lifetime.s,
        renew_at=settings.renew_at,
        outage_budget_s=settings.outage_budget.s,
        expired_grace_s=settings.expired_grace.s,
        approval=profile.approval,
        operator_required=profile.operator_required,
        unattended=profile.unattended,
    )
