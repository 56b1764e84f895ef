"""Round trip and read throughput of the broker over a raw pyzmq echo of the same shape."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import zmq

from bench.lone_broker import RawClient, lone_home, running_broker
from bench.report import Result, result
from broker.wire.ids import Service
from broker.wire.node import GetNode

ROUNDS = 7
CALLS = 1500
PIPELINED = 6000
IN_FLIGHT = 64

ECHO = """
import sys, zmq
context = zmq.Context()
socket = context.socket(zmq.ROUTER)
socket.bind(sys.argv[1])
poller = zmq.Poller()
poller.register(socket, zmq.POLLIN)
while True:
    poller.poll()
    while True:
        try:
            frames = socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            break
        socket.send_multipart(frames)
"""


def measure() -> list[Result]:
    """Return both ratios, raw and broker interleaved round by round."""
    with tempfile.TemporaryDirectory(prefix="cme-", dir="/tmp") as directory, lone_home() as paths:
        address = f"ipc://{Path(directory) / 'echo'}"
        echo = subprocess.Popen([sys.executable, "-c", ECHO, address])
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        raw = context.socket(zmq.DEALER)
        raw.connect(address)
        try:
            with running_broker(paths):
                client = RawClient(paths, Service.CONSOLE)
                rows = _compare(raw, client)
                client.close()
        finally:
            context.destroy(linger=0)
            echo.kill()
            echo.wait()
    return rows


def _compare(raw: "zmq.Socket[bytes]", client: RawClient) -> list[Result]:
    body = bytes(170)

    def echo_once() -> None:
        raw.send_multipart([b"\x01", body])
        raw.recv_multipart()

    def ask_once() -> None:
        client.ask(GetNode())

    trips, rates = [], []
    for _ in range(ROUNDS):
        trips.append((_median_s(ask_once), _median_s(echo_once)))
        rates.append(
            (
                _pipeline(lambda: client.send(GetNode()), client.receive),
                _pipeline(lambda: raw.send_multipart([b"\x01", body]), raw.recv_multipart),
            )
        )
    ours_us = statistics.median(a for a, _ in trips) * 1e6
    raw_us = statistics.median(b for _, b in trips) * 1e6
    ours_s = statistics.median(a for a, _ in rates)
    raw_s = statistics.median(b for _, b in rates)
    return [
        result(
            "broker_rtt_vs_raw",
            [a / b for a, b in trips],
            unit="ratio",
            better="lower",
            target=1.25,
            note=f"{ours_us:.0f} us over {raw_us:.0f} us",
        ),
        result(
            "broker_throughput_vs_raw",
            [a / b for a, b in rates],
            unit="ratio",
            better="higher",
            target=0.40,
            note=f"{ours_s:.0f}/s over {raw_s:.0f}/s",
        ),
    ]


def _median_s(call: Callable[[], None]) -> float:
    times = []
    for _ in range(CALLS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _pipeline(send: Callable[[], object], receive: Callable[[], object]) -> float:
    started = time.perf_counter()
    for _ in range(IN_FLIGHT):
        send()
    for _ in range(PIPELINED - IN_FLIGHT):
        receive()
        send()
    for _ in range(IN_FLIGHT):
        receive()
    return PIPELINED / (time.perf_counter() - started)
