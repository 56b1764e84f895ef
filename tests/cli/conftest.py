"""Fixtures: a node's home that belongs to a mesh, a fake console on its socket, the command."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from broker.cli.tree import root
from broker.runtime.paths import Paths
from tests.cli.command import Certmesh, Said
from tests.cli.fake_console import FakeConsole, console_on
from tests.cli.views import membership


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out of them."""
    for name in ("CERTMESH_HOME", "CERTMESH_OPERATOR", "SUDO_USER", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    # No test may reach the stores that this machine really trusts.
    monkeypatch.setenv("CERTMESH_TRUST_ROOT", "/nonexistent/trust")


@pytest.fixture
def certmesh(home: Path) -> Certmesh:
    """Return the command, bound to a home directory."""

    def run(*words: str, typed: str = "") -> Said:
        done = CliRunner().invoke(root, ["--home", str(home), *words], input=typed)
        return Said(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def member_home(paths: Paths) -> Paths:
    """Return a home that belongs to a mesh; nothing runs in it."""
    paths.membership.write_bytes(msgspec.json.encode(membership()))
    return paths


@pytest.fixture
def console(member_home: Paths) -> Iterator[FakeConsole]:
    """Return the console of that home."""
    with console_on(member_home.api_socket) as fake:
        yield fake
