"""Which one a person means: an id, the beginning of one, or a host name. Pure."""

from collections.abc import Iterable

from broker.cli.shape import short_id
from broker.errors import ConflictError, NotFoundError

BEGINNING_MIN = 4
"""Shorter beginnings are more likely a slip than a choice."""


def meant(word: str, known: Iterable[tuple[str, str]], what: str) -> str:
    """Return the id of the one thing `word` names.

    Args:
        word: A whole id, at least four characters of one, or a host name.
        known: Id and host of each candidate.
        what: What they are, for the refusal.

    Raises:
        NotFoundError: None of them.
        ConflictError: More than one; a decision is never made on a guess.
    """
    found = [
        (identity, host)
        for identity, host in known
        if word in (identity, host) or (len(word) >= BEGINNING_MIN and identity.startswith(word))
    ]
    if not found:
        raise NotFoundError(f"there is no {what} {word}")
    if len(found) > 1:
        those = ", ".join(f"{short_id(identity)} ({host})" for identity, host in found)
        raise ConflictError(f"{word} names {len(found)} {what}s: {those}", hint="give the id")
    return found[0][0]
