"""What failover costs: a change on the standby, catching up, a hand-over, a crash."""

import fcntl
import hashlib
import os
import secrets
import signal
import time
import zlib
from functools import partial

from bench.lone_broker import RawClient, enroll_members, make_csr
from bench.pair import GRACE_MS, TICK_MS, Box, expect, three_boxes, until, view
from bench.report import Result, result
from broker.ledger.lines import line_of
from broker.ledger.sqlite import Ledger
from broker.units import UnixSeconds
from broker.wire.codec import encode_body
from broker.wire.enrollment import (
    CreateInvite,
    EnrollmentView,
    InviteView,
    Join,
    JoinAnswer,
    SetEnrollment,
)
from broker.wire.ids import Service
from broker.wire.node import ListWorkers, WorkersView
from broker.wire.renewal import RenewalAnswer, RenewAsPeer
from broker.wire.replica import PAGE_BYTES_MAX
from broker.wire.roster import Peer
from broker.wire.standby import ListStandbys, StandbysView, StepDown, StepDownAnswer

CHANGES = 20
HANDOVERS = 5
CRASHES = 5
CATCH_UPS = 5
MISSED = 1_000
MEMBERS = 100_000


def measure() -> list[Result]:
    """Return the figures of replication and of both kinds of takeover."""
    with three_boxes() as (atlas, birch, _cedar):
        lags = [_lag_ms(atlas, birch, number) for number in range(CHANGES)]
        handovers = _hand_over(atlas, birch)
        crashes = _crash(atlas, birch)
        copied_s, seconds, megabytes = _catch_up(*_leading(atlas, birch))
    grown = f"{MEMBERS} members"
    return [
        result("standby_lag_ms", lags, unit="ms", better="lower", target=250),
        result("handover_s", handovers, unit="s", better="lower", target=3),
        result(
            "failover_ticks_after_grace",
            crashes,
            unit="ticks",
            better="lower",
            target=3,
            note=f"grace {GRACE_MS} ms, tick {TICK_MS} ms",
        ),
        result("catchup_1000_s", seconds, unit="s", better="lower", target=2, note=grown),
        result("catchup_1000_mb", megabytes, unit="MB", better="lower", target=2, note=grown),
        result("first_copy_100k_s", [copied_s], unit="s", better="lower", note=grown),
    ]


def _lag_ms(primary: Box, standby: Box, number: int) -> float:
    """Return how long after its request a change is durable on the standby."""
    writer, reader = primary.client(), standby.client()
    began = time.perf_counter()
    expect(writer.ask(SetEnrollment(number % 2 == 0, "bench")), EnrollmentView)
    wanted = view(writer).sequence
    done = until(lambda: view(reader).sequence >= wanted, "the change on the standby")
    writer.close()
    reader.close()
    return (done - began) * 1000


def _hand_over(atlas: Box, birch: Box) -> list[float]:
    """Return seconds from the last answer of the old primary to the first issue of the new."""
    took = []
    for number in range(HANDOVERS):
        old, new = (atlas, birch) if number % 2 == 0 else (birch, atlas)
        _await_ready(old, new)
        before, after = old.client(), new.client()
        expect(before.ask(StepDown("bench")), StepDownAnswer)
        last = time.perf_counter()
        until(partial(_serves, after), "the new primary")
        took.append(_issue(new) - last)
        before.close()
        after.close()
    return took


def _crash(atlas: Box, birch: Box) -> list[float]:
    """Return ticks beyond the grace from a power cut to the first issue of the heir."""
    took = []
    for _ in range(CRASHES):
        old, new = _leading(atlas, birch)
        _await_ready(old, new)
        client = new.client()
        began = time.perf_counter()
        old.kill()
        until(partial(_serves, client), "the heir")
        took.append(((_issue(new) - began) * 1000 - GRACE_MS) / TICK_MS)
        client.close()
        old.certmesh("up")
    return took


def _catch_up(primary: Box, standby: Box) -> tuple[float, list[float], list[float]]:
    """Return seconds of the first copy, and seconds and megabytes of each catch-up."""
    _await_ready(primary, standby)
    peers = _grow(primary, standby)
    writer, reader, door = primary.client(), standby.client(), primary.client(Service.GATEWAY)
    began = time.perf_counter()
    done = until(lambda: _in_step(writer, reader), "the first copy")
    seconds, megabytes = [], []
    for number in range(CATCH_UPS):
        worker = _worker_pid(reader, "roster-sync")
        os.kill(worker, signal.SIGSTOP)
        before = view(writer).sequence
        for peer in peers[number * MISSED : (number + 1) * MISSED]:
            expect(door.ask(RenewAsPeer(peer, make_csr(peer.host))), RenewalAnswer)
        megabytes.append(_transfer_mb(primary, before))
        began_one = time.perf_counter()
        os.kill(worker, signal.SIGCONT)
        seconds.append(until(lambda: _in_step(writer, reader), "the missed rows") - began_one)
    for client in (writer, reader, door):
        client.close()
    return done - began, seconds, megabytes


def _grow(primary: Box, standby: Box) -> list[Peer]:
    """Enroll many members while both are down; return some of them as peers."""
    standby.certmesh("down")
    primary.kill()
    until(lambda: not _lives(primary), "the primary's end")
    enroll_members(primary.paths, MEMBERS, due=False)
    ledger = Ledger.open(primary.paths.ledger, node=primary.name)
    page = ledger.members_page("m", MISSED * CATCH_UPS)
    peers = [
        Peer(row.serial, member.host, row.fingerprint, UnixSeconds(row.not_after))
        for member, row in page
        if row is not None
    ]
    ledger.close()
    primary.certmesh("up")
    client = primary.client()
    until(partial(_serves, client), "the primary again")
    client.close()
    standby.certmesh("up")
    return peers


def _serves(client: RawClient) -> bool:
    return view(client).phase == "serving"


def _lives(box: Box) -> bool:
    return (box.paths.run / "supervisord.pid").exists() and _broker_holds(box)


def _broker_holds(box: Box) -> bool:
    """Whether a broker still has the lock of the data directory."""
    with box.paths.lock.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _in_step(writer: RawClient, reader: RawClient) -> bool:
    return view(reader).sequence >= view(writer).sequence


def _transfer_mb(primary: Box, after: int) -> float:
    """Return the bytes of the pages that bring a standby from row `after` to the end."""
    ledger = Ledger.open(primary.paths.ledger, node=primary.name)
    try:
        rows, packed = ledger.rows_after(after, PAGE_BYTES_MAX), 0
        while rows:
            packed += len(zlib.compress(b"".join(encode_body(line_of(row)) for row in rows), 1))
            rows = ledger.rows_after(rows[-1].sequence, PAGE_BYTES_MAX)
    finally:
        ledger.close()
    return packed / 1_000_000


def _issue(box: Box) -> float:
    """Let a stranger join here; return when it had its certificate."""
    host, secret = f"x{secrets.token_hex(4)}", secrets.token_hex(16)
    console, door = box.client(), box.client(Service.GATEWAY)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    expect(console.ask(CreateInvite(digest, host, (), 600, "bench")), InviteView)
    join = Join(
        host=host,
        csr=make_csr(host),
        sans=(),
        invite_secret=secret,
        totp_code="",
        ticket_hash=digest,
        nonce="00" * 16,
        addresses=("127.0.0.9",),
        mesh_port=7643,
        enroll_port=7642,
        source="127.0.0.9",
    )
    expect(door.ask(join), JoinAnswer)
    done = time.perf_counter()
    console.close()
    door.close()
    return done


def _leading(one: Box, other: Box) -> tuple[Box, Box]:
    """Return who serves and who follows."""
    client = one.client()
    until(lambda: view(client).role in ("primary", "standby"), "a role")
    leads = view(client).phase == "serving"
    client.close()
    return (one, other) if leads else (other, one)


def _await_ready(primary: Box, standby: Box) -> None:
    """Wait until the standby could take over at once."""
    client = primary.client()

    def is_ready() -> bool:
        reply = client.ask(ListStandbys())
        if not isinstance(reply, StandbysView):
            return False
        return any((line.host, line.state) == (standby.name, "ready") for line in reply.lines)

    until(is_ready, f"{standby.name} ready")
    client.close()


def _worker_pid(client: RawClient, instance: str) -> int:
    workers = expect(client.ask(ListWorkers()), WorkersView).workers
    return next(w.pid for w in workers if w.instance == instance and w.pid > 1)
