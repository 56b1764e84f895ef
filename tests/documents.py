"""The tables of docs/architecture.md, drawn from the code they describe.

`python -m tests.documents` writes them; the tests of this folder compare.
"""

import re
from pathlib import Path
from typing import get_args

from broker.core.capability import CAPABILITIES
from broker.errors import MeshError
from broker.wire.facts import AnyFact
from broker.wire.ids import Service
from broker.wire.messages import AnyEvent, AnyRequest

ROOT = Path(__file__).parents[1]
ARCHITECTURE = ROOT / "docs" / "architecture.md"


def sections() -> dict[str, str]:
    """Return the generated tables by the name of their place in the document."""
    return {
        "requests": _requests(),
        "events": _plain(get_args(AnyEvent), "Event"),
        "facts": _plain(get_args(AnyFact), "Fact"),
        "errors": _errors(),
    }


def filled(text: str) -> str:
    """Return the document with every generated place filled in."""
    for name, table in sections().items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = place.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)  # type: ignore[misc]  # a bound default
    return text


def _requests() -> str:
    rows = [
        f"| `{_tag(kind)}` | {_senders(kind)} | {_meaning(kind)} |" for kind in get_args(AnyRequest)
    ]
    return "\n".join(["| Request | Who may send it | Meaning |", "|---|---|---|", *rows])


def _senders(kind: type) -> str:
    allowed = sorted(service.value for service, kinds in CAPABILITIES.items() if kind in kinds)
    return "everyone" if len(allowed) == len(Service) else ", ".join(allowed)


def _plain(kinds: tuple[type, ...], heading: str) -> str:
    rows = [f"| `{_tag(kind)}` | {_meaning(kind)} |" for kind in kinds]
    return "\n".join([f"| {heading} | Meaning |", "|---|---|", *rows])


def _errors() -> str:
    rows = [
        f"| `{kind.code.value}` | {'yes' if kind.retryable else 'no'} | {_meaning(kind)} |"
        for kind in MeshError.__subclasses__()
    ]
    return "\n".join(["| Code | Worth repeating | Meaning |", "|---|---|---|", *rows])


def _tag(kind: type) -> str:
    return str(kind.__struct_config__.tag)  # type: ignore[attr-defined]  # every message is a Struct


def _meaning(kind: type) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0].replace("|", "\\|")


if __name__ == "__main__":
    ARCHITECTURE.write_text(filled(ARCHITECTURE.read_text()))
