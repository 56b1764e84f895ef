"""Which test shows what: marks like `(row 14)`, `(rows 26-28, P9)` in the docstrings of tests."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
_GROUP = re.compile(r"\(((?:rows?\s+\d+|P\d+)(?:(?:\s*,\s*|\s+and\s+|-)(?:rows?\s+)?P?\d+)*)\)")
_PART = re.compile(r"(?:rows?\s+)?(P?)(\d+)(?:-P?(\d+))?")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Mark:
    """One mark as it was found; `test` is its id for pytest, below the root."""

    mark: str
    test: str


def marks_in(text: str) -> Iterator[str]:
    """Return each mark of a docstring: `row 14`, `P12`; a range stands for all of its numbers."""
    for group in _GROUP.finditer(text):
        for part in _PART.finditer(group[1]):
            first, last = int(part[2]), int(part[3] or part[2])
            for number in range(first, last + 1):
                yield f"P{number}" if part[1] else f"row {number}"


def collect(tests: Path = TESTS) -> tuple[Mark, ...]:
    """Return all marks of all tests below a directory, in the order of files and lines."""
    return tuple(mark for path in sorted(tests.rglob("test_*.py")) for mark in _of_file(path))


def by_mark(marks: tuple[Mark, ...]) -> dict[str, tuple[str, ...]]:
    """Return the ids of the tests for each mark."""
    found: dict[str, list[str]] = {}
    for mark in marks:
        found.setdefault(mark.mark, []).append(mark.test)
    return {mark: tuple(dict.fromkeys(tests)) for mark, tests in found.items()}


def strays(tests: Path = TESTS) -> tuple[str, ...]:
    """Return files with a mark in no docstring of a test, so that nobody counts it.

    That of the module may say what its tests show.
    """
    found = []
    for path in sorted(tests.rglob("*.py")):
        if path.parent == Path(__file__).parent:
            continue
        text = path.read_text(encoding="utf-8")
        speaks = [ast.parse(text), *_tests_of(path)]
        heard = [mark for each in speaks for mark in marks_in(ast.get_docstring(each) or "")]
        if len(list(marks_in(text))) > len(heard):
            found.append(str(path.relative_to(ROOT)))
    return tuple(found)


def _of_file(path: Path) -> Iterator[Mark]:
    for function in _tests_of(path):
        name = f"{path.relative_to(ROOT)}::{function.name}"
        yield from (Mark(mark, name) for mark in marks_in(ast.get_docstring(function) or ""))


def _tests_of(path: Path) -> list[Function]:
    """Return the test functions of a module; there are no test classes here."""
    if not path.name.startswith("test_"):
        return []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, Function)]
    return [function for function in functions if function.name.startswith("test_")]
