"""What must not be left behind: processes nobody supervises, files half written."""

import re
from collections.abc import Iterator
from pathlib import Path

from tests.faults.harness.mesh import Mesh, Node
from tests.support import eventually

STAGED = re.compile(r"\..+\.[0-9a-f]{8}|.+\.(tmp|new|staged|part)")
"""How files are called before they are renamed to what they are."""
GONE_S = 5.0


def found_in(mesh: Mesh) -> list[str]:
    """Return orphans, doubles and half-written files of every node, one line each."""
    return [line for node in mesh.nodes for line in _of(node)]


def _of(node: Node) -> Iterator[str]:
    try:
        eventually(lambda: _is_tidy(node), within_s=GONE_S)
    except AssertionError as error:
        yield f"{node.name} left behind: {error}"
    done = node.run("status")
    if done.returncode != 0:
        yield f"{node.name}: status says {done.returncode}: {done.stdout[-600:]}"


def _is_tidy(node: Node) -> bool:
    """Return True.

    Raises:
        AssertionError: Something is left; it says what.
    """
    odd = [*_strangers(node), *_half_files(node)]
    assert not odd, "; ".join(odd)
    return True


def _strangers(node: Node) -> Iterator[str]:
    boss = node.supervisord_pid()
    for pid, line in node.processes().items():
        if pid == boss:
            continue
        try:
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended meanwhile
        if parent != boss and not _is_below(parent, node):
            yield f"process {pid} (parent {parent}) is no child of supervisord: {line[:120]}"


def _is_below(pid: int, node: Node) -> bool:
    return pid in node.processes()


def _half_files(node: Node) -> Iterator[str]:
    for path in node.home.rglob("*"):
        if STAGED.fullmatch(path.name):
            yield f"{path.relative_to(node.home)} is half a file"
