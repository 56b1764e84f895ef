"""The laboratory itself: a fault that does not happen would make every test on it worthless."""

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.host import Host
from tests.lab.hosts import Lab, lab_available
from tests.lab.link import Quality
from tests.support import eventually

PORT = 5000
GROUP = "224.0.0.251"
TRAFFIC = (sys.executable, "-m", "tests.lab.traffic")
MEGABYTE = 1_000_000
PROCESSES = Path("/proc")
pytestmark = [pytest.mark.faults, pytest.mark.timeout(60)]


class Ear:
    """Datagrams that a host heard: number and milliseconds under way."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, int]] = []


@contextmanager
def talking(host: Host, verb: str, address: str = "") -> Iterator["subprocess.Popen[str]"]:
    """Run a program that listens or dials (its own address) on a host, ready on entry."""
    words = (*TRAFFIC, verb, address or host.address, str(PORT))
    with host.background(*words) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


@contextmanager
def listening(host: Host, address: str = "") -> Iterator[Ear]:
    """Collect datagrams on a host while inside; what it heard is known afterwards."""
    ear = Ear()
    with talking(host, "collect", address) as process:
        yield ear
        out, _ = process.communicate("", timeout=20)
    ear.heard = json.loads(out)


def send(host: Host, address: str, number: int) -> None:
    """Send datagrams from a host."""
    done = host.execute(*TRAFFIC, "send", address, str(PORT), str(number))
    assert done.returncode == 0, done.stderr


def heard_by(source: Host, target: Host, number: int = 20) -> list[tuple[int, int]]:
    """Return what `target` hears of datagrams from `source`."""
    with listening(target) as ear:
        send(source, target.address, number)
    return ear.heard


def links() -> str:
    """Return the cards of this machine itself."""
    return subprocess.run(("ip", "-o", "link"), capture_output=True, text=True, check=True).stdout


def test_hosts_reach_each_other_and_call_themselves_by_their_names(lab: Lab) -> None:
    """The ground everything else stands on."""
    atlas, birch, _ = lab.hosts
    assert len(heard_by(atlas, birch)) == 20
    assert len(heard_by(birch, atlas)) == 20
    assert birch.python("import socket; print(socket.gethostname())") == "birch\n"


def test_a_connection_between_two_hosts_is_fast_enough_for_any_test(lab: Lab) -> None:
    """Checksums are right and the switch keeps up, or TCP would crawl."""
    atlas, birch, _ = lab.hosts
    with talking(birch, "swallow") as process:
        done = atlas.execute(*TRAFFIC, "pour", birch.address, str(PORT), str(10 * MEGABYTE))
        assert done.returncode == 0, done.stderr
        process.communicate(timeout=10)
    assert float(done.stdout) > 2 * MEGABYTE


def test_a_cut_in_one_direction_silences_only_that_one(lab: Lab) -> None:
    """The asymmetric failure that fools everybody."""
    atlas, birch, cedar = lab.hosts
    lab.cut("atlas", "birch", one_way=True)
    assert heard_by(atlas, birch) == []
    assert len(heard_by(birch, atlas)) == 20
    assert len(heard_by(atlas, cedar)) == 20
    assert lab.frames("atlas", "birch").dropped >= 20
    lab.heal()
    assert len(heard_by(atlas, birch)) == 20


def test_a_host_cut_from_all_is_alone_and_the_others_are_not(lab: Lab) -> None:
    """A pulled cable."""
    atlas, birch, cedar = lab.hosts
    lab.cut_from_all("birch")
    with listening(atlas) as at_atlas, listening(cedar) as at_cedar:
        send(birch, atlas.address, 5)
        send(birch, cedar.address, 5)
    assert (at_atlas.heard, at_cedar.heard) == ([], [])
    assert len(heard_by(atlas, cedar)) == 20
    lab.mend("birch", "atlas")
    assert len(heard_by(birch, atlas)) == 20


def test_a_lossy_link_loses_about_the_fraction_asked_for(lab: Lab) -> None:
    """In the direction asked for, and only there."""
    atlas, birch, _ = lab.hosts
    lab.link("atlas", "birch", Quality(loss=0.3), one_way=True)
    assert 600 <= len(heard_by(atlas, birch, 1000)) <= 800
    assert len(heard_by(birch, atlas, 1000)) == 1000


def test_a_delayed_frame_is_never_early(lab: Lab) -> None:
    """Nor much too late; jitter reorders, duplicates come twice."""
    atlas, birch, _ = lab.hosts
    heard_by(atlas, birch, 1)  # who has which address is known from here on
    lab.link("atlas", "birch", Quality(delay_ms=80, jitter_ms=40, duplicate=1.0), one_way=True)
    heard = heard_by(atlas, birch, 50)
    assert len(heard) == 100
    assert min(travel_ms for _, travel_ms in heard) >= 80
    assert max(travel_ms for _, travel_ms in heard) < 400
    numbers = [number for number, _ in heard]
    assert sorted(numbers) == sorted([*range(50), *range(50)])
    assert numbers != sorted(numbers)


def test_multicast_reaches_every_other_host(lab: Lab) -> None:
    """What mDNS needs of a LAN."""
    atlas, birch, cedar = lab.hosts
    with listening(birch, GROUP) as at_birch, listening(cedar, GROUP) as at_cedar:
        send(atlas, GROUP, 10)
    assert len(at_birch.heard) == len(at_cedar.heard) == 10


def test_a_link_without_multicast_still_carries_everything_else(lab: Lab) -> None:
    """The access point that makes a LAN look empty."""
    atlas, birch, cedar = lab.hosts
    lab.link("atlas", "birch", Quality(no_multicast=True))
    with listening(birch, GROUP) as at_birch, listening(cedar, GROUP) as at_cedar:
        send(atlas, GROUP, 10)
    assert (len(at_birch.heard), len(at_cedar.heard)) == (0, 10)
    assert len(heard_by(atlas, birch)) == 20


def test_a_power_off_kills_everything_and_says_goodbye_to_nobody(lab: Lab) -> None:
    """A peer must find out by silence, as with a real one: no FIN, no RST."""
    atlas, birch, _ = lab.hosts
    with talking(birch, "swallow") as there, talking(atlas, "dial", birch.address) as here:
        before = lab.frames("birch", "atlas").passed
        birch.power_off()
        assert there.wait(timeout=5) != 0
        out, _ = here.communicate("", timeout=10)
    assert json.loads(out) == "silence"
    assert lab.frames("birch", "atlas").passed == before
    birch.power_on()
    assert len(heard_by(atlas, birch)) == 20


def test_a_host_reaps_the_orphans_of_its_daemons(lab: Lab) -> None:
    """As the first process of any machine does; else a pool's dead would look alive."""
    atlas = lab.host("atlas")
    assert atlas.execute("sh", "-c", "sleep 1 >&- 2>&- &").returncode == 0
    assert processes_of(atlas) == 2
    eventually(lambda: processes_of(atlas) == 1)


def processes_of(host: Host) -> int:
    """Return how many processes a host has, dead ones that nobody reaped included."""
    seen = host.python("import os; print(sum(name.isdigit() for name in os.listdir('/proc')))")
    return int(seen) - 1  # the one that looks


def test_the_network_of_this_machine_is_left_alone() -> None:
    """No card, not for a moment, not even while a laboratory runs; and no process after it."""
    if reason := lab_available():
        pytest.skip(reason)
    mark, before = secrets.token_hex(8), links()
    with Lab.open(("elm",)) as lab:
        place = lab.host("elm").home.parent
        assert links() == before
        lab.host("elm").python(DAEMON, mark)
        # A process that has just begun shows no words yet.
        eventually(lambda: daemons(mark) == 1, within_s=15)
    assert links() == before
    assert daemons(mark) == 0
    assert not place.exists()


def test_a_test_process_that_is_killed_leaves_nothing_behind() -> None:
    """Control-C, a timeout, the kernel out of memory: nobody gets to clean up."""
    if reason := lab_available():
        pytest.skip(reason)
    mark = secrets.token_hex(8)
    words = (sys.executable, "-c", VICTIM, mark)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        place = Path(victim.stdout.readline().strip())
        assert place.is_dir()
        eventually(lambda: daemons(mark) == 1, within_s=15)
        victim.kill()
    eventually(lambda: daemons(mark) == 0, within_s=10)
    eventually(lambda: not place.exists(), within_s=10)


DAEMON = """
import subprocess, sys
words = ("sh", "-c", "sleep 1000; true", f"lab-daemon-{sys.argv[1]}")
quiet = subprocess.DEVNULL
subprocess.Popen(words, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
"""
VICTIM = f"""
import sys
from tests.lab.hosts import Lab
with Lab.open(("elm",)) as lab:
    lab.host("elm").python({DAEMON!r}, sys.argv[1])
    print(lab.host("elm").home.parent, flush=True)
    sys.stdin.read()
"""


def daemons(mark: str) -> int:
    """Return how many of the processes that `DAEMON` starts with this mark there are."""
    last = f"lab-daemon-{mark}".encode()
    return sum(_words_of(path)[-2:] == [last, b""] for path in PROCESSES.glob("[0-9]*"))


def _words_of(process: Path) -> list[bytes]:
    try:
        return (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []  # ended meanwhile
