"""What a process has imported when nobody has asked anything of it yet: memory times nine."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HTTP = frozenset({"requests", "urllib3", "charset_normalizer", "http.client"})
TLS = frozenset({"cryptography", "ssl", "_hashlib"})
LOOPS = frozenset({"asyncio", "zeroconf", "aiohttp", "zmq.asyncio"})


@pytest.mark.parametrize(
    ("package", "unwanted"),
    [
        ("approval", HTTP | TLS | LOOPS),
        ("heartbeat", HTTP | TLS | LOOPS),
        ("roster_sync", HTTP | TLS | LOOPS),
        ("notify", HTTP | TLS | LOOPS),
        ("failover", HTTP | LOOPS | TLS - {"_hashlib"}),
        ("watchdog", HTTP | TLS | LOOPS),
        ("renewal", LOOPS | {"requests", "urllib3", "charset_normalizer"}),
        ("gateway", {"requests", "zeroconf", "zmq.asyncio"}),
        ("console", {"requests", "zeroconf", "zmq.asyncio"}),
    ],
)
def test_an_idle_process_has_not_imported_what_only_some_rounds_need(
    package: str, unwanted: frozenset[str]
) -> None:
    """A primary calls nobody, a member may have no mDNS; they should not pay for it."""
    script = f"import sys, workers.{package}.__main__\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert unwanted & set(done.stdout.split()) == set()
