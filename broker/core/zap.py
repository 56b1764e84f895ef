"""ZAP as frames: may the peer of a new CURVE connection come in?

The socket asks once per connection, before the first message gets through; whether the key is
still good is asked again with every message (`broker.core.remote`). Fails closed: what is not
understood is answered 500 and does not get in. Source: ZeroMQ RFC 27/ZAP.
"""

from collections.abc import Sequence
from dataclasses import dataclass

VERSION = b"1.0"
DOMAIN = b"certmesh-workers"
MECHANISM = b"CURVE"
KEY_BYTES = 32

GOOD = b"200"
TRY_AGAIN = b"300"
DENIED = b"400"
FAILED = b"500"

_HEAD = 6
"""Frames before the credentials: version, request id, domain, address, identity, mechanism."""
_REQUEST_ID_BYTES_MAX = 255


@dataclass(frozen=True, slots=True)
class ZAPRequest:
    """One question; `public_key` is 64 hexadecimal digits, `address` the peer's, without a port."""

    request_id: bytes
    address: str
    public_key: str


class ZAPMalformedError(ValueError):
    """Frames that are no question of our CURVE socket; `request_id` as far as it was readable."""

    def __init__(self, why: str, request_id: bytes = b"") -> None:
        super().__init__(why)
        self.request_id = request_id


def read_request(frames: Sequence[bytes]) -> ZAPRequest:
    """Return the question in `frames` (without envelope).

    Raises:
        ZAPMalformedError: Too few or too many frames, another version, domain or mechanism, or
            credentials that are no CURVE public key.
    """
    if len(frames) < _HEAD or len(frames[1]) > _REQUEST_ID_BYTES_MAX:
        raise ZAPMalformedError(f"{len(frames)} frames are no ZAP request")
    version, request_id, domain, address, _, mechanism, *credentials = frames
    if version != VERSION:
        raise ZAPMalformedError("another version of ZAP", request_id)
    if domain != DOMAIN or mechanism != MECHANISM:
        raise ZAPMalformedError("another domain or mechanism", request_id)
    if len(credentials) != 1 or len(credentials[0]) != KEY_BYTES:
        raise ZAPMalformedError("the credentials are no CURVE public key", request_id)
    return ZAPRequest(request_id, address.decode("ascii", "replace")[:64], credentials[0].hex())


def answer(request: ZAPRequest, *, granted: bool) -> list[bytes]:
    """Return the frames that let the peer in or keep it out.

    The user id is the public key: with it the broker looks the grant up for each message.
    """
    if not granted:
        return _frames(request.request_id, DENIED, b"this key is not granted")
    return _frames(request.request_id, GOOD, b"OK", request.public_key.encode())


def later(request: ZAPRequest) -> list[bytes]:
    """Return the frames for a peer about whom nothing can be said now; it may come again."""
    return _frames(request.request_id, TRY_AGAIN, b"try again")


def refuse_malformed(problem: ZAPMalformedError) -> list[bytes]:
    """Return the frames that answer what was not understood."""
    return _frames(problem.request_id, FAILED, b"malformed")


def _frames(request_id: bytes, status: bytes, text: bytes, user_id: bytes = b"") -> list[bytes]:
    return [VERSION, request_id, status, text, user_id, b""]
