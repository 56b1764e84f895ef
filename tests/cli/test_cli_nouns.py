"""The nouns against a console: what is asked, what is shown, what needs a yes."""

import json
import re
import socket

import msgspec
import pytest

from broker.clock import boottime_ms
from broker.errors import BadPassphraseError, CALockedError
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.units import UnixSeconds
from broker.wire.approval import Approval, ApprovalsView, ApprovalView
from broker.wire.audit import AuditLine, AuditVerdict, AuditView
from broker.wire.console_api import CertificateView, InviteCreated
from broker.wire.control import Ack
from broker.wire.enrollment import EnrollmentView, InvitesView, InviteView
from broker.wire.roster import CertificateLine, MembersView, MemberView, RevocationAnswer
from tests.cli.command import Certmesh
from tests.cli.fake_console import FakeConsole
from tests.cli.views import MESH_ID, NOW, PIN, authority, member, node

REVOKE = "/v1/members/nas/revoke"
WORDS = ("copper", "lantern", "orbit", "seven")


def revocation(host: str = "nas") -> RevocationAnswer:
    """Return what a revocation answers."""
    return RevocationAnswer(
        host=host, member_id="cd", serials=("4c11",), sequence=42, enforced_by=2, members=3
    )


def approval(identity: str = "a1b2c3d4e5f6a7b8", host: str = "pi") -> Approval:
    """Return a join that waits."""
    return Approval(
        approval_id=identity,
        host=host,
        sans=(f"{host}.home.internal",),
        source="192.0.2.9",
        method="totp",
        key_fingerprint="ab" * 32,
        words=WORDS,
        requested_at=NOW,
        expires_at=UnixSeconds(NOW + 60),
        state="pending",
    )


def test_the_fingerprint_is_shown_in_groups(console: FakeConsole, certmesh: Certmesh) -> None:
    """People compare it aloud over a telephone."""
    console.answer("GET", "/v1/ca", authority())
    console.answer("GET", "/v1/node", node())
    assert "9f3a 41c2 07de b8aa 9f3a" in certmesh("ca", "show").out
    assert certmesh("ca", "show", "--pem").out.startswith("-----BEGIN CERTIFICATE-----\nAAAA\n")
    assert certmesh("ca", "show", "--json").body["pin"] == PIN


def test_the_ca_of_a_standby_says_who_signs_with_it(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """The same key lies on several nodes; only one of them uses it."""
    console.answer("GET", "/v1/ca", authority("locked"))
    console.answer("GET", "/v1/node", node(role="standby", ca="locked", host="nas"))
    assert re.search("^signed by +atlas; nas holds the key as standby$", *_ca_show(certmesh))
    shown = certmesh("ca", "show", "--json").body
    assert (shown["role"], shown["primary"], shown["state"]) == ("standby", "atlas", "locked")
    console.answer("GET", "/v1/node", node())
    assert re.search(r"^signed by +atlas \(this node\)$", *_ca_show(certmesh))


def _ca_show(certmesh: Certmesh) -> tuple[str, re.RegexFlag]:
    return certmesh("ca", "show").out, re.MULTILINE


def test_the_passphrase_comes_from_stdin_and_never_from_argv(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Everybody on the machine can read argv."""
    console.answer("POST", "/v1/ca/unlock", authority())
    said = certmesh("ca", "unlock", "--passphrase-file", "-", typed="six words of mine\n")
    assert said.out == "CA unlocked\n"
    assert json.loads(console.asked[-1].body) == {"passphrase": "six words of mine"}
    assert certmesh("ca", "unlock", "--passphrase", "x").status == Exit.USAGE


def test_a_wrong_passphrase_is_refused(console: FakeConsole, certmesh: Certmesh) -> None:
    """Seven, not one: a script can ask again."""
    console.refuse("POST", "/v1/ca/unlock", BadPassphraseError("no slot opens"), 403)
    said = certmesh("ca", "unlock", "--passphrase-file", "-", typed="wrong\n")
    assert said.status == Exit.REFUSED


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("ca", "unlock"), "--passphrase-file"),
        (("member", "revoke", "nas"), "--yes"),
        (("standby", "remove", "nas"), "--yes"),
        (("standby", "step-down"), "--yes"),
        (("standby", "promote", "--force"), "--yes"),
        (("join", "--url", "https://192.0.2.1:7642"), "--pin"),
        (("join", "--url", "https://192.0.2.1:7642", "--pin", PIN), "--totp-file"),
    ],
)
def test_nothing_is_asked_without_a_terminal(
    words: tuple[str, ...], flag: str, member_home: Paths, certmesh: Certmesh
) -> None:
    """A cron job must fail at once and say which flag it lacks, not hang on a prompt."""
    if words[0] == "join":
        member_home.membership.unlink()
    said = certmesh(*words, typed="y\nsecret\n")
    assert said.status == Exit.USAGE
    assert flag in said.err


def test_a_revocation_without_yes_reaches_nobody(console: FakeConsole, certmesh: Certmesh) -> None:
    """It is for ever, so silence is a no, also with --json."""
    console.answer("POST", REVOKE, revocation())
    assert certmesh("member", "revoke", "nas").status == Exit.USAGE
    assert certmesh("member", "revoke", "nas", "--json").status == Exit.USAGE
    assert console.asked == []


def test_a_revocation_with_yes_says_who_refuses_it_already(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """The number that matters after pressing the button."""
    console.answer("POST", REVOKE, revocation())
    said = certmesh("member", "revoke", "nas", "--reason", "stolen", "--yes")
    assert said.status == Exit.OK
    assert "refused already by 2 of 3 nodes" in said.out
    assert json.loads(console.asked[-1].body) == {"reason": "stolen", "dry_run": False}


@pytest.mark.parametrize(
    ("reach", "said"),
    [
        ((0, 0), None),
        ((1, 1), "durable on 1 of 1 standby"),
        ((3, 1), "durable on 1 of 3 standbys"),
    ],
)
def test_a_revocation_says_how_many_standbys_would_remember_it(
    reach: tuple[int, int], said: str | None, console: FakeConsole, certmesh: Certmesh
) -> None:
    """What only this disk knows dies with it."""
    answer = msgspec.structs.replace(revocation(), standbys=reach[0], standbys_durable=reach[1])
    console.answer("POST", REVOKE, answer)
    lines = certmesh("member", "revoke", "nas", "--yes").out.splitlines()
    assert [line for line in lines if line.startswith("durable")] == ([said] if said else [])
    body = certmesh("member", "revoke", "nas", "--yes", "--json").body
    assert (body["standbys"], body["standbys_durable"]) == reach


def test_a_dry_run_of_a_revocation_needs_no_yes(console: FakeConsole, certmesh: Certmesh) -> None:
    """It changes nothing."""
    console.answer("POST", REVOKE, revocation())
    said = certmesh("member", "revoke", "nas", "--dry-run")
    assert "would be revoked" in said.out
    assert json.loads(console.asked[-1].body)["dry_run"] is True


def test_a_name_with_a_slash_stays_one_name(console: FakeConsole, certmesh: Certmesh) -> None:
    """Or `member revoke nas/../atlas` would ask about somebody else."""
    certmesh("member", "show", "nas/../atlas")
    certmesh("member", "show", "..")
    certmesh("member", "show", "a?b#c%2f")
    assert [asked.path for asked in console.asked] == [
        "/v1/members/nas%2F..%2Fatlas",
        "/v1/members/%2E%2E",
        "/v1/members/a%3Fb%23c%252f",
    ]


def test_members_are_listed_in_pages(console: FakeConsole, certmesh: Certmesh) -> None:
    """A thousand hosts do not fit one answer."""
    view = MembersView(members=(member("nas"),), total=7, next_after="nas")
    console.answer("GET", "/v1/members?after=&limit=1", view)
    said = certmesh("member", "list", "--limit", "1")
    assert "nas" in said.out
    assert "--after nas" in said.err


def test_one_member_comes_with_its_certificates(console: FakeConsole, certmesh: Certmesh) -> None:
    """Newest first, with their states in words."""
    line = CertificateLine(
        serial="4c11e0", not_before=NOW, not_after=NOW, state="superseded", fingerprint="ab"
    )
    console.answer("GET", "/v1/members/nas", MemberView(member=member("nas"), certificates=(line,)))
    out = certmesh("member", "show", "nas").out
    assert "4c11e0" in out
    assert "superseded" in out


def test_the_invite_is_alone_on_stdout(console: FakeConsole, certmesh: Certmesh) -> None:
    """So that `$(certmesh invite create nas)` is the invite."""
    made = InviteCreated(
        invite="cm1:abc",
        invite_id="ab12",
        host="nas",
        sans=(),
        expires_at=NOW,
        state="open",
        pin=PIN,
        mesh_id=MESH_ID,
    )
    console.answer("POST", "/v1/invites", made)
    said = certmesh("invite", "create", "nas", "--ttl", "10m", "--san", "nas.local")
    assert said.out == "cm1:abc\n"
    assert json.loads(console.asked[-1].body) == {
        "host": "nas",
        "sans": ["nas.local"],
        "ttl_s": 600,
        "rejoin": False,
    }


def test_a_duration_without_unit_is_wrong_usage(console: FakeConsole, certmesh: Certmesh) -> None:
    """`--ttl 10` could be ten of anything."""
    for ttl in ("10", "0s"):
        assert certmesh("invite", "create", "nas", "--ttl", ttl).status == Exit.USAGE
    assert console.asked == []


def invites(*lines: tuple[str, str, str]) -> InvitesView:
    """Return invites of (id, host, state)."""
    return InvitesView(
        tuple(
            InviteView(invite_id=identity, host=host, sans=(), expires_at=NOW, state=state)
            for identity, host, state in lines
        )
    )


def test_an_invite_is_revoked_by_the_beginning_of_its_id(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Sixty-four digits are for machines."""
    console.answer("GET", "/v1/invites", invites(("abcd" * 16, "nas", "open")))
    console.answer("DELETE", f"/v1/invites/{'abcd' * 16}", Ack())
    assert certmesh("invite", "revoke", "abcdab").status == Exit.OK
    assert console.asked[-1].method == "DELETE"


def test_a_whole_id_revokes_an_invite_that_is_too_old_for_the_list(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """The list has the newest ones; a permission must never be too old to be taken back."""
    console.answer("DELETE", f"/v1/invites/{'abcd' * 16}", Ack())
    assert certmesh("invite", "revoke", "abcd" * 16).status == Exit.OK
    assert [asked.method for asked in console.asked] == ["DELETE"]


def test_an_ambiguous_beginning_decides_nothing(console: FakeConsole, certmesh: Certmesh) -> None:
    """A decision is never made on a guess."""
    both = invites(("abcd01", "nas", "open"), ("abcd02", "nas", "open"), ("ef", "old", "used"))
    console.answer("GET", "/v1/invites", both)
    assert certmesh("invite", "revoke", "abcd").status == Exit.CONFLICT
    assert certmesh("invite", "revoke", "nas").status == Exit.CONFLICT
    assert certmesh("invite", "revoke", "abc").status == Exit.FAILED
    assert certmesh("invite", "revoke", "old").status == Exit.FAILED
    assert {asked.method for asked in console.asked} == {"GET"}


def test_approving_by_host_needs_exactly_one_such_request(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Two requests under one name are an attack or a mistake; a person picks by id and words."""
    one, two = approval(), approval("ffff000011112222")
    console.answer("GET", "/v1/approvals?state=pending", ApprovalsView((one, two)))
    assert certmesh("approval", "approve", "pi").status == Exit.CONFLICT
    console.answer("GET", "/v1/approvals?state=pending", ApprovalsView((one,)))
    console.answer("POST", f"/v1/approvals/{one.approval_id}/approve", ApprovalView(one))
    assert certmesh("approval", "approve", "pi", "--reason", "mine").status == Exit.OK
    assert json.loads(console.asked[-1].body) == {"reason": "mine"}


def test_pending_requests_show_their_words(console: FakeConsole, certmesh: Certmesh) -> None:
    """The words are what a person compares."""
    console.answer("GET", "/v1/approvals?state=pending", ApprovalsView((approval(),)))
    assert "copper  lantern  orbit  seven" in certmesh("approval", "list").out
    console.answer("GET", "/v1/approvals", ApprovalsView((approval(),)))
    console.answer("GET", f"/v1/approvals/{approval().approval_id}", ApprovalView(approval()))
    assert "192.0.2.9 (totp)" in certmesh("approval", "show", "a1b2").out


def test_denying_tells_the_reason(console: FakeConsole, certmesh: Certmesh) -> None:
    """It goes into the audit trail."""
    one = approval()
    console.answer("GET", "/v1/approvals?state=pending", ApprovalsView((one,)))
    console.answer("POST", f"/v1/approvals/{one.approval_id}/deny", ApprovalView(one))
    assert certmesh("approval", "deny", "a1b2", "--reason", "who?").status == Exit.OK
    assert json.loads(console.asked[-1].body) == {"reason": "who?"}


@pytest.mark.parametrize(("verb", "is_open"), [("open", True), ("close", False)])
def test_the_door_is_opened_and_closed(
    verb: str,
    is_open: bool,  # noqa: FBT001 (one of the cases above)
    console: FakeConsole,
    certmesh: Certmesh,
) -> None:
    """The answer is what the broker says now holds."""
    console.answer("PUT", "/v1/enrollment", EnrollmentView(open=is_open, approval=True))
    said = certmesh("enrollment", verb, "--json")
    assert said.body == {"schema": "certmesh.enrollment/1", "open": is_open, "approval": True}
    assert json.loads(console.asked[-1].body) == {"open": is_open}


def test_a_broken_chain_fails(console: FakeConsole, certmesh: Certmesh) -> None:
    """And names the first bad row."""
    broken = AuditVerdict(rows=9, head_hash="ab", first_bad=4, detail="hash differs")
    console.answer("GET", "/v1/audit/verify", broken)
    said = certmesh("audit", "verify")
    assert (said.status, said.out) == (Exit.FAILED, "fail  row 4: hash differs\n")
    assert certmesh("audit", "verify", "--json").body["ok"] is False


def test_the_trail_is_shown_newest_page_first(console: FakeConsole, certmesh: Certmesh) -> None:
    """Without --after one wants the end of it."""
    row = AuditLine(
        sequence=7,
        term=1,
        at=NOW,
        actor="root\x1b[2J",
        event="invite.created",
        fields={"host": "nas", "sans": ["x" * 90]},
        hash="ab",
    )
    console.answer("GET", "/v1/audit?after=-1&limit=50", AuditView(rows=(row,), head_sequence=7))
    said = certmesh("audit", "show")
    assert r"root\x1b[2J" in said.out
    assert "host=nas" in said.out
    assert certmesh("audit", "show", "--json").body["rows"][0]["fields"]["host"] == "nas"


def certificate(serial: str = "4c11e0aa") -> CertificateView:
    """Return this node's certificate."""
    return CertificateView(
        host="atlas",
        present=True,
        serial=serial,
        not_before=NOW,
        not_after=UnixSeconds(NOW * 2),
        renew_at=UnixSeconds(NOW * 2 - 9),
        served="served",
        served_serial=serial,
        sans=("atlas.home.internal",),
        last_error="",
        files={"cert": "/c/live/cert.pem"},
    )


def test_renewing_waits_for_the_new_serial(console: FakeConsole, certmesh: Certmesh) -> None:
    """Asking is not renewing: the answer is another certificate."""
    console.answer("GET", "/v1/certificate", certificate())
    console.answer("POST", "/v1/certificate/renew", Ack())
    late = certmesh("cert", "renew", "--timeout", "1s")
    assert late.status == Exit.UNREACHABLE
    assert "not renewed within 1 s" in late.err


def test_a_dry_run_of_a_renewal_asks_for_nothing(console: FakeConsole, certmesh: Certmesh) -> None:
    """Only GETs may have been sent."""
    console.answer("GET", "/v1/certificate", certificate())
    said = certmesh("cert", "renew", "--dry-run", "--json")
    assert said.body["renewed"] is False
    assert {asked.method for asked in console.asked} == {"GET"}


def test_a_command_that_needs_the_key_is_status_five(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Locked has a status of its own."""
    console.answer("GET", "/v1/certificate", certificate())
    console.refuse("POST", "/v1/certificate/renew", CALockedError("locked"), 503)
    assert certmesh("cert", "renew").status == Exit.LOCKED


def test_a_console_that_keeps_silent_is_given_up(member_home: Paths, certmesh: Certmesh) -> None:
    """A frozen broker must not freeze the command."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(member_home.api_socket))
        listener.listen()
        began_ms = boottime_ms()
        said = certmesh("status", "--timeout", "100ms")
    assert boottime_ms() - began_ms < 5000
    assert said.status == Exit.UNREACHABLE
    assert "within 0.1 s" in said.err
