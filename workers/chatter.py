"""What a library says, said once: strangers can make some of it as often as they like.

asyncio warns of every write to a connection whose other end has gone, and whoever asks without
reading makes thousands of those. The first of a kind passes; the rest of its minute does not.
"""

import logging

EVERY_S = 60.0
KINDS_MAX = 256


class OnceAMinute(logging.Filter):
    """Lets a text of a library pass once a minute; errors with a traceback always pass."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Return whether a record is to be written."""
        if record.exc_info:
            return True
        kind = str(record.msg)  # the text without its arguments
        said_at = self._said.get(kind)
        if said_at is not None and record.created - said_at < EVERY_S:
            return False
        if len(self._said) >= KINDS_MAX:
            self._said.clear()
        self._said[kind] = record.created
        return True


def quieten(*libraries: str) -> None:
    """Let these libraries say everything only once a minute."""
    once = OnceAMinute()
    for name in libraries:
        logging.getLogger(name).addFilter(once)
