"""What judges the crash campaigns sees the violation it is there for, on forged answers."""

import secrets
from random import Random

import pytest

from broker.errors import ConflictError, MeshError, StorageError
from broker.wire.base import Reply
from broker.wire.codec import fault_of
from broker.wire.control import Ack
from broker.wire.messages import Answer
from broker.wire.roster import RevokeMember
from tests.faults.promises import Book, Promise
from tests.faults.verb_run import Outcome, verdict
from tests.faults.verb_table import CASES

REQUEST = secrets.token_bytes(16)
CASE = CASES[RevokeMember]
DONE = ("member.revoked",)


def answer(reply: Reply) -> Answer:
    """Return an answer to the one request of this module."""
    return Answer(REQUEST, reply)  # type: ignore[arg-type]  # any kind


def outcome(reply: Reply, *events: str, first: Answer | None = None) -> Outcome:
    """Return what came of a request whose retry was answered so."""
    return Outcome(first, answer(reply), answer(reply), events, 1)


CONTROL = outcome(Ack(), *DONE, first=answer(Ack()))
REFUSED = fault_of(ConflictError("oak is revoked already"))


def test_a_retry_that_is_answered_and_one_that_was_refused_with_no_effect_are_right() -> None:
    """Otherwise the tests below could see anything."""
    assert verdict(CASE, CONTROL, CONTROL) == ""
    assert verdict(CASE, CONTROL, outcome(Ack(), *DONE)) == ""
    assert verdict(CASE, CONTROL, outcome(REFUSED)) == ""


def test_a_retry_that_is_refused_what_was_done_is_seen() -> None:
    """The row is there, its answer was lost, and the client hears that nothing happened (P2)."""
    assert "was done" in verdict(CASE, CONTROL, outcome(REFUSED, *DONE))


def test_a_second_effect_and_a_second_answer_are_seen() -> None:
    """One request has one of each (P2)."""
    assert "effects" in verdict(CASE, CONTROL, outcome(Ack(), *DONE, *DONE))
    assert "another answer" in verdict(CASE, CONTROL, outcome(REFUSED, *DONE, first=answer(Ack())))


def asked(kind: str) -> tuple[Book, Promise]:
    """Return a book in which one request of this kind is open."""
    book = Book(Random(1))
    while True:
        promise = book.draw()
        if type(promise.request).__name__ == kind:
            return book, promise
        del book.open[promise.request_id]


@pytest.mark.parametrize(
    ("refusal", "is_seen"), [(ConflictError("known"), True), (StorageError("full"), False)]
)
def test_a_request_of_a_campaign_that_is_refused_without_cause_is_seen(
    refusal: MeshError, *, is_seen: bool
) -> None:
    """Every name in it is new: the retry of a lost answer hears at most what passes (P2)."""
    book, promise = asked("CreateInvite")
    book.note(Answer(promise.request_id, fault_of(refusal)))
    assert bool(book.broken) is is_seen
