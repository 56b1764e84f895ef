"""Renewal workers on another machine, as real processes: granted, revoked, granted anew."""

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.runtime.curve import curve_directory, read_pair
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths, node_paths
from broker.runtime.settings import load_settings
from tests.faults.pool import SETTINGS, Pool
from tests.support import eventually, throughout
from tests.workers.standin import StandIn
from workers.membership import load_membership

PORT = 23740
WORKERS = PORT + 2
DUE_AT_ONCE = (
    'policy.leaf_lifetime="1h"',
    "policy.renew_at=0.0001",
    "renewal.jitter=0.0",
    'renewal.attempt_every="2s"',
    'renewal.backoff_min="1s"',
    'renewal.backoff_max="2s"',
    f'listen.workers="127.0.0.1:{WORKERS}"',
)
pytestmark = [pytest.mark.faults, pytest.mark.mesh, pytest.mark.timeout(280)]


def _pool(stack: contextlib.ExitStack) -> Pool:
    found = Pool(Path(tempfile.mkdtemp(prefix="cmf-", dir="/tmp")))
    stack.callback(found.remove)
    shutil.rmtree(found.home)
    return found


def _words(host: str, address: str, *settings: str) -> list[str]:
    words = ["--node-name", host, "--listen", address]
    words += ["--enroll-port", str(PORT), "--mesh-port", str(PORT + 1)]
    for setting in (*SETTINGS, *settings):
        words += ["--setting", setting]
    return words


def runs(pool: Pool) -> bool:
    """Whether the node is up; members that are due at once are a warning."""
    return pool.run("status").returncode in {Exit.OK, Exit.ATTENTION}


def paths_of(pool: Pool) -> Paths:
    """Return where a node's files are."""
    file = pool.home / "certmesh.toml"
    return node_paths(file, load_settings(file))


@pytest.fixture
def atlas() -> Iterator[Pool]:
    """A running CA whose members are due at once, and whose own renewal workers are stopped."""
    with contextlib.ExitStack() as stack:
        found = _pool(stack)
        found.certmesh("init", "pool", *_words("atlas", "127.0.0.1", *DUE_AT_ONCE))
        found.certmesh("up")
        eventually(lambda: runs(found), within_s=40)
        yield found


@pytest.fixture
def nas(atlas: Pool) -> Iterator[Pool]:
    """A running member with two remote renewal workers that nobody let in."""
    with contextlib.ExitStack() as stack:
        found = _pool(stack)
        invite = atlas.certmesh("invite", "create", "nas")
        code = next(str(text) for text in invite.values() if str(text).startswith("cm1:"))
        found.certmesh("join", code, *_words("nas", "127.0.0.2", "pool.remote_renewal=2"))
        found.certmesh("up")
        eventually(lambda: runs(found), within_s=40)
        atlas.supervisorctl("stop", "renewal:*")
        yield found


@pytest.fixture
def members(atlas: Pool) -> Iterator[StandIn]:
    """Members that are played by this process."""
    membership = load_membership(paths_of(atlas))
    assert membership is not None
    root = x509.load_pem_x509_certificate(membership.root_pem.encode())
    with StandIn(root.public_bytes(Encoding.DER)) as found:
        yield found


def states(nas: Pool) -> set[str]:
    """Return what `certmesh ps` says of the remote workers of this machine."""
    lines = nas.certmesh("ps")["workers"]
    return {line["state"] for line in lines if line["service"] == "remote-renewal"}


def grants(atlas: Pool) -> list[dict[str, Any]]:
    """Return the grants, newest first."""
    found: list[dict[str, Any]] = atlas.certmesh("worker", "list")["workers"]
    return found


def deliveries(members: StandIn) -> int:
    """Return how many certificates were brought so far; each member is due every two seconds."""
    return sum(len(member.installed) for member in members.members.values())


def key_of(nas: Pool) -> str:
    """Return the public key of the machine's workers."""
    return read_pair(curve_directory(paths_of(nas)) / "worker.key").public


def test_remote_workers_renew_everybody_as_long_as_they_are_let(
    atlas: Pool, nas: Pool, members: StandIn
) -> None:
    """Waiting, granted, at work, revoked, granted anew, and back after the broker was killed."""
    waiting = {"waiting for a grant: certmesh worker enroll nas on the CA"}
    eventually(lambda: states(nas) == waiting, within_s=20)

    assert atlas.certmesh("worker", "enroll", "nas", "--yes")["state"] == "enrolled"
    hosts = [f"m{number:02}" for number in range(12)]
    members.join(paths_of(atlas), hosts)
    eventually(lambda: members.renewed() == hosts, within_s=40)
    eventually(lambda: states(nas) == {"works for atlas"}, within_s=20)
    (grant,) = grants(atlas)
    assert (grant["state"], grant["connected"]) == ("bound", 2)
    assert grant["renewals"] >= len(hosts)
    assert grant["public_key"] == key_of(nas)

    assert atlas.certmesh("worker", "revoke", "nas", "--yes")["state"] == "revoked"
    eventually(lambda: states(nas) == waiting, within_s=15)
    assert '"worker.refused"' in nas.log("remote-renewal-0")
    members.join(paths_of(atlas), ["late"])
    so_far = deliveries(members)
    throughout(lambda: deliveries(members) == so_far, for_s=4)

    before = key_of(nas)
    atlas.certmesh("worker", "enroll", "nas", "--yes")
    eventually(lambda: "late" in members.renewed(), within_s=30)
    assert key_of(nas) != before

    os.kill(atlas.pids()["broker"], signal.SIGKILL)
    eventually(lambda: runs(atlas), within_s=30)
    members.join(paths_of(atlas), ["last"])
    eventually(lambda: "last" in members.renewed(), within_s=40)
    assert [grant["state"] for grant in grants(atlas)] == ["bound", "revoked"]
