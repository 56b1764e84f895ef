"""The dashboard port: who may come in with which token, and what nobody sees without one."""

import hashlib
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from msgspec.structs import replace

from broker.errors import BadCredentialError, SettingsError
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.audit import ListAudit
from broker.wire.control import Ack
from broker.wire.enrollment import CreateInvite, InviteView
from broker.wire.ids import Service
from broker.wire.invite import decode_invite
from broker.wire.node import GetNode
from broker.wire.roster import ListMembers
from broker.wire.standby import NominateStandby, SyncNow
from broker.wire.token import CheckToken, CreateToken, RevokeToken, TokenView
from tests.openapi_files import doors
from tests.stub_broker import StubBroker
from tests.support import eventually
from tests.workers.door_house import House, is_refused, port_of, visit, visit_unix
from tests.workers.test_console_local import invite_view
from tests.workers.tls_lab import Lab, install, write_membership
from workers.connection import Limits
from workers.console.dashboard import check_host, check_loopback
from workers.console.service import Console
from workers.gateway.service import Gateway
from workers.route import Route

ROOT = Path(__file__).parents[2]
TOKEN = "cmt_" + "A" * 43
GIVEN = {
    "read": "cmt_" + "R" * 43,
    "invite": "cmt_" + "I" * 43,
    "approve": "cmt_" + "P" * 43,
    "audit": "cmt_" + "U" * 43,
    "admin": TOKEN,
}
NAMED_PATH = {"{host}": "nas", "{id}": "beef", "{name}": "x", "{ticket}": "beef"}


def hash_of(token: str) -> str:
    """Return what the broker knows of it."""
    return hashlib.sha256(token.encode()).hexdigest()


def view(token: str, *scopes: str, name: str = "grafana") -> TokenView:
    """Return a good token."""
    return TokenView(
        token_id=hash_of(token),
        name=name,
        scopes=scopes,
        expires_at=1_900_000_000,  # type: ignore[arg-type]  # a plain number
        created_at=1,  # type: ignore[arg-type]  # a plain number
        created_by="ann",
        state="active",
    )


class Port:
    """A console with both of its doors, before a broker that knows one token per scope."""

    def __init__(self, paths: Paths, settings: Settings, house: House, broker: StubBroker) -> None:
        self.paths, self.broker, self.house = paths, broker, house
        self.good = {hash_of(token): view(token, scope) for scope, token in GIVEN.items()}
        broker.answers[CheckToken] = self._check
        broker.answers[SyncNow] = lambda _request: Ack()
        self.console = house.furnish(lambda asker: Console(settings, paths, asker, Limits()))
        house.round(self.console)
        self.url = f"http://127.0.0.1:{port_of(self.console.dashboard)}"

    def _check(self, request: CheckToken) -> TokenView:
        if request.token_hash not in self.good:
            raise BadCredentialError("this token was never made")
        return self.good[request.token_hash]

    def ask(self, method: str, path: str, token: str = "", **headers: str) -> requests.Response:
        """Ask the dashboard port."""
        shown = {"Authorization": f"Bearer {token}"} if token else {}
        return requests.request(method, self.url + path, headers={**shown, **headers}, timeout=5)


@pytest.fixture
def port(paths: Paths, settings: Settings) -> Iterator[Port]:
    """A console whose port is open."""
    listening = replace(settings, listen=replace(settings.listen, dashboard="127.0.0.1:0"))
    with StubBroker(paths) as broker, House(paths, Service.CONSOLE) as house:
        yield Port(paths, listening, house, broker)


def test_a_token_opens_the_routes_of_its_scope_and_no_others(port: Port) -> None:
    """Each scope alone; `admin` may do all that a token can."""
    assert port.ask("GET", "/v1/node", GIVEN["read"]).status_code == 200
    assert port.ask("GET", "/v1/node", GIVEN["admin"]).status_code == 200
    for scope in ("invite", "approve", "audit"):
        said = port.ask("GET", "/v1/node", GIVEN[scope])
        assert (said.status_code, said.json()["code"]) == (403, "forbidden")
        assert "lacks the scope read" in said.json()["detail"]
    assert port.ask("POST", "/v1/standby/sync", GIVEN["read"]).status_code == 403
    assert port.ask("POST", "/v1/standby/sync", GIVEN["admin"]).status_code == 200


def test_what_is_for_the_local_user_alone_no_token_may_do(port: Port) -> None:
    """Not even `admin`: a token that makes tokens outlives its own revocation."""
    for method, path in (("GET", "/v1/tokens"), ("POST", "/v1/tokens"), ("POST", "/v1/ca/unlock")):
        said = port.ask(method, path, TOKEN)
        assert (said.status_code, "no token may" in said.json()["detail"]) == (403, True)
    assert not port.broker.seen(CreateToken)


@pytest.mark.parametrize(
    "shown",
    ["", "Bearer", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer cmt_" + "Z" * 43],
)
def test_without_a_good_token_nobody_comes_in(port: Port, shown: str) -> None:
    """401 with the scheme, and nothing of the node; not even which paths there are."""
    for path in ("/v1/status", "/openapi.json", "/v1/nothing", "/v1/ca/unlock"):
        said = port.ask("GET", path, Authorization=shown)
        assert (said.status_code, said.json()["code"]) == (401, "bad_credential")
        assert said.headers["WWW-Authenticate"] == "Bearer"
    assert not port.broker.seen(GetNode)


def test_a_revocation_holds_within_a_second(port: Port) -> None:
    """A good token is believed for a moment, so that not every request asks twice."""
    assert port.ask("GET", "/v1/node", GIVEN["read"]).status_code == 200
    del port.good[hash_of(GIVEN["read"])]
    eventually(lambda: port.ask("GET", "/v1/node", GIVEN["read"]).status_code == 401, 3)


def test_a_good_token_is_not_asked_about_at_every_request(port: Port) -> None:
    """The broker hears of it about once a second."""
    with requests.Session() as session:
        shown = {"Authorization": f"Bearer {GIVEN['read']}"}
        for _ in range(20):
            assert session.get(f"{port.url}/v1/node", headers=shown, timeout=5).status_code == 200
    assert len(port.broker.seen(CheckToken)) < 10


def test_a_token_that_was_just_made_works_at_once(port: Port) -> None:
    """A refusal is never remembered."""
    fresh = "cmt_" + "F" * 43
    assert port.ask("GET", "/v1/node", fresh).status_code == 401
    port.good[hash_of(fresh)] = view(fresh, "read")
    assert port.ask("GET", "/v1/node", fresh).status_code == 200


def test_the_operator_is_the_tokens_name(port: Port) -> None:
    """The audit trail names the program; no header can name somebody else."""
    port.broker.answers[NominateStandby] = lambda _request: Ack()
    header = {"X-Certmesh-Operator": "mallory"}
    assert port.ask("POST", "/v1/standbys/nas", TOKEN, **header).status_code == 200
    assert port.broker.seen(NominateStandby) == [NominateStandby("nas", "token:grafana")]


def test_the_secret_of_a_token_never_reaches_the_broker_as_such(port: Port) -> None:
    """Its hash does; the journal of the mesh is copied to every key holder."""
    port.ask("GET", "/v1/node", TOKEN)
    port.ask("GET", "/v1/node", "cmt_" + "Z" * 43)
    assert all("AAAA" not in repr(call) and "ZZZZ" not in repr(call) for call in port.broker.calls)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.0.2.1:7641", ""])
def test_a_page_that_had_its_name_pointed_here_is_refused(port: Port, host: str) -> None:
    """DNS rebinding: the browser believes that this is its own site, and sends what it has."""
    said = port.ask("GET", "/v1/node", TOKEN, Host=host)
    assert (said.status_code, said.json()["code"]) == (403, "forbidden")
    assert port.ask("GET", "/healthz", Host=host).status_code == 403
    assert not port.broker.seen(CheckToken)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:7641", "127.0.0.1", "127.0.0.1:1", "[::1]:7641", "[::1]"]
)
def test_this_machines_own_names_are_taken(host: str) -> None:
    """With any port: a tunnel has another one."""
    check_host(host)


def test_no_page_of_another_origin_may_read_an_answer(port: Port) -> None:
    """No CORS: a preflight is a method that nothing takes."""
    origin = {"Origin": "http://evil.example", "Access-Control-Request-Method": "GET"}
    assert port.ask("OPTIONS", "/v1/node", **origin).status_code == 401
    said = port.ask("OPTIONS", "/v1/node", TOKEN, **origin)
    assert said.status_code == 405
    assert not [name for name in said.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "address", ["0.0.0.0:7641", "192.0.2.1:7641", "[::]:7641", "nas:7641", "x"]
)
def test_a_port_that_others_could_reach_is_refused(address: str) -> None:
    """Plain HTTP with a token in it does not belong on a wire."""
    with pytest.raises(SettingsError):
        check_loopback(address)
    check_loopback("127.0.0.1:7641")
    check_loopback("[::1]:7641")


def test_such_a_port_ends_the_process_with_the_status_of_bad_settings(paths: Paths) -> None:
    """78 and a sentence, not a restart for ever."""
    with paths.settings.open("a") as file:
        file.write("[log]\nlevel = 'info'\n")
    text = paths.settings.read_text().replace("[listen]\n", '[listen]\ndashboard = "0.0.0.0:1"\n')
    paths.settings.write_text(text)
    command = [sys.executable, "-m", "workers.console", str(paths.settings)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=30, check=False)
    assert done.returncode == Exit.SETTINGS
    assert b"not a loopback address" in done.stdout + done.stderr


def test_the_port_is_off_unless_somebody_turns_it_on(paths: Paths, settings: Settings) -> None:
    """Nothing listens on TCP by default."""
    with StubBroker(paths), House(paths, Service.CONSOLE) as house:
        console = house.furnish(lambda asker: Console(settings, paths, asker, Limits()))
        house.round(console)
        assert console.is_open
        assert not console.dashboard.is_open


def test_refused_tokens_are_logged_without_a_word_of_theirs(
    port: Port, log_lines: object, home: Path
) -> None:
    """And not more often than every ten seconds."""
    del log_lines
    for _ in range(5):
        port.ask("GET", "/v1/node", "cmt_" + "Z" * 43)
    written = [json.loads(line) for line in (home / "test.log").read_text().splitlines()]
    failed = [line for line in written if line["event"] == "auth.failed"]
    assert len(failed) == 1
    assert failed[0]["listener"] == "dashboard"
    assert "ZZZZ" not in (home / "test.log").read_text()


def test_a_token_is_shown_once_and_stored_as_a_hash(port: Port) -> None:
    """What goes to the broker is the SHA-256 of what the person sees."""
    port.broker.answers[CreateToken] = lambda request: replace(
        view("", *request.scopes, name=request.name), token_id=request.token_hash
    )
    port.broker.answers[RevokeToken] = lambda _request: Ack()
    with visit_unix(port.paths.api_socket) as visitor:
        said = visitor.ask("POST", "/v1/tokens", {"name": "ci", "scopes": ["read"], "ttl_s": 60})
        assert said.status == 201
        token = said.json["token"]
        assert token.startswith("cmt_")
        assert len(token) == 47
        assert visitor.ask("DELETE", "/v1/tokens/ci").status == 200
        for bad in ({"name": "CI", "scopes": ["read"]}, {"name": "ci", "scopes": ["root"]}):
            assert visitor.ask("POST", "/v1/tokens", bad).status == 400
        assert visitor.ask("POST", "/v1/tokens", {"name": "ci", "scopes": []}).status == 400
    (wish,) = port.broker.seen(CreateToken)
    assert wish.token_hash == hash_of(token)
    assert (wish.name, wish.scopes, wish.ttl_s) == ("ci", ("read",), 60)
    assert token[4:] not in repr(port.broker.calls)


def test_a_repeated_post_gets_the_first_answer(port: Port) -> None:
    """One invite, one secret, though the first answer was lost on its way."""
    ids: dict[bytes, InviteView] = {}

    def remember(request: CreateInvite) -> InviteView:
        call = port.broker.calls[-1]
        return ids.setdefault(call.request_id, invite_view(request))

    port.broker.answers[CreateInvite] = remember
    key = {"Idempotency-Key": "7f0c"}
    with visit_unix(port.paths.api_socket) as visitor:
        first = visitor.ask("POST", "/v1/invites", {"host": "pi"}, key)
        again = visitor.ask("POST", "/v1/invites", {"host": "pi"}, key)
        other_body = visitor.ask("POST", "/v1/invites", {"host": "nas"}, key)
        other_key = visitor.ask("POST", "/v1/invites", {"host": "pi"}, {"Idempotency-Key": "8"})
        no_key = visitor.ask("POST", "/v1/invites", {"host": "pi"})
        bad = visitor.ask("POST", "/v1/invites", {"host": "pi"}, {"Idempotency-Key": "a b"})
    assert (first.status, again.body) == (201, first.body)
    answers = (first, other_body, other_key, no_key)
    secrets = {decode_invite(said.json["invite"]).secret for said in answers}
    assert len(secrets) == len(ids) == 4
    assert bad.status == 400


def test_a_repeated_post_of_another_caller_is_another_request(port: Port) -> None:
    """Nobody gets an answer by guessing a key that somebody else used."""
    port.broker.answers[NominateStandby] = lambda _request: Ack()
    other = "cmt_" + "B" * 43
    port.good[hash_of(other)] = view(other, "admin", name="other")
    key = {"Idempotency-Key": "7f0c"}
    for token in (TOKEN, TOKEN, other):
        assert port.ask("POST", "/v1/standbys/nas", token, **key).status_code == 200
    ids = [c.request_id for c in port.broker.calls if isinstance(c.request, NominateStandby)]
    assert len(ids) == 3
    assert ids[0] == ids[1] != ids[2]


def test_a_retry_after_the_console_was_restarted_shows_no_wrong_secret(
    port: Port, settings: Settings
) -> None:
    """The broker remembers the first hash; a secret that does not fit would never work."""
    first: list[InviteView] = []

    def remember(request: CreateInvite) -> InviteView:
        first.append(invite_view(request))
        return first[0]

    port.broker.answers[CreateInvite] = remember
    key = {"Idempotency-Key": "7f0c"}
    with visit_unix(port.paths.api_socket) as visitor:
        assert visitor.ask("POST", "/v1/invites", {"host": "pi"}, key).status == 201
    port.house.wait(port.console.close())
    next_life = port.house.furnish(lambda ask: Console(settings, port.paths, ask, Limits()))
    port.house.round(next_life)
    with visit_unix(port.paths.api_socket) as visitor:
        said = visitor.ask("POST", "/v1/invites", {"host": "pi"}, key)
    assert (said.status, said.json["code"]) == (409, "conflict")


PUBLIC = {
    ("openapi.json", "GET", "/healthz"),
    ("openapi.json", "GET", "/readyz"),
    ("openapi-mesh.json", "GET", "/healthz"),
    ("openapi-mesh.json", "GET", "/readyz"),
    ("openapi-enroll.json", "GET", "/healthz"),
    ("openapi-enroll.json", "GET", "/readyz"),
    ("openapi-enroll.json", "GET", "/v1/mesh"),
    ("openapi-enroll.json", "GET", "/v1/ca.pem"),
    ("openapi-enroll.json", "GET", "/v1/crl.der"),
    ("openapi-enroll.json", "GET", "/v1/crl.pem"),
    ("openapi-enroll.json", "GET", "/v1/bundle"),
    ("openapi-enroll.json", "GET", "/v1/handover"),
}
"""What a stranger may read: that the node lives, and what is public by its nature."""
WITH_BODY_CREDENTIAL = {
    ("openapi-enroll.json", "POST", "/v1/join"),
    ("openapi-enroll.json", "POST", "/v1/renew-expired"),
}
"""Their credential is in the body: the broker refuses it."""


def guarded() -> list[tuple[str, Route]]:
    """Return every route of every door that is not for everybody."""
    return [
        (name, route)
        for name, (_face, routes) in doors().items()
        for route in routes
        if (name, route.method, route.path) not in PUBLIC | WITH_BODY_CREDENTIAL
    ]


def filled(path: str) -> str:
    """Return a path with something in its parameters."""
    for place, word in NAMED_PATH.items():
        path = path.replace(place, word)
    return path


def test_defect_37_roster_audit_and_status_readable_without_authentication_on_the_lan(
    port: Port, settings: Settings
) -> None:
    """Every route of every door refuses a stranger, unless it stands in the list above."""
    lab = Lab()
    write_membership(port.paths, lab.root_pem)
    install(port.paths, lab.leaf())
    asked = 0
    with ExitStack() as stack:
        house = stack.enter_context(House(port.paths, Service.GATEWAY))
        gateway = house.furnish(lambda asker: Gateway(settings, port.paths, asker, Limits()))
        house.round(gateway)
        stranger = ssl.create_default_context(cadata=lab.root_pem)
        assert is_refused(port_of(gateway.mesh), stranger)  # no handshake, so no route at all
        for name, route in guarded():
            path = filled(route.path)
            assert "{" not in path, f"name a value for the parameter of {path}"
            asked += 1
            if name == "openapi.json":
                assert port.ask(route.method, path).status_code == 401, path
            elif name == "openapi-enroll.json":
                with visit(port_of(gateway.enroll), stranger) as visitor:
                    assert visitor.ask(route.method, path).status in (401, 403), path
    assert asked > 40
    assert not port.broker.seen(ListMembers)
    assert not port.broker.seen(ListAudit)
