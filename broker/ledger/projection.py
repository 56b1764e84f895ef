"""The fold: what each fact does to the projection tables.

A deterministic function of the facts in journal order; it reads no clock and draws nothing.
Order rules: revocation absorbs wherever it stands, also ahead of the join; the first redeemer
keeps an invite; the first decision keeps an approval; a join settles it whatever was decided.

A fact that contradicts the ledger (an id, serial or TOTP step taken twice, a certificate for
nobody) fails in the *first* statement of its fold, so that a refusal leaves nothing behind.
"""

import sqlite3
from collections.abc import Callable
from typing import Any

from broker.ledger import fold_enrollment, fold_roster
from broker.ledger.schema import PROJECTION_TABLES
from broker.wire import facts
from broker.wire.facts import AnyFact

Fold = Callable[[sqlite3.Connection, Any, int, int], None]
"""(connection, fact, sequence, at)"""

JOURNAL_ONLY: frozenset[type] = frozenset(
    {
        facts.AuthorityUnlocked,
        facts.AuthorityUnlockFailed,
        facts.AuthorityLocked,
        facts.JoinRefused,
        facts.AuthFailed,
    }
)
"""History without a projection."""


def apply(connection: sqlite3.Connection, fact: AnyFact, sequence: int, at: int) -> None:
    """Fold one fact into the projections.

    Raises:
        sqlite3.IntegrityError: The fact contradicts the ledger; nothing changed.
    """
    fold = FOLDS.get(type(fact))
    if fold is not None:
        fold(connection, fact, sequence, at)
    elif type(fact) not in JOURNAL_ONLY:
        raise TypeError(f"no fold for {type(fact).__name__}")


def dump(connection: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Return every projection row by table, in key order; small ledgers only."""
    return {
        table: connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()  # noqa: S608 (our names)
        for table in PROJECTION_TABLES
    }


FOLDS: dict[type, Fold] = {
    facts.MeshCreated: fold_enrollment.mesh_created,
    facts.EnrollmentOpened: fold_enrollment.enrollment_opened,
    facts.EnrollmentClosed: fold_enrollment.enrollment_closed,
    facts.InviteCreated: fold_enrollment.invite_created,
    facts.InviteUsed: fold_enrollment.invite_used,
    facts.InviteRevoked: fold_enrollment.invite_revoked,
    facts.TOTPStepUsed: fold_enrollment.totp_step_used,
    facts.ApprovalRequested: fold_enrollment.approval_requested,
    facts.ApprovalGranted: fold_enrollment.approval_granted,
    facts.ApprovalDenied: fold_enrollment.approval_denied,
    facts.ApprovalExpired: fold_enrollment.approval_expired,
    facts.MemberJoined: fold_roster.member_joined,
    facts.MemberMoved: fold_roster.member_moved,
    facts.CertificateIssued: fold_roster.certificate_issued,
    facts.CertificateRenewed: fold_roster.certificate_issued,
    facts.CertificateServed: fold_roster.certificate_served,
    facts.RenewalFailed: fold_roster.renewal_failed,
    facts.MemberRevoked: fold_roster.member_revoked,
}
"""One fold per fact that has a projection."""
