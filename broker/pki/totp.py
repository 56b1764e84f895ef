"""Time-based one-time passwords for the enrollment door.

SHA-1, six digits and 30 seconds are what authenticator apps support without exception; the HMAC
construction does not rest on SHA-1's collision resistance (RFC 6238 section 1.2). A step is
accepted once: remembering it is the ledger's duty, `matching_step` names it.
"""

import base64

from cryptography.hazmat.primitives import constant_time
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.hotp import HOTP
from cryptography.hazmat.primitives.twofactor.totp import TOTP

SECRET_BYTES = 20
"""RFC 4226 section 4, R6: 160 bits recommended."""
STEP_S = 30
DIGITS = 6
GROUP = 4


def provisioning_uri(secret: bytes, mesh_name: str) -> str:
    """Return the `otpauth://` address an authenticator app scans."""
    totp = TOTP(secret, DIGITS, SHA1(), STEP_S)  # noqa: S303 (what authenticator apps speak)
    return totp.get_provisioning_uri(mesh_name, "certmesh")


def key_text(secret: bytes) -> str:
    """Return the secret for typing: base32 in groups of four."""
    text = base64.b32encode(secret).decode("ascii").rstrip("=")
    return " ".join(text[start : start + GROUP] for start in range(0, len(text), GROUP))


def matching_step(secret: bytes, code: str, now: int, window: int) -> int | None:
    """Return the time step that `code` belongs to, or None.

    Every step of the window is computed and compared in constant time, whichever matches.

    Args:
        secret: The shared secret.
        code: Six ASCII digits as typed; anything else never matches.
        now: Wall time of this side.
        window: Steps accepted on either side of the current one.

    Source: RFC 6238 sections 4 and 5.2.
    """
    if len(code) != DIGITS or not (code.isascii() and code.isdigit()):
        return None
    hotp = HOTP(secret, DIGITS, SHA1())  # noqa: S303 (what authenticator apps speak)
    current, offered, found = now // STEP_S, code.encode("ascii"), None
    for step in range(max(0, current - window), current + window + 1):
        if constant_time.bytes_eq(hotp.generate(step), offered):
            found = step
    return found
