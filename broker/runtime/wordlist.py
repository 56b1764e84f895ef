"""Words for people: passphrases and comparison words, from the EFF long list."""

import secrets
from functools import cache
from importlib import resources

PASSPHRASE_WORDS = 6
"""7,776 words give 12.9 bits each: six make 77 bits."""


@cache
def words() -> tuple[str, ...]:
    """Return the 7,776 words of the EFF long list, in its order."""
    listing = resources.files("xkcdpass").joinpath("static", "eff-long")
    return tuple(listing.read_text(encoding="ascii").split())


def passphrase(count: int = PASSPHRASE_WORDS) -> str:
    """Return `count` words drawn by the system's generator, joined by spaces."""
    return " ".join(secrets.choice(words()) for _ in range(count))
