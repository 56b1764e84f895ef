"""What is said between a CA and its webhook: a signed question, an answer signed for it. Sans-IO.

Both signatures are HMAC-SHA256 in hex under the shared secret, over lines joined by a newline:

    question:  certmesh-approval-question-v1, the timestamp header, the body
    answer:    certmesh-approval-answer-v1, the question's signature, the body

The body of every question carries a fresh nonce, so the signature of an answer counts for one
question alone: an old yes cannot be played again, nor a yes for one host shown for another. The
other side refuses questions whose timestamp is far from its own clock, and nonces it has seen.
"""

import hashlib
import hmac
from typing import Literal

import msgspec

from broker.errors import MalformedMessageError
from broker.units import UnixSeconds
from broker.wire.operator import check_operator_name
from broker.wire.work import Approve, Decided
from workers.approval.logic import approved, deferred, denied, printable

TIMESTAMP_HEADER = "X-Certmesh-Timestamp"
SIGNATURE_HEADER = "X-Certmesh-Signature"
SCHEME = "v1="
ACCEPTED = 202
"""The question was taken; a person answers later, by `certmesh approval` or the API."""
OK = 200
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that a moment may cure."""

_QUESTION = b"certmesh-approval-question-v1"
_ANSWER = b"certmesh-approval-answer-v1"


class HookQuestion(msgspec.Struct, frozen=True):
    """The body of the POST."""

    approval_id: str
    mesh: str
    host: str
    sans: tuple[str, ...]
    source: str
    method: str
    key_fingerprint: str
    words: tuple[str, ...]
    note: str
    nonce: str


class HookAnswer(msgspec.Struct, frozen=True):
    """The body of the answer; who decided is part of a decision."""

    decision: Literal["approve", "deny", "defer"]
    operator: str = ""
    reason: str = ""


class SignedQuestion(msgspec.Struct, frozen=True):
    """A question as it is sent; `signature` is in hex."""

    body: bytes
    timestamp: str
    signature: str

    @property
    def headers(self) -> dict[str, str]:
        """What proves that this CA asks, and when."""
        return {TIMESTAMP_HEADER: self.timestamp, SIGNATURE_HEADER: SCHEME + self.signature}


class TryAgainError(Exception):
    """The other side could not answer now."""


def put_question(item: Approve, secret: bytes, nonce: str, now: UnixSeconds) -> SignedQuestion:
    """Return the question about one pending join."""
    body = msgspec.json.encode(
        HookQuestion(
            approval_id=item.approval_id,
            mesh=item.mesh,
            host=item.host,
            sans=item.sans,
            source=item.source,
            method=item.method,
            key_fingerprint=item.key_fingerprint,
            words=item.words,
            note=item.note,
            nonce=nonce,
        )
    )
    timestamp = str(int(now))
    return SignedQuestion(body, timestamp, sign(secret, _QUESTION, timestamp.encode(), body))


def sign_answer(secret: bytes, question_signature: str, body: bytes) -> str:
    """Return the signature of an answer to one question, in hex."""
    return sign(secret, _ANSWER, question_signature.encode(), body)


def sign(secret: bytes, *parts: bytes) -> str:
    """Return HMAC-SHA256 over the lines, in hex."""
    return hmac.new(secret, b"\n".join(parts), hashlib.sha256).hexdigest()


def hear_answer(
    status: int, raw: bytes, signature: str, secret: bytes, asked: SignedQuestion
) -> Decided:
    """Return what the other side decided.

    Args:
        status: Of the HTTP answer.
        raw: Its body.
        signature: Its signature header as it came.
        secret: Shared with the other side.
        asked: The question this answers.

    Raises:
        TryAgainError: It could not answer now.
        MalformedMessageError: Not the answer to this question: approves nothing, denies nothing.
    """
    if status == ACCEPTED:
        return deferred()
    if status in AGAIN:
        raise TryAgainError(f"status {status}")
    if status != OK:
        raise MalformedMessageError(f"the webhook answered status {status}")
    expected = SCHEME + sign_answer(secret, asked.signature, raw)
    if not hmac.compare_digest(expected.encode(), signature.encode(errors="replace")):
        raise MalformedMessageError("the answer's signature is wrong or missing")
    try:
        answer = msgspec.json.decode(raw, type=HookAnswer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessageError(f"the answer is not understood: {error}") from None
    return _decided(answer)


def _decided(answer: HookAnswer) -> Decided:
    if answer.decision == "defer":
        return deferred()
    operator = f"{check_operator_name(answer.operator)} (by webhook)"
    if answer.decision == "approve":
        return approved(operator)
    return denied(printable(answer.reason, 1000), operator)
