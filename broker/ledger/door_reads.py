"""Reads of the door: the mesh row, invites, approvals, TOTP steps."""

from typing import Any

import msgspec

from broker.ledger.rows import ApprovalRow, InviteRow, MeshRow
from broker.ledger.store import Store
from broker.ledger.texts import strings
from broker.wire.policy import Policy

_MESH = """SELECT mesh_id, name, domain, pin, enrollment_open, policy, created_at, totp_nonce,
    totp_ciphertext, recovery_key FROM mesh WHERE id = 1"""
_INVITE = """SELECT invite_id, host, sans, expires_at, state, member_id, key_hash, created_at,
    term, rejoin FROM invites"""
_BEGINNING = f"{_INVITE} WHERE invite_id >= ? AND invite_id < ? LIMIT 2"
_APPROVAL = """SELECT approval_id, host, sans, csr, key_hash, ticket_hash, method, source, words,
    addresses, mesh_port, enroll_port, expires_at, invite_id, requested_at, state, operator, reason,
    member_id, replaces, note FROM approvals"""
_OLDEST = f"{_APPROVAL} WHERE state = ? ORDER BY sequence LIMIT ?"
_NEWEST = f"{_APPROVAL} WHERE state = ? ORDER BY sequence DESC LIMIT ?"
_DECIDED = f"{_APPROVAL} WHERE state <> 'pending' ORDER BY sequence DESC LIMIT ?"
_PENDING_COUNT = """SELECT count(*) FROM approvals INDEXED BY approvals_pending
    WHERE state = 'pending'"""
_WAITING = """SELECT source, host FROM approvals INDEXED BY approvals_pending
    WHERE state = 'pending'"""
_EXPIRED = """SELECT approval_id FROM approvals INDEXED BY approvals_pending
    WHERE state = 'pending' AND expires_at <= ? ORDER BY expires_at"""


class DoorReads(Store):
    """Who may come in, and who waits."""

    def mesh(self) -> MeshRow | None:
        """Return the mesh, None before it is created."""
        row = self._one(_MESH)
        if row is None:
            return None
        policy = msgspec.json.decode(row[5], type=Policy)
        return MeshRow(
            mesh_id=row[0],
            name=row[1],
            domain=row[2],
            pin=row[3],
            enrollment_open=bool(row[4]),
            policy=policy,
            created_at=row[6],
            totp_box=(row[7], row[8]),
            recovery_key=row[9],
        )

    def invite(self, invite_id: str) -> InviteRow | None:
        """Return one invite."""
        row = self._one(f"{_INVITE} WHERE invite_id = ?", (invite_id,))
        return None if row is None else _invite(row)

    def invites(self, limit: int) -> list[InviteRow]:
        """Return the newest invites, newest first."""
        return [
            _invite(row) for row in self._all(f"{_INVITE} ORDER BY sequence DESC LIMIT ?", (limit,))
        ]

    def invites_beginning(self, beginning: str) -> list[InviteRow]:
        """Return invites whose id begins with these hex digits; two are enough to be too many."""
        # No hex digit sorts behind a `g`.
        rows = self._all(_BEGINNING, (beginning, f"{beginning}g"))
        return [_invite(row) for row in rows]

    def approval(self, approval_id: str) -> ApprovalRow | None:
        """Return one approval."""
        row = self._one(f"{_APPROVAL} WHERE approval_id = ?", (approval_id,))
        return None if row is None else _approval(row)

    def approvals(self, state: str, limit: int) -> list[ApprovalRow]:
        """Return approvals of one state; an empty state means all, pending ones first.

        Pending ones come oldest first, because somebody waits; the others newest first.
        """
        if state:
            statement = _OLDEST if state == "pending" else _NEWEST
            return [_approval(row) for row in self._all(statement, (state, limit))]
        pending = self.approvals("pending", limit)
        left = limit - len(pending)
        return pending + [_approval(row) for row in self._all(_DECIDED, (left,))]

    def approval_by_key(self, host: str, key_hash: str) -> ApprovalRow | None:
        """Return the newest approval that this host asked for with this key."""
        row = self._one(
            f"{_APPROVAL} WHERE host = ? AND key_hash = ? ORDER BY sequence DESC LIMIT 1",
            (host, key_hash),
        )
        return None if row is None else _approval(row)

    def approvals_pending(self) -> int:
        """Return how many wait for a person."""
        return self._number(_PENDING_COUNT)

    def approvals_waiting(self) -> list[tuple[str, str]]:
        """Return source and host of every approval that waits for a person."""
        return [(row[0], row[1]) for row in self._all(_WAITING)]

    def approvals_expired(self, now: int) -> list[str]:
        """Return the ids of pending approvals whose time is over at `now`."""
        return [row[0] for row in self._all(_EXPIRED, (now,))]

    def totp_step_used(self, step: int) -> bool:
        """Was this step accepted before?"""
        return self._one("SELECT 1 FROM totp_steps WHERE step = ?", (step,)) is not None

    def totp_step_lost(self, key_hash: str) -> bool:
        """Did this key spend a step that somebody had spent before, across a fork?

        Whoever waits for a person with such a step must not become a member any more.
        """
        statement = "SELECT 1 FROM totp_losers WHERE key_hash = ?"
        return self._one(statement, (key_hash,)) is not None


def _invite(row: tuple[Any, ...]) -> InviteRow:
    values = (*row[:2], strings(row[2]), *row[3:9], bool(row[9]))
    return InviteRow(*values)


def _approval(row: tuple[Any, ...]) -> ApprovalRow:
    lists = (strings(row[8]), strings(row[9]))
    values = (*row[:2], strings(row[2]), *row[3:8], *lists, *row[10:])
    return ApprovalRow(*values)
