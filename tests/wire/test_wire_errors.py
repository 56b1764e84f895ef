"""Codes and classes of refusals match one to one, and survive the wire."""

import pytest

from broker import errors
from broker.wire.codec import decode_answer, encode, fault_of
from broker.wire.control import Fault
from broker.wire.messages import Answer
from tests.wire.golden import REQUEST_ID


def wire_classes() -> list[type[errors.MeshError]]:
    """Return the classes that may cross the wire; a process may refine one for itself."""
    found = errors.MeshError.__subclasses__()
    return [cls for cls in found if cls.__module__ == errors.__name__]


def test_every_code_has_exactly_one_class() -> None:
    """A code without a class reaches a caller as nothing it can decide on."""
    assert sorted(cls.code for cls in wire_classes()) == sorted(errors.ErrorCode)
    assert set(errors.error_classes()) == set(errors.ErrorCode)


def test_no_class_stands_below_another() -> None:
    """`except RevokedError` must never catch a second decision of the wire by accident."""
    below = [kind for cls in wire_classes() for kind in cls.__subclasses__()]
    assert [kind for kind in below if kind.__module__ == errors.__name__] == []


@pytest.mark.parametrize("code", list(errors.ErrorCode))
def test_a_refusal_survives_the_wire(code: errors.ErrorCode) -> None:
    """Code, sentence, hint and delay arrive; nothing else travels."""
    refusal = errors.error_classes()[code]("why", hint="do", retry_after_ms=5)
    fault = fault_of(refusal)
    arrived = decode_answer(encode(Answer(REQUEST_ID, fault))).reply
    assert arrived == Fault(code=code.value, detail="why", hint="do", retry_after_ms=5)


def test_a_very_long_refusal_is_cut_so_that_it_can_still_be_sent() -> None:
    """A refusal that cannot be decoded would leave the caller waiting."""
    fault = fault_of(errors.InternalError("x" * 5000, hint="y" * 5000))
    assert decode_answer(encode(Answer(REQUEST_ID, fault))).reply == fault


def test_only_refusals_that_may_pass_by_themselves_are_retryable() -> None:
    """A client repeats these without asking anybody: the list is a decision."""
    assert {cls.code for cls in errors.MeshError.__subclasses__() if cls.retryable} == {
        "unregistered",
        "unavailable",
        "busy",
        "clock_skew",
        "storage",
        "timeout",
        "throttled",
        "renewal_in_progress",
        "peer_unreachable",
    }
