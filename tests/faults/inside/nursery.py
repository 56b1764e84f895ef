"""A process that has the broker's code in memory and forks one broker after the other.

`python -m tests.faults.inside.nursery`: reads the path of a settings file from standard input,
forks a broker on it, writes the broker's pid, and when it ended how: `-9` for SIGKILL, else its
exit status. A start takes a tenth of what a fresh interpreter takes, which makes hundreds of kills
affordable. What the broker does with its disk and its sockets is the same.
"""

import os
import sys
from pathlib import Path

from tests.faults.inside import failpoints


def main() -> int:
    """Fork brokers until standard input ends."""
    if failpoints.VARIABLE in os.environ:
        failpoints.install("broker")
    from broker.__main__ import main as run_broker  # noqa: PLC0415 (after the wrapping)
    from broker.runtime.parent import die_with_parent  # noqa: PLC0415

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            die_with_parent()
            # Beside the home: a disk that is broken there loses no word.
            _redirect(Path(line.strip()).parent.with_suffix(".log"))
            os._exit(run_broker([line.strip(), "--foreground"]))
        _say(str(child))
        _, status = os.waitpid(child, 0)
        _say(str(os.waitstatus_to_exitcode(status)))
    return 0


def _redirect(log: Path) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(written, 1)
    os.dup2(written, 2)


def _say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
