"""The blocks of docs/renewal.md, with this machine's places in them."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

PAGE = Path(__file__).parents[2] / "docs" / "renewal.md"
NOTHING: Mapping[str, str] = MappingProxyType({})
_BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(heading: str) -> dict[str, str]:
    """Return the blocks below `### heading`, by their language.

    Raises:
        AssertionError: The page has no such heading.
    """
    text = PAGE.read_text(encoding="utf-8")
    _, found, rest = text.partition(f"\n### {heading}\n")
    assert found, heading
    part = re.split(r"^##+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    return dict(_BLOCK.findall(part))


def placed(
    block: str,
    home: Path,
    port: int,
    others: Mapping[str, str] = NOTHING,
    *,
    ports: bool = True,
) -> str:
    """Return a block as it is used on this machine.

    Args:
        block: Text of the page.
        home: Home of the node.
        port: Of the service.
        others: Further words of the page, with what stands in their place.
        ports: The block names the port.
    """
    words = {"/var/lib/certmesh": str(home), **others}
    if ports:
        words["8443"] = str(port)
    for word, here in words.items():
        assert word in block, word
        block = block.replace(word, here)
    return block
