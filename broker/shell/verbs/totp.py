"""Changing the enrollment secret: the new one is proven before the old one goes.

The new secret waits in this broker's memory, for ten minutes at most; a typing error, a lost
telephone or a restart in between leaves the old one in force. Only its sealed form is written down.
"""

import hashlib

from broker.core.rotation import TTL_MS, Rotation
from broker.errors import BadCredentialError, CALockedError, ConflictError
from broker.pki.totp import SECRET_BYTES, key_text, matching_step, provisioning_uri
from broker.pki.totp_box import seal_totp
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.state import BrokerState
from broker.units import Millis
from broker.wire.enrollment import (
    EnrollmentView,
    FinishTOTPRotation,
    StartTOTPRotation,
    TOTPRotationView,
)
from broker.wire.facts import TOTPRotated, TOTPStepUsed


def start_totp_rotation(
    state: BrokerState, _batch: Batch, caller: Caller, _request: StartTOTPRotation
) -> TOTPRotationView:
    """Draw a new secret and show it; an earlier one that nobody proved is forgotten.

    Raises:
        CALockedError: Nobody could seal it.
    """
    mesh = state.mesh()
    state.issuer()
    state.full_powers(caller.now_ms)
    secret = state.draw(SECRET_BYTES)
    state.keys.rotation = Rotation(secret, Millis(caller.now_ms + TTL_MS))
    return TOTPRotationView(
        totp_uri=provisioning_uri(secret, mesh.name),
        totp_key=key_text(secret),
        ttl_s=TTL_MS // 1000,
    )


def finish_totp_rotation(
    state: BrokerState, batch: Batch, caller: Caller, request: FinishTOTPRotation
) -> EnrollmentView:
    """Put the new secret into force, proven by one of its codes, which is spent with that.

    Raises:
        ConflictError: No new secret waits, or not any more.
        BadCredentialError: The code is not one of the new secret; it goes on waiting.
    """
    mesh = state.mesh()
    state.issuer()
    state.full_powers(caller.now_ms)
    keys, opened = state.keys, state.keys.opened
    if opened is None:
        raise CALockedError(f"the CA key on {state.host} is locked", hint="certmesh ca unlock")
    rotation = keys.rotation
    if rotation is None or rotation.is_over(caller.now_ms):
        keys.rotation = None
        raise ConflictError(
            "no new enrollment secret waits for its proof; nothing was changed",
            hint="start again: certmesh enrollment rotate-totp",
        )
    window = state.settings.enrollment.totp_window
    step = matching_step(rotation.secret, request.code.replace(" ", ""), caller.now, window)
    if step is None:
        raise BadCredentialError(
            "the code is not one of the new secret; the old secret stays in force",
            hint="scan the new QR code, check both clocks, then type the newest code",
        )
    box = seal_totp(opened.wrapping_key, mesh.mesh_id, rotation.secret, state.draw)
    batch.append(TOTPRotated(box.nonce, box.ciphertext), request.operator)
    if not state.ledger.totp_step_used(step):
        # Whoever saw the proof must not join with it; the key of nobody is the hash of the box.
        spent_by = hashlib.sha256(box.ciphertext).hexdigest()
        batch.append(TOTPStepUsed(step, spent_by), request.operator)
    # At once, so that one proof of this drain counts once; a lost commit puts it back.
    keys.rotation = None
    batch.on_void.append(lambda: setattr(keys, "rotation", rotation))
    batch.after_commit.append(lambda: log(EventName.TOTP_ROTATED, operator=request.operator))
    return EnrollmentView(open=mesh.enrollment_open, approval=mesh.approval)
