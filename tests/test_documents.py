"""A false document is a bug: what can be compared with the code is compared."""

import re
import tomllib

import pytest

from broker.cli.tree import COMMANDS
from broker.runtime.exits import Exit
from tests.documents import ARCHITECTURE, FAILOVER, ROOT, SECURITY, filled, sections

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_tables_and_pictures_are_those_of_the_code() -> None:
    """After a change run `python -m tests.documents`."""
    texts = [document.read_text() for document in (ARCHITECTURE, FAILOVER, SECURITY)]
    assert texts == [filled(text) for text in texts]
    assert all(f"<!-- {name} -->" in "".join(texts) for name in sections())


def test_every_command_the_readme_shows_exists() -> None:
    """A reader types what stands there."""
    shown = re.findall(r"^\s*certmesh ([a-z]+)", _typed(), re.MULTILINE)
    assert shown
    assert set(shown) <= set(COMMANDS)


def test_every_exit_status_is_documented() -> None:
    """Scripts branch on them."""
    text = (ROOT / "README.md").read_text()
    assert {int(status) for status in Exit} == {
        int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)
    }


def test_every_make_target_the_readme_shows_exists() -> None:
    """The two commands of the first minute, and the others."""
    shown = set(re.findall(r"^make ([a-z][a-z-]+)", _typed(), re.MULTILINE))
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= shown <= made


def _typed() -> str:
    """Return what the README shows as typed: its code blocks and spans, one per line."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return "\n".join([*blocks, *(" ".join(span.split()) for span in spans)])


def test_every_dependency_has_its_line_in_the_decisions() -> None:
    """One more package is one more thing to trust: the reason is written down."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "docs" / "decisions.md").read_text()
    names = [re.split(r"[<>=~ ]", line)[0] for line in project["dependencies"]]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_decisions_are_numbered_without_gaps() -> None:
    """A number names a decision for ever."""
    text = (ROOT / "docs" / "decisions.md").read_text()
    numbers = [int(number) for number in re.findall(r"^## (\d+)\. ", text, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path: object) -> None:
    """Files move; links should not rot."""
    from pathlib import Path  # noqa: PLC0415 (a type for this test alone)

    assert isinstance(path, Path)
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []
