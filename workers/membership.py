"""What this node knows of its mesh, as it was told when it joined."""

import msgspec

from broker.errors import NoMeshError
from broker.runtime.paths import Paths
from broker.wire.node import Membership


def load_membership(paths: Paths) -> Membership | None:
    """Return what this node knows of its mesh; None while it belongs to none.

    Raises:
        NoMeshError: The file is damaged; that is not the same as having no mesh.
    """
    try:
        raw = paths.membership.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(raw, type=Membership)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise NoMeshError(
            f"{paths.membership} is damaged ({error})",
            hint="restore the file from a backup, or leave and join again",
        ) from None
