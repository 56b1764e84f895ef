"""`python -m workers.notify SETTINGS`: the process that tells people."""

import sys

from broker.runtime.privileges import Needs
from workers.notify.loop import NotifyLoop
from workers.process import run_worker

SECRETS = ("webhook_secret_file", "ntfy_token_file", "smtp_password_file", "ca_file")


def main() -> int:
    """Run the loop and return the exit status."""
    return run_worker(NotifyLoop, Needs(places=tuple(f"notify.{name}" for name in SECRETS)))


if __name__ == "__main__":
    sys.exit(main())
