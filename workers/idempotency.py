"""`Idempotency-Key`: a POST that may be sent again, and is done once.

The key becomes the id under which the broker remembers its reply, so a retry gets the first answer
also from a console that was restarted in between. Sans-IO.
"""

import hashlib
import hmac
import re

from broker.errors import ConflictError, MalformedMessageError

IDEMPOTENCY_HEADER = "Idempotency-Key"
KEY_LENGTH_MAX = 255
REQUEST_ID_BYTES = 16
_KEY = re.compile(rf"[\x21-\x7e]{{1,{KEY_LENGTH_MAX}}}")


def request_id_of(key: str, caller: str, target: str, body: bytes) -> bytes:
    """Return the id of a request whose caller named it `key`.

    The whole request goes in: a key that is used again for something else names something else,
    and nobody gets an answer that was meant for another caller.

    Args:
        key: The header's value.
        caller: Who asks, as the door knows it.
        target: Method and path.
        body: As it came.

    Raises:
        MalformedMessageError: Empty, longer than 255 characters, or not visible ASCII.
    """
    if _KEY.fullmatch(key) is None:
        raise MalformedMessageError(
            f"{IDEMPOTENCY_HEADER}: 1 to {KEY_LENGTH_MAX} visible ASCII characters",
            hint="send a fresh UUID with each new request, the same one with a retry",
        )
    digest = hashlib.sha256()
    for part in (key.encode(), caller.encode(), target.encode(), body):
        digest.update(len(part).to_bytes(8) + part)
    return digest.digest()[:REQUEST_ID_BYTES]


class SecretDraw:
    """Draws secrets that are shown once, the same ones for a retry.

    The broker keeps hashes alone, so it cannot tell a secret again. Here nothing is kept at all:
    what a named request gets is computed from its id under a key of this process's lifetime.

    Args:
        key: 32 random bytes, drawn when the process starts.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def draw(self, request_id: bytes | None, fresh: bytes) -> bytes:
        """Return 32 bytes nobody can guess; `fresh` ones for a request without a name."""
        return hmac.digest(self._key, request_id, "sha256") if request_id else fresh


def require_same(known: str, shown: str) -> None:
    """Refuse to show a secret that is not the one the broker remembers.

    Args:
        known: Hash in the broker's reply, of what was made by the first request.
        shown: Hash of what this process would show now.

    Raises:
        ConflictError: The first request was answered by an earlier lifetime of this process.
    """
    if not hmac.compare_digest(known, shown):
        raise ConflictError(
            "this was made by an earlier request, and its secret is shown only once",
            hint="revoke it and make another one, under another Idempotency-Key",
        )
