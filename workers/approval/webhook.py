"""The decider that asks a program elsewhere: a ticket system, a chat, an inventory.

Invariants: only an answer that is signed for this very question decides. Everything else, from a
dead server to a damaged answer, leaves the request in the queue for `certmesh approval`: it is
neither approved nor denied. The lease is kept, and a stop noticed, while the other side thinks.
"""

import secrets
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from broker.clock import boottime_ms, wall_s
from broker.errors import MalformedMessageError, SettingsError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.runtime.settings import ApprovalSettings
from broker.wire.work import Approve, Decided
from workers.approval.decider import Vigil
from workers.approval.dialogue import TryAgainError, hear_answer, put_question
from workers.approval.logic import deferred
from workers.approval.post import Post, signature_of
from workers.secretfile import read_secret_file
from workers.webcall import public_context

NONCE_BYTES = 16
SECRET_NAMED_BY = "approval.webhook_secret_file"  # noqa: S105 (a setting, no secret)
BACKOFF_MS_MIN = 500
BACKOFF_MS_MAX = 30_000


@dataclass(frozen=True, slots=True)
class Receiver:
    """Who is asked, and how patiently; times in milliseconds."""

    url: str
    secret: bytes = field(repr=False)
    context: ssl.SSLContext
    timeout_ms: int
    retries: int
    total_ms: int
    backoff_ms: int = BACKOFF_MS_MIN


def receiver_of(settings: ApprovalSettings, home: Path) -> Receiver:
    """Return the receiver in the settings; relative file names are below `home`.

    Raises:
        SettingsError: The secret is missing, short or open to others, or the CA file is none.
    """
    ca_file = home / settings.webhook_ca_file if settings.webhook_ca_file else None
    try:
        context = public_context(ca_file)
    except OSError as error:
        raise SettingsError(
            f"approval.webhook_ca_file: {ca_file} cannot be used: {error}",
            hint="name a file with the CA certificates of the webhook, in PEM",
        ) from None
    return Receiver(
        url=settings.webhook,
        secret=read_secret_file(home / settings.webhook_secret_file, SECRET_NAMED_BY),
        context=context,
        timeout_ms=settings.webhook_timeout.ms,
        retries=settings.webhook_retries,
        total_ms=settings.timeout.ms,
    )


class WebhookDecider:
    """Posts the question, hears the answer; what is unclear is left to a person.

    Args:
        receiver: Whom to ask.
    """

    def __init__(self, receiver: Receiver) -> None:
        self._to = receiver

    def decide(self, item: Approve, vigil: Vigil) -> Decided | None:
        """Return the receiver's answer, a deferral, or None when the process must stop first."""
        until_ms = boottime_ms() + self._to.total_ms
        trouble = "it took too long"
        for attempt in range(self._to.retries + 1):
            left_ms = until_ms - boottime_ms()
            if left_ms <= 0:
                break
            try:
                return self._ask(item, vigil, min(left_ms, self._to.timeout_ms))
            except TryAgainError as error:
                trouble = str(error)
            except MalformedMessageError as error:
                trouble = error.detail
                break
            if attempt < self._to.retries:
                pause_ms = min(self._to.backoff_ms << attempt, BACKOFF_MS_MAX)
                if not _rest(vigil, min(pause_ms, max(0, until_ms - boottime_ms()))):
                    return None
        log(
            EventName.APPROVAL_DEFERRED,
            level="warning",
            host=item.host,
            approval_id=item.approval_id,
            reason=f"the webhook did not decide: {trouble}",
        )
        return deferred()

    def _ask(self, item: Approve, vigil: Vigil, patience_ms: int) -> Decided | None:
        """Return one attempt's answer; every attempt is a question of its own."""
        to = self._to
        asked = put_question(item, to.secret, secrets.token_hex(NONCE_BYTES), wall_s())
        until_ms = boottime_ms() + patience_ms
        with Post(to.context, to.url, asked, patience_ms / 1000) as post:
            while (reply := post.result()) is None:
                if vigil.stopping():
                    return None
                left_ms = until_ms - boottime_ms()
                if left_ms <= 0:
                    raise TryAgainError("no answer in time")
                vigil.wait(left_ms, post.fileno())
        return hear_answer(reply.status, reply.body, signature_of(reply), to.secret, asked)


def _rest(vigil: Vigil, pause_ms: int) -> bool:
    """Wait out a pause; return False when the process was asked to stop meanwhile."""
    until_ms = boottime_ms() + pause_ms
    while (left_ms := until_ms - boottime_ms()) > 0 and not vigil.stopping():
        vigil.wait(left_ms)
    return not vigil.stopping()
