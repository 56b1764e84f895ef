"""The two targets that take a POST: any program (signed JSON), and ntfy (a short text)."""

import contextlib
import hashlib
import hmac
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import requests

from broker.clock import wall_s
from broker.errors import MalformedMessageError
from broker.runtime.settings import Notify
from broker.units import UnixSeconds
from broker.wire.notice import Notice
from workers.notify.logic import (
    NotTakenError,
    check_status,
    ntfy_headers,
    short_text,
    webhook_body,
)
from workers.secretfile import read_secret_file
from workers.webcall import post_web, public_context, web_session
from workers.wires import Wires

TIMESTAMP_HEADER = "X-Certmesh-Timestamp"
SIGNATURE_HEADER = "X-Certmesh-Signature"
NOTICE_HEADER = "X-Certmesh-Notice"
SCHEME = "v1="
TOKEN_BYTES_MIN = 4

_NOTICE = b"certmesh-notice-v1"


def sign_notice(secret: bytes, timestamp: str, body: bytes) -> str:
    """Return the signature of a notice, in hex.

    HMAC-SHA256 over three parts joined by a newline: `certmesh-notice-v1`, the timestamp header,
    the body. The same scheme as that of the approval webhook, with another first line, so that
    neither can be played as the other.
    """
    text = b"\n".join((_NOTICE, timestamp.encode(), body))
    return hmac.new(secret, text, hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Webhook:
    """Posts the notice as JSON, signed when there is a secret; the secret is read each time."""

    notify: Notify
    home: Path
    name: str = "webhook"

    def deliver(self, notice: Notice, wires: Wires) -> str:
        """Return an empty text once the notice was taken; raises as `_post`."""
        body = webhook_body(notice)
        headers = {"Content-Type": "application/json", NOTICE_HEADER: notice.notice_id}
        if self.notify.webhook_secret_file:
            path = self.home / self.notify.webhook_secret_file
            secret = read_secret_file(path, "notify.webhook_secret_file")
            headers |= signed_headers(secret, body, wall_s())
        _post(self, self.notify.webhook, body, headers, wires)
        return ""


@dataclass(frozen=True, slots=True)
class Ntfy:
    """Posts a text as ntfy takes it: title, priority and tags are headers."""

    notify: Notify
    home: Path
    name: str = "ntfy"

    def deliver(self, notice: Notice, wires: Wires) -> str:
        """Return an empty text once the notice was taken; raises as `_post`."""
        headers = {"Content-Type": "text/plain; charset=utf-8", **ntfy_headers(notice)}
        if self.notify.ntfy_token_file:
            path = self.home / self.notify.ntfy_token_file
            token = read_secret_file(path, "notify.ntfy_token_file", TOKEN_BYTES_MIN)
            headers["Authorization"] = f"Bearer {_ascii(token)}"
        _post(self, self.notify.ntfy, short_text(notice).encode(), headers, wires)
        return ""


def signed_headers(secret: bytes, body: bytes, now: UnixSeconds) -> dict[str, str]:
    """Return what proves who tells, and when."""
    timestamp = str(int(now))
    signature = SCHEME + sign_notice(secret, timestamp, body)
    return {TIMESTAMP_HEADER: timestamp, SIGNATURE_HEADER: signature}


def context_of(notify: Notify, home: Path) -> ssl.SSLContext:
    """Return whom to trust.

    Raises:
        NotTakenError: The CA file cannot be used.
    """
    ca_file = home / notify.ca_file if notify.ca_file else None
    try:
        return public_context(ca_file)
    except OSError as error:
        raise NotTakenError(f"notify.ca_file: {ca_file} cannot be used: {error}") from None


def _ascii(token: bytes) -> str:
    """Return a token fit for a header.

    Raises:
        NotTakenError: It has characters that no token has.
    """
    text = token.decode("ascii", errors="replace")
    if not text.isascii() or not text.isprintable():
        raise NotTakenError("notify.ntfy_token_file holds no token")
    return text


def _post(
    target: Webhook | Ntfy, url: str, body: bytes, headers: Mapping[str, str], wires: Wires
) -> None:
    """Post and look at the answer.

    Raises:
        NotTakenError: It could not be reached, did not finish, or did not take the notice.
    """
    notify = target.notify
    context = context_of(notify, target.home)
    try:
        with contextlib.closing(web_session(context, url, wires)) as session:
            reply = post_web(session, url, body, headers, notify.timeout.seconds)
    except requests.RequestException as error:
        raise NotTakenError(reason_of(error)) from None
    except MalformedMessageError as error:
        raise NotTakenError(error.detail) from None
    check_status(reply.status, reply.headers.get("retry-after", ""))


def reason_of(error: requests.RequestException) -> str:
    """Return why a call failed, without the URL: its path may be all that keeps others out."""
    text = str(error)
    for sign, meaning in (
        ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted (notify.ca_file)"),
        ("timed out", "did not answer in time"),
        ("refused", "refused the connection"),
        ("NameResolution", "its name is unknown"),
        ("Name or service", "its name is unknown"),
        ("Network is unreachable", "the network is unreachable"),
        ("No route", "no route to it"),
    ):
        if sign in text:
            return meaning
    return f"the call failed ({type(error).__name__})"
