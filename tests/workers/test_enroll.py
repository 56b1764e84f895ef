"""Joining: the pin first, the credential afterwards, and every unhappy path in clear words."""

import hashlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.clock import wall_s
from broker.errors import (
    ApprovalDeniedError,
    BadCredentialError,
    CALockedError,
    EnrollmentClosedError,
    InviteExpiredError,
    InviteUsedError,
    MalformedMessageError,
    MeshError,
    MeshExistsError,
    NameNotAllowedError,
    NotPrimaryError,
    PeerUnreachableError,
    PinMismatchError,
)
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings, parse_settings
from broker.runtime.wordlist import words
from broker.units import UnixSeconds
from broker.wire.enrollment import Issued, JoinAnswer, MeshAnswer
from broker.wire.invite import encode_invite
from broker.wire.mesh_api import InviteTicket, JoinBody
from broker.wire.node import Membership
from broker.wire.roster import WhoAmIAnswer
from tests.support import eventually
from tests.workers.fake_node import FakeNode, Table, Visit
from tests.workers.small_ca import DOMAIN, SmallCA, key_pem_matches, pem
from workers.certstore import CertificateStore
from workers.enroll.joining import Joining
from workers.enroll.logic import (
    Order,
    address_of,
    comparison_words,
    exit_of,
    own_addresses,
    port_of,
)

REPOSITORY = Path(__file__).parents[2]
SECRET = "an-invite-secret"
NAME = f"atlas.{DOMAIN}"


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """The mesh's CA."""
    return SmallCA()


@pytest.fixture
def settings() -> Settings:
    """Settings of the joining host."""
    return parse_settings({"node": {"name": "nas"}, "listen": {"mesh": "127.0.0.3:7743"}}, "test")


class Enrolling:
    """What a CA does with joins: one answer per key, pending while `open_question` is set."""

    def __init__(self, ca: SmallCA) -> None:
        self.ca = ca
        self.node: FakeNode | None = None
        self.open_question = False
        self.is_open = True
        self.answered: dict[bytes, JoinAnswer] = {}
        self.bodies: list[JoinBody] = []

    @property
    def table(self) -> Table:
        """The doors of the enrol port, and whoami."""
        return {
            ("GET", "/v1/mesh"): lambda _: self._mesh(),
            ("POST", "/v1/join"): self._join,
            ("GET", "/v1/join/0badcafe"): self._poll,
            ("GET", "/v1/whoami"): lambda _: WhoAmIAnswer("nas", "ab", "member", "1", "active"),
        }

    def _mesh(self) -> MeshAnswer:
        assert self.node is not None
        return MeshAnswer("01", self.ca.pin, 1, self.is_open, self.ca.root, self.node.endpoint())

    def _join(self, visit: Visit) -> JoinAnswer:
        body = msgspec.json.decode(visit.body, type=JoinBody)
        self.bodies.append(body)
        if body.invite not in {SECRET, ""}:
            raise BadCredentialError("no such invite", hint="ask for a new one")
        return self._pending() if self.open_question else self._answer(body.csr)

    def _poll(self, visit: Visit) -> JoinAnswer:
        secret = visit.headers["Authorization"].removeprefix("Bearer ")
        assert hashlib.sha256(secret.encode()).hexdigest() == self.bodies[0].ticket_hash
        return self._pending() if self.open_question else self._answer(self.bodies[0].csr)

    def _pending(self) -> JoinAnswer:
        return self._reply(None, ticket_id="0badcafe", words=("not", "ours"), retry_after_ms=200)

    def _answer(self, csr: bytes) -> JoinAnswer:
        if csr not in self.answered:
            leaf = self.ca.sign(csr, "nas")
            serial = format(x509.load_der_x509_certificate(leaf).serial_number, "x")
            moments = (UnixSeconds(1), UnixSeconds(2), UnixSeconds(3))
            self.answered[csr] = self._reply(
                Issued(serial, leaf, self.ca.issuing, self.ca.root, *moments)
            )
        return self.answered[csr]

    def _reply(self, issued: Issued | None, **more: Any) -> JoinAnswer:
        assert self.node is not None
        return JoinAnswer(
            issued=issued,
            member_id="ab" if issued else "",
            server_name=f"nas.{DOMAIN}",
            mesh_id="01",
            mesh_name="home",
            primary=self.node.endpoint(),
            term=3,
            **more,
        )


@pytest.fixture
def enrolling(ca: SmallCA) -> Enrolling:
    """What the CA thinks."""
    return Enrolling(ca)


@pytest.fixture
def atlas(ca: SmallCA, enrolling: Enrolling) -> Iterator[FakeNode]:
    """The CA's doors."""
    with FakeNode(ca, enrolling.table) as node:
        enrolling.node = node
        yield node


def invite(node: FakeNode, ca: SmallCA, **changes: Any) -> str:
    """Return an invite for the host `nas`; `changes` replace fields."""
    fields: dict[str, Any] = {
        "addresses": ("127.0.0.1",),
        "enroll_port": node.port,
        "pin": ca.pin,
        "host": "nas",
        "expires_at": wall_s() + 3600,
        "secret": SECRET,
        "server_name": NAME,
    }
    return encode_invite(InviteTicket(**{**fields, **changes}))


class Attempt:
    """One run of the joining in this process."""

    def __init__(self, settings: Settings, paths: Paths) -> None:
        self.lines: list[dict[str, Any]] = []
        self.waits: list[int] = []
        self.on_wait: Callable[[], bool] = lambda: False
        self._place = (settings, paths)
        self._joining = Joining(settings, paths, self.lines.append, self._wait)

    def run(self, **order: Any) -> int:
        """Carry out an order."""
        return self._joining.run(Order(**order))

    def again(self) -> "Attempt":
        """Return a later attempt on the same host."""
        return Attempt(*self._place)

    def _wait(self, wait_ms: int) -> bool:
        self.waits.append(wait_ms)
        return self.on_wait()


@pytest.fixture
def attempt(settings: Settings, paths: Paths) -> Attempt:
    """A fresh attempt."""
    return Attempt(settings, paths)


def membership(paths: Paths) -> Membership:
    """Return what was written."""
    return msgspec.json.decode(paths.membership.read_bytes(), type=Membership)


def test_an_invite_makes_this_host_a_member(
    attempt: Attempt, paths: Paths, ca: SmallCA, atlas: FakeNode, enrolling: Enrolling
) -> None:
    """The main path: pin, credential, certificate, membership, handshake."""
    assert attempt.run(invite=invite(atlas, ca)) == Exit.OK
    fingerprint, joined = attempt.lines
    assert fingerprint == {"kind": "fingerprint", "pin": ca.pin}
    live = CertificateStore(paths.certificates, "nas").live()
    assert live is not None
    assert joined == {
        "kind": "joined",
        "host": "nas",
        "serial": live.serial,
        "not_after": 2,
        "member_id": "ab",
        "mesh": "home",
        "pin": ca.pin,
        "server_name": f"nas.{DOMAIN}",
    }
    found = membership(paths)
    assert (found.pin, found.root_pem, found.term) == (ca.pin, ca.root_pem, 3)
    assert found.primary == atlas.endpoint()
    assert stat.S_IMODE(paths.membership.stat().st_mode) == 0o600
    assert not (paths.data / "ticket.json").exists()
    (body,) = enrolling.bodies
    assert (body.host, body.invite, body.totp) == ("nas", SECRET, "")
    assert (body.addresses, body.mesh_port, body.enroll_port) == (("127.0.0.3",), 7743, 7642)


def test_the_private_key_stays_here(
    attempt: Attempt, paths: Paths, ca: SmallCA, atlas: FakeNode
) -> None:
    """Reference defect 28: the CA made and shipped members' private keys."""
    attempt.run(invite=invite(atlas, ca))
    live = paths.certificates / "nas" / "live"
    key = (live / "key.pem").read_bytes()
    assert key_pem_matches(key, (live / "cert.pem").read_bytes())
    secret = b"".join(key.splitlines()[1:-1])[:60]
    assert all(secret not in visit.body for visit in atlas.visits)


def test_a_wrong_pin_is_refused_before_any_secret_leaves(
    attempt: Attempt, paths: Paths, ca: SmallCA, atlas: FakeNode
) -> None:
    """Somebody in between shows another root."""
    with pytest.raises(PinMismatchError):
        attempt.run(invite=invite(atlas, ca, pin="00" * 32))
    assert [visit.path for visit in atlas.visits] == ["/v1/ca.pem"]
    assert not paths.membership.exists()


def test_a_machine_in_the_middle_with_the_real_root_gets_no_secret(
    attempt: Attempt, ca: SmallCA, enrolling: Enrolling
) -> None:
    """The root is public; only the CA has a certificate below it for its name."""
    evil = SmallCA("evil")
    table = {**enrolling.table, ("GET", "/v1/ca.pem"): lambda _: pem(ca.root)}
    with FakeNode(evil, table) as relay:
        with pytest.raises(PeerUnreachableError, match="not as the node it should be"):
            attempt.run(invite=invite(relay, ca))
        assert [visit.path for visit in relay.visits] == ["/v1/ca.pem"]
    assert enrolling.bodies == []


def test_a_member_that_poses_as_the_ca_gets_no_secret(
    attempt: Attempt, ca: SmallCA, enrolling: Enrolling
) -> None:
    """Its certificate chains to the root; its name is another."""
    with FakeNode(ca, enrolling.table, host="pi") as pi:
        enrolling.node = pi
        with pytest.raises(PeerUnreachableError, match="not as the node it should be"):
            attempt.run(invite=invite(pi, ca))
        assert [visit.path for visit in pi.visits] == ["/v1/ca.pem"]
    assert enrolling.bodies == []


def test_an_expired_invite_is_not_sent(attempt: Attempt, ca: SmallCA, atlas: FakeNode) -> None:
    """The clock decides here; the CA's decides again there."""
    with pytest.raises(InviteExpiredError) as caught:
        attempt.run(invite=invite(atlas, ca, expires_at=wall_s() - 60))
    assert "certmesh invite create nas" in caught.value.hint
    assert atlas.visits == []


def test_an_invite_for_another_host_is_not_sent(
    attempt: Attempt, ca: SmallCA, atlas: FakeNode
) -> None:
    """A foreign invite would use up somebody else's permission."""
    with pytest.raises(NameNotAllowedError, match="for pi, and this host is nas"):
        attempt.run(invite=invite(atlas, ca, host="pi"))
    assert atlas.visits == []


@pytest.mark.parametrize("host", ["a/b", "..", "a\nb", "*.lan", "a" * 254, "NAS"])
def test_a_hostname_that_is_none_is_refused_before_anything_happens(
    attempt: Attempt, ca: SmallCA, atlas: FakeNode, host: str
) -> None:
    """Reference defect 25: host names became paths."""
    with pytest.raises(NameNotAllowedError):
        attempt.run(invite=invite(atlas, ca), host=host)
    assert atlas.visits == []


def test_a_used_invite_says_so_and_leaves_nothing_behind(
    attempt: Attempt, paths: Paths, ca: SmallCA, atlas: FakeNode
) -> None:
    """The next attempt starts with a fresh key."""

    def used(_: Visit) -> None:
        raise InviteUsedError("this invite was used", hint="make a new one")

    atlas.table["POST", "/v1/join"] = used
    with pytest.raises(InviteUsedError):
        attempt.run(invite=invite(atlas, ca))
    assert not (paths.data / "ticket.json").exists()
    assert not paths.membership.exists()


def test_a_locked_ca_is_told_as_such_and_the_same_key_comes_back_later(
    attempt: Attempt,
    ca: SmallCA,
    atlas: FakeNode,
) -> None:
    """The operator unlocks it and the joiner repeats the command."""

    def locked(_: Visit) -> None:
        raise CALockedError("the CA is locked", hint="certmesh ca unlock")

    right = atlas.table["POST", "/v1/join"]
    atlas.table["POST", "/v1/join"] = locked
    with pytest.raises(CALockedError):
        attempt.run(invite=invite(atlas, ca))
    atlas.table["POST", "/v1/join"] = right
    assert attempt.again().run(invite=invite(atlas, ca)) == Exit.OK
    first, second = (json.loads(visit.body)["csr"] for visit in atlas.seen("/v1/join"))
    assert first == second


def test_an_unreachable_ca_lists_the_addresses_that_were_tried(
    attempt: Attempt, ca: SmallCA, atlas: FakeNode
) -> None:
    """Wrong network, firewall, or not running: the person must be able to tell."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(PeerUnreachableError) as caught:
        attempt.run(invite=invite(atlas, ca, addresses=("127.0.0.1", "::1"), enroll_port=port))
    assert f"127.0.0.1:{port} refused" in caught.value.detail
    assert f"[::1]:{port}" in caught.value.detail
    assert caught.value.hint


def test_the_first_address_that_shows_the_pinned_root_is_used(
    attempt: Attempt, ca: SmallCA, atlas: FakeNode
) -> None:
    """The CA has moved, or another mesh lives at its old address."""
    addresses = ("127.0.0.9", "127.0.0.1")
    assert attempt.run(invite=invite(atlas, ca, addresses=addresses)) == Exit.OK


def test_a_node_that_belongs_to_a_mesh_already_refuses(
    attempt: Attempt, ca: SmallCA, atlas: FakeNode
) -> None:
    """Two meshes on one home would overwrite each other."""
    attempt.run(invite=invite(atlas, ca))
    with pytest.raises(MeshExistsError):
        attempt.again().run(invite=invite(atlas, ca))


def test_a_failed_handshake_afterwards_is_a_warning(
    attempt: Attempt, ca: SmallCA, atlas: FakeNode
) -> None:
    """The mesh port may be behind a firewall; the certificate is good all the same."""
    del atlas.table["GET", "/v1/whoami"]
    assert attempt.run(invite=invite(atlas, ca)) == Exit.OK
    assert "not proven yet" in attempt.lines[-1]["warning"]


def test_a_node_that_is_not_the_primary_is_followed_once(
    attempt: Attempt, ca: SmallCA, atlas: FakeNode, enrolling: Enrolling
) -> None:
    """After a takeover old invites lead to a standby; the root is the same."""

    def moved(_: Visit) -> None:
        raise NotPrimaryError("ask atlas")

    with FakeNode(ca, enrolling.table, host="old", primary=atlas.endpoint()) as old:
        old.table["POST", "/v1/join"] = moved
        text = invite(old, ca, server_name=f"old.{DOMAIN}")
        assert attempt.run(invite=text) == Exit.OK
    assert len(enrolling.bodies) == 1


def test_dry_run_checks_everything_and_sends_nothing(
    attempt: Attempt, paths: Paths, ca: SmallCA, atlas: FakeNode
) -> None:
    """No key, no ticket, no credential on the wire."""
    assert attempt.run(invite=invite(atlas, ca), dry_run=True) == Exit.OK
    assert attempt.lines[-1]["kind"] == "checked"
    assert [visit.path for visit in atlas.visits] == ["/v1/ca.pem", "/v1/mesh"]
    assert not paths.certificates.exists()
    assert not (paths.data / "ticket.json").exists()


def test_probing_only_tells_the_fingerprint(attempt: Attempt, ca: SmallCA, atlas: FakeNode) -> None:
    """A person compares it with the CA's screen before the code is typed."""
    assert attempt.run(url=atlas.url, probe=True) == Exit.OK
    assert attempt.lines == [{"kind": "fingerprint", "pin": ca.pin}]
    assert [visit.path for visit in atlas.visits] == ["/v1/ca.pem"]


def test_a_totp_join_without_a_pin_sends_nothing(attempt: Attempt, atlas: FakeNode) -> None:
    """Reference defect 23: the code went over the wire to anybody who answered."""
    with pytest.raises(MalformedMessageError, match="fingerprint"):
        attempt.run(url=atlas.url, totp="123456")
    assert atlas.visits == []


def test_a_totp_code_is_not_sent_through_a_closed_door(
    attempt: Attempt, ca: SmallCA, atlas: FakeNode, enrolling: Enrolling
) -> None:
    """It would be spent for nothing."""
    enrolling.is_open = False
    with pytest.raises(EnrollmentClosedError):
        attempt.run(url=atlas.url, totp="123456", pin=ca.pin)
    assert enrolling.bodies == []


def test_a_totp_join_waits_for_a_person_and_then_gets_its_certificate(
    attempt: Attempt, paths: Paths, ca: SmallCA, atlas: FakeNode, enrolling: Enrolling
) -> None:
    """202, four words, polling, 200."""
    enrolling.open_question = True

    def agree_at_the_second_wait() -> bool:
        enrolling.open_question = len(attempt.waits) < 2
        return False

    attempt.on_wait = agree_at_the_second_wait
    assert attempt.run(url=atlas.url, totp="123456", pin=ca.pin, wait_s=30) == Exit.OK
    assert [line["kind"] for line in attempt.lines] == ["fingerprint", "pending", "joined"]
    assert attempt.waits == [200, 200]
    assert membership(paths).host == "nas"
    assert enrolling.bodies[0].totp == "123456"


def test_the_words_are_made_here_from_key_pin_and_nonce(
    attempt: Attempt, ca: SmallCA, atlas: FakeNode, enrolling: Enrolling
) -> None:
    """Words taken from the other side would always agree."""
    enrolling.open_question = True
    assert attempt.run(url=atlas.url, totp="123456", pin=ca.pin) == Exit.WAITING
    (body,) = enrolling.bodies
    key = x509.load_der_x509_csr(body.csr).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = hashlib.sha256(spki + bytes.fromhex(ca.pin) + bytes.fromhex(body.nonce)).digest()
    expected = tuple(
        words()[int.from_bytes(digest[at : at + 2], "big") % 7776] for at in (0, 2, 4, 6)
    )
    assert attempt.lines[1]["words"] == expected
    assert comparison_words(spki, ca.pin, body.nonce, words()) == expected


def test_a_later_join_goes_on_with_the_same_ticket_and_key(
    attempt: Attempt,
    paths: Paths,
    ca: SmallCA,
    atlas: FakeNode,
) -> None:
    """Approval may take a day; nobody keeps the terminal open."""
    enrolling_of(atlas).open_question = True
    assert attempt.run(url=atlas.url, totp="123456", pin=ca.pin, wait_s=0) == Exit.WAITING
    assert attempt.lines[-1] == {"kind": "waiting", "host": "nas", "ticket_id": "0badcafe"}
    assert stat.S_IMODE((paths.data / "ticket.json").stat().st_mode) == 0o600
    enrolling_of(atlas).open_question = False
    later = attempt.again()
    assert later.run(url=atlas.url, totp="", pin=ca.pin) == Exit.OK
    assert len(atlas.seen("/v1/join")) == 1
    assert len(enrolling_of(atlas).answered) == 1


def enrolling_of(node: FakeNode) -> Enrolling:
    """Return what stands behind a node's doors."""
    owner = node.table["POST", "/v1/join"].__self__  # type: ignore[attr-defined]  # a bound method
    assert isinstance(owner, Enrolling)
    return owner


def test_a_denied_join_ends_with_the_reason_and_forgets_the_ticket(
    attempt: Attempt, paths: Paths, ca: SmallCA, atlas: FakeNode
) -> None:
    """Asking again needs a new decision."""

    def deny(_: Visit) -> None:
        raise ApprovalDeniedError("ann denied this request: unknown machine")

    enrolling_of(atlas).open_question = True
    atlas.table["GET", "/v1/join/0badcafe"] = deny
    with pytest.raises(ApprovalDeniedError, match="unknown machine"):
        attempt.run(url=atlas.url, totp="123456", pin=ca.pin, wait_s=5)
    assert not (paths.data / "ticket.json").exists()


def test_waiting_survives_a_ca_that_is_locked_or_gone_for_a_while(
    attempt: Attempt, ca: SmallCA, atlas: FakeNode
) -> None:
    """A restart of the CA must not end somebody's wait."""
    right = atlas.table["GET", "/v1/join/0badcafe"]
    failures: list[MeshError | None] = [CALockedError("locked"), None]

    def shaky(visit: Visit) -> Any:
        if failures:
            error = failures.pop()
            if error is None:
                return None  # the connection is cut
            raise error
        enrolling_of(atlas).open_question = False
        return right(visit)

    enrolling_of(atlas).open_question = True
    atlas.table["GET", "/v1/join/0badcafe"] = shaky
    assert attempt.run(url=atlas.url, totp="123456", pin=ca.pin, wait_s=30) == Exit.OK
    assert failures == []


def test_a_lost_answer_is_asked_for_again_with_the_same_key_and_ticket(
    attempt: Attempt,
    ca: SmallCA,
    atlas: FakeNode,
) -> None:
    """Reference defect 27: a lost reply could not be retried."""
    right, enrolling = atlas.table["POST", "/v1/join"], enrolling_of(atlas)

    def lost(visit: Visit) -> None:
        right(visit)

    atlas.table["POST", "/v1/join"] = lost
    with pytest.raises(PeerUnreachableError):
        attempt.run(invite=invite(atlas, ca))
    atlas.table["POST", "/v1/join"] = right
    assert attempt.again().run(invite=invite(atlas, ca)) == Exit.OK
    first, second = enrolling.bodies
    assert (first.csr, first.ticket_hash, first.nonce) == (
        second.csr,
        second.ticket_hash,
        second.nonce,
    )
    assert len(enrolling.answered) == 1


def test_a_join_killed_between_answer_and_installation_is_finished_without_asking_again(
    attempt: Attempt,
    paths: Paths,
    ca: SmallCA,
    atlas: FakeNode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The invite is used up by then."""

    class PowerCutError(Exception):
        """The process ends here."""

    def cut(*_: object) -> None:
        raise PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr("workers.enroll.joining.membership_of", cut)
        with pytest.raises(PowerCutError):
            attempt.run(invite=invite(atlas, ca))
    assert not paths.membership.exists()
    assert attempt.again().run(invite=invite(atlas, ca)) == Exit.OK
    assert len(atlas.seen("/v1/join")) == 1
    assert membership(paths).member_id == "ab"


def test_an_answer_that_names_another_root_is_refused(
    attempt: Attempt, paths: Paths, ca: SmallCA, atlas: FakeNode
) -> None:
    """Trust comes from the pin, never from the answer."""
    right = atlas.table["POST", "/v1/join"]

    def swapped(visit: Visit) -> Any:
        answer = right(visit)
        issued = msgspec.structs.replace(answer.issued, root=SmallCA("evil").root)
        return msgspec.structs.replace(answer, issued=issued)

    atlas.table["POST", "/v1/join"] = swapped
    with pytest.raises(PinMismatchError):
        attempt.run(invite=invite(atlas, ca))
    assert not paths.membership.exists()


def test_refusals_exit_7_and_everything_else_1() -> None:
    """Scripts decide by this."""
    assert exit_of(PinMismatchError("")) == exit_of(BadCredentialError("")) == Exit.REFUSED
    assert exit_of(PeerUnreachableError("")) == exit_of(MeshExistsError("")) == Exit.FAILED


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://10.0.0.1:7", ("10.0.0.1", 7)),
        ("https://[::1]:7/", ("::1", 7)),
        ("atlas.home.arpa", ("atlas.home.arpa", 7642)),
        ("10.0.0.1:8443", ("10.0.0.1", 8443)),
    ],
)
def test_a_ca_address_may_be_written_in_several_ways(url: str, expected: tuple[str, int]) -> None:
    """People type it."""
    assert address_of(url) == expected


@pytest.mark.parametrize("url", ["", "http://a:1", "https://", "https://a:99999", "https://a/b"])
def test_what_is_no_ca_address_is_refused(url: str) -> None:
    """Plain HTTP above all."""
    with pytest.raises(MalformedMessageError):
        address_of(url)


def test_own_addresses_come_from_settings_then_listener_then_route() -> None:
    """The CA must be able to call back."""
    assert own_addresses(("10.0.0.5",), "0.0.0.0:1", "10.0.0.6") == ("10.0.0.5",)
    assert own_addresses((), "127.0.0.3:1", "10.0.0.6") == ("127.0.0.3",)
    assert own_addresses((), "0.0.0.0:1", "10.0.0.6") == ("10.0.0.6",)
    assert own_addresses((), "[::]:1", "") == ()
    assert (port_of("0.0.0.0:81", 5), port_of("", 5)) == (81, 5)


def command(paths: Paths, order: object) -> "subprocess.Popen[str]":
    """Start the real program with its order on standard input."""
    process = subprocess.Popen(
        [sys.executable, "-m", "workers.enroll", paths.settings],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(order if isinstance(order, str) else json.dumps(order))
    process.stdin.close()
    process.stdin = None
    return process


def lines_of(process: "subprocess.Popen[str]") -> list[dict[str, Any]]:
    """Wait for the program and return what it told."""
    out, _ = process.communicate(timeout=30)
    return [json.loads(line) for line in out.splitlines()]


def test_the_program_tells_its_outcome_as_lines_of_json(
    paths: Paths, ca: SmallCA, atlas: FakeNode
) -> None:
    """The command shows them; secrets come on standard input only."""
    paths.settings.write_text('[node]\nname = "nas"\n')
    process = command(paths, {"invite": invite(atlas, ca, secret="wrong")})
    told = lines_of(process)
    assert process.returncode == Exit.REFUSED
    assert told[-1] == {
        "kind": "fault",
        "code": "bad_credential",
        "detail": "no such invite",
        "hint": "ask for a new one",
    }
    process = command(paths, {"invite": invite(atlas, ca)})
    assert lines_of(process)[-1]["kind"] == "joined"
    assert process.returncode == Exit.OK


@pytest.mark.parametrize("order", ["", "[]", '{"invite": 5}', '{"invite": "cm1:AAAA"}'])
def test_a_senseless_order_is_a_fault_line_and_no_traceback(paths: Paths, order: str) -> None:
    """Whatever the command passes on."""
    process = command(paths, order)
    (told,) = lines_of(process)
    assert told["kind"] == "fault"
    assert process.returncode in {Exit.FAILED, Exit.REFUSED}


@pytest.mark.faults
def test_an_interrupted_wait_ends_as_waiting_and_goes_on_later(
    paths: Paths, ca: SmallCA, atlas: FakeNode
) -> None:
    """Ctrl-C while a person thinks must not lose the place in the queue."""
    paths.settings.write_text('[node]\nname = "nas"\n')
    enrolling_of(atlas).open_question = True
    order = {"url": atlas.url, "totp": "123456", "pin": ca.pin, "wait_s": 60}
    process = command(paths, order)
    eventually(lambda: len(atlas.seen("/v1/join/0badcafe")) > 1, within_s=20)
    os.kill(process.pid, signal.SIGINT)
    assert lines_of(process)[-1]["kind"] == "waiting"
    assert process.returncode == Exit.WAITING
    enrolling_of(atlas).open_question = False
    assert lines_of(command(paths, order))[-1]["kind"] == "joined"
    assert len(atlas.seen("/v1/join")) == 1
