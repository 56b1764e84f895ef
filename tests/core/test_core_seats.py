"""Which user may speak as which service: decided on what the kernel says."""

import pytest

from broker.core.remote import RemoteGrant, route_key
from broker.core.seats import LocalPeer, Seats, read_peer, seat_key
from broker.errors import ForbiddenError
from broker.wire.ids import Service

CA, DOORS, OTHERS = 901, 902, 903
SEATS = Seats(
    {service: DOORS if service is Service.GATEWAY else OTHERS for service in Service}
    | {Service.CONSOLE: CA}
)


def test_the_address_of_a_local_connection_names_its_process() -> None:
    """As libzmq 4.3 writes it: localhost:UID:GID:PID."""
    assert read_peer("localhost:901:7:4711") == LocalPeer(901, 4711)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "nobody",
        "192.0.2.1",
        "localhost:901:7",
        "localhost:-1:7:1",
        "localhost:9:9:9:9",
        "a:b:c:d",
    ],
)
def test_what_is_no_such_address_is_nobody(address: str) -> None:
    """Fails closed: nobody is refused every service (row 40)."""
    assert read_peer(address) is None
    with pytest.raises(ForbiddenError):
        SEATS.check(Service.GATEWAY, address)


@pytest.mark.parametrize("service", list(Service))
def test_only_the_user_of_a_service_and_root_may_be_it(service: Service) -> None:
    """A gateway that was taken over is no console, no renewal and no watchdog (row 41) (L6)."""
    mine = {Service.GATEWAY: DOORS, Service.CONSOLE: CA}.get(service, OTHERS)
    for uid in (mine, 0):
        assert SEATS.check(service, f"localhost:{uid}:1:5") == LocalPeer(uid, 5)
    for uid in {CA, DOORS, OTHERS, 1000} - {mine}:
        with pytest.raises(ForbiddenError, match=f"uid {uid} may not be {service}"):
            SEATS.check(service, f"localhost:{uid}:1:5")


def test_everybody_with_business_here_may_connect_and_nobody_else() -> None:
    """What libzmq is told to accept."""
    assert SEATS.everybody == {0, CA, DOORS, OTHERS}


def test_no_choice_of_identity_makes_one_process_look_like_another() -> None:
    """The routing identity is the caller's own word, the process is the kernel's (row 40)."""
    victim = seat_key(b"console/1", "localhost:901:7:10")
    assert seat_key(b"console/1", "localhost:901:7:11") != victim
    assert seat_key(b"0console/1", "localhost:901:7:1") != victim
    assert seat_key(b"0/console/1", "localhost:901:7:1") != victim
    grant = RemoteGrant("g1", "nas", "m1", "ab" * 32)
    assert seat_key(route_key(grant, b"x"), "localhost:901:7:10") != route_key(grant, b"x")
    assert route_key(grant, victim) != victim
