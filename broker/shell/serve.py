"""Start and run the broker process: lock, ledger, keys, sockets, loop."""

import os
import random
import secrets
import sys
from functools import partial

import msgspec
import zmq

from broker.clock import boottime_ms, wall_s
from broker.core.lease import LeaseTable
from broker.core.limiter import AttemptLimiter
from broker.core.liveness import WorkerTable
from broker.core.presence import Presence, PresenceTable
from broker.core.seats import Seats
from broker.errors import ConflictError, LedgerDamagedError, StorageError
from broker.ledger.sqlite import Ledger
from broker.runtime.events import EventName
from broker.runtime.exits import Exit
from broker.runtime.files import private_directory
from broker.runtime.logs import log, setup_logs
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.runtime.sockets import control_router, publisher, request_router
from broker.runtime.stop import StopSignal
from broker.runtime.users import service_uids
from broker.shell.attempts import restore_attempts
from broker.shell.batch import Batch
from broker.shell.bundling import restore_follow
from broker.shell.desk import Desk
from broker.shell.grants import living_grant
from broker.shell.listener import remote_listener
from broker.shell.localdoors import local_doors
from broker.shell.lock import only_broker
from broker.shell.loop import Loop
from broker.shell.membership import read_membership
from broker.shell.offloop import OffLoop
from broker.shell.ownhost import own_host
from broker.shell.restored import open_restored
from broker.shell.standing import open_election
from broker.shell.state import BrokerState
from broker.shell.succession import pass_time
from broker.shell.trust import follow_trust
from broker.shell.turns import restore_turns
from broker.shell.unlocking import open_unattended
from broker.shell.vault import load_vault
from broker.shell.verified import open_ledger
from broker.shell.witness import restore_head

LOCAL_BOOT = "boot"


def serve(settings: Settings, paths: Paths) -> int:
    """Run the broker until it is told to stop; return the exit status."""
    setup_logs(settings, "broker")
    try:
        with only_broker(paths.lock):
            _make_run_directory(paths)
            return _serve_locked(settings, paths)
    except (ConflictError, LedgerDamagedError, StorageError) as error:
        sys.stderr.write(f"certmesh broker: {error.detail}. {error.hint}\n")
        log(EventName.CONFIG_REJECTED, detail=error.detail, hint=error.hint)
        return Exit.TEMPORARY if isinstance(error, ConflictError) else Exit.FAILED


def _make_run_directory(paths: Paths) -> None:
    try:
        private_directory(paths.broker_run)
    except OSError as error:
        raise StorageError(
            f"cannot use {paths.broker_run}: {error.strerror}",
            hint="make it writable for this user, or set node.run_dir",
        ) from error


def make_state(settings: Settings, paths: Paths, ledger: Ledger) -> BrokerState:
    """Build the state of one broker lifetime from what is on disk."""
    membership = read_membership(paths)
    boot = int.from_bytes(ledger.local_get(LOCAL_BOOT) or b"\0") + 1
    ledger.begin()
    ledger.local_set(LOCAL_BOOT, boot.to_bytes(8))
    ledger.commit()
    enrollment = settings.enrollment
    state = BrokerState(
        settings=settings,
        paths=paths,
        ledger=ledger,
        boot_id=secrets.token_hex(8),
        started_ms=boottime_ms(),
        workers=WorkerTable(settings.broker.worker_dead_after.ms),
        leases=LeaseTable(boot),
        limiter=AttemptLimiter(enrollment.attempts, enrollment.attempts_wait.ms),
        presence=PresenceTable(_load_presence(ledger)),
        offloop=OffLoop(),
        draw=os.urandom,
        chance=random.random,
        host=membership.host if membership else own_host(settings),
        membership=membership,
        boot=boot,
    )
    state.grant_of = partial(living_grant, state)
    restore_attempts(state)
    restore_turns(state)
    state.keys.vault = load_vault(paths.authority)
    state.follow.term = membership.term if membership else 1
    restore_follow(state)
    restore_head(state)
    follow_trust(state, boottime_ms())
    open_unattended(state, os.environ)
    open_restored(state)
    _take_up_role(state)
    return state


def _take_up_role(state: BrokerState) -> None:
    """Take up the last role, one step of the election included: a lone primary serves at once."""
    now_ms = boottime_ms()
    open_election(state, now_ms)
    batch = Batch(state.ledger, wall_s(), lambda: state.serves)
    try:
        pass_time(state, batch, now_ms)
        batch.commit()
    except StorageError:
        # A full disk keeps nobody from reading; roles and rows wait for the next tick.
        batch.rollback()
    else:
        for effect in batch.after_commit:
            effect()


def _serve_locked(settings: Settings, paths: Paths) -> int:
    ledger = open_ledger(paths, node=own_host(settings))
    state = make_state(settings, paths, ledger)
    seats = Seats(service_uids(settings.users))
    with StopSignal() as stop, zmq.Context() as context:
        control = control_router(context, paths.control_socket, seats.everybody)
        requests = request_router(context, paths.requests_socket, seats.everybody)
        events = publisher(context, paths.events_socket, seats.everybody)
        log(EventName.BROKER_STARTED, role=state.role, ca=state.keys.state)
        try:
            files = {
                paths.control_socket: control,
                paths.requests_socket: requests,
                paths.events_socket: events,
            }
            with remote_listener(state) as remote, local_doors(context, files) as doors:
                sockets = {"control": control, "requests": requests, "events": events}
                Loop(Desk(state, seats), **sockets, remote=remote, doors=doors).run(stop)
        finally:
            for socket in (control, requests, events):
                socket.close()
            ledger.close()
    log(EventName.PROCESS_STOPPING, reason="asked to stop")
    return Exit.OK


def _load_presence(ledger: Ledger) -> dict[str, Presence]:
    return {
        member_id: msgspec.msgpack.decode(raw, type=Presence)
        for member_id, raw in ledger.presence_load().items()
    }
