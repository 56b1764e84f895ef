"""Calls between nodes: who may be believed, and what every trouble is called."""

import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
import requests

from broker.errors import (
    CALockedError,
    MalformedMessageError,
    NoMeshError,
    NotAMemberError,
    NotPrimaryError,
    OversizedMessageError,
    PeerUnreachableError,
    PinMismatchError,
    ThrottledError,
)
from broker.runtime.paths import Paths
from broker.wire.control import Ack
from broker.wire.mesh_api import InstalledBody
from broker.wire.node import Endpoint, Membership
from broker.wire.replica import ReplicaBody
from broker.wire.roster import WhoAmIAnswer
from tests.support import eventually
from tests.workers.fake_node import FakeNode, Page, Table, Visit
from tests.workers.small_ca import DOMAIN, SmallCA, pem
from workers.certstore import CertificateStore
from workers.membership import load_membership
from workers.peer import (
    ElsewhereError,
    PeerSession,
    PinnedSession,
    fetch_root,
    probe_root,
)
from workers.transport import ANSWER_BYTES_MAX, Ask, context_for, open_session, reason_of

ME = WhoAmIAnswer(host="nas", member_id="ab", role="member", serial="1", state="active")
WHOAMI: Table = {("GET", "/v1/whoami"): lambda _: ME}


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """The mesh's CA."""
    return SmallCA()


@pytest.fixture(scope="module")
def evil() -> SmallCA:
    """Somebody else's CA."""
    return SmallCA("evil")


@pytest.fixture
def atlas(ca: SmallCA) -> Iterator[FakeNode]:
    """The primary's mesh port."""
    with FakeNode(ca, WHOAMI, mutual=True) as node:
        yield node


def enrolled(paths: Paths, ca: SmallCA, endpoint: Endpoint) -> Membership:
    """Give this node a certificate and a membership."""
    store = CertificateStore(paths.certificates, "nas")
    renew(store, ca)
    membership = Membership(
        mesh_id="01",
        mesh_name="test",
        pin=ca.pin,
        root_pem=ca.root_pem,
        host="nas",
        member_id="ab",
        server_name=f"nas.{DOMAIN}",
        primary=endpoint,
    )
    paths.membership.write_bytes(msgspec.json.encode(membership))
    return membership


def renew(store: CertificateStore, ca: SmallCA) -> str:
    """Install a fresh certificate and return its serial."""
    return store.install(ca.sign(store.prepare(), "nas"), ca.issuing, ca.root).serial


@pytest.fixture
def session(paths: Paths, ca: SmallCA, atlas: FakeNode) -> Iterator[PeerSession]:
    """This node's calls."""
    with PeerSession(paths, enrolled(paths, ca, atlas.endpoint()), timeout_s=3) as found:
        yield found


def whoami(session: PeerSession, endpoint: Endpoint) -> WhoAmIAnswer:
    """Ask the simplest question."""
    return session.call(endpoint, "GET", "/v1/whoami", None, WhoAmIAnswer)


def test_a_call_shows_the_live_certificate_and_returns_the_answer(
    session: PeerSession, atlas: FakeNode
) -> None:
    """The main path."""
    assert whoami(session, atlas.endpoint()) == ME
    assert atlas.visits[0].peer is not None


def test_one_connection_serves_many_calls(session: PeerSession, atlas: FakeNode) -> None:
    """A new connection per call is six times slower."""
    for _ in range(3):
        whoami(session, atlas.endpoint())
    assert atlas.handshakes == 1


def test_after_a_renewal_the_next_call_shows_the_new_certificate(
    session: PeerSession, atlas: FakeNode, paths: Paths, ca: SmallCA
) -> None:
    """A session of requests keeps the old client certificate until it is closed."""
    whoami(session, atlas.endpoint())
    renew(CertificateStore(paths.certificates, "nas"), ca)
    whoami(session, atlas.endpoint())
    first, second = (visit.peer for visit in atlas.visits)
    assert first != second


def test_exactly_one_root_is_trusted_whatever_the_environment_says(
    ca: SmallCA, evil: SmallCA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself requests adds 170 public roots, or takes REQUESTS_CA_BUNDLE instead of ours."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(pem(evil.root))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(bundle))
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    context = context_for(ca.root)
    with FakeNode(ca, WHOAMI) as node, open_session(context, f"atlas.{DOMAIN}") as session:
        assert session.get(f"{node.url}/v1/whoami", timeout=3).status_code == 200
    assert [item["subject"] for item in context.get_ca_certs()] == [
        ((("commonName", "test root"),),)
    ]


def test_a_proxy_in_the_environment_is_not_asked(
    ca: SmallCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LAN traffic has no business at a proxy."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with (
        FakeNode(ca, WHOAMI) as node,
        PinnedSession(ca.root, server_name=f"atlas.{DOMAIN}") as session,
    ):
        assert session.get([f"{node.url}/v1/whoami"], WhoAmIAnswer) == ME


def test_plain_http_is_impossible(ca: SmallCA) -> None:
    """Not even by a redirect or a typing error."""
    with (
        open_session(context_for(ca.root), None) as session,
        pytest.raises(requests.exceptions.InvalidSchema),
    ):
        session.get("http://127.0.0.1:9/", timeout=1)


def test_a_member_that_answers_at_the_primarys_address_is_not_the_primary(
    session: PeerSession, ca: SmallCA
) -> None:
    """It chains to the root, but proves another name."""
    with FakeNode(ca, WHOAMI, host="pi", mutual=True) as pi:
        elsewhere = msgspec.structs.replace(pi.endpoint(), server_name=f"atlas.{DOMAIN}")
        with pytest.raises(PeerUnreachableError, match="not as the node it should be"):
            whoami(session, elsewhere)
    assert pi.visits == []


def test_a_server_of_another_ca_is_not_believed(session: PeerSession, evil: SmallCA) -> None:
    """Right name, wrong root."""
    with (
        FakeNode(evil, WHOAMI) as node,
        pytest.raises(PeerUnreachableError, match="not as the node it should be"),
    ):
        whoami(session, node.endpoint())
    assert node.visits == []


def test_addresses_are_tried_in_order_until_one_answers(
    session: PeerSession, atlas: FakeNode
) -> None:
    """A host has several addresses, and some of them are dead."""
    assert whoami(session, atlas.endpoint("127.0.0.9", "127.0.0.1")) == ME


def test_when_no_address_answers_the_error_lists_what_was_tried(session: PeerSession) -> None:
    """The operator needs the addresses, not a stack trace."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    endpoint = Endpoint("atlas", ("127.0.0.1", "::1"), port, port, f"atlas.{DOMAIN}")
    with pytest.raises(PeerUnreachableError) as caught:
        whoami(session, endpoint)
    assert f"127.0.0.1:{port} refused the connection" in caught.value.detail
    assert f"[::1]:{port}" in caught.value.detail
    assert caught.value.hint


def test_a_certificate_the_peer_does_not_accept_is_explained(
    paths: Paths, ca: SmallCA, evil: SmallCA
) -> None:
    """Other clients say 'empty reply'; our own client must say what it means."""
    with FakeNode(ca, WHOAMI, mutual=True) as node:
        enrolled(paths, evil, node.endpoint())
        membership = msgspec.structs.replace(
            enrolled(paths, evil, node.endpoint()), pin=ca.pin, root_pem=ca.root_pem
        )
        # Whether the alert or the reset arrives first is a race that nobody controls.
        with (
            PeerSession(paths, membership, timeout_s=3) as session,
            pytest.raises(
                (NotAMemberError, PeerUnreachableError),
                match="expired, revoked or from another mesh",
            ),
        ):
            whoami(session, node.endpoint())
    assert node.visits == []


@pytest.mark.parametrize("alert", ["TLSV13_ALERT_CERTIFICATE_REQUIRED", "ALERT_UNKNOWN_CA"])
def test_an_alert_about_our_certificate_is_a_refusal_and_not_a_dead_address(alert: str) -> None:
    """Trying the next address would only be refused again."""
    ask = Ask("GET", None, 1, {}, shows_certificate=True)
    error = requests.exceptions.SSLError(f"[SSL: {alert}] alert (_ssl.c:2580)")
    with pytest.raises(NotAMemberError, match="expired, revoked or from another mesh") as caught:
        reason_of(error, ask)
    assert "certmesh doctor" in caught.value.hint


def test_a_connection_cut_without_an_answer_names_the_likely_reason(
    session: PeerSession, atlas: FakeNode
) -> None:
    """Some servers close before their TLS alert gets out."""
    atlas.table["GET", "/v1/whoami"] = lambda _: None
    with pytest.raises(PeerUnreachableError, match=r"closed the connection .* revoked"):
        whoami(session, atlas.endpoint())


def test_without_a_certificate_no_call_is_made(paths: Paths, ca: SmallCA, atlas: FakeNode) -> None:
    """An anonymous call could only be refused."""
    membership = enrolled(paths, ca, atlas.endpoint())
    (paths.certificates / "nas" / "live").unlink()
    with PeerSession(paths, membership) as session, pytest.raises(NotAMemberError):
        whoami(session, atlas.endpoint())
    assert atlas.handshakes == 0


def test_a_problem_becomes_the_error_of_its_code(session: PeerSession, atlas: FakeNode) -> None:
    """Callers decide by class."""

    def locked(_: Visit) -> None:
        raise CALockedError("the issuing key is sealed", hint="certmesh ca unlock")

    atlas.table["POST", "/v1/installed"] = locked
    body = InstalledBody(serial="ab", state="served")
    with pytest.raises(CALockedError, match="sealed") as caught:
        session.call(atlas.endpoint(), "POST", "/v1/installed", body, Ack)
    assert caught.value.hint == "certmesh ca unlock"


def test_retry_after_reaches_the_caller(session: PeerSession, atlas: FakeNode) -> None:
    """Seconds in the header, milliseconds in the error."""

    def busy(_: Visit) -> None:
        raise ThrottledError("too many", retry_after_ms=7000)

    atlas.table["GET", "/v1/whoami"] = busy
    with pytest.raises(ThrottledError) as caught:
        whoami(session, atlas.endpoint())
    assert caught.value.retry_after_ms == 7000


def test_a_node_that_is_not_the_primary_says_who_is(session: PeerSession, atlas: FakeNode) -> None:
    """A joiner follows once."""

    def moved(_: Visit) -> None:
        raise NotPrimaryError("ask nas")

    atlas.primary = Endpoint("nas", ("127.0.0.2",), 1, 2, f"nas.{DOMAIN}")
    atlas.table["GET", "/v1/whoami"] = moved
    with pytest.raises(ElsewhereError) as caught:
        whoami(session, atlas.endpoint())
    assert caught.value.primary == atlas.primary


@pytest.mark.parametrize(
    "page",
    [
        Page(b"", 302, {"Location": "https://example.org/"}),
        Page(b"<html>", 502),
        Page(b'{"type":"","title":"","status":403,"code":"no_such","detail":""}', 403),
        Page(b"[" * 100_000, 200),
        Page(b'{"kind":"ack"}', 200),
        Page(b"\xff\xfe", 200),
    ],
)
def test_an_answer_of_another_shape_is_malformed(
    session: PeerSession, atlas: FakeNode, page: Page
) -> None:
    """No redirect is followed, nothing unknown is guessed."""
    atlas.table["GET", "/v1/whoami"] = lambda _: page
    with pytest.raises(MalformedMessageError):
        whoami(session, atlas.endpoint())


def test_an_endless_answer_is_cut(session: PeerSession, atlas: FakeNode) -> None:
    """A hostile peer must not fill our memory (row 33, P10)."""
    atlas.table["GET", "/v1/whoami"] = lambda _: b"x" * (ANSWER_BYTES_MAX + 1)
    with pytest.raises(OversizedMessageError):
        whoami(session, atlas.endpoint())


def test_a_silent_peer_costs_the_timeout_and_no_more(session: PeerSession) -> None:
    """The loop must go on (row 33, P10)."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        endpoint = Endpoint("atlas", ("127.0.0.1",), port, port, f"atlas.{DOMAIN}")
        with pytest.raises(PeerUnreachableError, match="did not answer"):
            session.call(endpoint, "GET", "/v1/whoami", None, WhoAmIAnswer, timeout_s=0.3)


def test_octets_are_fetched_and_nothing_new_is_empty(session: PeerSession, atlas: FakeNode) -> None:
    """The signed bundle is no JSON; 304 says that ours is the newest."""
    atlas.table["GET", "/v1/bundle"] = lambda visit: (
        Page(status=304) if visit.path.endswith("after=5") else b"\x01\x02"
    )
    assert session.fetch(atlas.endpoint(), "/v1/bundle?after=4") == b"\x01\x02"
    assert session.fetch(atlas.endpoint(), "/v1/bundle?after=5") == b""


def test_a_question_for_octets_may_have_a_body(session: PeerSession, atlas: FakeNode) -> None:
    """Rows are asked for with the place up to which the caller has them."""
    atlas.table["POST", "/v1/replica/events"] = lambda visit: visit.body[::-1]
    body = ReplicaBody(locator=(), wait_ms=7)

    octets = session.fetch(atlas.endpoint(), "/v1/replica/events", body, timeout_s=5)

    assert msgspec.json.decode(octets[::-1], type=ReplicaBody) == body


def test_a_call_that_waits_can_be_ended_from_another_thread(
    session: PeerSession, atlas: FakeNode
) -> None:
    """A blocked read hears of no event; its socket is shut down under it."""
    gate = threading.Event()
    atlas.table["POST", "/v1/replica/events"] = lambda _: gate.wait(20) and b""
    ended = threading.Event()

    def wait() -> None:
        with pytest.raises(PeerUnreachableError):
            session.fetch(atlas.endpoint(), "/v1/replica/events", ReplicaBody(()), timeout_s=20)
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    eventually(lambda: atlas.seen("/v1/replica/events"))

    session.abort()

    assert ended.wait(2)
    gate.set()


def test_a_session_that_was_aborted_makes_no_more_calls(
    session: PeerSession, atlas: FakeNode
) -> None:
    """Its thread may just be connecting, and would wait for an answer nobody wants."""
    session.abort()

    with pytest.raises(PeerUnreachableError):
        whoami(session, atlas.endpoint())
    assert atlas.visits == []


def test_tls_older_than_1_3_is_not_spoken(ca: SmallCA) -> None:
    """Resumption and client certificates are only right in 1.3."""
    assert context_for(ca.root).minimum_version is ssl.TLSVersion.TLSv1_3


def test_the_root_is_taken_only_if_it_is_the_pinned_one(ca: SmallCA, evil: SmallCA) -> None:
    """A wrong pin is refused before anything else is sent."""
    with FakeNode(ca) as node:
        assert fetch_root(node.url, ca.pin.upper(), 3) == ca.root
        assert probe_root(node.url, 3) == ca.root
        with pytest.raises(PinMismatchError) as caught:
            fetch_root(node.url, evil.pin, 3)
    assert ca.pin[:16] in caught.value.detail
    assert evil.pin[:16] in caught.value.detail
    assert {visit.path for visit in node.visits} == {"/v1/ca.pem"}


def test_a_machine_in_the_middle_with_the_real_root_gets_no_second_request(
    ca: SmallCA, evil: SmallCA
) -> None:
    """The root is public: showing it proves nothing, the server's own certificate must chain."""
    with FakeNode(evil, {("GET", "/v1/ca.pem"): lambda _: pem(ca.root)}) as relay:
        root = fetch_root(relay.url, ca.pin, 3)
        with PinnedSession(root) as session, pytest.raises(PeerUnreachableError):
            session.get([f"{relay.url}/v1/whoami"], WhoAmIAnswer)
    assert [visit.path for visit in relay.visits] == ["/v1/ca.pem"]


def test_without_a_known_name_any_certificate_below_the_pinned_root_will_do(ca: SmallCA) -> None:
    """A URL typed by a person may hold an address that is in no certificate."""
    with FakeNode(ca, WHOAMI) as node, PinnedSession(ca.root) as session:
        assert session.get([f"{node.url}/v1/whoami"], WhoAmIAnswer) == ME


def test_while_the_ca_is_replaced_a_door_may_show_either(ca: SmallCA, evil: SmallCA) -> None:
    """A node restored from a backup of that time asks members that went on without it."""
    with FakeNode(ca, WHOAMI) as node, PinnedSession(evil.root, ca.root) as session:
        assert session.get([f"{node.url}/v1/whoami"], WhoAmIAnswer) == ME


def test_an_expired_server_certificate_is_not_believed(
    ca: SmallCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chain only is still the whole chain."""
    sign = ca.sign
    monkeypatch.setattr(
        ca, "sign", lambda csr, host, **more: sign(csr, host, lasts=timedelta(hours=1), **more)
    )
    with (
        FakeNode(ca, WHOAMI) as node,
        PinnedSession(ca.root) as session,
        pytest.raises(PeerUnreachableError, match="not as the node"),
    ):
        session.get([f"{node.url}/v1/whoami"], WhoAmIAnswer)


def test_no_membership_is_none_and_a_damaged_one_is_an_error(paths: Paths) -> None:
    """Reference defect 30: an unreadable roster meant 'uninitialized'."""
    assert load_membership(paths) is None
    paths.membership.write_bytes(b'{"mesh_id":')
    with pytest.raises(NoMeshError, match="damaged"):
        load_membership(paths)


def test_a_stored_root_that_is_not_the_pinned_one_is_refused(
    paths: Paths, ca: SmallCA, evil: SmallCA, atlas: FakeNode
) -> None:
    """Whoever can swap one line of the file must not swap the trust."""
    membership = enrolled(paths, ca, atlas.endpoint())
    swapped = msgspec.structs.replace(membership, root_pem=evil.root_pem)
    with pytest.raises(NoMeshError, match="not the pinned"):
        PeerSession(paths, swapped)
