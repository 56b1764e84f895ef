"""Edits of a person's settings file: comments stay, and no edit is ever half right."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.cli.tomlfile import literal, with_hook, with_key, without_hook
from broker.errors import SettingsError

FILE = """\
# mine
[node]  # this one
name = "atlas"  # the big one

[[hook]]
name = "nginx"  # reloads
command = ["systemctl", "reload", "nginx"]

# haproxy comes later
[[hook]]
name = "haproxy"
command = [
  "haproxyctl",
  "reload",
]

[log]
level = "debug"
"""


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_as_a_toml_string(text: str) -> None:
    """A name with quotes or control characters must not end the string."""
    assert tomllib.loads(f"value = {literal(text)}") == {"value": text}


@pytest.mark.parametrize("value", [True, False, 0, -3, 0.5, ["a", "b"], [], "x"])
def test_values_survive(value: object) -> None:
    """Booleans are not integers here."""
    found = tomllib.loads(f"value = {literal(value)}")["value"]
    assert found == value
    assert type(found) is type(value)


def test_a_key_is_added_and_comments_stay() -> None:
    """Whoever wrote the file finds it again."""
    grown = with_key(FILE, "node", "addresses", ["192.0.2.1"])
    assert tomllib.loads(grown)["node"] == {"name": "atlas", "addresses": ["192.0.2.1"]}
    for comment in ("# mine", "# this one", "# the big one", "# reloads", "# haproxy comes later"):
        assert comment in grown


def test_a_key_of_a_new_section_goes_to_the_end() -> None:
    """Also when the last line has no end."""
    grown = with_key('[log]\nlevel = "info"', "listen", "mesh", "127.0.0.1:1")
    assert tomllib.loads(grown) == {"log": {"level": "info"}, "listen": {"mesh": "127.0.0.1:1"}}


def test_a_file_of_dotted_keys_can_be_extended() -> None:
    """TOML forbids a [node] table after `node.name`, so the key goes above."""
    grown = with_key('node.name = "a"\n[log]\nlevel = "info"\n', "node", "sans", ["x"])
    assert tomllib.loads(grown)["node"] == {"name": "a", "sans": ["x"]}


def test_a_file_that_cannot_be_followed_is_left_to_its_owner() -> None:
    """An inline table takes no more keys."""
    with pytest.raises(SettingsError, match="cannot be edited"):
        with_key('node = {name = "a"}\n', "node", "sans", ["x"])


def test_a_hook_is_added_and_removed_again() -> None:
    """Removing what was added gives the same values as before."""
    grown = with_hook(FILE, {"name": "new", "command": ["true", "a b", '"']})
    assert [hook["name"] for hook in tomllib.loads(grown)["hook"]] == ["nginx", "haproxy", "new"]
    assert tomllib.loads(without_hook(grown, "new")) == tomllib.loads(FILE)


def test_removing_a_hook_leaves_the_others_and_the_comments() -> None:
    """The one in the middle, with a neighbour on each side."""
    rest = without_hook(FILE, "nginx")
    assert [hook["name"] for hook in tomllib.loads(rest)["hook"]] == ["haproxy"]
    assert tomllib.loads(rest)["log"] == {"level": "debug"}
    assert "# the big one" in rest


def test_removing_the_last_hook_removes_the_key() -> None:
    """An empty file is a file."""
    assert tomllib.loads(without_hook('[[hook]]\nname = "a"\ncommand = ["b"]\n', "a")) == {}


def test_a_hook_heading_inside_a_string_is_not_one() -> None:
    """The edit is refused rather than cut into somebody's text."""
    hook = '[[hook]]\nname = "a"\ncommand = ["b"]\n'
    tricky = f'[log]\nx = """\n[[hook]]\nname = "a"\n[z]\n"""\n{hook}'
    with pytest.raises(SettingsError, match="cannot be edited"):
        without_hook(tricky, "a")
