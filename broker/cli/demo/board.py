"""The screen of the demo: one line per step, whatever the step wants to show below it.

Colour and QR codes only on a terminal; with `--json` the same lines go to standard error and
standard output carries the one object at the end.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import click

from broker.cli.demo.failure import StepError
from broker.cli.shape import clean

TAIL_LINES = 15
INDENT = " " * 8


@dataclass(frozen=True, slots=True)
class Board:
    """Where lines go and whether they may be coloured."""

    json: bool
    colour: bool

    def line(self, text: str = "") -> None:
        """Print one line."""
        click.echo(text, err=self.json, color=self.colour)

    def show(self, *lines: str) -> None:
        """Print what belongs to the step that is running."""
        for text in lines:
            self.line(f"{INDENT}{clean(text)}" if text else "")

    def art(self, text: str) -> None:
        """Print a picture, on a terminal only."""
        if sys.stdout.isatty() and not self.json:
            self.line("\n".join(INDENT + row for row in text.splitlines()))

    def passed(self, number: int, name: str, detail: str, took_s: float) -> None:
        """Print the line of a step that held."""
        self._verdict(number, name, click.style("ok  ", fg="green"), detail, took_s)

    def failed(self, number: int, name: str, error: StepError, took_s: float) -> None:
        """Print why a step failed, what to do, and the tail of the log that knows more."""
        self._verdict(number, name, click.style("FAIL", fg="red", bold=True), "", took_s)
        first, *more = error.why.splitlines() or [""]
        self.show(f"why   {first}", *(f"      {line}" for line in more))
        if error.todo:
            self.show(f"do    {error.todo}")
        if error.log is not None:
            self.show(f"log   {error.log}", *tail(error.log))

    def _verdict(self, number: int, name: str, word: str, detail: str, took_s: float) -> None:
        self.line(f"{number:>2}  {name:<18} {word}  {clean(detail):<66} {took_s:5.1f} s")


def tail(log: Path) -> list[str]:
    """Return the last lines of a log, escaped for a terminal."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return ["(no such log)"]
    return [f"  {clean(line)[:400]}" for line in text.splitlines()[-TAIL_LINES:]]
