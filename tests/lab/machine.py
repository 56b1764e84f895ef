"""One host of the laboratory: namespaces of its own, one card, and a first process to kill.

The first process does nothing. It ignores SIGCHLD, so that the kernel reaps its orphans.
"""

import os
import select
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.lab.tap import open_tap

CARD = "eth0"
BOOT_S = 10.0
OWN_NAMESPACES = (
    *("unshare", "--net", "--uts", "--pid", "--mount"),
    *("--fork", "--kill-child=SIGKILL", "--mount-proc"),
)

IDLE = ("env", "--ignore-signal=CHLD", "sleep", "infinity")
"""What the first process becomes; a shell's own `trap` would not outlive its exec everywhere."""

_SCRIPT = """
set -e
echo made
read -r _
echo "$1" > /proc/sys/kernel/hostname
echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
test ! -e /etc/hosts || mount --bind "$4" /etc/hosts
ip link set lo up
ip link set eth0 address "$3"
ip addr add "$2/24" dev eth0
ip link set eth0 up
ip route add 224.0.0.0/4 dev eth0
echo up
exec {idle} <&- >&- 2>&-
"""


class BootError(Exception):
    """The namespaces or the card could not be made."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A running host."""

    outer: "subprocess.Popen[bytes]"
    pid: int
    cable: int

    @classmethod
    def boot(cls, host: str, address: str, hosts_file: Path) -> "Machine":
        """Return a host with nothing running in it.

        Raises:
            BootError: Something is missing here; the detail is the shell's.
        """
        words = (host, address, mac_of(address), str(hosts_file))
        outer = subprocess.Popen(
            (*OWN_NAMESPACES, "sh", "-c", _SCRIPT.format(idle=" ".join(IDLE)), "sh", *words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            return cls._plug_in(outer)
        except BaseException:
            outer.kill()
            outer.wait()
            raise
        finally:
            for pipe in (outer.stdin, outer.stdout):
                if pipe is not None:
                    pipe.close()

    @classmethod
    def _plug_in(cls, outer: "subprocess.Popen[bytes]") -> "Machine":
        assert outer.stdin is not None
        assert outer.stdout is not None
        _expect(outer.stdout, b"made")
        (pid,) = child_pids(outer.pid)
        cable = open_tap(CARD, Path(f"/proc/{pid}/ns/net"))
        try:
            outer.stdin.write(b"go\n")
            outer.stdin.flush()
            _expect(outer.stdout, b"up")
        except BaseException:
            os.close(cable)
            raise
        return cls(outer, pid, cable)

    def power_off(self) -> None:
        """Pull the cable, then kill everything in the host; it is all gone on return."""
        os.close(self.cable)
        os.kill(self.pid, 9)
        # The first process is reaped only after the kernel has killed all others with it.
        self.outer.wait()


def mac_of(address: str) -> str:
    """Return a locally administered Ethernet address that is as unique as the IPv4 address."""
    return "02:00:" + ":".join(f"{int(part):02x}" for part in address.split("."))


def child_pids(pid: int) -> list[int]:
    """Return the children of a process with a single thread."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _expect(output: IO[bytes], line: bytes) -> None:
    """Read the script's next line.

    Raises:
        BootError: It is another one, or there is none in time.
    """
    ready, _, _ = select.select([output], [], [], BOOT_S)
    said = os.read(output.fileno(), 4096).strip() if ready else b"nothing in time"
    if said != line:
        raise BootError(said.decode(errors="replace") or "the shell ended without a word")
