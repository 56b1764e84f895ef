"""A node that is scaled while it runs: more doors, more renewal workers, nobody disturbed."""

import json
import os
import signal
import socket
import ssl
from collections.abc import Iterator

import pytest

from broker.cli.demo.tls import Connection, Door, served_serial
from tests.faults.pool import Pool
from tests.support import eventually

PORT = 17762
pytestmark = [pytest.mark.faults, pytest.mark.mesh, pytest.mark.timeout(180)]


@pytest.fixture
def pool() -> Iterator[Pool]:
    """A running node."""
    found = Pool.create(PORT)
    try:
        found.certmesh("up")
        eventually(found.is_ok, within_s=30)
        yield found
    finally:
        found.remove()


def scale(pool: Pool, text: str) -> None:
    """Say in certmesh.toml how many, and take it over."""
    settings = pool.home / "certmesh.toml"
    kept = settings.read_text().partition("\n[pool]\n")[0]
    settings.write_text(f"{kept}\n[pool]\n{text}\n")
    pool.certmesh("up")


def shakes_hands(port: int) -> bool:
    """Whether a new connection to the enrol door gets a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 2) as plain,
            context.wrap_socket(plain) as secured,
        ):
            return secured.getpeercert(binary_form=True) is not None
    except OSError:
        return False


def test_a_pool_is_scaled_by_its_settings_while_it_runs(pool: Pool) -> None:
    """Both doors stay open with one gateway gone; the broker never notices."""
    before = pool.pids()
    scale(pool, "gateway = 2\nrenewal = 3")
    wanted = {"gateway-0", "gateway-1", "renewal-0", "renewal-1", "renewal-2"}
    eventually(lambda: wanted <= set(pool.pids()), within_s=30)
    eventually(pool.is_ok, within_s=30)
    after = pool.pids()
    assert after["broker"] == before["broker"]
    assert after["heartbeat"] == before["heartbeat"]
    lines = pool.certmesh("ps")["workers"]
    ready = {line["instance"] for line in lines if line["liveness"] == "ready"}
    assert wanted <= ready

    os.kill(after["gateway-0"], signal.SIGKILL)
    assert all(eventually(lambda: shakes_hands(PORT), within_s=5) for _ in range(20))
    eventually(lambda: pool.pids().get("gateway-0", 0) not in {0, after["gateway-0"]}, within_s=20)

    scale(pool, "gateway = 1\nrenewal = 1")
    eventually(lambda: {"gateway", "renewal-0"} <= set(pool.pids()), within_s=30)
    assert not {"gateway-1", "renewal-1"} & set(pool.pids())
    eventually(pool.is_ok, within_s=30)
    assert pool.pids()["broker"] == before["broker"]


def own_context(pool: Pool) -> ssl.SSLContext:
    """Return a context of this node's own, as a member has it."""
    live = (pool.home / "certs" / "atlas" / "live").resolve()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(live / "chain.pem")
    context.load_cert_chain(live / "fullchain.pem", live / "key.pem")
    return context


def door_of(pool: Pool, port: int) -> Door:
    """Return a door of the node, by the name its certificate is for."""
    membership = json.loads((pool.home / "membership.json").read_bytes())
    return Door("127.0.0.1", port, membership["server_name"])


def test_defect_17_the_cas_own_doors_serve_a_renewed_certificate_and_keep_their_callers(
    pool: Pool,
) -> None:
    """Both doors of both gateways; who is connected stays connected, and is served."""
    scale(pool, "gateway = 2")
    eventually(pool.is_ok, within_s=30)
    doors = [door_of(pool, PORT), door_of(pool, PORT + 1)]
    context = own_context(pool)
    kept = [Connection(door, context) for door in doors for _ in range(8)]
    for connection in kept:
        connection.connect()
        assert connection.get("/healthz")[0] == 200
    before = {served_serial(door, context) for door in doors}
    assert len(before) == 1
    pool.certmesh("cert", "renew")

    def moved() -> bool:
        # Which of the two processes answers is chance: all of a dozen must show the new one.
        seen = {served_serial(door, own_context(pool)) for door in doors for _ in range(6)}
        return len(seen) == 1 and not seen & before

    eventually(moved, within_s=20)
    for connection in kept:
        assert connection.get("/healthz")[0] == 200
        connection.close()
