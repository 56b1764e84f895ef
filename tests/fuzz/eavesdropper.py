"""Looks for secrets where none may be: files, command lines, environments, and what was recorded.

A secret is looked for in every form that somebody could have written it down in: raw, hex, base64
at each of its three offsets, base32, and as Python shows octets.
"""

import base64
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

SHORTEST = 12
"""Fewer octets of a form would be found by chance."""
EVERY_S = 0.1


@dataclass(frozen=True)
class Secret:
    """One secret, and where it may be.

    Attributes:
        name: For the message of a failing test.
        octets: The secret itself.
        files: Names or directories of files that hold it, relative to a home.
        channels: Kinds of recordings in which it may go by.
    """

    name: str
    octets: bytes = field(repr=False)
    files: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()

    def forms(self) -> set[bytes]:
        """Return how it could be written."""
        raw = self.octets
        found = {raw, raw.hex().encode(), raw.hex().upper().encode(), repr(raw)[2:-1].encode()}
        found.add(base64.b32encode(raw).rstrip(b"="))
        for offset in range(3):
            # What stands before it shifts base64; the characters at both ends then mix with it.
            text = base64.b64encode(bytes(offset) + raw)
            inner = text[4 if offset else 0 :].rstrip(b"=")[:-1]
            found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
        return {form for form in found if len(form) >= SHORTEST}


def leaks_in(octets: bytes, secrets: Iterable[Secret]) -> set[str]:
    """Return the names of the secrets in some octets."""
    plain = octets.replace(b"\n", b"")
    return {
        secret.name
        for secret in secrets
        if any(form in octets or form in plain for form in secret.forms())
    }


def leaks_in_files(home: Path, secrets: Iterable[Secret]) -> set[tuple[str, str]]:
    """Return which secret lies in which file of a home where it may not be."""
    known, found = tuple(secrets), set()
    for path in home.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        name = str(path.relative_to(home))
        for leak in leaks_in(path.read_bytes(), known):
            secret = next(one for one in known if one.name == leak)
            if not any(name == place or name.startswith(f"{place}/") for place in secret.files):
                found.add((leak, name))
    return found


def leaks_in_recordings(place: Path, secrets: Iterable[Secret]) -> set[tuple[str, str]]:
    """Return which secret went by on which channel where it may not go."""
    known, found = tuple(secrets), set()
    for path in sorted(place.iterdir()):
        kind = path.name.partition("-")[0]
        for leak in leaks_in(path.read_bytes(), known):
            if kind not in next(one for one in known if one.name == leak).channels:
                found.add((leak, path.name))
    return found


class ProcessWatch:
    """Keeps every command line and environment of processes that have to do with some homes."""

    def __init__(self, mark: str) -> None:
        self._mark = mark.encode()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="process watch")
        self.seen: dict[bytes, str] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def leaks(self, secrets: Iterable[Secret]) -> set[tuple[str, str]]:
        """Return which secret stood in the command line or environment of which process."""
        known = tuple(secrets)
        return {
            (leak, who) for octets, who in self.seen.items() for leak in leaks_in(octets, known)
        }

    def _look(self) -> None:
        while not self._over.wait(EVERY_S):
            for octets, who in _processes():
                if self._mark in octets:
                    self.seen[octets] = who


def _processes() -> Iterator[tuple[bytes, str]]:
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = Path(entry.path, "cmdline").read_bytes()
            environment = Path(entry.path, "environ").read_bytes()
        except OSError:
            continue  # it has ended, or is somebody else's
        shown = words.replace(b"\x00", b" ").decode(errors="replace")[:160]
        yield words, shown
        # A process of ours carries the mark in its environment: the recorder's directory.
        yield environment, f"environment of {shown}"
        yield words + environment, shown
