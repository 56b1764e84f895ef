"""Exit statuses. 0 to 9 belong to the command, 69 and above to processes (sysexits)."""

from enum import IntEnum


class Exit(IntEnum):
    """What a process or the command says when it ends; tests assert these."""

    OK = 0
    FAILED = 1
    USAGE = 2
    ATTENTION = 3
    UNREACHABLE = 4
    LOCKED = 5
    NO_MESH = 6
    REFUSED = 7
    WAITING = 8
    CONFLICT = 9
    DEPENDENCY = 69
    TEMPORARY = 75
    PERMISSION = 77
    SETTINGS = 78
    INTERRUPTED = 130
