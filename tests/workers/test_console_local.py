"""The local door: who may use it, what it asks the broker, what it answers by itself."""

import hashlib
import json
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.errors import BadPassphraseError, NotPrimaryError, WithheldError
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.approval import Approval, ApprovalView, DecideApproval
from broker.wire.authority import AuthorityView, LockAuthority, UnlockAuthority
from broker.wire.control import Ack
from broker.wire.enrollment import (
    CreateInvite,
    EnrollmentView,
    InviteView,
    RevokeInvite,
    SetEnrollment,
)
from broker.wire.ids import Service
from broker.wire.invite import decode_invite
from broker.wire.liveness import Goodbye
from broker.wire.node import GetNode, GetStatus, MemberLine, StatusView
from broker.wire.operator import operator_of
from broker.wire.roster import ListMembers, MembersView, RevocationAnswer, RevokeMember
from broker.wire.standby import (
    CloseReview,
    ListReviews,
    ListStandbys,
    NominateStandby,
    PromoteHere,
    PromotionAnswer,
    RemoveStandby,
    ReviewsView,
    StandbysView,
    StepDown,
    StepDownAnswer,
    SyncNow,
)
from tests.stub_broker import StubBroker, idle_node
from tests.support import eventually
from tests.workers.door_house import House, Notebook, visit_unix
from tests.workers.tls_lab import ENDPOINT, Lab, install, write_membership
from workers.accounts import own_account
from workers.connection import Limits, Origin
from workers.console.logic import ROOT_UID, admit
from workers.console.routes import ASKING_ROUTES
from workers.console.service import Console

ROOT = Path(__file__).parents[2]
PASSPHRASE = "correct horse battery staple"


APPROVAL = Approval(
    approval_id="ab",
    host="pi",
    sans=(),
    source="192.0.2.1",
    method="totp",
    key_fingerprint="aa",
    words=(),
    requested_at=1,  # type: ignore[arg-type]  # a plain number
    expires_at=2,  # type: ignore[arg-type]  # a plain number
    state="approved",
    operator="root",
)


def authority_view(_request: UnlockAuthority) -> AuthorityView:
    """Answer that the key is open."""
    return AuthorityView(
        state="unlocked",
        mesh_name="lab",
        domain="lab.internal",
        pin="bb",
        term=1,
        root_pem="",
        issuing_pem="",
        root_not_after=0,  # type: ignore[arg-type]  # a plain number
        issuing_not_after=0,  # type: ignore[arg-type]  # a plain number
        permitted_names=(),
        permitted_networks=(),
        slots=(),
    )


def invite_view(request: CreateInvite) -> InviteView:
    """Answer as the broker would."""
    return InviteView(
        invite_id=request.secret_hash,
        host=request.host,
        sans=request.sans,
        expires_at=1_900_000_000,  # type: ignore[arg-type]  # a plain number
        state="open",
        pin="bb",
        mesh_id="aa",
        primary=ENDPOINT,
    )


class Flat:
    """A console with an open socket."""

    def __init__(self, paths: Paths, settings: Settings, house: House, broker: StubBroker) -> None:
        self.paths, self.settings, self.house, self.broker = paths, settings, house, broker
        self.notes = Notebook()
        self.console = house.furnish(lambda asker: Console(settings, paths, asker, Limits()))
        house.round(self.console, self.notes)


@pytest.fixture
def flat(paths: Paths, settings: Settings) -> Iterator[Flat]:
    """A console that stands open."""
    with StubBroker(paths) as broker, House(paths, Service.CONSOLE) as house:
        yield Flat(paths, settings, house, broker)


def test_the_socket_is_private(flat: Flat) -> None:
    """The mode keeps others out before the uid check does."""
    assert stat.S_IMODE(flat.paths.api_socket.stat().st_mode) == 0o600


def test_another_user_is_refused_on_every_request(paths: Paths, settings: Settings) -> None:
    """Whatever the file's mode became, the kernel's word about the peer decides."""
    stranger = Origin(source="uid:4711", uid=4711)
    with StubBroker(paths) as broker, House(paths, Service.CONSOLE) as house:
        console = house.furnish(
            lambda asker: Console(settings, paths, asker, Limits(), lambda _peer: stranger)
        )
        house.round(console)
        with visit_unix(paths.api_socket) as visitor:
            for method, path in (("GET", "/v1/node"), ("POST", "/v1/ca/lock"), ("GET", "/nope")):
                said = visitor.ask(method, path)
                assert (said.status, said.json["code"]) == (403, "forbidden")
        assert not broker.seen(GetNode)
        assert not broker.seen(LockAuthority)


@pytest.mark.parametrize("uid", [None, 1, 4711, 65534])
def test_only_the_nodes_own_user_and_root_are_admitted(uid: int | None) -> None:
    """No uid at all is nobody."""
    with pytest.raises(Exception, match="own user and root"):
        admit(uid, own_uid=1000)
    assert admit(1000, own_uid=1000) == 1000
    assert admit(ROOT_UID, own_uid=1000) == ROOT_UID


def test_the_operator_is_who_the_kernel_says(flat: Flat) -> None:
    """No header or body can name another."""
    flat.broker.answers[DecideApproval] = lambda _request: ApprovalView(APPROVAL)
    with visit_unix(flat.paths.api_socket) as visitor:
        body = {"reason": "knows the words", "operator": "mallory"}
        said = visitor.ask("POST", "/v1/approvals/ab/approve", body, {"X-User": "mallory"})
        assert said.json["approval"]["operator"] == "root"
        assert visitor.ask("POST", "/v1/approvals/ab/deny").status == 200
    yes, no = flat.broker.seen(DecideApproval)
    assert yes.operator == no.operator == user_name()
    assert (yes.approve, yes.reason, no.approve) == (True, "knows the words", False)


def test_the_secret_of_an_invite_never_reaches_the_broker(flat: Flat) -> None:
    """The broker stores a hash; only the person sees the secret, once."""
    flat.broker.answers[CreateInvite] = invite_view
    with visit_unix(flat.paths.api_socket) as visitor:
        said = visitor.ask("POST", "/v1/invites", {"host": "pi", "sans": ["pi.home.arpa"]})
        other = visitor.ask("POST", "/v1/invites", {"host": "pi", "ttl_s": 60})
    assert said.status == 201
    ticket = decode_invite(said.json["invite"])
    first, second = flat.broker.seen(CreateInvite)
    assert first.secret_hash == hashlib.sha256(ticket.secret.encode()).hexdigest()
    assert ticket.secret != decode_invite(other.json["invite"]).secret
    assert len(ticket.secret) >= 43
    assert all(ticket.secret not in repr(call) for call in flat.broker.calls)
    assert (ticket.addresses, ticket.enroll_port) == (("127.0.0.1",), 7642)
    assert (ticket.pin, ticket.host, ticket.sans) == ("bb", "pi", ("pi.home.arpa",))
    assert ticket.server_name == ENDPOINT.server_name
    assert (first.ttl_s, second.ttl_s) == (3600, 60)


def test_a_wrong_passphrase_is_a_clear_refusal(flat: Flat) -> None:
    """The passphrase goes to the broker as bytes and into no answer."""

    def refuse(_request: UnlockAuthority) -> None:
        raise BadPassphraseError("no slot opens with this passphrase")

    flat.broker.answers[UnlockAuthority] = refuse
    with visit_unix(flat.paths.api_socket) as visitor:
        said = visitor.ask("POST", "/v1/ca/unlock", {"passphrase": PASSPHRASE})
        empty = visitor.ask("POST", "/v1/ca/unlock", {})
    assert (said.status, said.json["code"]) == (403, "bad_passphrase")
    assert PASSPHRASE.encode() not in said.body
    assert (empty.status, "passphrase" in empty.json["detail"]) == (400, True)
    assert flat.broker.seen(UnlockAuthority)[0].passphrase == PASSPHRASE.encode()


def test_parameters_reach_the_broker(flat: Flat) -> None:
    """Paths, queries and bodies become fields of one request each."""
    empty = MembersView(members=(), total=0)
    flat.broker.answers[ListMembers] = lambda _request: empty
    flat.broker.answers[RevokeInvite] = lambda _request: Ack()
    flat.broker.answers[SetEnrollment] = lambda r: EnrollmentView(open=r.open, approval=True)
    flat.broker.answers[RevokeMember] = lambda r: RevocationAnswer(
        host=r.host, member_id="a", serials=(), sequence=1, enforced_by=0, members=1
    )
    with visit_unix(flat.paths.api_socket) as visitor:
        assert visitor.ask("GET", "/v1/members?after=nas&limit=2").json["total"] == 0
        wish = "/v1/members?order=expiry&expiring_s=60&state=stale&limit=2"
        assert visitor.ask("GET", wish).status == 200
        for wrong in (
            "order=serial",
            "expiring_s=-1",
            "expiring_s=1e9",
            "expiring_s=9999999999999999",
        ):
            assert visitor.ask("GET", f"/v1/members?{wrong}").status == 400
        assert visitor.ask("DELETE", "/v1/invites/beef").status == 200
        assert visitor.ask("PUT", "/v1/enrollment", {"open": True}).json["open"] is True
        body = {"reason": "lost", "dry_run": True}
        assert visitor.ask("POST", "/v1/members/nas.home.arpa/revoke", body).status == 200
        assert visitor.ask("PUT", "/v1/enrollment", {"open": "yes"}).status == 400
    plain, wished = flat.broker.seen(ListMembers)
    assert plain == ListMembers(after="nas", limit=2)
    assert wished == ListMembers(limit=2, order="expiry", expiring_s=60, state="stale")
    assert flat.broker.seen(RevokeInvite)[0].invite_id == "beef"
    revoked = flat.broker.seen(RevokeMember)[0]
    assert (revoked.host, revoked.reason, revoked.dry_run) == ("nas.home.arpa", "lost", True)


STANDBYS = StandbysView(
    host="atlas",
    phase="serving",
    mode="automatic",
    term=3,
    primary="atlas",
    lines=(),
    powers="full",
    silent_ms=400,
)


def user_name() -> str:
    """Return what is recorded for whoever runs this and says no name."""
    account = own_account()
    return operator_of(account.name, "") if account.shared else account.name


def answer_succession(broker: StubBroker) -> None:
    """Let the broker answer every question about the succession."""
    broker.answers[ListStandbys] = lambda _request: STANDBYS
    broker.answers[NominateStandby] = lambda _request: Ack()
    broker.answers[RemoveStandby] = lambda _request: Ack()
    broker.answers[PromoteHere] = lambda _request: PromotionAnswer("promoted", 4, "silent")
    broker.answers[StepDown] = lambda _request: StepDownAnswer("nas", 3)
    broker.answers[SyncNow] = lambda _request: Ack()
    broker.answers[ListReviews] = lambda _request: ReviewsView(reviews=(), total=0)
    broker.answers[CloseReview] = lambda _request: Ack()


def test_every_route_of_the_succession_reaches_the_broker(flat: Flat) -> None:
    """Paths and bodies become one request each; the operator is who the kernel says."""
    answer_succession(flat.broker)
    with visit_unix(flat.paths.api_socket) as visitor:
        assert visitor.ask("GET", "/v1/standbys").json["silent_ms"] == 400
        assert visitor.ask("POST", "/v1/standbys/nas.home.arpa").status == 200
        assert visitor.ask("DELETE", "/v1/standbys/nas").status == 200
        body = {"force": True, "dry_run": True, "operator": "mallory"}
        said = visitor.ask("POST", "/v1/standby/promote", body)
        assert (said.json["outcome"], said.json["term"]) == ("promoted", 4)
        said = visitor.ask("POST", "/v1/standby/step-down", {"successor": "nas"})
        assert said.json["successor"] == "nas"
        assert visitor.ask("POST", "/v1/standby/sync").status == 200
        assert visitor.ask("GET", "/v1/reviews?limit=7").json["total"] == 0
        assert visitor.ask("POST", "/v1/reviews/beef/close").status == 200
    name = user_name()
    seen = flat.broker.seen
    assert seen(NominateStandby) == [NominateStandby("nas.home.arpa", name)]
    assert seen(RemoveStandby) == [RemoveStandby("nas", name)]
    assert seen(PromoteHere) == [PromoteHere(name, force=True, dry_run=True)]
    assert seen(StepDown) == [StepDown(name, successor="nas")]
    assert seen(SyncNow) == [SyncNow(name)]
    assert seen(ListReviews) == [ListReviews(limit=7)]
    assert seen(CloseReview) == [CloseReview("beef", name)]


def test_bodies_of_the_succession_may_be_missing(flat: Flat) -> None:
    """Nothing said means: not forced, not dry, whoever is ready."""
    answer_succession(flat.broker)
    with visit_unix(flat.paths.api_socket) as visitor:
        assert visitor.ask("POST", "/v1/standby/promote").status == 200
        assert visitor.ask("POST", "/v1/standby/step-down").status == 200
        assert visitor.ask("POST", "/v1/standby/promote", {"force": "yes"}).status == 400
    (promotion,) = flat.broker.seen(PromoteHere)
    assert (promotion.force, promotion.dry_run) == (False, False)
    (step_down,) = flat.broker.seen(StepDown)
    assert step_down.successor == ""


def test_an_id_that_is_no_hexadecimal_never_reaches_the_broker(flat: Flat) -> None:
    """The bounds of the wire hold at the door."""
    answer_succession(flat.broker)
    with visit_unix(flat.paths.api_socket) as visitor:
        assert visitor.ask("POST", "/v1/reviews/..%2F..%2Fetc/close").status == 400
        assert visitor.ask("POST", f"/v1/standbys/{'a' * 254}").status == 400
    assert not flat.broker.seen(CloseReview)
    assert not flat.broker.seen(NominateStandby)


def test_a_refused_change_of_roles_names_code_and_hint(flat: Flat) -> None:
    """The command turns the code into its exit status."""

    def hold_back(_request: PromoteHere) -> None:
        raise WithheldError("lagging: row 40 of 41", hint="certmesh standby sync")

    def not_here(_request: NominateStandby) -> None:
        raise NotPrimaryError("atlas leads")

    flat.broker.answers[PromoteHere] = hold_back
    flat.broker.answers[NominateStandby] = not_here
    with visit_unix(flat.paths.api_socket) as visitor:
        said = visitor.ask("POST", "/v1/standby/promote")
        assert (said.status, said.json["code"]) == (503, "withheld")
        assert said.json["hint"] == "certmesh standby sync"
        said = visitor.ask("POST", "/v1/standbys/nas")
        assert (said.status, said.json["code"]) == (503, "not_primary")


def test_the_certificate_is_shown_with_its_places(flat: Flat) -> None:
    """What a person configures in a service is one of these paths."""
    own = MemberLine(
        host="atlas",
        member_id="cc",
        role="primary",
        state="active",
        serial="ab",
        not_before=None,
        not_after=None,
        renew_at=None,
        served="installed",
        served_serial="ab",
        last_seen_at=None,
        address="",
    )
    status = StatusView(
        node=idle_node("atlas"),
        enrollment_open=False,
        approvals_pending=0,
        members=(),
        member_count=1,
        warnings=(),
        survives_until=None,
        own=own,
        now=0,  # type: ignore[arg-type]  # a plain number
    )
    flat.broker.answers[GetStatus] = lambda _request: status
    install(flat.paths, Lab().leaf())
    with visit_unix(flat.paths.api_socket) as visitor:
        said = visitor.ask("GET", "/v1/certificate")
    assert (said.json["present"], said.json["serial"]) == (True, "ab")
    assert said.json["files"]["key"] == f"{flat.paths.certificates}/atlas/live/key.pem"


def test_hooks_are_read_again_at_each_question(flat: Flat) -> None:
    """Editing the file is enough; a broken file is said, not swallowed."""
    with visit_unix(flat.paths.api_socket) as visitor:
        assert visitor.ask("GET", "/v1/hooks").json["hooks"] == []
        flat.paths.settings.write_text('[[hook]]\nname = "nginx"\ncommand = ["/bin/true"]\n')
        script = flat.paths.home / "hooks.d" / "deploy" / "10-copy"
        script.parent.mkdir(parents=True)
        script.write_text("#!/bin/sh\n")
        script.with_name("notes.txt").write_text("not executable")
        script.chmod(0o700)
        hooks = visitor.ask("GET", "/v1/hooks").json["hooks"]
        flat.paths.settings.write_text("[[hook]]\nnam = 1\n")
        broken = visitor.ask("GET", "/v1/hooks")
    assert [(hook["name"], hook["source"]) for hook in hooks] == [
        ("nginx", "settings"),
        ("10-copy", "hooks.d/deploy"),
    ]
    assert (broken.status, broken.json["code"]) == (500, "settings")


def test_hook_runs_are_shown_newest_first_and_torn_lines_skipped(flat: Flat) -> None:
    """The file is written by another process that may be killed at any instant."""
    run = {"at": 1, "hook": "nginx", "event": "renewed", "exit": 0, "took_s": 0.1}
    text = "\n".join(json.dumps({**run, "at": at, "hook": hook}) for at, hook in RUNS)
    (flat.paths.data / "hook-runs.ndjson").write_text(text + '\n{"at": 4, "ho')
    with visit_unix(flat.paths.api_socket) as visitor:
        every = visitor.ask("GET", "/v1/hooks/runs").json["runs"]
        nginx = visitor.ask("GET", "/v1/hooks/runs?name=nginx&limit=1").json["runs"]
    assert [line["at"] for line in every] == [3, 2, 1]
    assert [line["at"] for line in nginx] == [3]


RUNS = ((1, "nginx"), (2, "mail"), (3, "nginx"))


def test_a_dead_socket_is_replaced_and_a_live_one_is_not(flat: Flat) -> None:
    """Stealing the path of a running console would cut it off without a word."""
    second = flat.house.furnish(lambda ask: Console(flat.settings, flat.paths, ask, Limits()))
    notes = Notebook()
    flat.house.round(second, notes)
    assert not second.is_open
    assert "another process listens" in notes.errors[-1]
    with visit_unix(flat.paths.api_socket) as visitor:
        assert visitor.ask("GET", "/healthz").status == 200
    flat.house.wait(flat.console.close())
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(flat.paths.api_socket))
    flat.house.round(second, notes)
    assert second.is_open


def test_what_is_no_socket_is_left_alone(paths: Paths, settings: Settings) -> None:
    """A file somebody put there is not ours to delete."""
    paths.api_socket.write_text("precious")
    with StubBroker(paths), House(paths, Service.CONSOLE) as house:
        console = house.furnish(lambda asker: Console(settings, paths, asker, Limits()))
        house.round(console)
        assert not console.is_open
    assert paths.api_socket.read_text() == "precious"


def test_readiness_needs_a_valid_certificate_here_too(flat: Flat) -> None:
    """The same words on every listener."""
    flat.broker.answers[GetNode] = lambda _request: idle_node(role="member")
    with visit_unix(flat.paths.api_socket) as visitor:
        assert visitor.ask("GET", "/readyz").json["reason"] == "certificate_expired"
        lab = Lab()
        write_membership(flat.paths, lab.root_pem)
        install(flat.paths, lab.leaf())
        assert visitor.ask("GET", "/readyz").status == 200
        assert visitor.ask("GET", "/v1/node").json["role"] == "member"


def test_a_route_for_each_question_and_each_says_what_it_is() -> None:
    """No path twice; every write names the operator the kernel vouched for."""
    paths = [(route.method, route.path) for route in ASKING_ROUTES]
    assert len(paths) == len(set(paths))
    assert all(route.summary.endswith(".") for route in ASKING_ROUTES)


def accepts(path: Path) -> bool:
    """Return whether somebody listens: the name is there a moment before."""
    with socket.socket(socket.AF_UNIX) as wire:
        return wire.connect_ex(str(path)) == 0


def test_the_process_serves_and_leaves_politely(paths: Paths) -> None:
    """SIGTERM: Goodbye to the broker, the socket is gone, exit 0; no passphrase in its log."""
    log = paths.log / "console.log"
    with StubBroker(paths, {UnlockAuthority: authority_view}) as broker:
        with log.open("wb") as out:
            command = [sys.executable, "-m", "workers.console", str(paths.settings)]
            process = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT)
        try:
            eventually(lambda: accepts(paths.api_socket), 10)
            with visit_unix(paths.api_socket) as visitor:
                said = visitor.ask("POST", "/v1/ca/unlock", {"passphrase": PASSPHRASE})
                assert said.status == 200
                process.send_signal(signal.SIGTERM)
                assert process.wait(5) == Exit.OK
        finally:
            process.kill()
            process.wait(5)
        assert broker.seen(Goodbye)
    assert not paths.api_socket.exists()
    assert PASSPHRASE not in log.read_text()
