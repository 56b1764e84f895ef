"""A call to a member is over when its time is over, however the member fills it."""

import ssl
from collections.abc import Iterator
from dataclasses import replace

import pytest

from broker.clock import boottime_ms
from broker.errors import PeerUnreachableError
from broker.runtime.paths import Paths
from broker.wire.enrollment import Issued
from broker.wire.mesh_api import RekeyBody
from broker.wire.renewal import RekeyAnswer
from tests.workers.loop_desk import enrol
from tests.workers.small_ca import DOMAIN, SmallCA
from tests.workers.standin import CSR, GOOD, HUNG, MUTE, Manner, StandIn
from workers.keypair import make_key_and_csr
from workers.peer import PeerSession
from workers.transport import context_for

NAME = f"pi.{DOMAIN}"


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """The mesh's CA."""
    return SmallCA()


@pytest.fixture
def standin(ca: SmallCA) -> Iterator[StandIn]:
    """The member `pi`."""
    key, csr = make_key_and_csr("pi")
    first = Issued("1", ca.sign(csr, "pi"), ca.issuing, ca.root, 0, 0, 0)  # type: ignore[arg-type]  # not looked at
    with StandIn(ca.root) as found:
        found.add("pi", NAME, key, first)
        yield found


@pytest.fixture
def session(paths: Paths, ca: SmallCA) -> Iterator[PeerSession]:
    """This node's sessions."""
    with PeerSession(paths, enrol(paths, ca)) as found:
        yield found


def ask(session: PeerSession, standin: StandIn, timeout_s: float) -> RekeyAnswer:
    """Ask `pi` for a key."""
    doors = standin.endpoint("pi", NAME)
    return session.call(doors, "POST", CSR, RekeyBody(1), RekeyAnswer, timeout_s=timeout_s)


@pytest.mark.parametrize(
    "manner",
    [Manner(drip="head"), Manner(drip="body"), HUNG, MUTE],
    ids=["an octet of the head at a time", "of the body", "silence in TLS", "silence before TLS"],
)
def test_no_member_keeps_a_call_for_longer_than_its_deadline(
    session: PeerSession, standin: StandIn, manner: Manner
) -> None:
    """A timeout of a socket is for one read: a slow drip would hold a place for ever."""
    assert ask(session, standin, 5).csr
    standin.manner = lambda _: manner
    began_ms = boottime_ms()
    with pytest.raises(PeerUnreachableError, match=r"in time|did not answer"):
        ask(session, standin, 0.6)
    assert boottime_ms() - began_ms < 1_500


def test_a_slow_answer_inside_its_time_is_taken(session: PeerSession, standin: StandIn) -> None:
    """Each request has an allowance of its own, also on a connection that is kept."""
    standin.manner = lambda _: replace(GOOD, latency_ms=300)
    for _ in range(4):
        assert ask(session, standin, 0.7).csr
    assert standin.members["pi"].asked == 4


def test_every_client_context_makes_timed_sockets(ca: SmallCA) -> None:
    """One that does not would let a drip through."""
    context = context_for(ca.root)
    assert context.sslsocket_class is not ssl.SSLSocket
