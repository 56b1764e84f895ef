"""Sessions share one TLS context, and all of them follow the live certificate."""

from collections.abc import Iterator

import pytest
from cryptography import x509

from broker.errors import NotAMemberError
from broker.runtime.paths import Paths
from broker.wire.control import Ack
from tests.workers.fake_node import FakeNode
from tests.workers.loop_desk import enrol, write_membership
from tests.workers.small_ca import SmallCA
from workers.certstore import CertificateStore
from workers.peer import PeerSession
from workers.sessions import Open, opener
from workers.transport import context_for


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """The mesh's CA."""
    return SmallCA()


@pytest.fixture
def node(ca: SmallCA) -> Iterator[FakeNode]:
    """Somebody to call."""
    with FakeNode(ca, {("GET", "/x"): lambda _: Ack()}, mutual=True) as found:
        yield found


def shown(session: PeerSession, node: FakeNode) -> str:
    """Call and return the serial that was shown there."""
    session.call(node.endpoint(), "GET", "/x", None, Ack)
    certificate = node.visits[-1].peer
    assert certificate is not None
    return format(x509.load_der_x509_certificate(certificate).serial_number, "x")


def test_a_renewed_certificate_is_shown_by_all_sessions_at_once(
    paths: Paths, ca: SmallCA, node: FakeNode
) -> None:
    """The old one may be revoked by now; a sweep must not go on with it."""
    membership, open_peers = enrol(paths, ca), opener(5)
    store = CertificateStore(paths.certificates, membership.host)
    with open_peers(paths, membership) as first, open_peers(paths, membership) as second:
        before = {shown(first, node), shown(second, node)}
        store.install(ca.sign(store.prepare(), membership.host), ca.issuing, ca.root)
        after = {shown(first, node), shown(second, node)}
        live = store.live()
    assert live is not None
    assert (len(before), after) == (1, {live.serial})
    assert before != after


def test_many_sessions_make_one_context(
    paths: Paths, ca: SmallCA, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making one costs as much as the call itself; a sweep opens a session for each member."""
    made = []

    def counted(*roots: bytes) -> object:
        made.append(roots)
        return context_for(*roots)

    monkeypatch.setattr("workers.peer.context_for", counted)
    membership, open_peers = enrol(paths, ca), opener(5)
    for _ in range(5):
        with open_peers(paths, membership) as session:
            shown(session, node)
    assert len(made) == 1


def test_another_membership_has_credentials_of_its_own(
    paths: Paths, ca: SmallCA, node: FakeNode
) -> None:
    """A node that joined another mesh trusts another root."""
    open_peers: Open = opener(5)
    with open_peers(paths, enrol(paths, ca)) as session:
        assert shown(session, node)
    other = SmallCA("other")
    moved = write_membership(paths, pin=other.pin, root_pem=other.root_pem)
    with open_peers(paths, moved) as session, pytest.raises(Exception, match="not as the node"):
        shown(session, node)


def test_without_a_certificate_nobody_is_called(paths: Paths, ca: SmallCA, node: FakeNode) -> None:
    """And one that comes later is found."""
    membership, open_peers = write_membership(paths, pin=ca.pin, root_pem=ca.root_pem), opener(5)
    with open_peers(paths, membership) as session:
        with pytest.raises(NotAMemberError, match="no usable certificate"):
            shown(session, node)
        enrol(paths, ca)
        assert shown(session, node)
