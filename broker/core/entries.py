"""What the merge rules look at: small values, each under the stamp of the fact it comes from.

The stamp comes first in each, so entries of a kind sort by age.
"""

from dataclasses import dataclass

from broker.wire.stamp import Stamp

ENROLLMENT = "enrollment"
"""Register of the enrollment window; its values are `open` and `closed`."""
POLICY = "policy"
"""Register of the mesh's policy; its values are digests: two equal ones are no conflict."""
TOTP_SECRET = "totp-secret"  # noqa: S105 (a name, not a secret)
"""Register of the enrollment secret; its values are digests of the sealed form."""


def role_of(member_id: str) -> str:
    """Return the register of a member's role: `member`, `nominated`, `standby` or `primary`."""
    return f"role {member_id}"


def name_of(member_id: str) -> str:
    """Return the register of a member's name, written by renamings alone."""
    return f"name {member_id}"


@dataclass(frozen=True, slots=True, order=True)
class Join:
    """An enrollment."""

    stamp: Stamp
    member_id: str
    host: str


@dataclass(frozen=True, slots=True, order=True)
class Certificate:
    """A certificate that was issued."""

    stamp: Stamp
    member_id: str
    serial: str
    not_before: int
    key_hash: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Revocation:
    """The end of a member, wherever it was written."""

    stamp: Stamp
    member_id: str


@dataclass(frozen=True, slots=True, order=True)
class Redemption:
    """An invite was used."""

    stamp: Stamp
    invite_id: str
    member_id: str


@dataclass(frozen=True, slots=True, order=True)
class Spending:
    """A TOTP step was used by whoever has this key; an empty hash is somebody unknown."""

    stamp: Stamp
    step: int
    key_hash: str


@dataclass(frozen=True, slots=True, order=True)
class Write:
    """A value written into a register, over all writes that its writer had seen."""

    stamp: Stamp
    register: str
    value: str
    over: frozenset[Stamp] = frozenset()


@dataclass(frozen=True, slots=True, order=True)
class Promotion:
    """The first row of a term."""

    stamp: Stamp
    member_id: str


@dataclass(frozen=True, slots=True, order=True)
class Listed:
    """A conflict that is on the list for a person."""

    stamp: Stamp
    review_id: str


Entry = Join | Certificate | Revocation | Redemption | Spending | Write | Promotion | Listed
