"""`membership.json`: the one file that says which mesh this node belongs to."""

from broker.errors import LedgerDamagedError, MalformedMessageError
from broker.runtime.files import write_kept
from broker.runtime.paths import Paths
from broker.wire.checked import check_checksum, encode_checked
from broker.wire.node import Membership
from broker.wire.plain import decode_json


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
        check_checksum(raw)
        return decode_json(raw, Membership)
    except MalformedMessageError as error:
        raise LedgerDamagedError(
            f"{paths.membership} is damaged: {error.detail}",
            hint="restore it from a backup, or move it away and join again",
        ) from None


def write_membership(paths: Paths, membership: Membership) -> None:
    """Make the membership durable; the commit point of creating or joining a mesh."""
    write_kept(paths.membership, encode_checked(membership))
