"""Certificates that ended while their node was off: who comes back alone, who needs a person."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from broker.clock import wall_s
from broker.runtime.exits import Exit
from tests.faults.pool import SETTINGS, Pool
from tests.support import eventually

PORT = 19742
LIFETIME_S = 15
HASTY = ('renewal.attempt_every="2s"', 'renewal.backoff_min="2s"')
pytestmark = [pytest.mark.faults, pytest.mark.mesh, pytest.mark.timeout(280)]


@pytest.fixture
def atlas() -> Iterator[Pool]:
    """A running primary, whose members get certificates of some seconds."""
    found = Pool.create(PORT, *HASTY)
    with contextlib.ExitStack() as stack:
        stack.callback(found.remove)
        found.certmesh("up")
        eventually(found.is_ok, within_s=40)
        policy(found, f"leaf_lifetime={LIFETIME_S}s", "expired_grace=10m", "outage_budget=0s")
        yield found


@pytest.fixture
def pi(atlas: Pool) -> Iterator[Pool]:
    """A member that joined, worked, and was switched off."""
    found = Pool(Path(tempfile.mkdtemp(prefix="cmf-", dir="/tmp")))
    with contextlib.ExitStack() as stack:
        stack.callback(found.remove)
        shutil.rmtree(found.home)
        join(atlas, found, rejoin=False)
        found.certmesh("up")
        eventually(lambda: is_served(found), within_s=40)
        found.certmesh("down")
        yield found


def policy(atlas: Pool, *words: str) -> None:
    """Change the policy."""
    atlas.certmesh("ca", "policy", "set", *words)


def join(atlas: Pool, pi: Pool, *, rejoin: bool) -> None:
    """Let pi join by invite."""
    words = ["--node-name", "pi", "--listen", "127.0.0.2"]
    words += ["--enroll-port", str(PORT), "--mesh-port", str(PORT + 1)]
    for setting in (*SETTINGS, *HASTY):
        words += ["--setting", setting]
    invite = atlas.certmesh("invite", "create", "pi", *(["--rejoin"] if rejoin else []))
    code = next(str(text) for text in invite.values() if str(text).startswith("cm1:"))
    pi.certmesh("join", code, *words)


def is_served(pool: Pool) -> bool:
    """Whether its gateway's port serves what is live, and it has not expired."""
    door = "127.0.0.1" if pool.passphrase else "127.0.0.2"
    name = "atlas" if pool.passphrase else "pi"
    check = pool.run("cert", "check", f"{door}:{PORT}", "--name", name)
    return check.returncode == Exit.OK


def live_key(pool: Pool, host: str) -> bytes:
    """Return the key that is live on disk."""
    return (pool.home / "certs" / host / "live" / "key.pem").read_bytes()


def is_over(pool: Pool, host: str) -> bool:
    """Whether the certificate on disk has ended."""
    pem = (pool.home / "certs" / host / "live" / "cert.pem").read_bytes()
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp() < wall_s()


def member(atlas: Pool) -> dict[str, Any]:
    """Return what the CA says of pi."""
    (found,) = [
        line for line in atlas.certmesh("member", "list")["members"] if line["host"] == "pi"
    ]
    line: dict[str, Any] = found
    return line


def test_a_member_that_slept_past_its_certificate_comes_back_alone(atlas: Pool, pi: Pool) -> None:
    """A new key, in service at its own door, and the audit trail says by what right."""
    before = live_key(pi, "pi")
    eventually(lambda: member(atlas)["state"] == "expired", within_s=40)
    policy(atlas, "leaf_lifetime=1h")
    pi.certmesh("up")
    eventually(lambda: is_served(pi), within_s=60)
    assert live_key(pi, "pi") != before
    eventually(pi.is_ok, within_s=40)
    eventually(lambda: member(atlas)["state"] == "up", within_s=20)
    rows = atlas.certmesh("audit", "show", "--limit", "50")
    assert any(row["fields"].get("by_old_key") for row in rows["rows"]), rows


def test_a_member_that_slept_past_the_grace_says_what_to_do_and_rejoins(
    atlas: Pool, pi: Pool
) -> None:
    """Both sides show it; the old identity goes, the host is back with one invite."""
    policy(atlas, "expired_grace=0s")
    eventually(lambda: member(atlas)["state"] == "expired", within_s=40)
    policy(atlas, "leaf_lifetime=1h")
    pi.certmesh("up")

    def told() -> bool:
        done = pi.run("status")
        return done.returncode == Exit.ATTENTION and "invite create pi --rejoin" in done.stdout

    eventually(told, within_s=60)
    eventually(lambda: "expired at" in pi.run("cert", "renew").stdout, within_s=30)
    assert not is_served(pi)
    assert member(atlas)["state"] == "expired"
    assert pi.log("broker").count('"certificate.expired"') == 1
    pi.certmesh("leave", "--force", "--yes")
    join(atlas, pi, rejoin=True)
    pi.certmesh("up")
    eventually(lambda: is_served(pi), within_s=60)
    eventually(pi.is_ok, within_s=40)


def test_a_primary_that_was_off_for_long_renews_itself(atlas: Pool) -> None:
    """Its own certificate has ended: it signs for itself, and its doors open with the new one."""
    eventually(lambda: atlas.run("cert", "renew").returncode == 0, within_s=20)
    atlas.certmesh("down")
    before = live_key(atlas, "atlas")
    eventually(lambda: is_over(atlas, "atlas"), within_s=40)
    atlas.certmesh("up")
    eventually(lambda: is_served(atlas), within_s=60)
    assert live_key(atlas, "atlas") != before
