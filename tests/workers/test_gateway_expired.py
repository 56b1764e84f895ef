"""The enrol door for certificates that have expired, over real TLS."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from broker.errors import CALockedError, CertificateExpiredError, NotPrimaryError
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.enrollment import Issued
from broker.wire.ids import Service
from broker.wire.node import GetNode, MeshView
from broker.wire.renewal import RenewalAnswer, RenewExpired
from broker.wire.roster import WhoAmI
from tests.stub_broker import StubBroker, idle_node
from tests.workers.door_house import House, visit
from tests.workers.tls_lab import ENDPOINT
from tests.workers.yard import Yard, whoami

PATH = "/v1/renew-expired"
BODY = {
    name: base64.b64encode(octets).decode()
    for name, octets in {"leaf": b"old", "csr": b"request", "signature": b"signed"}.items()
}
ISSUED = Issued("ab", b"new", b"issuing", b"root", 0, 9, 5)  # type: ignore[arg-type]  # moments


@pytest.fixture
def yard(paths: Paths, settings: Settings) -> Iterator[Yard]:
    """Doors that stand open, and a broker that signs."""
    answers: dict[Any, Any] = {WhoAmI: whoami, RenewExpired: lambda _: RenewalAnswer(ISSUED)}
    with StubBroker(paths, answers) as broker, House(paths, Service.GATEWAY) as house:
        made = Yard(paths, settings, house, broker)
        made.open()
        yield made


def test_a_caller_without_a_certificate_is_taken_to_the_broker_with_its_address(
    yard: Yard,
) -> None:
    """The address is TCP's, whatever the body says: it is what the limiter counts by."""
    with visit(yard.enroll, yard.stranger()) as visitor:
        said = visitor.ask("POST", PATH, BODY | {"source": "10.0.0.1"})
    assert (said.status, said.json["issued"]["serial"]) == (200, "ab")
    (asked,) = yard.broker.seen(RenewExpired)
    assert asked == RenewExpired(b"old", b"request", b"signed", "127.0.0.1")


def test_the_mesh_door_knows_nothing_of_it(yard: Yard) -> None:
    """Behind mutual TLS there is a better way."""
    with visit(yard.mesh, yard.member(yard.lab.leaf("nas"))) as visitor:
        assert visitor.ask("POST", PATH, BODY).status == 404
    assert not yard.broker.seen(RenewExpired)


def test_refusals_carry_what_the_member_needs(yard: Yard) -> None:
    """Where the primary is, how long to wait, and what a person has to do."""
    mesh = MeshView(
        mesh_id="aa", name="lab", domain="lab.internal", pin="bb", term=1, primary=ENDPOINT
    )
    yard.broker.answers[GetNode] = lambda _: idle_node(role="member", mesh=mesh)
    refusals = [
        NotPrimaryError("this node is a member"),
        CALockedError("the CA key is locked", hint="certmesh ca unlock"),
        CertificateExpiredError("expired long ago", hint="certmesh invite create nas --rejoin"),
    ]
    said = []
    with visit(yard.enroll, yard.stranger()) as visitor:
        for refusal in refusals:
            yard.broker.answers[RenewExpired] = raising(refusal)
            said.append(visitor.ask("POST", PATH, BODY))
    assert [answer.status for answer in said] == [503, 503, 403]
    assert said[0].json["primary"]["server_name"] == ENDPOINT.server_name
    assert said[1].json["code"] == "ca_locked"
    assert said[2].json["code"] == "certificate_expired"
    assert "--rejoin" in said[2].json["hint"]


def raising(error: Exception) -> Any:
    """Return what answers with `error`."""

    def answer(_: RenewExpired) -> None:
        raise error

    return answer


@pytest.mark.parametrize(
    "body",
    [
        {},
        BODY | {"signature": base64.b64encode(b"x" * 129).decode()},
        BODY | {"leaf": "not base64"},
        [],
    ],
)
def test_a_body_that_is_something_else_ends_at_the_door(yard: Yard, body: Any) -> None:
    """Nothing of it reaches the broker."""
    with visit(yard.enroll, yard.stranger()) as visitor:
        said = visitor.ask("POST", PATH, body)
    assert (said.status, said.json["code"]) == (400, "malformed")
    assert not yard.broker.seen(RenewExpired)
