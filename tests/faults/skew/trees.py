"""Releases before and after this one, made from it: a copy of the code with a few words changed.

Each change is a pair of texts; one that is no longer found fails the test that wants the release,
so that these releases stay apart from the present one in what they claim to.

- `older`: lacks an optional field of an answer that this release has.
- `newer`: has optional fields and a request that this release does not know, and uses them.
- `next`: speaks the next wire version.
"""

import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
CODE = ("broker", "workers")

Change = tuple[str, str, str]
"""File, text in it, what stands there in the other release."""

OLDER: tuple[Change, ...] = (
    (
        "broker/wire/liveness.py",
        '    beat_every_ms: Count\n    node: Text = ""\n',
        "    beat_every_ms: Count\n",
    ),
    ("broker/shell/verbs/liveness.py", "        node=state.host,\n", ""),
)
NEWER: tuple[Change, ...] = (
    (
        "broker/wire/liveness.py",
        "    wire: Count\n",
        '    wire: Count\n    flavour: Text = "new"\n',
    ),
    (
        "broker/wire/liveness.py",
        "class Goodbye(Request",
        (
            'class GetWeather(Request, frozen=True, tag="get-weather"):\n'
            '    """Something only this release asks."""\n\n\nclass Goodbye(Request'
        ),
    ),
    (
        "broker/wire/messages.py",
        "from broker.wire.liveness import Beat, BeatAnswer, Goodbye,",
        "from broker.wire.liveness import GetWeather, Beat, BeatAnswer, Goodbye,",
    ),
    (
        "broker/wire/messages.py",
        "LivenessRequest = Ready | Beat | Goodbye\n",
        "LivenessRequest = Ready | Beat | Goodbye | GetWeather\n",
    ),
    (
        "broker/wire/node.py",
        '    powers: Text = "full"\n    bundle_term: Term = 0\n',
        '    powers: Text = "full"\n    bundle_term: Term = 0\n    flavour: Text = "new"\n',
    ),
    (
        "workers/failover/loop.py",
        "        node = desk.node()\n",
        (
            "        from broker.wire.control import Ack\n"
            "        from broker.wire.liveness import GetWeather\n\n"
            "        desk.ask(GetWeather(), Ack)\n"
            "        node = desk.node()\n"
        ),
    ),
)
NEXT: tuple[Change, ...] = (("broker/wire/codec.py", "WIRE_VERSION = 2\n", "WIRE_VERSION = 3\n"),)
RELEASES = {"older": OLDER, "newer": NEWER, "next": NEXT}


def copied(place: Path) -> Path:
    """Copy this release's code to `place` and return it."""
    for name in CODE:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, place / name, ignore=ignored)
    return place


def turn(place: Path, release: str) -> Path:
    """Make the code in `place` that of another release, for processes started from now on."""
    for name, text, other in RELEASES[release]:
        path = place / name
        code = path.read_text(encoding="utf-8")
        assert text in code, f"{name} has changed: {text!r} is not in it"
        path.write_text(code.replace(text, other, 1), encoding="utf-8")
    return place


def environment(place: Path) -> dict[str, str]:
    """Return what makes a process run the code in `place`; no bytecode, its source may change."""
    return {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}


def command(module: str, *words: str) -> list[str]:
    """Return how to start `module` of the release that the environment names."""
    return [sys.executable, "-m", module, *words]


def around(place: Path) -> dict[str, str]:
    """Return the whole environment of a process of the code in `place`."""
    return {**os.environ, **environment(place)}
