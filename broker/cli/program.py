"""Running the programs that do the work of `init`, `join` and `hook test`.

The command itself never touches a CA key or dials the mesh: each of those is a program of its own,
started here with JSON on standard input, because secrets have no place in argv or environment.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec

from broker.errors import ErrorCode, InternalError, MeshError, error_classes
from broker.runtime.files import FILE_MODE
from broker.runtime.paths import Paths

TAIL_LINES = 8


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended."""

    status: int
    output: bytes


class Refusal(msgspec.Struct, frozen=True):
    """What a program prints instead of an answer."""

    code: str
    detail: str
    hint: str = ""

    def error(self) -> MeshError:
        """Return the refusal as the error its code names."""
        try:
            return error_classes()[ErrorCode(self.code)](self.detail, hint=self.hint)
        except (ValueError, KeyError):
            return InternalError(f"{self.code}: {self.detail}", hint=self.hint)


def run(
    module: str,
    paths: Paths,
    *words: str,
    given: bytes = b"",
    environ: Mapping[str, str] | None = None,
) -> Finished:
    """Run `python -m module words...` to its end; its log goes to the node's log directory.

    `environ` is added to this process's own environment.
    """
    with _open_log(module, paths) as log:
        done = subprocess.run(  # noqa: S603 (our own interpreter and module names)
            [sys.executable, "-m", module, *words],
            input=given,
            env={**os.environ, **(environ or {})},
            stdout=subprocess.PIPE,
            stderr=log,
            check=False,
        )
    return Finished(done.returncode, done.stdout)


def follow(module: str, paths: Paths, *words: str, given: bytes = b"") -> Iterator[dict[str, Any]]:
    """Yield the JSON lines a program prints while it runs.

    Raises:
        InternalError: It ended without its last word, or printed something else than JSON.
    """
    with _open_log(module, paths) as log:
        child = subprocess.Popen(  # noqa: S603 (our own interpreter and module names)
            [sys.executable, "-m", module, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        try:
            yield from _lines(child, module, paths, given)
        finally:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()


def _lines(
    child: subprocess.Popen[bytes], module: str, paths: Paths, given: bytes
) -> Iterator[dict[str, Any]]:
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(given)
        child.stdin.close()
    except BrokenPipeError:
        pass  # it died at once: its log says why
    for line in child.stdout:
        yield _object(line, module, paths)
    status = child.wait()
    if status not in range(10):
        raise crashed(module, status, paths)


def crashed(module: str, status: int, paths: Paths) -> InternalError:
    """Return the error for a program that ended without an answer."""
    return InternalError(
        f"{module} ended with status {status} and no answer: {tail(_log(module, paths))}",
        hint=f"see {_log(module, paths)}",
    )


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a log, or why there are none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16_384))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"no log ({error.strerror})"
    return "\n".join(text.splitlines()[-lines:]) or "its log is empty"


def _object(line: bytes, module: str, paths: Paths) -> dict[str, Any]:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise InternalError(
            f"{module} printed something that is not JSON", hint=f"see {_log(module, paths)}"
        ) from None


def _open_log(module: str, paths: Paths) -> IO[bytes]:
    """Open the program's log for appending, closed to others whatever the umask is."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.fdopen(os.open(_log(module, paths), flags, FILE_MODE), "ab")


def _log(module: str, paths: Paths) -> Path:
    return paths.log / f"{module.rpartition('.')[2]}-by-hand.log"
