"""A CA is replaced under two running nodes, mutual TLS and all; one of them sleeps through it."""

import contextlib
import json
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from broker.runtime.exits import Exit
from tests.faults.pool import SETTINGS, Pool
from tests.support import eventually

PORT = 18742
pytestmark = [pytest.mark.faults, pytest.mark.mesh, pytest.mark.timeout(280)]


@pytest.fixture
def atlas() -> Iterator[Pool]:
    """A running primary."""
    found = Pool.create(PORT)
    with contextlib.ExitStack() as stack:
        stack.callback(found.remove)
        found.certmesh("up")
        eventually(found.is_ok, within_s=40)
        yield found


@pytest.fixture
def pi(atlas: Pool) -> Iterator[Pool]:
    """A running member."""
    found = Pool(Path(tempfile.mkdtemp(prefix="cmf-", dir="/tmp")))
    words = ["--node-name", "pi", "--listen", "127.0.0.2"]
    words += ["--enroll-port", str(PORT), "--mesh-port", str(PORT + 1)]
    for setting in SETTINGS:
        words += ["--setting", setting]
    with contextlib.ExitStack() as stack:
        stack.callback(found.remove)
        invite = atlas.certmesh("invite", "create", "pi")
        code = next(str(text) for text in invite.values() if str(text).startswith("cm1:"))
        shutil.rmtree(found.home)
        found.certmesh("join", code, *words)
        found.certmesh("up")
        eventually(found.is_ok, within_s=40)
        yield found


def status(atlas: Pool) -> dict[str, Any]:
    """Return where the rollover stands."""
    done = atlas.run("ca", "rollover", "status")
    assert done.returncode in {Exit.OK, Exit.ATTENTION}, (done.stdout, done.stderr)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def ready(atlas: Pool) -> bool:
    """Whether nobody holds the next step back."""
    view = status(atlas)
    return bool(view["trusting"] == view["members"] == 2)


def chain(pool: Pool, host: str) -> list[str]:
    """Return the common names in the chain file, issuing CA first."""
    raw = (pool.home / "certs" / host / "live" / "chain.pem").read_bytes()
    return [c.subject.rfc4514_string() for c in x509.load_pem_x509_certificates(raw)]


def start(atlas: Pool) -> dict[str, Any]:
    """Start a rollover with the passphrase on standard input."""
    done = atlas.run("ca", "rollover", "start", "--passphrase-file", "-", text=atlas.passphrase)
    assert done.returncode == 0, (done.stdout, done.stderr)
    view: dict[str, Any] = json.loads(done.stdout)
    return view


def test_a_ca_is_replaced_under_running_nodes(atlas: Pool, pi: Pool) -> None:
    """Trust first, then the switch, then the end; nobody is refused on the way."""
    new = start(atlas)["next_pin"]
    eventually(lambda: ready(atlas), within_s=60)
    assert len(chain(pi, "pi")) == len(chain(atlas, "atlas")) == 3
    assert atlas.certmesh("ca", "rollover", "finish", "--yes")["phase"] == "switched"
    eventually(lambda: status(atlas)["phase"] == "none", within_s=90)
    eventually(lambda: len(chain(pi, "pi")) == 2, within_s=60)
    assert all(" 2," in name for name in chain(pi, "pi"))
    assert status(atlas)["pin"] == json.loads(membership(pi))["pin"] == new
    eventually(pi.is_ok, within_s=30)
    eventually(atlas.is_ok, within_s=30)


def test_a_node_that_slept_through_it_comes_back_by_itself(atlas: Pool, pi: Pool) -> None:
    """It can verify nobody, fetches the last words of the old CA, and renews."""
    pi.certmesh("down")
    new = start(atlas)["next_pin"]
    eventually(lambda: not status(atlas)["lacking"] and status(atlas)["trusting"] == 1, within_s=90)
    assert status(atlas)["away"] == ["pi"]
    atlas.certmesh("ca", "rollover", "finish", "--yes")
    eventually(lambda: served_by(atlas), within_s=60)
    pi.certmesh("up")
    eventually(lambda: json.loads(membership(pi))["pin"] == new, within_s=60)
    eventually(lambda: status(atlas)["phase"] == "none", within_s=90)


def membership(pool: Pool) -> str:
    """Return what a node keeps of its mesh."""
    return (pool.home / "membership.json").read_text()


def served_by(atlas: Pool) -> bool:
    """Whether the primary's door shows a certificate of the second CA."""
    raw = ssl.get_server_certificate(("127.0.0.1", PORT))
    issuer = x509.load_pem_x509_certificate(raw.encode()).issuer.rfc4514_string()
    assert isinstance(atlas, Pool)
    return " 2," in issuer
