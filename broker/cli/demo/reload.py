"""The reload hook of the demo's service: `python -m broker.cli.demo.reload PIDFILE`.

As `systemctl reload` does, it returns when the service has the new certificate in use, so that
the probe that follows sees it.
"""

import os
import signal
import sys
import threading
from pathlib import Path

TURNS = 100
TURN_S = 0.05


def main(argv: list[str]) -> int:
    """Send SIGHUP and wait until the service says which version it serves now."""
    pid_file = Path(argv[0])
    wanted = Path(os.environ["CERTMESH_LIVE_DIR"]).resolve().name
    os.kill(int(pid_file.read_text()), signal.SIGHUP)
    for _ in range(TURNS):
        if pid_file.with_suffix(".served").read_text() == wanted:
            return 0
        threading.Event().wait(TURN_S)
    sys.stderr.write(f"the service did not take up {wanted}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
