"""The port for renewal workers on other machines: real CURVE sockets, and who tries the door."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from broker.core.remote import RemoteGrant, route_key
from broker.errors import (
    ForbiddenError,
    LeaseLostError,
    MalformedMessageError,
    RevokedError,
    StorageError,
    UnavailableError,
    UnregisteredError,
)
from broker.runtime.curve import CurvePair, new_pair
from broker.runtime.sockets import connect_tcp, remote_dealer
from broker.wire.control import Ack, Fault
from broker.wire.ids import Service
from broker.wire.liveness import Beat, BeatAnswer, Welcome
from broker.wire.node import GetNode, NodeView
from broker.wire.renewal import RenewalAnswer, RenewWithLease
from broker.wire.roster import RevokeMember
from broker.wire.work import ExtendLease, LeaseWork, WorkAnswer
from tests.shell.remote_office import HERE, RemoteOffice
from tests.shell.remote_scenes import (
    PLAIN,
    curve_socket,
    lease_to,
    leases,
    only_worker,
    ready,
    reply_to,
    say,
)
from tests.support import eventually, throughout


@pytest.fixture
def office(home: Path) -> Iterator[RemoteOffice]:
    """A broker whose remote port is open."""
    with RemoteOffice(home) as made:
        made.open_port()
        yield made


@pytest.fixture
def context() -> Iterator[PLAIN]:
    """A context whose leaked sockets would hang the test."""
    with zmq.Context() as made:
        yield made


def test_a_granted_worker_is_served_and_known_by_its_machine(office: RemoteOffice) -> None:
    """The name in the process table comes from the grant."""
    with office.link(office.grant("nas")) as link:
        assert link.ask(GetNode(), NodeView).host == "atlas"
        assert office.workers() == {"nas/remote-renewal-0": "ready"}
        link.goodbye("done")
    eventually(lambda: office.workers() == {})


def test_without_the_setting_there_is_no_port_and_no_key(home: Path) -> None:
    """Nothing listens that nobody asked for."""
    with RemoteOffice(home, listen={"workers": ""}) as made:
        with made.local(Service.CONSOLE) as link:
            link.ask(GetNode(), NodeView)
        assert made.visit(lambda state: state.remote_port.port) == 0
    assert not (home / "curve").exists()


def test_a_stranger_with_a_key_of_its_own_does_not_come_in(office: RemoteOffice) -> None:
    """It hears so at once, with what to do (row 40)."""
    with office.link(new_pair()) as link, pytest.raises(ForbiddenError) as refusal:
        link.ask(GetNode(), NodeView)
    assert "certmesh worker enroll" in refusal.value.hint
    assert office.workers() == {}


@pytest.mark.parametrize("mechanism", ["null", "plain"])
def test_who_brings_no_key_does_not_come_in(
    office: RemoteOffice, context: PLAIN, mechanism: str
) -> None:
    """NULL and PLAIN end in the handshake, before a message (row 40)."""
    port, _ = office.open_port()
    with context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.IMMEDIATE, 1)
        if mechanism == "plain":
            dealer.setsockopt(zmq.PLAIN_USERNAME, b"root")
            dealer.setsockopt(zmq.PLAIN_PASSWORD, b"root")
        connect_tcp(dealer, HERE, port)
        throughout(lambda: not dealer.poll(0, zmq.POLLOUT), for_s=0.4)
    assert office.workers() == {}


def test_a_broker_with_another_key_is_not_believed(office: RemoteOffice) -> None:
    """Whoever answers at that address cannot take the requests of this machine."""
    link = office.link(office.grant(), server_key=new_pair().public)
    with link, pytest.raises(UnavailableError, match="handshake") as refusal:
        link.ask(GetNode(), NodeView, timeout_ms=500)
    assert refusal.value.hint
    assert office.workers() == {}


def test_a_public_key_alone_opens_nothing(office: RemoteOffice, context: PLAIN) -> None:
    """The ledger shows public keys to every key holder."""
    granted, thief = office.grant(), new_pair()
    port, server_key = office.open_port()
    claimed = CurvePair(granted.public, thief.secret)
    with remote_dealer(context, claimed, server_key, b"x") as dealer:
        connect_tcp(dealer, HERE, port)
        throughout(lambda: not dealer.poll(0, zmq.POLLOUT), for_s=0.4)


def test_without_its_zap_answerer_the_socket_lets_nobody_in(context: PLAIN) -> None:
    """Libzmq's own default is to let everybody in."""
    from broker.core.zap import DOMAIN  # noqa: PLC0415 (this test alone goes below the listener)
    from broker.runtime.sockets import bind_tcp, remote_router  # noqa: PLC0415 (as above)

    server, client = new_pair(), new_pair()
    with remote_router(context, server, DOMAIN) as router:
        port = bind_tcp(router, HERE, 0)
        with remote_dealer(context, client, server.public, b"x") as dealer:
            connect_tcp(dealer, HERE, port)
            throughout(lambda: not dealer.poll(0, zmq.POLLOUT), for_s=0.4)


def test_the_grant_counts_with_every_message_and_not_with_the_connection(
    office: RemoteOffice,
) -> None:
    """A revocation does not wait for somebody to hang up, and nothing changes after it."""
    pair = office.grant()
    with office.link(pair) as link:
        link.ask(GetNode(), NodeView)
        seen = office.visit(lambda state: state.workers.everyone()[0].seen_ms)
        grant = office.grants.pop(pair.public)
        for request in (GetNode(), LeaseWork(), ExtendLease(1, 1000)):
            with pytest.raises(RevokedError, match="not granted"):
                link.ask(request, NodeView)
        assert office.visit(lambda s: [w.seen_ms for w in s.workers.everyone()]) in ([seen], [])
        office.grants[pair.public] = grant
        link.ask(GetNode(), NodeView)


def test_a_revoked_worker_that_says_nothing_loses_what_it_holds(office: RemoteOffice) -> None:
    """Its members are somebody else's within a second, also when it is silent."""
    pair = office.grant()
    with office.link(pair) as link:
        link.introduce()
        lease_to(office, only_worker(office))
        office.grants.pop(pair.public)
        eventually(lambda: leases(office) == 0, within_s=3)
        assert office.workers() == {}


def test_a_key_under_a_new_grant_begins_anew(office: RemoteOffice) -> None:
    """What was leased under the old grant ended with it."""
    pair = office.grant()
    with office.link(pair) as link:
        link.introduce()
        lease_id = lease_to(office, only_worker(office))
        office.grant("nas", pair=new_pair())
        office.grant("nas", pair)
        with pytest.raises(LeaseLostError):
            link.ask(ExtendLease(lease_id, 1000), Ack)
        eventually(lambda: leases(office) == 0, within_s=3)


def test_what_a_silent_worker_held_under_an_old_grant_is_free(office: RemoteOffice) -> None:
    """Its key is good again, and its old leases are not."""
    pair = office.grant()
    with office.link(pair) as link:
        link.introduce()
        lease_to(office, only_worker(office))
        office.grant("nas", new_pair())
        office.grant("nas", pair)
        eventually(lambda: leases(office) == 0, within_s=3)


def test_a_revoked_key_writes_nothing_into_the_audit_trail(
    office: RemoteOffice, context: PLAIN
) -> None:
    """Least of all in the name of an operator that it made up."""
    pair = office.grant()
    with curve_socket(office, context, pair, b"x") as dealer:
        reply_to(dealer, ready())
        office.grants.pop(pair.public)
        before = office.visit(lambda state: state.ledger.head.sequence)
        reply = reply_to(dealer, RevokeMember("nas", "because", "ann"))
        assert isinstance(reply, Fault)
        assert reply.code == "revoked"
        assert office.visit(lambda state: state.ledger.head.sequence) == before


def test_a_ledger_that_cannot_be_read_turns_nobody_away_for_good(
    office: RemoteOffice, context: PLAIN
) -> None:
    """Neither at the door (300, come again) nor with a message (storage, retryable)."""
    pair = office.grant()

    def broken(_key: str) -> RemoteGrant | None:
        raise StorageError("disk I/O error")

    with curve_socket(office, context, pair, b"x") as dealer:
        reply_to(dealer, ready())
        office.visit(lambda state: setattr(state, "grant_of", broken))
        reply = reply_to(dealer, GetNode())
        assert isinstance(reply, Fault)
        assert reply.code == "storage"
        with office.link(pair) as link:
            with pytest.raises(UnavailableError):
                link.ask(GetNode(), NodeView, timeout_ms=300)
            office.visit(lambda state: setattr(state, "grant_of", office.grants.get))
            assert link.ask(GetNode(), NodeView).host == "atlas"
        assert isinstance(reply_to(dealer, GetNode()), NodeView | Fault)


@pytest.mark.parametrize("service", [one for one in Service if one is not Service.REMOTE_RENEWAL])
def test_a_granted_machine_is_no_local_process(
    office: RemoteOffice, context: PLAIN, service: Service
) -> None:
    """READY as console, renewal or gateway: authority comes from the key."""
    with curve_socket(office, context, office.grant(), b"console/console/1/aa") as dealer:
        reply = reply_to(dealer, ready(service))
        assert isinstance(reply, Fault)
        assert reply.code == "forbidden"
        unknown = reply_to(dealer, GetNode())
        assert isinstance(unknown, Fault)
        assert unknown.code == UnregisteredError.code


def test_on_its_own_machine_the_service_leases_and_signs_nothing(office: RemoteOffice) -> None:
    """Capability by key: a process of the pool has none at its local broker."""
    with office.local(Service.REMOTE_RENEWAL, "remote-renewal-0") as link:
        link.ask(GetNode(), NodeView)
        for request in (LeaseWork(), ExtendLease(1, 1000), RenewWithLease(1, b"csr")):
            with pytest.raises(ForbiddenError):
                link.ask(request, WorkAnswer)
        assert office.workers() == {"remote-renewal-0": "ready"}


def test_an_identity_equal_to_a_local_worker_s_displaces_nobody(
    office: RemoteOffice, context: PLAIN
) -> None:
    """Nor does it inherit a lease, or get an answer that was meant for the other (row 40)."""
    with office.local(Service.RENEWAL, "renewal-0") as local:
        local.introduce()
        identity = only_worker(office)
        lease_id = lease_to(office, identity)
        with curve_socket(office, context, office.grant(), identity) as dealer:
            assert isinstance(reply_to(dealer, ready()), Welcome)
            stolen = reply_to(dealer, ExtendLease(lease_id, 1000))
            assert isinstance(stolen, Fault)
            assert stolen.code == "lease_lost"
            assert local.ask(ExtendLease(lease_id, 60_000), Ack) == Ack()
            assert not dealer.poll(50)
        assert office.workers() == {"renewal-0": "ready", "nas/remote-renewal-0": "ready"}


def test_a_second_connection_with_one_identity_gets_none_of_the_answers(
    office: RemoteOffice, context: PLAIN
) -> None:
    """Also with the same key: two processes, one answer each or none."""
    pair = office.grant()
    with (
        curve_socket(office, context, pair, b"same") as first,
        curve_socket(office, context, pair, b"same") as second,
    ):
        assert isinstance(reply_to(first, ready()), Welcome)
        say(second, GetNode())
        throughout(lambda: not second.poll(0), for_s=0.2)
        assert isinstance(reply_to(first, GetNode()), NodeView)


def test_one_identity_under_two_grants_is_two_workers(office: RemoteOffice, context: PLAIN) -> None:
    """The first leaves, the second comes with the same name: it is not the first."""
    nas, pi = office.grant("nas"), office.grant("pi")
    with curve_socket(office, context, nas, b"same") as dealer:
        reply_to(dealer, ready())
        lease_id = lease_to(office, only_worker(office))

    def taken_over() -> object:
        with curve_socket(office, context, pi, b"same") as again:
            reply = reply_to(again, ready())
            assert isinstance(reply, Welcome)
            return reply_to(again, ExtendLease(lease_id, 1000))

    lost = eventually(taken_over)
    assert isinstance(lost, Fault)
    assert lost.code == "lease_lost"
    assert route_key(office.grants[nas.public], b"same") != route_key(
        office.grants[pi.public], b"same"
    )


def test_a_name_that_could_move_the_cursor_is_refused(office: RemoteOffice, context: PLAIN) -> None:
    """The process table is shown on terminals, and so is what a worker says of itself."""
    with curve_socket(office, context, office.grant(), b"x") as dealer:
        reply = reply_to(dealer, ready(instance="\x1b[2J"))
        assert isinstance(reply, Fault)
        assert reply.code == MalformedMessageError.code
        reply_to(dealer, ready())
        loud = Beat(1, 1000, last_error="\x1b[2Jall is well", state="\u202eok")
        assert isinstance(reply_to(dealer, loud), BeatAnswer)
    beat = office.visit(lambda state: state.workers.everyone()[0].beat)
    assert (beat.last_error + beat.state).isprintable()


def test_renewing_needs_a_lease_of_this_very_connection(office: RemoteOffice) -> None:
    """Another machine's number is no right to a certificate."""
    with office.link(office.grant("nas")) as nas, office.link(office.grant("pi")) as pi:
        nas.introduce()
        lease_id = lease_to(office, only_worker(office))
        pi.introduce()
        with pytest.raises(LeaseLostError):
            pi.ask(RenewWithLease(lease_id, b"csr"), RenewalAnswer)
