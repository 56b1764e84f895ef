"""A real node whose hook fails: people hear of it once, and of its end."""

import json
from collections.abc import Iterator

import pytest

from broker.runtime.exits import Exit
from tests.faults.pool import Pool
from tests.support import eventually, throughout
from tests.workers.notify_place import PlainServer

PORT = 21942
pytestmark = [pytest.mark.faults, pytest.mark.mesh, pytest.mark.timeout(180)]


@pytest.fixture
def receiver() -> Iterator[PlainServer]:
    """Whoever is behind the webhook."""
    with PlainServer() as server:
        yield server


@pytest.fixture
def pool(receiver: PlainServer) -> Iterator[Pool]:
    """A running node that tells by a webhook, and whose hook asks a file how to end."""
    found = Pool.create(PORT)
    verdict = found.home / "verdict"
    verdict.write_text("exit 0\n")
    verdict.chmod(0o755)
    found.home.chmod(0o755)
    settings = found.home / "certmesh.toml"
    with settings.open("a") as file:
        file.write(f'\n[notify]\nwebhook = "{receiver.url}/hook"\n')
        file.write(f'\n[[hook]]\nname = "verdict"\ncommand = ["/bin/sh", "{verdict}"]\n')
    try:
        found.certmesh("up")
        eventually(found.is_ok, within_s=30)
        yield found
    finally:
        found.remove()


def told(receiver: PlainServer) -> list[str]:
    """Return the events of the notices that arrived."""
    return [json.loads(visit.body)["event"] for visit in receiver.visits]


def test_a_failed_hook_is_told_once_and_its_end(pool: Pool, receiver: PlainServer) -> None:
    """Within seconds, exactly once, with the reason; and again when it is mended."""
    (pool.home / "verdict").write_text("echo no such service; exit 3\n")
    # A host is tried at most once in `attempt_every`; until then the command is refused.
    eventually(lambda: pool.run("cert", "renew").returncode != Exit.REFUSED, within_s=20)
    eventually(lambda: "hook.failed" in told(receiver), within_s=20)
    throughout(lambda: told(receiver).count("hook.failed") == 1, for_s=3)
    (notice,) = [json.loads(v.body) for v in receiver.visits if b"hook.failed" in v.body]
    assert notice["subject"] == "atlas"
    assert "verdict" in notice["detail"]
    (pool.home / "verdict").write_text("exit 0\n")
    eventually(lambda: pool.run("cert", "renew").returncode == 0, within_s=90)
    eventually(lambda: "renewal.recovered" in told(receiver), within_s=20)
    assert told(receiver).count("hook.failed") == 1
    assert pool.certmesh("notify", "test")["targets"][0]["taken"] is True
