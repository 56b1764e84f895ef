"""A log file that rotates itself, for the one process whose output nobody collects."""

import os
from pathlib import Path

BYTES_MAX = 5 * 1024 * 1024


class LogFile:
    """Appends to `path`; past `bytes_max` the file becomes `<name>.1` and a new one begins."""

    def __init__(self, path: Path, bytes_max: int = BYTES_MAX) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._descriptor = self._open()

    def fileno(self) -> int:
        """Return the descriptor to append to, after rotating when it is time."""
        if os.fstat(self._descriptor).st_size > self._bytes_max:
            os.replace(self._path, f"{self._path}.1")  # noqa: PTH105 (the name is only a string)
            os.close(self._descriptor)
            self._descriptor = self._open()
        return self._descriptor

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._path, flags, 0o600)
