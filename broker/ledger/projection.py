"""The fold: what each fact does to the projection tables.

A deterministic function of the facts in journal order; it reads no clock and draws nothing.
Order rules: revocation absorbs wherever it stands, also ahead of the join; the oldest redeemer
keeps an invite; the first decision keeps an approval; a join settles it whatever was decided; the
last writer has a role and the enrollment window. "Old" is by stamp, and in the rows that a primary
writes itself the stamps are in journal order.

A fact that contradicts the ledger (an id, serial or TOTP step taken twice, a certificate for
nobody) fails in the *first* statement of its fold, so that a refusal leaves nothing behind. An
adopted fact never fails: it happened, on the other side of a fork, and the merge rules say what it
still means here.
"""

import sqlite3
from collections.abc import Callable
from typing import Any

from broker.ledger import (
    fold_enrollment,
    fold_names,
    fold_rollover,
    fold_roster,
    fold_succession,
    fold_tokens,
    fold_workers,
)
from broker.ledger.tables import PROJECTION_TABLES
from broker.ledger.where import Where
from broker.wire import facts
from broker.wire.codec import decode_fact
from broker.wire.facts import AnyFact

__all__ = ["FOLDS", "JOURNAL_ONLY", "Where", "apply", "dump", "refold"]

Fold = Callable[[sqlite3.Connection, Any, Where], None]

_JOURNAL = "SELECT sequence, at, term, node, incarnation, payload FROM journal ORDER BY sequence"

JOURNAL_ONLY: frozenset[type] = frozenset(
    {
        facts.AuthorityUnlocked,
        facts.AuthorityUnlockFailed,
        facts.AuthorityLocked,
        facts.JoinRefused,
        facts.AuthFailed,
        facts.ActionRefused,
        facts.FailoverConfirmed,
        facts.FailoverDemoted,
        facts.SlotAdded,
        facts.SlotRemoved,
        facts.HalfGiven,
        facts.BackupCreated,
        facts.BackupRestored,
        facts.MeshDestroyed,
        facts.AuditBroken,
    }
)
"""History without a projection."""

NEVER_TAKEN_OVER: frozenset[type] = JOURNAL_ONLY | {
    facts.MeshCreated,
    facts.CertificateServed,
    facts.RenewalFailed,
    facts.FactAdopted,
}
"""History when adopted: every side has the mesh, the loop reports again, nothing is adopted twice.

The state of the closed loop is what the primary in charge hears, not what another one heard.
"""


def apply(connection: sqlite3.Connection, fact: AnyFact, where: Where) -> None:
    """Fold one fact into the projections.

    Raises:
        sqlite3.IntegrityError: The fact contradicts the ledger; nothing changed.
        MalformedMessageError: It adopts something that is no fact.
        UnknownKindError: It adopts a fact of a newer release.
    """
    fold = FOLDS.get(type(fact))
    if fold is not None:
        fold(connection, fact, where)
    elif type(fact) not in JOURNAL_ONLY:
        raise TypeError(f"no fold for {type(fact).__name__}")


def refold(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Fold the whole journal of `source` into the empty projections of `target`."""
    for *row, payload in source.execute(_JOURNAL):
        apply(target, decode_fact(payload), Where(*row))


def dump(connection: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Return every projection row by table, in key order; small ledgers only."""
    return {
        table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()  # noqa: S608 (our names)
        for table in PROJECTION_TABLES
    }


def _fact_adopted(db: sqlite3.Connection, fact: facts.FactAdopted, where: Where) -> None:
    """Fold what another primary wrote, once, under the stamp it has there."""
    inner = decode_fact(fact.payload)
    added = db.execute(
        "INSERT INTO adopted VALUES (?, ?) ON CONFLICT (origin_hash) DO NOTHING",
        (fact.origin.hash, where.sequence),
    )
    if added.rowcount and type(inner) not in NEVER_TAKEN_OVER:
        apply(db, inner, where.adopting(fact.origin))


FOLDS: dict[type, Fold] = {
    facts.RolloverStarted: fold_rollover.rollover_started,
    facts.RolloverFinished: fold_rollover.rollover_finished,
    facts.RolloverAborted: fold_rollover.rollover_aborted,
    facts.RolloverRetired: fold_rollover.rollover_retired,
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
    facts.StandbyNominated: fold_succession.standby_nominated,
    facts.StandbyReady: fold_succession.standby_ready,
    facts.StandbyRemoved: fold_succession.standby_removed,
    facts.FailoverPromoted: fold_succession.failover_promoted,
    facts.FactAdopted: _fact_adopted,
    facts.MergeConflict: fold_succession.merge_conflict,
    facts.MergeReviewed: fold_succession.merge_reviewed,
    facts.PolicyChanged: fold_enrollment.policy_changed,
    facts.TOTPRotated: fold_enrollment.totp_rotated,
    facts.MemberReinstated: fold_names.member_reinstated,
    facts.MemberRenamed: fold_names.member_renamed,
    facts.TokenMade: fold_tokens.token_made,
    facts.TokenRevoked: fold_tokens.token_revoked,
    facts.WorkerEnrolled: fold_workers.worker_enrolled,
    facts.WorkerBound: fold_workers.worker_bound,
    facts.WorkerRevoked: fold_workers.worker_revoked,
}
"""One fold per fact that has a projection."""
