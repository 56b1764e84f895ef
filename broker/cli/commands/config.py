"""`certmesh config`: the settings as they are in force, and where each came from."""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_type_hints

import click
import msgspec

from broker.cli.options import Noun, pass_session
from broker.cli.session import Session
from broker.cli.shape import duration_text
from broker.cli.tomlfile import literal, parsed
from broker.runtime.duration import Duration
from broker.runtime.paths import node_paths
from broker.runtime.settings import Hook, Settings

DURATION_TEXT = Annotated[str, msgspec.Meta(pattern=r"^\d{1,9}(\.\d{1,3})?(ms|s|m|h|d)$")]


@click.group(cls=Noun)
def config() -> None:
    """Show and check settings."""


@config.command()
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@pass_session
def show(session: Session, *, origin: bool) -> None:
    """Show every setting in force."""
    file = session.settings_file
    lines = list(_lines(session.settings, _said(session), str(file)))
    if session.json:
        values = {name: {"value": value, "origin": source} for name, value, source in lines}
        session.screen.object("config-show", {"file": str(file), "settings": values})
        return
    width = max(len(f"{name} = {literal(value)}") for name, value, _ in lines)
    for name, value, source in lines:
        shown = f"{name} = {literal(value)}"
        session.screen.line(f"{shown:<{min(width, 60)}}  # {source}" if origin else shown)


def _said(session: Session) -> Mapping[str, Any]:
    return parsed(session.settings_file.read_text(encoding="utf-8"), str(session.settings_file))


def _lines(
    settings: Settings, said: Mapping[str, Any], file: str
) -> Iterator[tuple[str, Any, str]]:
    """Yield name, value and origin of each setting."""
    for section in msgspec.structs.fields(settings):
        content = getattr(settings, section.name)
        if not isinstance(content, msgspec.Struct):
            for place, entry in enumerate(content):
                for key, value in _values(entry):
                    yield f"{section.name}.{place}.{key}", value, file
            continue
        for key, value in _values(content):
            variable = f"CERTMESH_{section.name.upper()}_{key.upper()}"
            in_file = key in said.get(section.name, {})
            origin = variable if variable in os.environ else file if in_file else "default"
            yield f"{section.name}.{key}", value, origin


def _values(struct: msgspec.Struct) -> Iterator[tuple[str, Any]]:
    for field in msgspec.structs.fields(struct):
        value = getattr(struct, field.name)
        if isinstance(value, Duration):
            yield field.name, duration_text(value.ms)
        else:
            yield field.name, list(value) if isinstance(value, tuple) else value


@config.command()
@pass_session
def validate(session: Session) -> None:
    """Check the settings file. Exit 78, and the key's name, when it is wrong."""
    node_paths(session.settings_file, session.settings)
    if session.json:
        session.screen.object("config-validate", {"file": str(session.settings_file), "ok": True})
    else:
        session.screen.line(f"ok  {session.settings_file}")


@config.command()
@pass_session
def path(session: Session) -> None:
    """Print where the settings file is, or would be."""
    if session.json:
        found = session.settings_file.exists()
        session.screen.object("config-path", {"file": str(session.settings_file), "exists": found})
    else:
        session.screen.line(str(session.settings_file))


@config.command()
@pass_session
def schema(session: Session) -> None:
    """Print the JSON Schema of certmesh.toml."""
    described = msgspec.json.schema(_described(Settings))
    if session.json:
        session.screen.object("config-schema", {"json_schema": described})
    else:
        session.screen.block(json.dumps(described, indent=2))


def _described(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Return the struct as the file writes it: durations are text there, defaults too."""
    fields: list[tuple[str, Any, Any]] = []
    hints = get_type_hints(kind, include_extras=True)
    for field in msgspec.structs.fields(kind):
        default = field.default
        if isinstance(default, msgspec.Struct):
            fields.append((field.name, _described(type(default)), msgspec.UNSET))
        elif hints[field.name] is Duration:
            fields.append((field.name, DURATION_TEXT, duration_text(default)))
        elif hints[field.name] == tuple[Hook, ...]:
            fields.append((field.name, tuple[_described(Hook), ...], ()))  # type: ignore[misc]  # made at run time
        else:
            fields.append((field.name, hints[field.name], default))
    return msgspec.defstruct(kind.__name__, _with_defaults(fields), forbid_unknown_fields=True)


def _with_defaults(fields: list[tuple[str, Any, Any]]) -> list[Any]:
    """Return the fields for `defstruct`; one without default is required."""
    return [
        (name, kind) if default is msgspec.NODEFAULT else (name, kind, default)
        for name, kind, default in fields
    ]
