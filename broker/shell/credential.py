"""What proves the right to ask: an invite's secret or a TOTP code.

Checked before the CSR is parsed, before anybody is asked, in constant time where a secret is
compared.
"""

import hashlib
from dataclasses import dataclass

from broker.errors import (
    BadCredentialError,
    CALockedError,
    EnrollmentClosedError,
    InviteExpiredError,
    InviteUsedError,
    LedgerDamagedError,
)
from broker.ledger.rows import InviteRow
from broker.pki.totp import matching_step
from broker.pki.totp_box import open_totp
from broker.shell.batch import Batch
from broker.shell.state import BrokerState
from broker.units import UnixSeconds
from broker.wire.enrollment import Join
from broker.wire.facts import InviteUsed, TOTPStepUsed


@dataclass(frozen=True, slots=True)
class Credential:
    """A proven credential; `used` means only its first redeemer may present it again."""

    host: str
    method: str
    used: bool
    invite: InviteRow | None = None
    step: int = 0

    def require_unused(self) -> None:
        """Refuse a second redemption.

        Raises:
            InviteUsedError: The invite has an owner.
            BadCredentialError: The TOTP step was accepted before.
        """
        if not self.used:
            return
        if self.invite is not None:
            raise InviteUsedError(
                "this invite was used already",
                hint=f"make a new one: certmesh invite create {self.host}",
            )
        raise BadCredentialError(
            "this code was used already", hint="wait for the next code, 30 s at most"
        )

    def belongs_to(self, member_id: str, key_hash: str) -> bool:
        """Whether this credential may fetch that member's certificate again."""
        if self.invite is None:
            return True
        return (self.invite.member_id, self.invite.key_hash) == (member_id, key_hash)


def check_credential(state: BrokerState, request: Join, now: UnixSeconds) -> Credential:
    """Return the proven credential of a join.

    Raises:
        BadCredentialError: Neither or both given, unknown invite, wrong code.
        InviteExpiredError: The invite's time is over.
        InviteUsedError: The invite was revoked.
        EnrollmentClosedError: TOTP joins are refused now.
    """
    if bool(request.invite_secret) == bool(request.totp_code):
        raise BadCredentialError("a join needs an invite or a TOTP code, exactly one of them")
    if request.invite_secret:
        return _by_invite(state, request, now)
    return _by_totp(state, request, now)


def enrollment_secret(state: BrokerState) -> bytes:
    """Return the secret whose codes count now: the journal's newest, else the mesh's first one.

    Asked for each time instead of kept: so a restart, a takeover, a rollback and a merge all leave
    the secret that the ledger tells of.

    Raises:
        CALockedError: The keys that seal it are closed.
        LedgerDamagedError: It was sealed for other keys; no code counts then, the old one neither.
    """
    mesh, opened = state.mesh(), state.keys.opened
    if opened is None:
        raise CALockedError(f"the CA key on {state.host} is locked", hint="certmesh ca unlock")
    if not any(mesh.totp_box):
        return state.keys.totp_secret
    secret = open_totp(opened.wrapping_key, mesh.mesh_id, mesh.totp_box)
    if secret is None:
        raise LedgerDamagedError(
            "the enrollment secret in the journal does not open with the keys of this node",
            hint="set a new one: certmesh enrollment rotate-totp; invites work meanwhile",
        )
    return secret


def spend(batch: Batch, credential: Credential, key_hash: str, member_id: str) -> None:
    """Note who redeemed the credential; it belongs to that key from now on."""
    if credential.invite is not None:
        batch.append(InviteUsed(credential.invite.invite_id, member_id, key_hash), credential.host)
    else:
        batch.append(TOTPStepUsed(credential.step, key_hash), credential.host)


def _by_invite(state: BrokerState, request: Join, now: UnixSeconds) -> Credential:
    # Looking the secret up by its hash leaks nothing useful through timing: a guess has to
    # invert SHA-256 first.
    invite = state.ledger.invite(hashlib.sha256(request.invite_secret.encode()).hexdigest())
    if invite is None or invite.host != request.host:
        raise BadCredentialError(
            "this invite is not from this mesh, or not for this host",
            hint=f"make one on the CA: certmesh invite create {request.host}",
        )
    if invite.state == "revoked":
        raise InviteUsedError("this invite was revoked", hint="ask for a new one")
    if invite.state == "open" and invite.expires_at <= now:
        raise InviteExpiredError(
            "this invite has expired", hint=f"make a new one: certmesh invite create {invite.host}"
        )
    if invite.state == "open" and _is_outdated(state, invite):
        raise InviteExpiredError(
            "this invite was made by an earlier primary and is not honoured any more",
            hint=f"make a new one: certmesh invite create {invite.host}",
        )
    return Credential(request.host, "invite", invite.state == "used", invite=invite)


def _is_outdated(state: BrokerState, invite: InviteRow) -> bool:
    """Whether a failover came between: the earlier primary may honour the invite elsewhere."""
    return invite.term < state.ledger.term and not state.settings.failover.honour_invites


def _by_totp(state: BrokerState, request: Join, now: UnixSeconds) -> Credential:
    mesh = state.mesh()
    if not mesh.enrollment_open:
        raise EnrollmentClosedError(
            "enrollment with codes is closed",
            hint="certmesh enrollment open on the CA, or certmesh invite create",
        )
    window = state.settings.enrollment.totp_window
    step = matching_step(enrollment_secret(state), request.totp_code, now, window)
    if step is None:
        raise BadCredentialError(
            "the code is wrong or too old", hint="check both clocks, then type the newest code"
        )
    return Credential(request.host, "totp", state.ledger.totp_step_used(step), step=step)
