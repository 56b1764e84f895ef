"""A sweep of real processes: members that hang, workers that freeze or die in the middle."""

import hashlib
import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.client import Link
from broker.runtime.events import EventName
from broker.runtime.paths import Paths, node_paths
from broker.runtime.settings import load_settings
from broker.units import UnixSeconds
from broker.wire.ids import Service
from broker.wire.renewal import RenewalAnswer, RenewAsPeer
from broker.wire.roster import GetMember, MemberView, Peer
from tests.faults.pool import Pool
from tests.support import eventually
from tests.workers.standin import (
    DRIPPING,
    GOOD,
    HALF,
    HUNG,
    INSTALL,
    MUTE,
    REFUSING,
    Manner,
    Member,
    StandIn,
)
from workers.membership import load_membership

PORT = 24840
DUE_AT_ONCE = 0.0001
"""Of an hour: within a second of the issue."""
ONCE_MORE = 0.9
SETTINGS = (
    'policy.leaf_lifetime="1h"',
    f"policy.renew_at={DUE_AT_ONCE}",
    "renewal.jitter=0.0",
    'renewal.backoff_min="1s"',
    'renewal.backoff_max="2s"',
    'renewal.peer_timeout="2s"',
)
SLOW = replace(GOOD, latency_ms=1_500)
CUT = Manner(cuts=frozenset({INSTALL}))
pytestmark = [pytest.mark.faults, pytest.mark.mesh, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """A running CA whose renewal workers are started by the tests."""
    found = Pool.create(PORT, *SETTINGS)
    try:
        found.certmesh("up")
        eventually(lambda: len(found.pids()) > 8, within_s=30)
        # A frozen process is a matter of the leases here, not of the watchdog.
        found.supervisorctl("stop", "watchdog", "renewal:*")
        yield found
    finally:
        found.remove()


@pytest.fixture
def members(pool: Pool) -> Iterator[StandIn]:
    """Members that are played by this process."""
    membership = load_membership(paths_of(pool))
    assert membership is not None
    root = x509.load_pem_x509_certificate(membership.root_pem.encode())
    with StandIn(root.public_bytes(Encoding.DER)) as found:
        yield found
        pool.supervisorctl("stop", "renewal:*")
        for host in found.members.keys() - set(found.renewed()):
            pool.certmesh("member", "revoke", host, "--yes")


def paths_of(pool: Pool) -> Paths:
    """Return where the node's files are."""
    file = pool.home / "certmesh.toml"
    return node_paths(file, load_settings(file))


def due(pool: Pool, members: StandIn, *hosts: str) -> list[str]:
    """Enroll members that are due now; what they get next lasts."""
    pool.certmesh("ca", "policy", "set", f"renew_at={DUE_AT_ONCE}")
    members.join(paths_of(pool), hosts)
    pool.certmesh("ca", "policy", "set", f"renew_at={ONCE_MORE}")
    return sorted(hosts)


def named(prefix: str, count: int) -> list[str]:
    """Return host names."""
    return [f"{prefix}{number:02}" for number in range(count)]


def start(pool: Pool, *numbers: int) -> list[int]:
    """Start renewal workers and return their pids."""
    for number in numbers:
        pool.supervisorctl("start", f"renewal:renewal-{number}")
    return [eventually(lambda n=n: pool.pids().get(f"renewal-{n}")) for n in numbers]  # type: ignore[misc]  # each its own


def shown(pool: Pool, host: str) -> MemberView:
    """Return what the CA knows of a member; a command for each would take minutes."""
    with Link(paths_of(pool), Service.CONSOLE, "look") as console:
        return console.ask(GetMember(host), MemberView)


def certificates(pool: Pool, host: str) -> int:
    """Return how many certificates the CA ever issued to a member."""
    return len(shown(pool, host).certificates)


def issued_once(pool: Pool, members: StandIn, hosts: list[str]) -> bool:
    """Whether each member has the one it joined with and one more, and serves that."""
    counts = {host: certificates(pool, host) for host in hosts}
    assert set(counts.values()) == {2}, counts
    return all(len(set(members.members[host].installed)) == 1 for host in hosts)


def test_a_frozen_worker_loses_its_members_to_another_and_is_refused_when_it_thaws(
    pool: Pool, members: StandIn
) -> None:
    """SIGSTOP is the nasty case: the process is alive, holds its leases, and is wrong (row 5)."""
    hosts = due(pool, members, *named("froz", 12))
    members.manner = lambda _: SLOW
    (frozen,) = start(pool, 0)
    eventually(lambda: sum(one.asked for one in members.members.values()) >= 8, within_s=20)
    os.kill(frozen, signal.SIGSTOP)
    try:
        held = [host for host in hosts if members.members[host].asked]
        assert members.renewed() == []
        members.manner = lambda _: GOOD
        start(pool, 1)
        eventually(lambda: members.renewed() == hosts, within_s=40)
        said = pool.log("renewal-0").count(EventName.CERTIFICATE_RENEWAL_SKIPPED.value)
    finally:
        os.kill(frozen, signal.SIGCONT)

    def refused() -> bool:
        log = pool.log("renewal-0")
        return log.count(EventName.CERTIFICATE_RENEWAL_SKIPPED.value) - said >= len(held) >= 8

    eventually(refused, within_s=20)
    assert issued_once(pool, members, hosts)
    assert "lease" in pool.log("renewal-0")


def test_a_worker_killed_in_the_middle_costs_nobody_a_second_certificate(
    pool: Pool, members: StandIn
) -> None:
    """Some had a key made, some a certificate signed, some one delivered: each goes on there.

    (rows 5, 6)
    """
    hosts = due(pool, members, *named("kill", 16))
    members.manner = lambda _: replace(GOOD, latency_ms=300)
    before, _ = start(pool, 0, 1)
    eventually(members.renewed, within_s=20)
    os.kill(before, signal.SIGKILL)
    eventually(lambda: pool.pids().get("renewal-0", before) != before, within_s=20)
    eventually(lambda: members.renewed() == hosts, within_s=40)
    assert issued_once(pool, members, hosts)


def test_hung_members_of_every_kind_keep_none_of_the_others_waiting(
    pool: Pool, members: StandIn
) -> None:
    """They cost one place each, for their deadline; in the end they are renewed too.

    (row 33, P10)
    """
    kinds = {"stuck0": MUTE, "stuck1": HUNG, "stuck2": DRIPPING, "stuck3": REFUSING}
    members.manner = lambda host: kinds.get(host, GOOD)
    due(pool, members, *kinds)
    # The hung ones are due for longest: they are called first.
    healthy = due(pool, members, *named("well", 40))
    start(pool, 0)
    eventually(lambda: members.renewed() == healthy, within_s=30)
    for host in kinds:
        eventually(lambda host=host: last_error(pool, host), within_s=20)  # type: ignore[misc]  # each its own
    assert {last_error(pool, host) for host in healthy} == {""}
    del kinds["stuck1"], kinds["stuck2"], kinds["stuck3"]
    eventually(lambda: len(members.renewed()) == 43, within_s=30)
    assert issued_once(pool, members, [*healthy, "stuck1", "stuck2", "stuck3"])
    assert certificates(pool, "stuck0") == 1


def last_error(pool: Pool, host: str) -> str:
    """Return why the last attempt for a member failed."""
    return shown(pool, host).member.last_error


def test_a_member_that_gives_a_key_and_takes_no_certificate_gets_the_same_one_later(
    pool: Pool, members: StandIn
) -> None:
    """It has failed, and says why; no later attempt makes a second certificate for the key."""
    members.manner = lambda _: CUT
    due(pool, members, "half")
    start(pool, 0, 1)
    assert "without an answer" in eventually(lambda: last_error(pool, "half"), within_s=20)
    assert members.members["half"].installed == []
    assert certificates(pool, "half") == 2
    first, again = (pull(pool, members.members["half"]) for _ in range(2))
    assert first == again != members.members["half"].serial
    assert certificates(pool, "half") == 2


def pull(pool: Pool, member: Member) -> str:
    """Ask for a renewal as the member does, with the key that waits; return the serial."""
    assert member.pending is not None
    old = x509.load_pem_x509_certificate(member.chain)
    ends = UnixSeconds(int(old.not_valid_after_utc.timestamp()))
    digest = hashlib.sha256(old.public_bytes(Encoding.DER)).hexdigest()
    request = RenewAsPeer(Peer(member.serial, member.host, digest, ends), member.pending[1])
    with Link(paths_of(pool), Service.GATEWAY, "pull") as gateway:
        return gateway.ask(request, RenewalAnswer).issued.serial


def test_a_delivery_without_an_answer_leaves_the_others_their_places(
    pool: Pool, members: StandIn
) -> None:
    """A member may take two minutes to install; a stop of the worker does not wait for it."""
    members.manner = lambda host: HALF if host == "mute" else GOOD
    due(pool, members, "mute")
    healthy = due(pool, members, *named("more", 20))
    (worker,) = start(pool, 0)
    eventually(lambda: members.renewed() == healthy, within_s=40)
    eventually(lambda: members.members["mute"].asked == 2, within_s=20)
    os.kill(worker, signal.SIGTERM)
    # Far less than the two minutes that the delivery may take.
    eventually(lambda: pool.pids().get("renewal-0", worker) != worker, within_s=20)
    assert issued_once(pool, members, healthy)
    assert certificates(pool, "mute") == 2


def test_a_broker_killed_in_the_middle_of_a_sweep_signs_nothing_twice(
    pool: Pool, members: StandIn
) -> None:
    """Its leases are over with it; what it had signed is answered again for the same key (P6)."""
    hosts = due(pool, members, *named("dead", 24))
    members.manner = lambda _: replace(GOOD, latency_ms=200)
    workers = start(pool, 0, 1)
    eventually(members.renewed, within_s=20)
    os.kill(pool.pids()["broker"], signal.SIGKILL)

    def settled() -> bool:
        undelivered = set(hosts) - set(members.renewed())
        return all(certificates(pool, host) == 2 for host in undelivered)

    eventually(lambda: pool.run("ca", "show").returncode == 0, within_s=30)
    eventually(settled, within_s=40)
    for host in sorted(set(hosts) - set(members.renewed())):
        pull(pool, members.members[host])
    assert {certificates(pool, host) for host in hosts} == {2}
    assert [pool.pids()[f"renewal-{number}"] for number in (0, 1)] == workers
