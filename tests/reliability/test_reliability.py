"""The page of promises is drawn from what the tests say they show; nothing on it stands alone."""

from pathlib import Path

import pytest

from tests.reliability.figures import Measured, figure, read, write
from tests.reliability.marks import Mark, by_mark, collect, marks_in, strays
from tests.reliability.matrix import rows
from tests.reliability.page import PAGE, filled, sections, unshown
from tests.reliability.promises import PROMISES

ROWS, PROMISED = 60, 16


def test_the_page_is_the_one_the_tool_writes() -> None:
    """After a change run `python -m tests.reliability --write`."""
    text = PAGE.read_text(encoding="utf-8")
    assert text == filled(text)
    assert all(f"<!-- {name} -->\n" in text for name in sections())


def test_every_fault_and_every_promise_is_shown_by_a_test() -> None:
    """`python -m tests.reliability --open` lists them."""
    assert unshown() == ()


def test_rows_and_promises_are_numbered_without_gaps() -> None:
    """A number names a fault for ever."""
    assert [row.number for row in rows()] == list(range(1, ROWS + 1))
    assert [promise.number for promise in PROMISES] == list(range(1, PROMISED + 1))


def test_no_mark_is_of_a_row_or_promise_that_does_not_exist() -> None:
    """A typing error would show nothing, and nobody would see that."""
    known = {row.mark for row in rows()} | {promise.mark for promise in PROMISES}
    assert set(by_mark(collect())) <= known


def test_no_mark_stands_where_nobody_counts_it() -> None:
    """Marks belong into the docstrings of tests."""
    assert strays() == ()


def test_every_bound_that_is_to_be_measured_is_one_the_tool_knows() -> None:
    """A row that names a figure nobody takes would stay empty for ever."""
    figures = [*(row.figures for row in rows()), *(promise.figures for promise in PROMISES)]
    named = {name for names in figures for name in names}
    source = (Path(__file__).parent / "measure.py").read_text(encoding="utf-8")
    assert {name for name in named if f'"{name}"' not in source} == set()


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("Kept (row 14).", ["row 14"]),
        ("Kept (rows 11, 12, P1).", ["row 11", "row 12", "P1"]),
        ("Kept (rows 26-28 and P9).", ["row 26", "row 27", "row 28", "P9"]),
        ("Kept (row 5, row 6).", ["row 5", "row 6"]),
        ("A P-256 key (P256) in row 7, (2048) bits.", ["P256"]),
        ("A row (see above) of 14.", []),
    ],
)
def test_a_mark_is_read_as_it_is_meant(text: str, marks: list[str]) -> None:
    """Only what stands in brackets and is nothing else."""
    assert list(marks_in(text)) == marks


def test_a_test_is_named_for_each_of_its_marks(tmp_path: Path) -> None:
    """By the name that pytest takes."""
    (tmp_path / "test_a.py").write_text('def test_b() -> None:\n    """C (rows 1, 2)."""\n')
    with pytest.raises(ValueError, match="not in the subpath"):
        collect(tmp_path)  # ids are below the root of the project
    assert by_mark((Mark("row 1", "x"), Mark("row 1", "x"))) == {"row 1": ("x",)}


def test_a_median_over_its_bound_does_not_hold(tmp_path: Path) -> None:
    """The tool says so, and the page too."""
    assert figure("a", "A", [0.4, 0.5, 3.0], 1.0).holds
    assert not figure("a", "A", [0.4, 1.5, 3.0], 1.0).holds
    with pytest.raises(ValueError, match="nothing"):
        figure("a", "A", [], 1.0)
    kept = tmp_path / "measured.json"
    assert read(kept) == Measured()
    write((figure("a", "A", [1.0], 2.0), figure("b", "B", [1.0], 2.0)), kept)
    write((figure("a", "A", [3.0], 2.0),), kept)
    assert [(one.name, one.holds) for one in read(kept).figures] == [("a", False), ("b", True)]
