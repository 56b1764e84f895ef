"""Folds of the roster: enrollments, certificates, the closed loop, revocation.

Revocation absorbs wherever it stands, also ahead of the join it revokes. A member's current
certificate is the one with the newest `not_before`, which on a primary is the one it issued last.
"""

import sqlite3

from broker.ledger.fold_names import bar_name
from broker.ledger.texts import bundle_changed, text, tolerant
from broker.ledger.where import Where
from broker.wire import facts

_JOIN = """INSERT INTO members (member_id, sequence, host, role, sans, endpoint, joined_at, method,
               stamp, role_sequence, state, revoked_at)
           SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?2,
               iif(known.id IS NULL, 'active', 'revoked'), known.at
           FROM (SELECT max(member_id) AS id, max(revoked_at) AS at
                 FROM revocations WHERE member_id = ?1) AS known WHERE true"""
_SETTLED = """UPDATE approvals SET state = 'issued', member_id = ?1
              WHERE approval_id = ?2 AND (state <> 'issued' OR ?3 < (
                  SELECT m.stamp FROM members m WHERE m.member_id = approvals.member_id))"""


def member_joined(db: sqlite3.Connection, fact: facts.MemberJoined, where: Where) -> None:
    """Add an enrollment; revoked at birth when its revocation came first."""
    # Nobody becomes the primary by being adopted: that takes a promotion.
    role = "standby" if where.adopted and fact.role == "primary" else fact.role
    joined = (
        fact.member_id,
        where.sequence,
        fact.host,
        role,
        text(fact.sans),
        text(fact.endpoint),
        where.at,
        fact.method,
        where.stamp.text,
    )
    # The subquery always yields one row: with the revocation that came first, or with nulls.
    states = db.execute(f"{tolerant(_JOIN, where)} RETURNING state", joined).fetchall()
    if not states:
        return
    if fact.approval_id:
        db.execute(_SETTLED, (fact.member_id, fact.approval_id, where.stamp.text))
    if states == [("active",)]:
        db.execute("UPDATE totals SET members_active = members_active + 1 WHERE id = 1")
        if role in {"primary", "standby"}:
            bundle_changed(db, where.sequence)


def member_moved(db: sqlite3.Connection, fact: facts.MemberMoved, where: Where) -> None:
    """Point at the new doors; who they belong to is what the last renaming said."""
    moved = db.execute(
        """UPDATE members SET endpoint = json_set(?1, '$.host', host, '$.server_name',
               json_extract(endpoint, '$.server_name')), endpoint_stamp = ?2
           WHERE member_id = ?3 AND endpoint_stamp < ?2 RETURNING state, role""",
        (text(fact.endpoint), where.stamp.text, fact.member_id),
    ).fetchall()
    if moved in ([("active", "primary")], [("active", "standby")]):
        bundle_changed(db, where.sequence)


_ISSUE = """INSERT INTO certificates
            SELECT ?, ?, member_id, current_sequence, ?, ?, ?, ? FROM members WHERE member_id = ?"""
# What the member serves moves only when it says so: a new certificate lies with the CA at first.
_CURRENT = """UPDATE members SET current_sequence = ?1, current_serial = ?2, renew_at = ?3,
                  not_after = ?4, current_not_before = ?5, last_not_after = max(last_not_after, ?4),
                  serving_until = ifnull(serving_until, ?4)
              WHERE member_id = ?6 AND state = ?7"""


def certificate_issued(
    db: sqlite3.Connection, fact: facts.CertificateIssued | facts.CertificateRenewed, where: Where
) -> None:
    """Make it the member's current certificate, an adopted one only if it is the newest."""
    if where.adopted and not _is_newest(db, fact):
        _file_behind(db, fact, where)
        return
    issued = (*_row(fact, where), fact.member_id)
    if not db.execute(tolerant(_ISSUE, where), issued).rowcount:
        if where.adopted:
            return
        raise sqlite3.IntegrityError("a certificate for nobody")
    ends = (fact.renew_at, fact.not_after, fact.not_before)
    current = (where.sequence, fact.serial, *ends, fact.member_id)
    if db.execute(_CURRENT, (*current, "active")).rowcount:
        return
    # A certificate of somebody already revoked is revoked at birth and belongs in the bundle.
    db.execute(_CURRENT, (*current, "revoked"))
    bundle_changed(db, where.sequence)


def _row(
    fact: facts.CertificateIssued | facts.CertificateRenewed, where: Where
) -> tuple[int, str, str, int, int, int]:
    period = (fact.not_before, fact.not_after, fact.renew_at)
    return (where.sequence, fact.serial, fact.key_hash, *period)


def _is_newest(
    db: sqlite3.Connection, fact: facts.CertificateIssued | facts.CertificateRenewed
) -> bool:
    row = db.execute(
        "SELECT current_not_before, current_serial FROM members WHERE member_id = ?",
        (fact.member_id,),
    ).fetchone()
    return row is None or row < (fact.not_before, fact.serial)


# The list of a member's certificates begins with the current one; an older one comes second.
_FILE = """INSERT INTO certificates
           SELECT ?, ?, m.member_id, c.previous, ?, ?, ?, ? FROM members m
           JOIN certificates c ON c.sequence = m.current_sequence
           WHERE m.member_id = ? ON CONFLICT DO NOTHING"""
_LINK = """UPDATE certificates SET previous = ?
           WHERE sequence = (SELECT current_sequence FROM members WHERE member_id = ?)"""


def _file_behind(
    db: sqlite3.Connection, fact: facts.CertificateIssued | facts.CertificateRenewed, where: Where
) -> None:
    if not db.execute(_FILE, (*_row(fact, where), fact.member_id)).rowcount:
        return
    db.execute(_LINK, (where.sequence, fact.member_id))
    [(state,)] = db.execute(
        """UPDATE members SET last_not_after = max(last_not_after, ?) WHERE member_id = ?
           RETURNING state""",
        (fact.not_after, fact.member_id),
    ).fetchall()
    if state == "revoked":
        bundle_changed(db, where.sequence)


# A host that failed to serve a certificate goes on with an earlier one: the end of that counts.
_SERVED = """UPDATE members SET served = ?1, served_serial = ?2, served_detail = ?3, served_at = ?4,
                 last_error = iif(?1 IN ('served', 'installed') AND current_serial = ?2
                     AND renew_at > ?4, '', last_error),
                 serving_until = iif(?1 IN ('served', 'installed'), ifnull(?5, serving_until),
                     min(ifnull(?5, serving_until), ifnull(serving_until, ?5)))
             WHERE member_id = ?6"""


def certificate_served(db: sqlite3.Connection, fact: facts.CertificateServed, where: Where) -> None:
    """Follow the closed loop; a new certificate in place ends the last error.

    One that is due itself ends nothing: it is what could not be renewed.

    A member says what it serves, never when that ends: that is what was issued to it.
    """
    ends = db.execute(
        "SELECT not_after FROM certificates WHERE serial = ? AND member_id = ?",
        (fact.serial, fact.member_id),
    ).fetchone()
    said = (fact.state, fact.serial, fact.detail, where.at, ends[0] if ends else None)
    db.execute(_SERVED, (*said, fact.member_id))


def renewal_failed(db: sqlite3.Connection, fact: facts.RenewalFailed, _where: Where) -> None:
    """Remember why the last attempt failed."""
    db.execute(
        "UPDATE members SET last_error = ? WHERE member_id = ?", (fact.detail, fact.member_id)
    )


def member_revoked(db: sqlite3.Connection, fact: facts.MemberRevoked, where: Where) -> None:
    """Revoke once and for ever; of two revocations the older counts."""
    stamp = where.stamp.text
    bar_name(db, fact, where)
    written = db.execute(
        """INSERT INTO revocations (sequence, member_id, revoked_at, reason, stamp, cause)
           VALUES (?1, ?2, ?3, ?4, ?5, ?6)
           ON CONFLICT (member_id) DO UPDATE
               SET revoked_at = ?3, reason = ?4, stamp = ?5, cause = ?6
               WHERE stamp > ?5""",
        (where.sequence, fact.member_id, where.at, fact.reason, stamp, fact.cause),
    )
    if not written.rowcount:
        return
    left = db.execute(_LEAVE, (where.at, fact.member_id)).rowcount
    if left:
        db.execute("UPDATE totals SET members_active = members_active - 1 WHERE id = 1")
    else:
        db.execute(_LEFT_BEFORE, (where.at, fact.member_id))
    bundle_changed(db, where.sequence)


_LEAVE = """UPDATE members SET state = 'revoked', revoked_at = ?
            WHERE member_id = ? AND state = 'active'"""
_LEFT_BEFORE = "UPDATE members SET revoked_at = ? WHERE member_id = ?"
