"""What a power cut leaves: the journal of `disk.c` undone, then partly done again.

A write is safe when its file was synced afterwards, a name when its directory was. The rest is
undone, newest first, which gives the disk as it surely is. Of the lost changes some may have
reached the disk after all: names in their order up to some moment, as journals of file systems
keep them, and sectors of written data in any order.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from random import Random

SECTOR = 512
FLAT = 5


@dataclass
class Change:
    """One change that a process made; `inode` of a name is that of its directory."""

    kind: str
    inode: int
    offset: int
    size: int
    before: bytes
    after: bytes
    path: str
    other: str
    safe: bool = False


@dataclass(frozen=True)
class Cut:
    """What a power cut took."""

    changes: int
    lost_writes: int
    lost_names: int


def pull(place: Path, home: Path, chance: Random | None = None) -> Cut:
    """Leave `home` as a power cut would have, now that its processes are dead.

    Args:
        place: Where the disk's journal is; it is empty afterwards.
        home: The directory whose changes were kept.
        chance: Draws what reached the disk all the same; without it nothing did.
    """
    changes = [each for each in _read(place / "journal") if f"{each.path}/".startswith(f"{home}/")]
    _mark_safe(changes)
    lost = [change for change in changes if not change.safe]
    files = _Files(home, place)
    try:
        for number, change in reversed([*enumerate(lost)]):
            _undo(change, files, place / f"limbo-{number}")
        if chance is not None:
            _redo_some(lost, files, place, chance)
    finally:
        files.close()
        _empty(place)
    writes = sum(change.kind in "wt" for change in lost)
    return Cut(len(changes), writes, len(lost) - writes)


class _Files:
    """Every file of the home by inode, held open whatever becomes of its names."""

    def __init__(self, *places: Path) -> None:
        self._open: dict[int, int] = {}
        for path in (path for place in places for path in place.rglob("*")):
            if path.is_file() and not path.is_symlink():
                inode = path.stat().st_ino
                if inode not in self._open:
                    self._open[inode] = os.open(path, os.O_RDWR)

    def __getitem__(self, inode: int) -> int | None:
        return self._open.get(inode)

    def close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)


def _read(path: Path) -> list[Change]:
    raw = path.read_bytes() if path.exists() else b""
    changes, at = [], 0
    while at < len(raw):
        end = raw.index(b"\0", at)
        words = raw[at:end].decode().split(" ", FLAT + 1)
        kind, inode, offset, old, size, new, name = words[0], *map(int, words[1:6]), words[6]
        after_name = raw.index(b"\0", end + 1)
        other = raw[end + 1 : after_name].decode()
        at = after_name + 1
        before, after = raw[at : at + old], raw[at + old : at + old + new]
        at += old + new
        changes.append(Change(kind, inode, offset, size, before, after, name, other))
    return changes


def _mark_safe(changes: list[Change]) -> None:
    synced: set[int] = set()
    for change in reversed(changes):
        if change.kind == "s":
            synced.add(change.inode)
            change.safe = True
        elif change.inode in synced:
            change.safe = True


def _undo(change: Change, files: _Files, limbo: Path) -> None:
    descriptor = files[change.inode]
    if change.kind in "wt" and descriptor is not None:
        os.pwrite(descriptor, change.before, change.offset)
        os.ftruncate(descriptor, change.size)
    elif change.kind == "c":
        _move(Path(change.path), limbo)
    elif change.kind == "r":
        _move(Path(change.path), Path(change.other))
    elif change.kind == "u":
        _bring_back(Path(change.other), Path(change.path))


def _bring_back(kept: Path, path: Path) -> None:
    # A directory that was removed meanwhile stays away: the worse of both ends.
    if not os.path.lexists(path) and path.parent.exists():
        os.link(kept, path)


def _move(source: Path, target: Path) -> None:
    if os.path.lexists(source) and target.parent.exists():
        source.rename(target)


def _redo_some(lost: list[Change], files: _Files, place: Path, chance: Random) -> None:
    names_until = chance.randint(0, len(lost))
    for number, change in enumerate(lost):
        if change.kind in "wt":
            descriptor = files[change.inode]
            if descriptor is not None:
                _redo_write(change, descriptor, chance)
        elif number < names_until:
            _redo_name(change, place / f"limbo-{number}")


def _redo_write(change: Change, descriptor: int, chance: Random) -> None:
    if change.kind == "t":
        if chance.random() < 0.5:
            os.ftruncate(descriptor, change.offset)
        return
    for at in range(0, len(change.after), SECTOR):
        if chance.random() < 0.5:
            os.pwrite(descriptor, change.after[at : at + SECTOR], change.offset + at)


def _redo_name(change: Change, limbo: Path) -> None:
    if change.kind == "c":
        _move(limbo, Path(change.path))
    elif change.kind == "r":
        _move(Path(change.other), Path(change.path))
    elif change.kind == "u":
        Path(change.path).unlink(missing_ok=True)


def _empty(place: Path) -> None:
    (place / "journal").open("wb").close()
    for path in (*place.glob("kept-*"), *place.glob("limbo-*")):
        if path.is_dir():
            for below in sorted(path.rglob("*"), reverse=True):
                below.rmdir() if below.is_dir() else below.unlink()
            path.rmdir()
        else:
            path.unlink()
