"""Words two people compare before a join is approved.

Both sides compute them from the joiner's key, the CA pin and the joiner's nonce: whoever sits
between the two has another key or another CA, and so other words.
"""

import hashlib
from collections.abc import Sequence

from broker.errors import MalformedMessageError

WORD_BYTES = 2


def comparison_words(
    spki: bytes, pin: str, nonce: str, wordlist: Sequence[str]
) -> tuple[str, str, str, str]:
    """Return four words for a key, a CA and a nonce.

    Args:
        spki: DER SubjectPublicKeyInfo of the joiner's key.
        pin: Hex SHA-256 of the root certificate.
        nonce: Hex, drawn by the joiner.
        wordlist: The same list on both sides.

    Raises:
        MalformedMessageError: `pin` or `nonce` is not an even number of hex digits.
    """
    try:
        digest = hashlib.sha256(spki + bytes.fromhex(pin) + bytes.fromhex(nonce)).digest()
    except ValueError:
        raise MalformedMessageError("the nonce or the pin is not hexadecimal") from None
    first, second, third, fourth = (
        wordlist[int.from_bytes(digest[start : start + WORD_BYTES], "big") % len(wordlist)]
        for start in range(0, 4 * WORD_BYTES, WORD_BYTES)
    )
    return first, second, third, fourth
