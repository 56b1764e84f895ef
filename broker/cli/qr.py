"""QR codes for the terminal."""

from typing import TextIO


def draw(text: str, out: TextIO) -> None:
    """Draw `text` as a QR code, two modules a character; scanners want the quiet zone around it."""
    import segno  # noqa: PLC0415 (only who draws pays for it)

    out.write("\n")
    segno.make(text, error="l").terminal(out=out, compact=True, border=2)
