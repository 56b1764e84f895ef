"""The event listener protocol: whole events out of any pieces, anything else ends the process."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.watchdog.listener import (
    DONE,
    HEADER_BYTES_MAX,
    READY,
    Feed,
    Listener,
    Notice,
    ProtocolError,
)

PAYLOAD = b"processname:console groupname:console from_state:STARTING pid:42"
EVENT = (
    b"ver:3.0 server:supervisor serial:21 pool:watchdog poolserial:10 "
    b"eventname:PROCESS_STATE_RUNNING len:%d\n%s" % (len(PAYLOAD), PAYLOAD)
)
NOTICE = Notice(
    "PROCESS_STATE_RUNNING",
    {
        "processname": "console",
        "groupname": "console",
        "from_state": "STARTING",
        "pid": "42",
    },
)


@given(st.lists(st.integers(min_value=1, max_value=60), min_size=1, max_size=20))
def test_events_arrive_whole_however_they_are_cut(cuts: list[int]) -> None:
    """Pipes know no message boundaries."""
    stream = EVENT * 3
    feed, found, start = Feed(), [], 0
    for size in [*cuts, len(stream)]:
        found += feed.receive(stream[start : start + size])
        start += size
    assert found == [NOTICE] * 3


def test_an_event_without_payload_is_an_event() -> None:
    """SUPERVISOR_STATE_CHANGE_RUNNING has none."""
    assert Feed().receive(b"eventname:SUPERVISOR_STATE_CHANGE_RUNNING len:0\n") == [
        Notice("SUPERVISOR_STATE_CHANGE_RUNNING", {})
    ]


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello\n",
        b"eventname:X\n",
        b"len:0\n",
        b"eventname:X len:-1\n",
        b"eventname:X len:999999999\n",
        b"eventname:X len:\xc2\xb2\n",
        b"x" * (HEADER_BYTES_MAX + 1),
    ],
)
def test_anything_else_ends_the_process(garbage: bytes) -> None:
    """One misunderstanding and the channel is wedged for ever: start over with a new one."""
    with pytest.raises(ProtocolError):
        Feed().receive(garbage)


def test_each_event_is_acknowledged_once_and_the_end_of_input_is_the_end() -> None:
    """No acknowledgement: no further events. End of input: supervisord is gone."""
    source, feeder = os.pipe()
    reader, sink = os.pipe()
    listener = Listener(source, sink)
    try:
        listener.begin()
        os.write(feeder, EVENT + EVENT + EVENT[:10])
        assert listener.take() == (NOTICE, NOTICE)
        os.write(feeder, EVENT[10:40])
        assert listener.take() == ()
        assert os.read(reader, 1000) == READY + (DONE + READY) * 2
        os.close(feeder)
        with pytest.raises(ProtocolError, match="closed"):
            listener.take()
    finally:
        for descriptor in (source, reader, sink):
            os.close(descriptor)
