"""The recovery kit: the one secret that opens backups, and the CA, when everything else is lost.

The secret is 32 random bytes. People see it as base32 (RFC 4648 section 6) in groups of four,
with a checksum in the last group: a wrong letter is told from a wrong kit. It is drawn once, at
init, and lies on no disk; key holders keep the public half of a key pair derived from it, to which
backups are sealed.
"""

import base64
import hashlib
import re

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from broker.errors import BadPassphraseError

RECOVERY_BYTES = 32
GROUP_CHARACTERS = 4
SECRET_CHARACTERS = 52
"""Base32 of 32 bytes, without padding."""
CHECK_BYTES = 5
TEXT_LENGTH_MAX = 8192
"""Of what is typed or in a file, so much is looked at: a printed kit has a quarter of it."""
KEY_LABEL = b"certmesh recovery key 1"
CHECK_LABEL = b"certmesh recovery check 1\x00"

_LOOKALIKES = str.maketrans({"0": "O", "1": "I", "8": "B"})
"""No digit of these is in the alphabet, so what was meant is plain."""
_GROUPS = re.compile(r"(?=\b((?:[A-Z2-7]{4}\b[\s-]*){14}))")
"""Runs of fourteen groups, also where a longer run holds several."""


def recovery_text(secret: bytes) -> str:
    """Return the secret as people keep it: fourteen groups of four, the last one a checksum.

    Raises:
        ValueError: Not 32 bytes.
    """
    if len(secret) != RECOVERY_BYTES:
        raise ValueError(f"a recovery secret has {RECOVERY_BYTES} bytes")
    plain = base64.b32encode(secret).decode().rstrip("=") + _check(secret)
    starts = range(0, len(plain), GROUP_CHARACTERS)
    return "-".join(plain[start : start + GROUP_CHARACTERS] for start in starts)


def recovery_secret(text: str) -> bytes:
    """Return the secret in `text`: as typed, or somewhere in the text of a printed kit.

    Case, blanks, dashes and line ends do not matter; 0, 1 and 8 are read as O, I and B.

    Raises:
        BadPassphraseError: No such text, or a letter of it is wrong; never says which.
    """
    plain = text[:TEXT_LENGTH_MAX].upper()
    runs = [found.group(1) for found in _GROUPS.finditer(plain)] or [plain.translate(_LOOKALIKES)]
    # A fingerprint on the same page may look like groups too: the checksum tells which run it is.
    letters = [re.sub(r"[\s-]+", "", run) for run in runs]
    whole = [run for run in letters if len(run) == SECRET_CHARACTERS + GROUP_CHARACTERS]
    if not whole:
        raise BadPassphraseError(
            "this is no recovery secret: it has fourteen groups of four letters and digits",
            hint="take the lines below `secret` of the printed kit",
        )
    for run in whole:
        secret = _decoded(run)
        if secret is not None:
            return secret
    raise BadPassphraseError(
        "the recovery secret has a typing error: its checksum does not fit",
        hint="compare it with the printed kit, group by group; nothing was changed",
    )


def recovery_key(secret: bytes) -> X25519PrivateKey:
    """Return the private key that backups are sealed for; its public half is no secret."""
    raw = HKDF(algorithm=SHA256(), length=RECOVERY_BYTES, salt=None, info=KEY_LABEL).derive(secret)
    return X25519PrivateKey.from_private_bytes(raw)


def recovery_public(secret: bytes) -> str:
    """Return the public half of the recovery key, in hex as facts and headers carry it."""
    return recovery_key(secret).public_key().public_bytes_raw().hex()


def _check(secret: bytes) -> str:
    digest = hashlib.sha256(CHECK_LABEL + secret).digest()[:CHECK_BYTES]
    return base64.b32encode(digest).decode()[:GROUP_CHARACTERS]


def _decoded(letters: str) -> bytes | None:
    """Return the secret if its checksum fits."""
    try:
        secret = base64.b32decode(letters[:SECRET_CHARACTERS] + "====")
    except ValueError:  # also of letters that are no ASCII
        return None
    # The last letter carries one bit of the secret; the rest of it must be nothing.
    return secret if recovery_text(secret).replace("-", "") == letters else None
