"""Small edits of certmesh.toml that keep its comments: one key, one hook. Pure.

The file belongs to a person. Nothing here rewrites it from parsed values; every edit is checked by
parsing the result and comparing it with what was meant.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from broker.errors import SettingsError
from broker.runtime.tomltext import read_toml

_HEADING = re.compile(r"^\s*\[", re.MULTILINE)
_HOOK_HEADING = re.compile(r"^[ \t]*\[\[[ \t]*hook[ \t]*\]\][ \t]*(#.*)?$", re.MULTILINE)


def literal(value: object) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        # JSON and TOML basic strings agree but for DEL and for surrogate pairs.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Sequence):
        return f"[{', '.join(literal(part) for part in value)}]"
    raise TypeError(f"no TOML for {type(value).__name__}")


def parsed(text: str, where: str) -> dict[str, Any]:
    """Return the values in `text`.

    Raises:
        SettingsError: Not TOML, or something stands where sections do; names `where`.
    """
    try:
        values = read_toml(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{where}: {error}", hint="mend the file") from None
    for name, value in values.items():
        tables = value if name == "hook" and isinstance(value, list) else [value]
        if not all(isinstance(table, dict) for table in tables):
            raise SettingsError(f"{where}: {name} is no section", hint="mend the file")
    return values


def with_key(text: str, section: str, key: str, value: object) -> str:
    """Return `text` with one more key in `[section]`; the key must not be there yet.

    Raises:
        SettingsError: The file is written in a way this edit cannot follow.
    """
    meant = parsed(text, "settings")
    meant.setdefault(section, {})[key] = value
    line = f"{key} = {literal(value)}\n"
    heading = re.search(rf"^[ \t]*\[[ \t]*{re.escape(section)}[ \t]*\].*\n?", text, re.MULTILINE)
    if heading is not None:
        return _checked(_ended(text[: heading.end()]) + line + text[heading.end() :], meant)
    if section in parsed(text, "settings"):
        # Written with dotted keys, which may only be extended above the first table.
        return _checked(f"{section}.{line}{text}", meant)
    return _checked(f"{_ended(text)}\n[{section}]\n{line}", meant)


def with_hook(text: str, hook: Mapping[str, object]) -> str:
    """Return `text` with one more `[[hook]]` at its end."""
    lines = "".join(f"{key} = {literal(value)}\n" for key, value in hook.items())
    meant = parsed(text, "settings")
    meant.setdefault("hook", []).append(dict(hook))
    return _checked(f"{_ended(text)}\n[[hook]]\n{lines}", meant)


def without_hook(text: str, name: str) -> str:
    """Return `text` without the hooks called `name`, comments around them kept.

    Raises:
        SettingsError: The file is written in a way this edit cannot follow.
    """
    meant = parsed(text, "settings")
    meant["hook"] = [hook for hook in meant.get("hook", []) if hook.get("name") != name]
    if not meant["hook"]:
        del meant["hook"]
    kept = text
    for start, end in reversed(_hook_blocks(text)):
        if _is_named(text[start:end], name):
            kept = kept[:start] + kept[end:]
    return _checked(kept, meant)


def _hook_blocks(text: str) -> list[tuple[int, int]]:
    """Return where each `[[hook]]` block starts and ends: at the next heading of any kind."""
    blocks = []
    for found in _HOOK_HEADING.finditer(text):
        following = _HEADING.search(text, found.end())
        blocks.append((found.start(), following.start() if following else len(text)))
    return blocks


def _is_named(block: str, name: str) -> bool:
    try:
        hooks = read_toml(block).get("hook", [])
    except tomllib.TOMLDecodeError:
        return False
    return any(hook.get("name") == name for hook in hooks)


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else f"{text}\n"


def _checked(text: str, meant: Mapping[str, Any]) -> str:
    """Return `text` if it says exactly what was meant, so that no edit is ever half right."""
    try:
        said = read_toml(text)
    except tomllib.TOMLDecodeError:
        said = None
    if said != _as_lists(meant):
        raise SettingsError(
            "this settings file is written in a way that cannot be edited by the command",
            hint="edit certmesh.toml by hand, then run certmesh config validate",
        )
    return text


def _as_lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _as_lists(part) for name, part in value.items()}
    return [_as_lists(part) for part in value] if isinstance(value, (list, tuple)) else value
