"""Stop signals wake a poll at once, and the second one leaves at once."""

import os
import signal
import subprocess
import sys

import pytest
import zmq

from broker.clock import boottime_ms
from broker.runtime.exits import Exit
from broker.runtime.stop import StopSignal

STUBBORN = """
import sys, zmq
from broker.runtime.stop import StopSignal
with StopSignal() as stop:
    print("ready", flush=True)
    poller = zmq.Poller()
    poller.register(stop.fileno(), zmq.POLLIN)
    poller.poll()
    print("asked", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_wakes_a_zeromq_poll_at_once(number: int) -> None:
    """A handler that only sets a flag would leave the poll waiting its full time."""
    with StopSignal() as stop, zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(stop.fileno(), zmq.POLLIN)
        child = subprocess.Popen(["sh", "-c", f"sleep 0.2; kill -{number} {os.getpid()}"])

        began_ms = boottime_ms()
        ready = dict(poller.poll(5000))
        waited_ms = boottime_ms() - began_ms
        child.wait()

        assert stop.fileno() in ready
        assert waited_ms < 1500
        assert stop.requested()


def test_it_stays_readable_so_that_every_later_poll_returns() -> None:
    """A loop that looks away for one turn must not miss the stop."""
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested()
        poller = zmq.Poller()
        poller.register(stop.fileno(), zmq.POLLIN)
        assert poller.poll(0)
        assert stop.requested()
        assert poller.poll(0)


def test_other_signals_are_not_taken_for_a_stop() -> None:
    """A hook that ends sends SIGCHLD through the same descriptor."""
    previous = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGUSR1)
            poller = zmq.Poller()
            poller.register(stop.fileno(), zmq.POLLIN)
            assert poller.poll(1000)
            assert not stop.requested()
            assert not poller.poll(0)
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_the_earlier_dispositions_come_back() -> None:
    """Tests and the command line use it more than once in one process."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopSignal():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_the_second_signal_leaves_at_once() -> None:
    """Somebody who asks twice does not want to wait for a polite end."""
    child = subprocess.Popen(
        [sys.executable, "-c", STUBBORN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGTERM)
    assert child.stdout.readline() == b"asked\n"

    child.send_signal(signal.SIGTERM)

    assert child.wait(5) == Exit.INTERRUPTED
    child.communicate()
