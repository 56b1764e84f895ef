"""The fault matrix: what is broken on purpose, and what holds in spite of it (`matrix.toml`)."""

import tomllib
from pathlib import Path

import msgspec

MATRIX = Path(__file__).with_name("matrix.toml")


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One fault: what happens, what is guaranteed, within what bound, and what was measured."""

    number: int
    area: str
    fault: str
    guarantee: str
    bound: str = ""
    figures: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """How a docstring refers to it."""
        return f"row {self.number}"


def rows() -> tuple[Row, ...]:
    """Return all rows in the order of their numbers."""
    raw = tomllib.loads(MATRIX.read_text(encoding="utf-8"))
    return msgspec.convert(raw["row"], type=tuple[Row, ...])
