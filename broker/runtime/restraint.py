"""A process that ends again and again waits before it tries once more.

Supervisord waits between starts only while a program dies within `startsecs`; one that dies a
moment later it starts for ever, as fast as it can. So each process counts for itself, in a file of
the run directory: after five quick ends in a row it waits one second before it begins its work,
then two, up to a minute. It waits as a process that does nothing, so a stop ends it at once, and
nobody else has to remember to start it again. One that was killed is not held back: whatever killed
it was not in the program, and the others wait for it.
"""

import contextlib
import os
import select
import zlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from broker.clock import boottime_ms
from broker.runtime.endings import Ending, endings
from broker.runtime.files import FILE_MODE, SHARED_FILE_MODE, is_shared
from broker.runtime.settings import Settings
from broker.units import Millis

FREE_ENDS = 5
"""Quick ends before the first wait; with bad settings supervisord gives up before that."""

WAIT_MS_MIN = 1000
WAIT_MS_MAX = 60_000
SETTLED_MS = 60_000
"""Who worked for this long begins anew."""

DIRECTORY = "starts"
BYTES_MAX = 65_536


class Start(msgspec.Struct, frozen=True):
    """One start of a process, on the boot clock.

    Attributes:
        due_ms: When it begins, or began, its work.
        ends: Quick ends in a row before it.
        words: How the one before ended; empty when nobody knows.
        settings: A digest of each section of the settings that it works with.
    """

    due_ms: int
    ends: int = 0
    words: str = ""
    settings: dict[str, str] = {}

    def wait_ms(self, now_ms: Millis) -> int:
        """Return for how much longer it waits."""
        return min(max(0, self.due_ms - now_ms), WAIT_MS_MAX)

    def ends_at(self, now_ms: Millis) -> int:
        """Return how many ended quickly in a row before it; 0 once it has worked for a minute."""
        return self.ends if now_ms - self.due_ms < SETTLED_MS else 0


@dataclass(frozen=True, slots=True)
class Starts:
    """The newest start of each program, in files of the run directory below `home`."""

    home: Path

    def of(self, name: str) -> Start | None:
        """Return the newest start of a program; None when nobody knows it."""
        try:
            return msgspec.json.decode(_content(self._path(name)), type=Start)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def keep(self, name: str, start: Start) -> None:
        """Replace what is known; losing it in a power cut only forgets some patience."""
        path = self._path(name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        staged = path.with_suffix(f".{os.urandom(4).hex()}")
        try:
            _write(staged, msgspec.json.encode(start), like=path)
            staged.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                staged.unlink()
            raise

    def forgive(self, name: str) -> None:
        """Let the next start be free: a person has looked at it."""
        start = self.of(name)
        if start is not None and start.ends:
            with contextlib.suppress(OSError):  # a full disk is no reason not to start it again
                self.keep(name, msgspec.structs.replace(start, due_ms=int(boottime_ms()), ends=0))

    def forget_all(self) -> None:
        """Let all next starts be free."""
        for path in (self.home / "run" / DIRECTORY).glob("*"):
            with contextlib.suppress(OSError):  # no file: another user put it there
                path.unlink()

    def _path(self, name: str) -> Path:
        return self.home / "run" / DIRECTORY / f"{name}.json"


def _content(path: Path) -> bytes:
    """Return what a file says; any user of the node may have put something else in its place.

    Raises:
        OSError: There is none, or it is a link.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(descriptor, BYTES_MAX)
    finally:
        os.close(descriptor)


def _write(staged: Path, content: bytes, like: Path) -> None:
    """Make a file, never through a link, that whoever has the one it replaces can replace again."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(staged, flags, FILE_MODE), "wb") as file:
        file.write(content)
        if is_shared(staged.parent):
            os.fchmod(file.fileno(), SHARED_FILE_MODE)
        if os.geteuid() == 0 and os.path.lexists(like):
            owner = like.lstat()
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)


def next_start(before: Start | None, ending: Ending | None, now_ms: Millis) -> Start:
    """Return the start that comes after `before`, which ended as `ending` says, None: unknown."""
    words = ending.words if ending else ""
    fresh = before is None or before.due_ms > now_ms + WAIT_MS_MAX  # of another boot of the machine
    if before is None or fresh or now_ms - before.due_ms >= SETTLED_MS:
        return Start(now_ms, 0, words)
    if ending is not None and ending.was_asked:
        return Start(now_ms, 0, words)
    if now_ms < before.due_ms:
        return Start(before.due_ms, before.ends, before.words)  # it never began its work
    if ending is None or ending.was_killed:
        return Start(now_ms, before.ends, words)
    ends = before.ends + 1
    held = ends - FREE_ENDS
    wait_ms = 0 if held <= 0 else min(WAIT_MS_MIN << min(held - 1, 16), WAIT_MS_MAX)
    return Start(now_ms + wait_ms, ends, words)


def hold_back(home: Path) -> None:
    """Wait, if this process follows on many that ended quickly; only under supervisord.

    Without a place to write nobody is held back: what cannot be counted must not stop the work.
    """
    name = _own_name()
    if not name:
        return
    starts = Starts(home)
    ending = endings(home / "log" / "supervisord.log").get(name)
    start = next_start(starts.of(name), ending, boottime_ms())
    try:
        starts.keep(name, start)
    except OSError:
        return
    while left_ms := start.wait_ms(boottime_ms()):
        select.poll().poll(left_ms)


def note_settings(home: Path, settings: Settings) -> None:
    """Tell `certmesh reload` what this process works with; only under supervisord."""
    name = _own_name()
    start = Starts(home).of(name) if name else None
    if start is not None:
        with contextlib.suppress(OSError):
            known = msgspec.structs.replace(start, settings=digests(settings))
            Starts(home).keep(name, known)


def digests(settings: Settings) -> dict[str, str]:
    """Return a digest of each section of the settings, to see changes by, not to trust."""
    found = {}
    for section in msgspec.structs.fields(settings):
        content = msgspec.json.encode(getattr(settings, section.name), enc_hook=str)
        # Not hashlib: OpenSSL is megabytes in a process that has no other use for it.
        found[section.name] = f"{len(content)}-{zlib.crc32(content):08x}"
    return found


def _own_name() -> str:
    name = os.environ.get("SUPERVISOR_PROCESS_NAME", "")
    return "" if "/" in name else name
