"""A LAN of real hosts on this machine, without touching this machine's network.

Every host is a set of namespaces with one Ethernet card; a switch in user space joins the cards
and does to the frames what a test asks for. All of it lives below one process that ends with the
test process, however that ends. The hosts share file system, clock and CPU, nothing else.
"""

import functools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from tests.lab.control import (
    PACKET_BYTES_MAX,
    Answer,
    Boot,
    Booted,
    CountFrames,
    Failed,
    Frames,
    Heal,
    PowerOff,
    Question,
    SetLink,
    answer_of,
)
from tests.lab.host import ROOT, Host, environment
from tests.lab.link import CUT, PERFECT, Quality
from tests.lab.machine import IDLE, OWN_NAMESPACES
from tests.lab.tap import DEVICE

HOSTS = ("atlas", "birch", "cedar")
NETWORK = "10.77.0"
ANSWER_S = 30.0
CLOSE_S = 20.0

T = TypeVar("T")


class LabError(Exception):
    """The switch could not do what was asked."""


@functools.cache
def lab_available() -> str:
    """Return why this machine cannot run a laboratory, or an empty string."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [name for name in ("unshare", "nsenter", "ip", "sh") if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    try:
        os.close(os.open(DEVICE, os.O_RDWR))
    except OSError as error:
        return f"{DEVICE}: {error.strerror}"
    trial = (*OWN_NAMESPACES, *IDLE[:-2], "ip", "link", "set", "lo", "up")
    done = subprocess.run(trial, capture_output=True, text=True, check=False, timeout=ANSWER_S)
    return f"no namespaces: {done.stderr.strip()}" if done.returncode else ""


class Lab:
    """Hosts, and the links between them."""

    def __init__(self, control: socket.socket, switch_pid: int, home: Path) -> None:
        self._control = control
        self._lock = threading.Lock()
        self._switch_pid = switch_pid
        self._home = home
        self._hosts: dict[str, Host] = {}

    @classmethod
    @contextmanager
    def open(cls, hosts: Sequence[str] = HOSTS, seed: int = 1) -> Iterator["Lab"]:
        """Run hosts with these names while inside; nothing of them is left afterwards."""
        home = Path(tempfile.mkdtemp(prefix="cml-", dir="/tmp"))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(ANSWER_S)
        with ours:
            with theirs:
                outer = _start_switch(theirs, seed, home)
            try:
                lab = cls(ours, outer.pid, home)
                for name in hosts:
                    lab.add(name)
                yield lab
            finally:
                ours.close()
                _end(outer)
                shutil.rmtree(home, ignore_errors=True)

    @property
    def hosts(self) -> tuple[Host, ...]:
        """All hosts, running or not, in the order of their addresses."""
        return tuple(self._hosts.values())

    def host(self, name: str) -> Host:
        """Return the host of this name."""
        return self._hosts[name]

    def add(self, name: str) -> Host:
        """Return one more host, booted, at the next address."""
        address = f"{NETWORK}.{len(self._hosts) + 1}"
        host = self._hosts[name] = Host(self, name, address, self._home / name)
        known = {"localhost": "127.0.0.1"} | {host.name: host.address for host in self.hosts}
        # Rewritten in place: this very file is mounted in every host that runs already.
        lines = (f"{address} {name}\n" for name, address in known.items())
        (self._home / "hosts").write_text("".join(lines))
        host.power_on()
        return host

    def each(self, errand: Callable[[Host], T], hosts: Sequence[str] = ()) -> list[T]:
        """Return what `errand` returns for some hosts (all), asked at the same time."""
        chosen = [self.host(name) for name in hosts or self._hosts]
        with ThreadPoolExecutor(len(chosen)) as pool:
            return list(pool.map(errand, chosen))

    def link(self, one: str, other: str, quality: Quality, *, one_way: bool = False) -> None:
        """Make the link between two hosts this good, in both directions unless `one_way`."""
        for source, target in [(one, other)] if one_way else [(one, other), (other, one)]:
            self._ask(SetLink(source, target, quality))

    def link_all(self, quality: Quality) -> None:
        """Make every link this good."""
        for one in self._hosts:
            for other in self._hosts:
                if one != other:
                    self.link(one, other, quality, one_way=True)

    def cut(self, one: str, other: str, *, one_way: bool = False) -> None:
        """Let nothing pass from `one` to `other`, nor back unless `one_way`."""
        self.link(one, other, CUT, one_way=one_way)

    def cut_from_all(self, host: str) -> None:
        """Pull a host's cable; the host itself does not notice."""
        for other in self._hosts:
            if other != host:
                self.cut(host, other)

    def mend(self, one: str, other: str) -> None:
        """Make the link between two hosts perfect again."""
        self.link(one, other, PERFECT)

    def heal(self) -> None:
        """Make every link perfect again."""
        self._ask(Heal())

    def frames(self, source: str, target: str) -> Frames:
        """Return how many frames of one direction passed and how many were dropped so far."""
        answer = self._ask(CountFrames(source, target))
        assert isinstance(answer, Frames)
        return answer

    def boot(self, host: Host) -> int:
        """Make a host's namespaces and card; return its first process as this process sees it."""
        answer = self._ask(Boot(host.name, host.address))
        assert isinstance(answer, Booted)
        return _outer_pid(self._switch_pid, answer.pid)

    def power_off(self, host: Host) -> None:
        """Unplug a host, then kill all that runs in it."""
        self._ask(PowerOff(host.name))

    def _ask(self, question: Question) -> Answer:
        """Return the switch's answer: whatever was asked for is in force then.

        Raises:
            LabError: It could not be done, or the switch is gone.
        """
        with self._lock:
            self._control.send(msgspec.json.encode(question))
            packet = self._control.recv(PACKET_BYTES_MAX)
        if not packet:
            raise LabError("the switch has ended; its words are above")
        answer = answer_of(packet)
        if isinstance(answer, Failed):
            raise LabError(f"{question}: {answer.reason}")
        return answer


def _start_switch(control: socket.socket, seed: int, home: Path) -> "subprocess.Popen[bytes]":
    words = (str(control.fileno()), str(seed), str(home))
    return subprocess.Popen(
        (*OWN_NAMESPACES, sys.executable, "-m", "tests.lab.switch", *words),
        stdin=subprocess.DEVNULL,
        pass_fds=[control.fileno()],
        env=environment(),
        cwd=ROOT,
        # Control-C is for the tests; the switch ends when they let go of it.
        start_new_session=True,
    )


def _end(outer: "subprocess.Popen[bytes]") -> None:
    try:
        outer.wait(CLOSE_S)
    except subprocess.TimeoutExpired:
        outer.kill()
        outer.wait()


def _outer_pid(ancestor: int, inner: int) -> int:
    """Return the pid in our own namespace of a process that a descendant's namespace numbers.

    Raises:
        LabError: There is no such descendant.
    """
    waiting = [ancestor]
    while waiting:
        pid = waiting.pop()
        numbers = _numbers_of(pid)
        # Ours, that of the switch's namespace, that of the host's own: 1.
        if numbers[1:] == [inner, 1]:
            return pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        waiting.extend(int(word) for word in children.split())
    raise LabError(f"no process {inner} below the switch")


def _numbers_of(pid: int) -> list[int]:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in status if line.startswith("NSpid:"))
    return [int(word) for word in line.split()[1:]]
