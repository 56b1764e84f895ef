"""The gateway over real TLS: who gets in, what the broker learns, how certificates change."""

import http.client
import json
import socket
import ssl
from collections.abc import Iterator

import pytest
from aiohttp import web

from broker.errors import NotPrimaryError, RevokedError, ThrottledError
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.enrollment import GetTrust, Join, JoinAnswer, TrustAnswer
from broker.wire.ids import Service
from broker.wire.messages import Call
from broker.wire.node import GetNode, MeshView
from broker.wire.roster import BundleAnswer, GetBundle, WhoAmI
from tests.stub_broker import StubBroker, idle_node
from tests.support import eventually
from tests.workers.door_house import House, is_refused, visit
from tests.workers.tls_lab import ENDPOINT, Lab, install, write_membership
from tests.workers.yard import LIMITS, Yard, whoami
from workers.connection import Origin
from workers.door import Door, network_origin, plain_address
from workers.listener import tcp_listener
from workers.material import find_material


@pytest.fixture
def yard(paths: Paths, settings: Settings) -> Iterator[Yard]:
    """Doors that stand open."""
    with (
        StubBroker(paths, {WhoAmI: whoami}) as broker,
        House(paths, Service.GATEWAY) as house,
    ):
        made = Yard(paths, settings, house, broker)
        made.open()
        yield made


def test_a_caller_without_a_certificate_gets_nothing_from_the_mesh_door(yard: Yard) -> None:
    """The mesh port has no anonymous route, health included."""
    assert is_refused(yard.mesh, yard.stranger())
    assert not yard.broker.seen(WhoAmI)


def test_a_certificate_of_another_ca_is_refused(yard: Yard) -> None:
    """Only the pinned root counts, not the system's."""
    foreign = Lab("foreign")
    context = yard.member(foreign.leaf("nas"))
    assert is_refused(yard.mesh, context)
    assert not yard.broker.seen(WhoAmI)


def test_an_expired_certificate_is_refused_at_the_handshake(yard: Yard) -> None:
    """TLS itself refuses; the gateway's own check is for connections that outlive it."""
    expired = yard.lab.leaf("nas", from_s=-100, until_s=-10)
    assert is_refused(yard.mesh, yard.member(expired))


def test_the_broker_learns_serial_name_and_fingerprint_of_the_caller(yard: Yard) -> None:
    """A serial with a leading zero nibble is written as the roster writes it."""
    pair = yard.lab.leaf("nas", serial=0x0ABC_DEF0_1234)
    with visit(yard.mesh, yard.member(pair)) as visitor:
        said = visitor.ask("GET", "/v1/whoami")
    assert said.status == 200
    assert said.json["kind"] == "who-am-i-answer"
    peer = yard.broker.seen(WhoAmI)[0].peer
    assert (peer.serial, peer.host) == ("abcdef01234", "nas")
    assert (peer.fingerprint, peer.address) == (pair.fingerprint, "127.0.0.1")


def test_every_request_on_an_open_connection_is_put_to_the_broker(yard: Yard) -> None:
    """Nothing is answered from what was decided at the handshake."""
    with visit(yard.mesh, yard.member()) as visitor:
        assert visitor.ask("GET", "/v1/whoami").status == 200
        assert visitor.ask("GET", "/v1/whoami").status == 200
    assert len({call.request_id for call in yard.broker.calls}) >= 2
    assert len(yard.broker.seen(WhoAmI)) == 2


def test_a_member_revoked_meanwhile_is_refused_on_its_open_connection(yard: Yard) -> None:
    """Revocation needs no new handshake to bite (P5)."""

    def revoked(_request: WhoAmI) -> None:
        raise RevokedError("nas was revoked", hint="join again under another name")

    with visit(yard.mesh, yard.member()) as visitor:
        assert visitor.ask("GET", "/v1/whoami").status == 200
        yard.broker.answers[WhoAmI] = revoked
        said = visitor.ask("GET", "/v1/whoami")
    assert said.status == 403
    assert said.headers["Content-Type"] == "application/problem+json"
    assert said.json["code"] == "revoked"
    assert said.json["type"] == "urn:certmesh:problem:revoked"
    assert said.json["hint"] == "join again under another name"
    assert said.json["request_id"] == said.headers["X-Request-Id"]


def test_a_certificate_that_expires_on_an_open_connection_is_refused(yard: Yard) -> None:
    """A connection must not outlive the permission it was opened with."""
    brief = yard.lab.leaf("nas", until_s=1)
    with visit(yard.mesh, yard.member(brief)) as visitor:
        assert visitor.ask("GET", "/v1/whoami").status == 200

        def refused() -> bool:
            said = visitor.ask("GET", "/v1/whoami")
            return said.status == 403 and said.json["code"] == "not_a_member"

        eventually(refused)


def test_a_new_certificate_is_served_without_dropping_connections(yard: Yard) -> None:
    """Renewal must be invisible to whoever is connected."""
    renewed = yard.lab.leaf()
    context = yard.member()
    with visit(yard.mesh, context) as old:
        assert old.served_serial == yard.own.serial
        install(yard.paths, renewed)
        yard.round()
        assert old.ask("GET", "/v1/whoami").status == 200
        for port in (yard.mesh, yard.enroll):
            with visit(port, context) as new:
                assert new.served_serial == renewed.serial
        with visit(yard.mesh, context, name=None) as new:
            assert new.served_serial == renewed.serial
        assert old.ask("GET", "/v1/whoami").status == 200


def test_another_trust_root_takes_over_together_with_the_certificate(yard: Yard) -> None:
    """A root that is no longer pinned opens nothing, and the new one does."""
    former = yard.member()
    other = Lab("other")
    write_membership(yard.paths, other.root_pem)
    install(yard.paths, other.leaf())
    yard.round()
    assert is_refused(yard.mesh, former)
    with visit(yard.mesh, other.trusting(yard.paths.home, other.leaf("nas"))) as visitor:
        assert visitor.ask("GET", "/v1/whoami").status == 200


def test_a_pair_that_does_not_match_leaves_the_old_certificate_serving(yard: Yard) -> None:
    """A broken installation must not become an outage; it heals with the next good one."""
    broken, good = yard.lab.leaf(), yard.lab.leaf()
    install(yard.paths, broken, key=good.key)
    yard.round()
    assert yard.notes.states[-1] == "ready"
    assert "cannot be used" in yard.notes.errors[-1]
    assert yard.gateway.serial == yard.own.serial
    yard.round()
    assert "cannot be used" in yard.notes.errors[-1]
    with visit(yard.mesh, yard.member()) as visitor:
        assert visitor.served_serial == yard.own.serial
    install(yard.paths, good)
    yard.round()
    with visit(yard.mesh, yard.member()) as visitor:
        assert visitor.served_serial == good.serial


def test_what_was_found_stays_one_version_while_the_link_moves(yard: Yard) -> None:
    """Certificate and key are read one after the other; an installation may come in between."""
    found = find_material(yard.paths)
    before = (found.directory / "key.pem").read_bytes()
    install(yard.paths, yard.lab.leaf())
    assert (found.directory / "key.pem").read_bytes() == before


def test_doors_stay_closed_until_membership_and_certificate_are_there(
    paths: Paths, settings: Settings
) -> None:
    """Any start order works: the process says what it waits for, in its state."""
    with StubBroker(paths), House(paths, Service.GATEWAY) as house:
        yard = Yard(paths, settings, house, StubBroker(paths))
        assert yard.round() < 5
        write_membership(paths, yard.lab.root_pem)
        yard.round()
        assert not yard.gateway.is_open
        install(paths, yard.own)
        yard.round()
        assert yard.notes.states == ["waiting for membership", "waiting for certificate", "ready"]
        assert yard.gateway.is_open


@pytest.mark.parametrize("door", ["enroll", "mesh"])
def test_tls_1_2_is_refused(yard: Yard, door: str) -> None:
    """Under TLS 1.2 sessions could be resumed past a changed trust root."""
    context = yard.member()
    with visit(getattr(yard, door), context) as visitor:
        assert visitor.ask("GET", "/healthz").status == 200
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError), visit(getattr(yard, door), context):
        pass


@pytest.mark.parametrize("door", ["enroll", "mesh"])
def test_no_session_can_be_resumed(yard: Yard, door: str) -> None:
    """A resumed session would skip the look at the client's certificate."""
    with visit(getattr(yard, door), yard.member()) as visitor:
        assert visitor.ask("GET", "/healthz").status == 200
        assert isinstance(visitor.wire, ssl.SSLSocket)
        assert visitor.wire.session is None or not visitor.wire.session.has_ticket


def test_a_body_over_the_limit_is_refused_before_it_is_read(yard: Yard) -> None:
    """By its declared length, and by what really comes (row 35)."""
    with visit(yard.enroll, yard.stranger()) as visitor:
        said = visitor.ask("POST", "/v1/join", b"x" * 4096)
    assert (said.status, said.json["code"]) == (413, "oversized")
    with visit(yard.enroll, yard.stranger()) as visitor:
        chunks = iter([b"x" * 1024] * 4)
        visitor.http.request("POST", "/v1/join", chunks, encode_chunked=True)
        answer = visitor.http.getresponse()
        assert answer.status == 413
        assert answer.headers["Connection"] == "close"
    assert not yard.broker.seen(Join)


def test_a_body_declared_too_large_is_refused_without_waiting_for_it(yard: Yard) -> None:
    """The answer comes while not one byte of the body has."""
    with visit(yard.enroll, yard.stranger()) as visitor:
        visitor.wire.sendall(b"POST /v1/join HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n")
        answer = http.client.HTTPResponse(visitor.wire)
        answer.begin()
        assert answer.status == 413


def test_a_connection_that_says_nothing_is_ended(yard: Yard) -> None:
    """Silence after the handshake holds a place as well as slowness does."""
    with visit(yard.enroll, yard.stranger()) as visitor:
        assert visitor.wire.recv(100) == b""


def test_slow_headers_end_the_connection(yard: Yard) -> None:
    """Slowloris: one byte now and then must not hold a place (row 35)."""
    with visit(yard.enroll, yard.stranger()) as visitor:
        visitor.wire.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        assert visitor.wire.recv(100) == b""


def test_slow_headers_of_a_later_request_end_the_connection_too(yard: Yard) -> None:
    """The deadline is one of every request, not of the first."""
    with visit(yard.enroll, yard.stranger()) as visitor:
        assert visitor.ask("GET", "/healthz").status == 200
        visitor.wire.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        assert visitor.wire.recv(100) == b""


def test_a_slow_body_is_answered_with_408(yard: Yard) -> None:
    """A body that never ends must not hold a place either (row 35)."""
    with visit(yard.enroll, yard.stranger()) as visitor:
        head = b"POST /v1/join HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{"
        visitor.wire.sendall(head)
        answer = http.client.HTTPResponse(visitor.wire)
        answer.begin()
        assert answer.status == 408


def test_a_caller_that_is_gone_in_the_middle_of_a_body_is_no_bug_of_ours(
    yard: Yard, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody could fill the log with stack traces otherwise."""
    with visit(yard.enroll, yard.stranger()) as visitor:
        visitor.wire.sendall(b"POST /v1/join HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
        eventually(lambda: yard.gateway.enroll.connections == 1)
    eventually(lambda: yard.gateway.enroll.connections == 0)
    with visit(yard.enroll, yard.stranger()) as visitor:
        assert visitor.ask("GET", "/healthz").status == 200
    assert [record for record in caplog.records if record.exc_info] == []


def test_one_address_cannot_take_all_connections(yard: Yard) -> None:
    """Over the cap a connection ends before its handshake; a freed place can be used again.

    (row 35)
    """
    plain = [socket.create_connection(("127.0.0.1", yard.enroll)) for _ in range(4)]
    eventually(lambda: yard.gateway.enroll.connections == 4)
    assert is_refused(yard.enroll, yard.stranger())
    plain.pop().close()
    eventually(lambda: yard.gateway.enroll.connections == 3)
    with visit(yard.enroll, yard.stranger()) as visitor:
        assert visitor.ask("GET", "/healthz").status == 200
    for idle in plain:
        idle.close()


def test_one_ipv6_subscriber_cannot_take_all_connections(paths: Paths) -> None:
    """Whoever has one /64 has 2**64 addresses; the next subscriber still gets in."""
    sources = iter([*(f"2001:db8::{number}" for number in range(5)), "2001:db8:0:1::1"])

    async def silent(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    with House(paths, Service.GATEWAY) as house:
        listener = tcp_listener("127.0.0.1:0", 16)
        place = listener.getsockname()
        door = house.do(lambda: Door("enroll", silent, LIMITS, lambda _: Origin(next(sources))))
        house.closing.append(door.close)
        house.do(lambda: door.open(listener, None))
        guests = [socket.create_connection(place) for _ in range(4)]
        eventually(lambda: door.connections == 4)
        with socket.create_connection(place, timeout=5) as fifth:
            assert fifth.recv(1) == b""
        guests.append(socket.create_connection(place))
        eventually(lambda: door.connections == 5)
        for guest in guests:
            guest.close()
        eventually(lambda: door.connections == 0)


def test_an_ipv4_caller_of_a_door_for_both_families_is_an_ipv4_caller() -> None:
    """Its address goes into certificates and throttles; `::ffff:` would be another name for it."""
    with (
        tcp_listener("[::ffff:127.0.0.1]:0", 1) as listener,
        socket.create_connection(("127.0.0.1", listener.getsockname()[1])),
    ):
        peer, address = listener.accept()
        with peer:
            assert address[0] == "::ffff:127.0.0.1"
            assert network_origin(peer) == Origin("127.0.0.1")


@pytest.mark.parametrize(
    ("told", "plain"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:DB8:0::7", "2001:db8::7"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_an_address_has_one_form(told: str, plain: str) -> None:
    """The scope is this machine's name for an interface; elsewhere it means nothing."""
    assert plain_address(told) == plain


def test_the_mesh_door_works_while_the_enrol_door_is_flooded(yard: Yard) -> None:
    """Strangers have a door of their own to crowd (rows 35, 49)."""
    plain = [socket.create_connection(("127.0.0.1", yard.enroll)) for _ in range(8)]
    with visit(yard.mesh, yard.member()) as visitor:
        assert visitor.ask("GET", "/v1/whoami").status == 200
    for idle in plain:
        idle.close()


def test_what_is_no_tls_leaves_the_door_as_it_was(yard: Yard) -> None:
    """Scanners speak HTTP, SSH and noise (row 34)."""
    for noise in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 64, b"\xff" * 512):
        with socket.create_connection(("127.0.0.1", yard.mesh), timeout=5) as plain:
            plain.sendall(noise)
            plain.settimeout(5)
            while plain.recv(4096):
                pass
    eventually(lambda: yard.gateway.mesh.connections == 0)
    with visit(yard.mesh, yard.member()) as visitor:
        assert visitor.ask("GET", "/v1/whoami").status == 200


JOIN = {
    "host": "pi",
    "csr": "AAAA",
    "ticket_hash": "aa",
    "nonce": "bb",
    "totp": "123456",
    "colour": "a field of a newer release",
}


def pending(_request: Join) -> JoinAnswer:
    """Answer that a person must decide."""
    return JoinAnswer(
        issued=None,
        member_id="",
        server_name="pi.lab.internal",
        mesh_id="aa",
        mesh_name="lab",
        primary=None,
        term=1,
        ticket_id="beef",
        words=("a", "b", "c", "d"),
        retry_after_ms=1500,
    )


def test_an_unknown_field_of_a_newer_release_is_tolerated(yard: Yard) -> None:
    """Fields are only added; the pending answer says where to ask again."""
    yard.broker.answers[Join] = pending
    with visit(yard.enroll, yard.stranger()) as visitor:
        said = visitor.ask("POST", "/v1/join", JOIN)
    assert said.status == 202
    assert said.headers["Location"] == "/v1/join/beef"
    assert said.headers["Retry-After"] == "2"
    join = yard.broker.seen(Join)[0]
    assert (join.host, join.source, join.totp_code) == ("pi", "127.0.0.1", "123456")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({**JOIN, "csr": 7}, "$.csr"),
        ({key: value for key, value in JOIN.items() if key != "nonce"}, "nonce"),
        ({**JOIN, "host": "h" * 300}, "$.host"),
        ({**JOIN, "ticket_hash": "XYZ"}, "$.ticket_hash"),
        ({**JOIN, "invite": "both"}, "exactly one"),
        (b"{", "not JSON"),
        (b'{"host": "\xff"}', ""),
        (b"[" * 2000, ""),
    ],
)
def test_a_malformed_body_is_refused_by_name_before_the_broker_hears_of_it(
    yard: Yard, body: object, named: str
) -> None:
    """Garbage costs the broker nothing, and a person learns what to mend."""
    with visit(yard.enroll, yard.stranger()) as visitor:
        said = visitor.ask("POST", "/v1/join", body)
        assert visitor.ask("GET", "/healthz").status == 200
    assert (said.status, said.json["code"]) == (400, "malformed")
    assert named in said.json["detail"]
    assert not yard.broker.seen(Join)


def test_unknown_paths_and_methods_are_problems_too(yard: Yard) -> None:
    """One error shape for everything, and the methods that would do."""
    with visit(yard.enroll, yard.stranger()) as visitor:
        unknown = visitor.ask("GET", "/v1/nothing")
        wrong = visitor.ask("DELETE", "/v1/join")
        mesh_only = visitor.ask("GET", "/v1/whoami")
    assert (unknown.status, unknown.json["code"]) == (404, "not_found")
    assert (wrong.status, wrong.headers["Allow"]) == (405, "POST")
    assert mesh_only.status == 404


def test_what_is_no_http_gets_a_problem_without_an_echo(yard: Yard) -> None:
    """A parser error quotes the caller's bytes; the answer must not."""
    with visit(yard.enroll, yard.stranger()) as visitor:
        visitor.wire.sendall(b"GET /<script> BOGUS\r\n\r\n")
        answer = http.client.HTTPResponse(visitor.wire)
        answer.begin()
        raw = answer.read()
    assert answer.status == 400
    assert b"script" not in raw
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_huge_header_is_refused(yard: Yard) -> None:
    """Header memory is bounded (row 35)."""
    with visit(yard.enroll, yard.stranger()) as visitor:
        said = visitor.ask("GET", "/healthz", headers={"X-Big": "x" * 40_000})
    assert (said.status, said.json["code"]) == (431, "oversized")


def test_a_refusal_carries_retry_after_and_the_primary(yard: Yard) -> None:
    """A joiner that knocked at the wrong node is sent to the right one."""
    mesh = MeshView(
        mesh_id="aa", name="lab", domain="lab.internal", pin="bb", term=1, primary=ENDPOINT
    )

    def not_primary(_request: Join) -> None:
        raise NotPrimaryError("this node is a member")

    def throttled(_request: Join) -> None:
        raise ThrottledError("too many attempts", retry_after_ms=61_000)

    yard.broker.answers[GetNode] = lambda _request: idle_node(role="member", mesh=mesh)
    yard.broker.answers[Join] = not_primary
    with visit(yard.enroll, yard.stranger()) as visitor:
        said = visitor.ask("POST", "/v1/join", JOIN)
        yard.broker.answers[Join] = throttled
        slow = visitor.ask("POST", "/v1/join", JOIN)
    assert (said.status, said.json["primary"]["addresses"]) == (503, ["127.0.0.1"])
    assert (slow.status, slow.headers["Retry-After"]) == (429, "61")


def test_a_ticket_needs_its_secret(yard: Yard) -> None:
    """A ticket id travels in URLs and logs; the secret does not."""
    with visit(yard.enroll, yard.stranger()) as visitor:
        said = visitor.ask("GET", "/v1/join/beef")
        odd = visitor.ask("GET", "/v1/join/..%2fXYZ", headers={"Authorization": "Bearer s"})
    assert (said.status, said.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert (odd.status, odd.json["code"]) == (400, "malformed")


def test_a_bundle_is_sent_once_and_then_not_modified(yard: Yard) -> None:
    """ETag and ?after= with ?term= say the same."""

    def bundle(request: GetBundle) -> BundleAnswer:
        body = b"" if (request.after_term, request.after) >= (2, 9) else b"signed"
        return BundleAnswer(bundle=body, bundle_sequence=9, term=2)

    yard.broker.answers[GetBundle] = bundle
    with visit(yard.enroll, yard.stranger()) as visitor:
        first = visitor.ask("GET", "/v1/bundle")
        by_tag = visitor.ask("GET", "/v1/bundle", headers={"If-None-Match": first.headers["ETag"]})
        bad = visitor.ask("GET", "/v1/bundle?after=-1")
    with visit(yard.mesh, yard.member()) as visitor:
        by_query = visitor.ask("GET", "/v1/bundle?after=9&term=2")
        of_the_last_primary = visitor.ask("GET", "/v1/bundle?after=40&term=1")
    assert (first.status, first.body, first.headers["ETag"]) == (200, b"signed", '"2.9"')
    assert of_the_last_primary.status == 200
    assert (by_tag.status, by_query.status, bad.status) == (304, 304, 400)
    assert yard.broker.seen(GetBundle)[0].peer is None
    asked = yard.broker.seen(GetBundle)[-1]
    assert asked.peer is not None
    assert asked.peer.host == "nas"


def test_health_is_answered_on_both_doors_and_for_head(yard: Yard) -> None:
    """Vault's codes for the primary, so that balancers work unchanged."""
    with visit(yard.enroll, yard.stranger()) as visitor:
        assert visitor.ask("HEAD", "/healthz").body == b""
        assert visitor.ask("GET", "/readyz?role=primary").status == 501
        assert visitor.ask("GET", "/readyz").json == {"status": "unready", "reason": "no_mesh"}
    with visit(yard.mesh, yard.member()) as visitor:
        assert visitor.ask("GET", "/healthz").json["status"] == "ok"


def test_a_silent_broker_makes_unavailable_problems_and_an_unready_node(
    paths: Paths, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway outlives its broker and says so."""
    monkeypatch.setattr("workers.health.NODE_TIMEOUT_MS", 100)
    with House(paths, Service.GATEWAY) as house:
        yard = Yard(paths, settings, house, StubBroker(paths))
        yard.open()
        with visit(yard.enroll, yard.stranger()) as visitor:
            said = visitor.ask("GET", "/readyz")
            assert (said.status, said.json["reason"]) == (503, "broker_down")


def test_the_trust_anchor_is_public(yard: Yard) -> None:
    """Whoever pins the CA can fetch it here; a CRL that was never signed is not an empty one."""
    root = ssl.PEM_cert_to_DER_cert(yard.lab.root_pem)
    trust = TrustAnswer(root=root, issuing=root, crl=b"", crl_number=0)
    yard.broker.answers[GetTrust] = lambda _request: trust
    with visit(yard.enroll, yard.stranger()) as visitor:
        said = visitor.ask("GET", "/v1/ca.pem")
        assert visitor.ask("GET", "/v1/crl.der").status == 404
    assert ssl.PEM_cert_to_DER_cert(said.body.decode()) == root


def test_a_compressed_body_is_not_taken(yard: Yard) -> None:
    """A small body must not unfold into a large one behind the limit."""
    with visit(yard.enroll, yard.stranger()) as visitor:
        said = visitor.ask("POST", "/v1/join", b"x", {"Content-Encoding": "gzip"})
    assert said.status == 415
    assert not yard.broker.seen(Join)


def test_a_caller_that_asks_before_it_sends_is_told_to_go_on(yard: Yard) -> None:
    """Older curl waits a second for this before every larger body."""
    yard.broker.answers[Join] = pending
    body = json.dumps(JOIN).encode()
    head = f"POST /v1/join HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
    with visit(yard.enroll, yard.stranger()) as visitor:
        visitor.wire.sendall(head.encode() + b"Expect: 100-continue\r\n\r\n")
        assert visitor.wire.recv(100).startswith(b"HTTP/1.1 100 ")
        visitor.wire.sendall(body)
        answer = http.client.HTTPResponse(visitor.wire)
        answer.begin()
        assert answer.status == 202


def test_a_crowd_behind_a_slow_broker_is_told_to_come_back(yard: Yard) -> None:
    """Requests in flight are bounded; the rest is refused at once and not queued (row 49)."""

    def never(_request: WhoAmI) -> None:
        return None

    yard.broker.answers[WhoAmI] = never
    context = yard.member()
    with visit(yard.mesh, context) as first, visit(yard.mesh, context) as second:
        for waiting in (first, second):
            waiting.http.request("GET", "/v1/whoami")
        eventually(lambda: len({call.request_id for call in calls(yard)}) == 2)
        with visit(yard.mesh, context) as third:
            said = third.ask("GET", "/v1/whoami")
        yard.broker.answers[WhoAmI] = whoami
        assert {waiting.http.getresponse().status for waiting in (first, second)} == {200}
    assert (said.status, said.json["code"], said.headers["Retry-After"]) == (429, "busy", "1")


def calls(yard: Yard) -> list[Call]:
    """Return the calls of the mesh door, repeats included."""
    return [call for call in list(yard.broker.calls) if isinstance(call.request, WhoAmI)]


def test_our_own_bug_is_a_problem_without_a_trace(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stack trace tells a stranger where to push next."""

    def bug(_request: object) -> None:
        raise RuntimeError("/secret/path is wrong")

    monkeypatch.setattr("workers.web.checked", bug)
    with visit(yard.mesh, yard.member()) as visitor:
        said = visitor.ask("GET", "/v1/whoami")
    assert (said.status, said.json["code"]) == (500, "internal")
    assert b"secret" not in said.body
    assert b"Traceback" not in said.body
