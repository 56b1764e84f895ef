"""Where output goes: the answer to stdout, progress and warnings to stderr.

Meaning is never carried by colour alone: a coloured word is still a word. rich is imported at the
first table only, because it costs more than everything else the command loads together.
"""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from broker.cli.shape import clean

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Colour = Literal["auto", "always", "never"]

PIPE_COLUMNS = 400
"""Width of a table that goes to a file or a pipe: never cut what a script reads."""

_STYLES: Mapping[str, str] = {
    **dict.fromkeys(("ok", "up", "yes", "ready", "RUNNING", "active", "open", "approved"), "green"),
    **dict.fromkeys(("due", "away", "suspect", "pending", "STARTING", "warn", "locked"), "yellow"),
    **dict.fromkeys(("nominated", "lagging", "unready"), "yellow"),
    **dict.fromkeys(
        ("STALE", "FAILED", "LOCKED", "dead", "revoked", "fail", "denied", "FATAL", "BACKOFF"),
        "bold red",
    ),
    **dict.fromkeys(("-", "closed", "superseded", "left"), "dim"),
}


@dataclass(frozen=True, slots=True)
class Screen:
    """One command's output, as the global options want it."""

    json: bool
    quiet: bool
    color: Colour

    def object(self, command: str, payload: Mapping[str, Any]) -> None:
        """Print the one JSON object of a command.

        Written in ASCII: a C1 control or a bidirectional override in a name stays an escape.
        """
        sys.stdout.write(json.dumps({"schema": f"certmesh.{command}/1", **payload}) + "\n")

    def line(self, text: str = "") -> None:
        """Print one line of the answer."""
        sys.stdout.write(clean(text) + "\n")

    def block(self, text: str) -> None:
        """Print several lines of our own making, such as PEM or a QR code."""
        sys.stdout.write("\n".join(clean(line) for line in text.splitlines()) + "\n")

    def note(self, text: str) -> None:
        """Say how it goes, unless `--quiet`."""
        if not self.quiet:
            sys.stderr.write(clean(text) + "\n")
            sys.stderr.flush()

    def warn(self, text: str) -> None:
        """Say what deserves attention, also with `--quiet`."""
        sys.stderr.write(f"warning: {clean(text)}\n")

    def pairs(self, rows: Iterable[tuple[str, str]]) -> None:
        """Print label and value, aligned."""
        shown = list(rows)
        width = max((len(label) for label, _ in shown), default=0)
        for label, value in shown:
            self.line(f"{label:<{width}}  {value}".rstrip())

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print rows under headings; cells are plain text, never markup."""
        from rich.table import Table  # noqa: PLC0415 (only a table pays for rich)

        on_terminal = sys.stdout.isatty()
        table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
        for heading in headings:
            table.add_column(heading, no_wrap=not on_terminal, overflow="fold")
        for row in rows:
            table.add_row(*(_cell(text) for text in row))
        console = self._console()
        with console.capture() as captured:
            console.print(table)
        sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))

    def _console(self) -> "Console":
        from rich.console import Console  # noqa: PLC0415 (only a table pays for rich)

        plain = self.color == "never" or (self.color == "auto" and "NO_COLOR" in os.environ)
        return Console(
            file=sys.stdout,
            force_terminal=True if self.color == "always" else None,
            no_color=plain,
            width=None if sys.stdout.isatty() else PIPE_COLUMNS,
            markup=False,
            highlight=False,
            emoji=False,
        )


def _cell(text: str) -> "Text":
    """Return a cell as literal text: `[red]` in a name is five characters, not a colour."""
    from rich.text import Text  # noqa: PLC0415 (only a table pays for rich)

    shown = clean(text)
    return Text(shown, style=_STYLES.get(shown, ""))
