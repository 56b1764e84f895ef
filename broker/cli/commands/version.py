"""`certmesh version`: what a bug report needs."""

import platform
import sqlite3
import ssl
from importlib import metadata
from pathlib import Path

import click
import zmq

import broker
from broker.cli.options import MeshCommand, pass_session
from broker.cli.session import Session
from broker.wire.codec import WIRE_VERSION

DISTRIBUTION = "certmesh-lan"
UNKNOWN = "unknown"


@click.command(cls=MeshCommand)
@pass_session
def version(session: Session) -> None:
    """Print versions of everything that matters."""
    facts: dict[str, str | int] = {
        "version": release(),
        "commit": commit(Path(broker.__file__).parents[1]),
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "libzmq": zmq.zmq_version(),
        "sqlite": sqlite3.sqlite_version,
        "wire": WIRE_VERSION,
    }
    if session.json:
        session.screen.object("version", facts)
    else:
        session.screen.pairs([(name, str(value)) for name, value in facts.items()])


def release() -> str:
    """Return the installed release."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return UNKNOWN


def commit(checkout: Path) -> str:
    """Return the commit a checkout stands on; an installed wheel has none."""
    try:
        head = (checkout / ".git" / "HEAD").read_text(encoding="ascii").strip()
        name = head.removeprefix("ref: ")
        if name == head:
            return head[:12]
        return (checkout / ".git" / name).read_text(encoding="ascii").strip()[:12]
    except (OSError, UnicodeDecodeError):
        return UNKNOWN
