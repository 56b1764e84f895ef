"""What was verified since this machine started, so that a restart need not verify it again.

A broker that is killed must serve again in a moment, and the walk over a long journal takes
longer. The mark names the machine's boot, the file and a head; anything that does not match means
a full check. It proves nothing to anybody else: `certmesh audit verify` always walks from the
first row.
"""

import msgspec

from broker.errors import StorageError
from broker.ledger.rows import Head
from broker.ledger.sqlite import Ledger
from broker.runtime.boot import boot_id
from broker.runtime.files import write_atomic
from broker.runtime.paths import Paths

MARK = "ledger.verified"


class Mark(msgspec.Struct, frozen=True):
    """A verified head of one file in one boot of the machine."""

    boot: str
    inode: int
    term: int
    sequence: int
    hash: str


def open_ledger(paths: Paths, *, node: str) -> Ledger:
    """Open the ledger, walking only what this machine has not verified yet; raises as `open`."""
    ledger = Ledger.open(paths.ledger, node=node, known=_known(paths))
    head = ledger.head
    mark = Mark(boot_id(), paths.ledger.stat().st_ino, head.term, head.sequence, head.hash)
    try:
        write_atomic(paths.run / MARK, msgspec.json.encode(mark))
    except OSError as error:
        ledger.close()
        raise StorageError(
            f"cannot write in {paths.run}: {error.strerror}", hint="free space there"
        ) from error
    return ledger


def _known(paths: Paths) -> Head | None:
    try:
        mark = msgspec.json.decode((paths.run / MARK).read_bytes(), type=Mark)
        inode = paths.ledger.stat().st_ino
    except (OSError, msgspec.MsgspecError):
        return None
    if (mark.boot, mark.inode) != (boot_id(), inode):
        return None
    return Head(mark.term, mark.sequence, mark.hash)
