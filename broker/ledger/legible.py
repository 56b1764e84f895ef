"""What the sqlite3 module says of a file whose text is none any more.

For text in a column it raises an `OperationalError` without a code; and it puts names of the file
into its own messages, and when those are no UTF-8 it raises a `UnicodeDecodeError`, where everybody
waits for an error of a database. Both mean that the file is damaged.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def legible() -> Iterator[None]:
    """Raise `sqlite3.DatabaseError`, as for any damage, for text of the file that is none.

    Raises:
        sqlite3.DatabaseError: With `SQLITE_CORRUPT`; all others pass as they are.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise _damage(error.reason) from error
    except sqlite3.OperationalError as error:
        if hasattr(error, "sqlite_errorcode") or "UTF-8" not in str(error):
            raise
        raise _damage(ascii(str(error))) from error


def _damage(reason: str) -> sqlite3.DatabaseError:
    damage = sqlite3.DatabaseError(f"text in it is no text: {reason}")
    damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return damage
