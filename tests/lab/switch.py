"""The switch of a laboratory: `python -m tests.lab.switch SOCKET_FD SEED HOME`.

First process of a pid namespace of its own, in which all hosts live: however it ends, the kernel
kills them too. It ends when the laboratory closes its end of the socket, and removes HOME then.
"""

import contextlib
import os
import select
import shutil
import socket
import sys
from pathlib import Path

import msgspec

from broker.clock import boottime_ms
from tests.lab.control import (
    PACKET_BYTES_MAX,
    Answer,
    Boot,
    Booted,
    CountFrames,
    Done,
    Failed,
    Frames,
    Heal,
    PowerOff,
    Question,
    SetLink,
    question_of,
)
from tests.lab.fabric import Fabric
from tests.lab.machine import BootError, Machine

FRAME_BYTES_MAX = 2048
BURST = 64
"""Frames read from one host before the others have their turn."""


class Switch:
    """One loop over the socket and the cables of all hosts."""

    def __init__(self, control: socket.socket, seed: int, home: Path) -> None:
        self._control = control
        self._home = home
        self._fabric = Fabric(seed)
        self._machines: dict[str, Machine] = {}
        self._cables: dict[int, str] = {}
        self._poller = select.epoll()
        self._poller.register(control, select.EPOLLIN)

    def run(self) -> None:
        """Switch frames and obey until the laboratory leaves."""
        try:
            while self._round():
                pass
        finally:
            for host in tuple(self._machines):
                self._power_off(host)
            self._poller.close()
            shutil.rmtree(self._home, ignore_errors=True)

    def _round(self) -> bool:
        wait_ms = self._fabric.wait_ms(boottime_ms())
        # One more: the clock's milliseconds are cut off, and a delay is a promise of "at least".
        for ready, _ in self._poller.poll(None if wait_ms is None else (wait_ms + 1) / 1000):
            if ready == self._control.fileno():
                if not self._obey():
                    return False
            elif ready in self._cables:
                self._forward(ready)
        for host, frame in self._fabric.deliveries(boottime_ms() - 1):
            self._deliver(host, frame)
        return True

    def _forward(self, cable: int) -> None:
        source, now_ms = self._cables[cable], boottime_ms()
        for _ in range(BURST):
            try:
                frame = os.read(cable, FRAME_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:
                self._unplug(cable)  # the host removed its own card
                return
            for host, passed in self._fabric.receive(source, frame, now_ms):
                self._deliver(host, passed)

    def _deliver(self, host: str, frame: bytes) -> None:
        # A card that is down or whose queue is full loses the frame, as in life.
        with contextlib.suppress(OSError):
            os.write(self._machines[host].cable, frame)

    def _obey(self) -> bool:
        packet = self._control.recv(PACKET_BYTES_MAX)
        if not packet:
            return False
        try:
            answer = self._answer(question_of(packet))
        except (BootError, OSError, KeyError, msgspec.MsgspecError) as error:
            answer = Failed(f"{type(error).__name__}: {error}")
        with contextlib.suppress(BrokenPipeError):
            self._control.send(msgspec.json.encode(answer))
        return True

    def _answer(self, question: Question) -> Answer:
        match question:
            case Boot():
                return Booted(self._boot(question))
            case PowerOff():
                self._power_off(question.host)
            case SetLink():
                self._fabric.set_quality(question.source, question.target, question.quality)
            case Heal():
                self._fabric.heal()
            case CountFrames():
                link = self._fabric.link(question.source, question.target)
                return Frames(link.passed, link.dropped)
        return Done()

    def _boot(self, wanted: Boot) -> int:
        if wanted.host in self._machines:
            raise BootError(f"{wanted.host} runs already")
        machine = Machine.boot(wanted.host, wanted.address, self._home / "hosts")
        self._machines[wanted.host] = machine
        self._cables[machine.cable] = wanted.host
        self._fabric.attach(wanted.host)
        self._poller.register(machine.cable, select.EPOLLIN)
        return machine.pid

    def _power_off(self, host: str) -> None:
        machine = self._machines[host]
        self._unplug(machine.cable)
        del self._machines[host]
        machine.power_off()

    def _unplug(self, cable: int) -> None:
        host = self._cables.pop(cable, None)
        if host is not None:
            self._poller.unregister(cable)
            self._fabric.detach(host)


def main() -> int:
    """Run the switch on an inherited socket."""
    descriptor, seed, home = sys.argv[1:]
    with socket.socket(fileno=int(descriptor)) as control:
        Switch(control, int(seed), Path(home)).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
