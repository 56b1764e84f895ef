"""Who works from another machine: the key is the authority, words only have to agree."""

import pytest

from broker.core.capability import CAPABILITIES, EVERYONE
from broker.core.liveness import WorkerTable
from broker.core.remote import (
    RemoteGrant,
    admit,
    instance_of,
    may_send,
    nobody,
    printable,
    refuse_crowd,
    route_key,
)
from broker.errors import BusyError, ForbiddenError, MalformedMessageError, RevokedError
from broker.units import Millis
from broker.wire.authority import LockAuthority
from broker.wire.ids import Service
from broker.wire.liveness import Beat, Ready
from broker.wire.node import GetNode
from broker.wire.renewal import RenewWithLease
from broker.wire.work import LeaseWork

NAS = RemoteGrant("aa" * 16, "nas", "01" * 16, "cc" * 32)
PI = RemoteGrant("bb" * 16, "pi", "02" * 16, "dd" * 32)


def ready(service: Service = Service.REMOTE_RENEWAL, instance: str = "remote-renewal-0") -> Ready:
    """Return a READY."""
    return Ready(service, instance, "boot", 1, 2)


def test_a_broker_without_grants_grants_nothing() -> None:
    """The default must be closed."""
    assert nobody("cc" * 32) is None


def test_a_key_without_a_grant_may_not_even_introduce_itself() -> None:
    """The connection was accepted when the grant lived; the message comes after."""
    with pytest.raises(RevokedError) as refusal:
        admit(None, ready())
    assert "certmesh worker enroll" in refusal.value.hint
    with pytest.raises(RevokedError):
        admit(None, LeaseWork())


@pytest.mark.parametrize("service", [one for one in Service if one is not Service.REMOTE_RENEWAL])
def test_over_curve_nobody_is_a_local_process(service: Service) -> None:
    """A granted machine must not become the console, or the gateway that vouches for peers."""
    with pytest.raises(ForbiddenError):
        admit(NAS, ready(service))
    assert admit(NAS, ready()) is NAS


@pytest.mark.parametrize("name", ["", "a b", "../x", "x/y", "\x1b[2J", "A", "-x", "x" * 65])
def test_a_name_that_does_not_belong_into_a_process_table_is_refused(name: str) -> None:
    """It is shown on terminals, and `/` separates it from its host."""
    with pytest.raises(MalformedMessageError):
        admit(NAS, ready(instance=name))


def test_without_a_granted_key_the_service_may_introduce_itself_and_nothing_else() -> None:
    """Capability by key: on its own machine it belongs to the pool and leases nothing."""
    for kind in CAPABILITIES[Service.REMOTE_RENEWAL] - EVERYONE:
        assert kind.__name__ in {
            *("LeaseWork", "ExtendLease", "CompleteWork", "ReleaseLease", "RenewWithLease")
        }
    service = Service.REMOTE_RENEWAL
    lease, sign = LeaseWork(), RenewWithLease(1, b"csr")
    assert may_send(service, GetNode(), by_key=False)
    assert not may_send(service, lease, by_key=False)
    assert not may_send(service, sign, by_key=False)
    assert may_send(service, lease, by_key=True)
    assert may_send(service, sign, by_key=True)
    assert not may_send(service, LockAuthority("root"), by_key=True)


def test_the_tables_keep_local_and_remote_callers_and_two_grants_apart() -> None:
    """Each side chooses its routing identity freely."""
    local = b"renewal/renewal-0/77/aabbccdd"
    names = {local, route_key(NAS, local), route_key(PI, local), route_key(None, local)}
    assert len(names) == 4
    assert all(name.startswith(b"tcp:") for name in names - {local})
    assert instance_of(NAS, "remote-renewal-0") == "nas/remote-renewal-0"


def test_a_machine_has_a_bounded_number_of_workers() -> None:
    """Each costs memory of the broker."""
    refuse_crowd(63)
    with pytest.raises(BusyError):
        refuse_crowd(64)


def test_words_of_another_machine_cannot_move_the_cursor() -> None:
    """They are shown by `certmesh ps`."""
    assert printable("no route to pi") == "no route to pi"
    assert "\x1b" not in printable("\x1b[2Jall is well")


def _table() -> WorkerTable:
    table = WorkerTable(1000)
    table.welcome(b"local", ready(Service.RENEWAL, "renewal-0"), Millis(0))
    table.welcome(b"remote", ready(), Millis(0), NAS.public_key)
    return table


def test_the_watchdog_is_never_sent_after_a_pid_of_another_machine() -> None:
    """The number means somebody else here, and it would be killed."""
    table = _table()
    table.sweep(Millis(10_000))
    assert {worker.liveness for worker in table.everyone()} == {"dead"}
    assert [worker.identity for worker in table.overdue()] == [b"local"]


def test_a_worker_does_not_replace_one_of_the_same_name_with_another_key() -> None:
    """An earlier life is one of the same machine."""
    table = _table()
    assert table.welcome(b"other", ready(), Millis(0), PI.public_key) == ()
    assert table.welcome(b"here", ready(), Millis(0)) == ()
    assert table.welcome(b"again", ready(), Millis(0), NAS.public_key) == (b"remote",)
    assert table.count(NAS.public_key) == 1
    assert table.count(NAS.public_key, but=b"again") == 0


def test_a_remote_worker_that_left_is_forgotten_at_once() -> None:
    """No supervisor here waits for it, and its goodbyes must not push out local ones."""
    table = _table()
    table.beat(b"remote", Beat(progress=1, within_ms=1), Millis(1))
    table.leave(b"remote")
    table.leave(b"local")
    assert [worker.liveness for worker in table.everyone()] == ["left"]
