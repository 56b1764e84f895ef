"""What a process of a node gives up before it meets anybody, and never gets back.

- No core dump and no debugger of the same user (RLIMIT_CORE 0, PR_SET_DUMPABLE 0): keys and
  passphrases are in memory. Both are lost at exec, which is why every process does it for itself.
- No rights through setuid programs (PR_SET_NO_NEW_PRIVS), inherited by whatever it starts.
- As root: no capability but the listed ones, in no set, the bounding set included.

The renewal process is the exception: it runs what the operator wrote into `[[hook]]`, such as
`sudo systemctl reload nginx`, as whom the operator wrote there. A hook is confined by itself.

A thread has these attributes, not a process: this has to run before any thread is started.

Source: prctl(2), capabilities(7), core(5).
"""

import contextlib
import ctypes
import os
import resource
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.runtime.users import shared_group

CAP_DAC_OVERRIDE = 1
CAP_FOWNER = 3
CAP_KILL = 5
CAP_SETPCAP = 8
CAP_NET_BIND_SERVICE = 10
CAPABILITIES_MAX = 64
LOW_PORTS_END = 1024

_PR_SET_DUMPABLE = 4
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_WORD_BITS = 32


@dataclass(frozen=True, slots=True)
class Needs:
    """What a process cannot work without.

    Attributes:
        listens: Keys of `[listen]` that it opens: a port below 1024 takes CAP_NET_BIND_SERVICE.
        capabilities: Numbers from capabilities(7), kept where it runs as root.
        other_users: It starts programs as others, with the rights of root: nothing is dropped.
        places: `section.key` of the settings that name a place it reads or writes.
    """

    listens: tuple[str, ...] = ()
    capabilities: tuple[int, ...] = ()
    other_users: bool = False
    places: tuple[str, ...] = ()


NOTHING = Needs()
END_OTHERS = Needs(capabilities=(CAP_KILL,))
"""The watchdog ends hung processes, which may run as other users than itself."""
HOOKS = Needs(other_users=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Set(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def keep_secrets() -> None:
    """Leave no core dump, and let no process of the same user look into this one.

    Raises:
        OSError: The kernel refused.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    _prctl(_PR_SET_DUMPABLE, 0)


def give_up(needs: Needs, paths: Paths, settings: Settings) -> None:
    """Give up every privilege that is not needed; before the first thread.

    Args:
        needs: What this process cannot work without.
        paths: The node's directories. Root without CAP_DAC_OVERRIDE may not enter other users'
            directories: where a node's home is another user's, as in a container with a mounted
            volume, or below a closed one, the rights to files are kept. Where processes are
            different users, root is in their group instead.
        settings: Those of the node.

    Raises:
        OSError: The kernel refused; the process must not go on with more than it should have.
    """
    is_root = os.geteuid() == 0
    if is_root and settings.users.differ:
        os.setgroups([shared_group(settings.users)])
    if needs.other_users and is_root:
        return
    if is_root:
        kept = set(needs.capabilities)
        if any(_is_low(getattr(settings.listen, name)) for name in needs.listens):
            kept.add(CAP_NET_BIND_SERVICE)
        places = [paths.home] if paths.apart else [paths.home, paths.data, paths.run]
        if any(_is_foreign(place) for place in (*places, *_named(needs, settings))):
            kept |= {CAP_DAC_OVERRIDE, CAP_FOWNER}
        drop_capabilities(frozenset(kept))
    if not needs.other_users:
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities(kept: frozenset[int]) -> None:
    """Leave this thread and whatever it starts with `kept` at most, of what it has now.

    Raises:
        OSError: The kernel refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = _Header(_CAPABILITY_VERSION_3, 0), (_Set * 2)()
    if libc.capget(ctypes.byref(header), sets) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    if _has(sets, CAP_SETPCAP):
        for number in range(CAPABILITIES_MAX):
            # EINVAL marks the end: this kernel has fewer.
            if number not in kept and libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1:
                _prctl(_PR_CAPBSET_DROP, number)
    with contextlib.suppress(OSError):  # kernels before 4.3 have no ambient set
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for word, part in enumerate(sets):
        mask = sum(1 << (number % _WORD_BITS) for number in kept if number // _WORD_BITS == word)
        part.permitted &= mask
        part.effective = part.permitted
        part.inheritable = 0
    if libc.capset(ctypes.byref(header), sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _is_low(address: str) -> bool:
    """Return whether only root may listen there; what is no address is refused elsewhere."""
    port = address.rpartition(":")[2]
    return port.isdecimal() and 0 < int(port) < LOW_PORTS_END


def _has(sets: "ctypes.Array[_Set]", number: int) -> bool:
    return bool(sets[number // _WORD_BITS].effective >> (number % _WORD_BITS) & 1)


def _named(needs: Needs, settings: Settings) -> Iterator[Path]:
    for key in needs.places:
        section, _, name = key.partition(".")
        if place := getattr(getattr(settings, section), name):
            yield Path(place)


def _is_foreign(place: Path) -> bool:
    """Return whether a place, or what is there of the way to it, is another user's.

    A directory on the way may be another's if it lets everybody pass. Also where nobody can tell.
    """
    try:
        real = place.resolve()
        there = next(part for part in (real, *real.parents) if part.exists())
        if there.stat().st_uid != os.geteuid():
            return True
        way = [part.stat() for part in there.parents]
    except (OSError, RuntimeError):
        return True
    return any(part.st_uid != os.geteuid() and not part.st_mode & stat.S_IXOTH for part in way)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")
