"""`certmesh demo`: three real nodes on this machine, each claim of the README asserted.

The demo is a stranger to the mesh: it drives the `certmesh` command and opens TLS connections, as a
person would, and imports nothing that decides anything. What it starts it stops; it touches
nothing but its own directory and the loopback addresses 127.0.0.1 to 127.0.0.3.
"""

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Run the demo with the options in `argv` (without the program's name); return its status."""
    from broker.cli.demo.command import run_demo  # noqa: PLC0415 (only the demo pays for it)

    return run_demo(argv)
