"""`membership.json`: the one file that says which mesh this node belongs to."""

import msgspec

from broker.errors import LedgerDamagedError
from broker.runtime.files import write_atomic
from broker.runtime.paths import Paths
from broker.wire.node import Membership


def read_membership(paths: Paths) -> Membership | None:
    """Return this node's membership, None when it has none.

    Raises:
        LedgerDamagedError: The file is there and unreadable; that is never "no mesh".
    """
    try:
        raw = paths.membership.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LedgerDamagedError(f"cannot read {paths.membership}: {error.strerror}") from None
    try:
        return msgspec.json.decode(raw, type=Membership)
    except msgspec.MsgspecError as error:
        raise LedgerDamagedError(
            f"{paths.membership} is damaged: {error}",
            hint="restore it from a backup, or move it away and join again",
        ) from None


def write_membership(paths: Paths, membership: Membership) -> None:
    """Make the membership durable; the commit point of creating or joining a mesh."""
    write_atomic(paths.membership, msgspec.json.format(msgspec.json.encode(membership)))
