"""The text form of an invite: `cm1:` and base64url of the ticket's JSON."""

import base64
import binascii

import msgspec

from broker.errors import InviteMalformedError
from broker.wire.mesh_api import InviteTicket

PREFIX = "cm1:"
TEXT_LENGTH_MAX = 4096


def encode_invite(ticket: InviteTicket) -> str:
    """Return the string a person hands to the new host."""
    return PREFIX + base64.urlsafe_b64encode(msgspec.json.encode(ticket)).decode().rstrip("=")


def decode_invite(text: str) -> InviteTicket:
    """Return the ticket in `text`.

    Raises:
        InviteMalformedError: Wrong prefix, not base64url, or not an invite inside.
    """
    text = text.strip()
    if not text.startswith(PREFIX) or len(text) > TEXT_LENGTH_MAX:
        raise InviteMalformedError(
            f"an invite starts with {PREFIX!r} and is at most {TEXT_LENGTH_MAX} characters",
            hint="copy the whole line that `certmesh invite create` printed",
        )
    try:
        raw = base64.b64decode(_padded(text[len(PREFIX) :]), altchars=b"-_", validate=True)
        return msgspec.json.decode(raw, type=InviteTicket)
    except (binascii.Error, ValueError, RecursionError, msgspec.MsgspecError):
        raise InviteMalformedError(
            "the invite is damaged",
            hint="copy the whole line that `certmesh invite create` printed",
        ) from None


def _padded(text: str) -> str:
    return text + "=" * (-len(text) % 4)
