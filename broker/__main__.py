"""The broker process: `python -m broker [create|verify|rehearse] SETTINGS`."""

import sys

from broker.runtime.main import FOREGROUND, run_process
from broker.shell.create import create
from broker.shell.rehearse import rehearse
from broker.shell.serve import serve
from broker.shell.verify import verify

ONE_SHOT = {"create": create, "verify": verify, "rehearse": rehearse}


def main(argv: list[str]) -> int:
    """Run the broker, or one of its one-shot duties."""
    if argv and argv[0] in ONE_SHOT:
        return run_process(ONE_SHOT[argv[0]], [*argv[1:], FOREGROUND])
    return run_process(serve, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
