"""Calls in threads: answers, errors, deadlines, and what becomes of those that are given up."""

import os
import select
import threading

import pytest

from broker.errors import PeerUnreachableError
from tests.support import eventually
from workers import calls
from workers.calls import Calls


class Line:
    """A session: its call lasts until the test, or an abort, ends it."""

    def __init__(self) -> None:
        self.end = threading.Event()
        self.closed = False

    def talk(self) -> str:
        """Wait for the end."""
        assert self.end.wait(10)
        return "answer"

    def abort(self) -> None:
        """End the call under way."""
        self.end.set()

    def close(self) -> None:
        """Be closed."""
        self.closed = True


class Deaf(Line):
    """A session whose call does not hear that it was given up, as one in a name lookup."""

    def abort(self) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Change nothing."""


def rings(found: Calls[str, str]) -> bool:
    """Whether a poller would wake."""
    return bool(select.select([found.bell], [], [], 0)[0])


def test_an_answer_rings_and_is_taken_once() -> None:
    """The loop sleeps on the bell."""
    found: Calls[str, str] = Calls()
    line = Line()
    found.start("pi", line, line.talk, 5_000)
    assert not rings(found)
    assert (len(found), found.ended()) == (1, {})
    line.end.set()
    eventually(lambda: rings(found))
    assert found.ended() == {"pi": "answer"}
    assert (len(found), found.ended(), rings(found)) == (0, {}, False)
    assert not line.closed, "it may be used for the next call"
    found.close()


def test_an_error_comes_out_as_an_answer() -> None:
    """A thread has nobody to raise it to."""
    found: Calls[str, str] = Calls()
    trouble = PeerUnreachableError("away")

    def fail() -> str:
        raise trouble

    found.start("pi", Line(), fail, 5_000)
    assert eventually(found.ended) == {"pi": trouble}
    found.close()


def test_a_call_that_was_given_up_says_nothing_later_and_is_closed_when_it_ends() -> None:
    """Its key may be called again by then, and its connection must not stay open."""
    found: Calls[str, str] = Calls()
    line = Line()
    found.start("pi", line, line.talk, 5_000)
    found.give_up("pi")
    assert len(found) == 0
    eventually(lambda: found.ended() == {} and line.closed)
    assert found.threads == 0
    found.close()


def test_a_call_past_its_deadline_is_over_even_if_its_thread_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The place is free; the thread is the concern of nobody but the process's end."""
    monkeypatch.setattr(calls, "GRACE_MS", 20)
    found: Calls[str, str] = Calls()
    line = Deaf()
    found.start("pi", line, line.talk, 10)
    cut_ms = found.next_cut_ms()
    assert cut_ms is not None
    (error,) = eventually(found.ended).values()
    assert isinstance(error, PeerUnreachableError)
    assert (len(found), found.threads, found.next_cut_ms()) == (0, 1, None)
    found.close()
    os.fstat(found.bell)  # still open: the late thread will ring it
    line.end.set()
    eventually(lambda: found.ended() == {} and found.threads == 0)
    os.close(found.bell)
