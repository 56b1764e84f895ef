"""What this node knows of its mesh, as it was told when it joined."""

from broker.errors import MalformedMessageError, NoMeshError
from broker.runtime.paths import Paths
from broker.wire.checked import check_checksum
from broker.wire.node import Membership
from broker.wire.plain import decode_json


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
        check_checksum(raw)
        return decode_json(raw, Membership)
    except MalformedMessageError as error:
        raise NoMeshError(
            f"{paths.membership} is damaged ({error.detail})",
            hint="restore the file from a backup, or leave and join again",
        ) from None
