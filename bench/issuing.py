"""Durable issues per second through the broker over the in-process signing limit."""

import multiprocessing
import os
import statistics
import tempfile
import time

from bench.lone_broker import RawClient, lone_home, make_csr, running_broker
from bench.report import Result, result
from broker.clock import wall_s
from broker.pki.authority import CAProfile, create_authority
from broker.pki.issuer import Issuer
from broker.pki.profile import LeafProfile
from broker.pki.request import parse_request
from broker.runtime.paths import Paths
from broker.runtime.settings import DEFAULT_NAMES, DEFAULT_NETWORKS
from broker.wire.ids import Service
from broker.wire.renewal import RenewalAnswer, RenewWithLease
from broker.wire.work import LeaseWork, RenewMember, WorkAnswer

ROUNDS = 5
LIMIT_COUNT = 600
PLAN = ((1, 1, 300), (16, 1, 60), (4, 64, 400))
"""(clients, requests in flight of each, requests of each) per round."""
NAMES = (
    "issue_1_vs_signing_limit",
    "issue_16_vs_signing_limit",
    "issue_saturated_vs_signing_limit",
)
TARGETS = (0.14, 0.40, 0.55)

Work = list[tuple[int, bytes]]


def measure() -> list[Result]:
    """Return the three ratios; the limit is measured just before each round."""
    per_round = sum(clients * count for clients, _, count in PLAN)
    limits: list[float] = []
    rates: list[list[float]] = [[] for _ in PLAN]
    syncs = [_fsync_ms()]
    with lone_home(per_round * ROUNDS, due=True) as paths, running_broker(paths):
        for _ in range(ROUNDS):
            limits.append(signing_limit())
            for index, plan in enumerate(PLAN):
                rates[index].append(_round(paths, plan))
    syncs.append(_fsync_ms())
    limit = statistics.median(limits)
    disk = f"fsync {syncs[0]:.2f}/{syncs[1]:.2f} ms"
    return [
        result(
            name,
            [rate / own for rate, own in zip(found, limits, strict=True)],
            unit="ratio",
            better="higher",
            target=target,
            note=f"{statistics.median(found):.0f}/s over {limit:.0f}/s, {disk}",
        )
        for name, found, target in zip(NAMES, rates, TARGETS, strict=True)
    ]


def signing_limit() -> float:
    """Return full issues per second of one core: CSR verified, signed, checked, no ledger."""
    now = wall_s()
    profile = CAProfile("ab" * 16, "home", DEFAULT_NAMES, DEFAULT_NETWORKS, 10**8, 10**7)
    made = create_authority(profile, now=now, serials=(1 << 120, (1 << 120) + 1))
    issuer = Issuer.open(root=made.root, issuing=made.issuing, issuing_key=made.issuing_key)
    requests = [make_csr("nas") for _ in range(LIMIT_COUNT)]
    started = time.perf_counter()
    for number, csr in enumerate(requests):
        leaf = LeafProfile(
            serial=(1 << 126) + number,
            host="nas",
            sans=("nas.home.internal", "nas.local"),
            not_before=now - 60,
            not_after=now + 86_400,
            crl_url="https://atlas.home.internal:7642/v1/crl.der",
            mesh_id="ab" * 16,
            member_id="cd" * 16,
        )
        issuer.sign_leaf(parse_request(csr), leaf)
    return LIMIT_COUNT / (time.perf_counter() - started)


def _round(paths: Paths, plan: tuple[int, int, int]) -> float:
    """Return issues per second of one round; keys, CSRs and leases are made beforehand."""
    clients, in_flight, count = plan
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(clients + 1)
    queue: multiprocessing.Queue[tuple[float, float]] = context.Queue()
    processes = [
        context.Process(target=_client, args=(paths, in_flight, count, ready, queue))
        for _ in range(clients)
    ]
    for process in processes:
        process.start()
    ready.wait(120)
    spans = [queue.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(30)
    first, last = min(start for start, _ in spans), max(end for _, end in spans)
    return clients * count / (last - first)


def _client(paths: Paths, in_flight: int, count: int, ready: object, queue: object) -> None:
    client = RawClient(paths, Service.RENEWAL)
    work = _lease(client, count)
    ready.wait(120)  # type: ignore[attr-defined]  # a Barrier of the chosen context
    started = time.perf_counter()
    for lease_id, csr in work[:in_flight]:
        client.send(RenewWithLease(lease_id, csr))
    for lease_id, csr in work[in_flight:]:
        _expect(client)
        client.send(RenewWithLease(lease_id, csr))
    for _ in work[:in_flight]:
        _expect(client)
    queue.put((started, time.perf_counter()))  # type: ignore[attr-defined]  # a Queue
    client.close()


def _expect(client: RawClient) -> None:
    reply = client.receive()
    if not isinstance(reply, RenewalAnswer):
        raise TypeError(f"refused: {reply}")


def _lease(client: RawClient, count: int) -> Work:
    work: Work = []
    while len(work) < count:
        reply = client.ask(LeaseWork())
        if not isinstance(reply, WorkAnswer) or reply.lease is None:
            raise TypeError(f"no lease: {reply}")
        if isinstance(reply.lease.item, RenewMember):
            work.append((reply.lease.lease_id, make_csr(reply.lease.item.host)))
    return work


def _fsync_ms() -> float:
    with tempfile.NamedTemporaryFile(dir="/tmp") as file:
        times = []
        for _ in range(50):
            started = time.perf_counter()
            os.write(file.fileno(), b"x" * 512)
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)
