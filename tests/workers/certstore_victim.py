"""A process that installs one certificate and kills itself at the Nth durable step.

`python certstore_victim.py DIRECTORY STEP`: reads leaf, issuing and root as hex lines on stdin.
With a VERSION as third argument it makes that version live again instead.
"""

import os
import signal
import sys
from pathlib import Path

from workers.certstore import CertificateStore


class Victim:
    """Counts steps and dies at the chosen one."""

    def __init__(self, deadly: int) -> None:
        self._left = deadly

    def step(self, name: str) -> None:
        """Die here when the count is up."""
        if self._left == 0:
            sys.stdout.write(name + "\n")
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


def main() -> None:
    """Install what stdin says, or bring a version forward."""
    victim = Victim(int(sys.argv[2]))
    store = CertificateStore(Path(sys.argv[1]), "nas", step=victim.step)
    if len(sys.argv) > 3:
        store.bring_forward(sys.argv[3])
        return
    leaf, issuing, root = (bytes.fromhex(line) for line in sys.stdin.read().split())
    store.install(leaf, issuing, root)


if __name__ == "__main__":
    main()
