"""What a new mesh is for, as one table: the answers to every question that init asks.

The command takes the first policy of a mesh from it, the broker what a change of the profile
brings with it.
"""

from dataclasses import dataclass

from broker.wire.policy import Profile


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """One line of the table.

    `enrollment_open`: TOTP codes are taken. `approval`: a person agrees to each of those joins.
    `operator_required`: that person must be named. `unattended`: the CA unlocks itself at boot.
    """

    name: Profile
    enrollment_open: bool
    approval: bool
    operator_required: bool
    unattended: bool


PROFILES: dict[str, ProfileRow] = {
    row.name: row
    for row in (
        ProfileRow("just-me", True, False, False, True),  # noqa: FBT003 (a table, read by column)
        ProfileRow("my-team", True, True, True, True),  # noqa: FBT003
        ProfileRow("my-organization", False, True, True, False),  # noqa: FBT003
    )
}
