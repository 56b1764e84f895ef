"""The broker process: `python -m broker [DUTY] SETTINGS`."""

import sys
from functools import partial
from pathlib import Path

from broker.runtime.main import FOREGROUND, run_process
from broker.runtime.privileges import Needs
from broker.shell.backup_make import backup
from broker.shell.create import create
from broker.shell.destroy import destroy
from broker.shell.rehearse import rehearse
from broker.shell.restore import restore
from broker.shell.serve import serve
from broker.shell.verify import verify

ONE_SHOT = {
    "create": create,
    "verify": verify,
    "rehearse": rehearse,
    "backup": backup,
    "destroy": destroy,
}
FILE_WORDS = 3
"""`restore SETTINGS FILE`."""


def main(argv: list[str]) -> int:
    """Run the broker, or one of its one-shot duties."""
    if len(argv) == FILE_WORDS and argv[0] == "restore":
        return run_process(partial(restore, file=Path(argv[2])), [argv[1], FOREGROUND])
    if argv and argv[0] in ONE_SHOT:
        return run_process(ONE_SHOT[argv[0]], [*argv[1:], FOREGROUND])
    needs = Needs(listens=("workers",), places=("backup.directory",))
    return run_process(serve, argv, needs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
