"""`ca policy`, `enrollment rotate-totp`, `invite --qr`: what is asked, shown, and needs a yes."""

import json

import msgspec
import pytest

from broker.cli.policyfields import lines_of, patch_of
from broker.errors import BadCredentialError, PolicyRefusedError
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.wire.console_api import InviteCreated
from broker.wire.enrollment import EnrollmentView, TOTPRotationView
from broker.wire.policy import OutsideLine, Policy, PolicyPatch, PolicyView
from tests.cli.command import Certmesh, on_terminal
from tests.cli.fake_console import FakeConsole
from tests.cli.views import MESH_ID, NOW, PIN

PATH = "/v1/ca/policy"
ROTATE, CONFIRM = "/v1/enrollment/totp/rotate", "/v1/enrollment/totp/confirm"
POLICY = Policy(names=("*.internal", "*.local"), networks=("10.0.0.0/8",))
URI = "otpauth://totp/certmesh:home?secret=ABCD&issuer=certmesh"
ENROLLMENT = EnrollmentView(open=True, approval=False)


def view(changed: tuple[str, ...] = (), *hosts: str, total: int | None = None) -> PolicyView:
    """Return a policy that leaves these hosts out."""
    outside = tuple(OutsideLine(host, "cd", (f"{host}.home.arpa",)) for host in hosts)
    return PolicyView(
        policy=POLICY,
        permitted_names=("*.home.arpa", "*.internal", "*.local"),
        permitted_networks=("10.0.0.0/8",),
        term=1,
        changed=changed,
        outside=outside,
        outside_total=len(hosts) if total is None else total,
    )


def bodies(console: FakeConsole) -> list[dict[str, object]]:
    """Return what was put to the console."""
    return [json.loads(asked.body) for asked in console.asked if asked.body]


def test_the_policy_is_shown_as_it_is_written(console: FakeConsole, certmesh: Certmesh) -> None:
    """Every line can be given back to `policy set`."""
    console.answer("GET", PATH, view())
    said = certmesh("ca", "policy", "show")
    assert said.status == Exit.OK
    assert "leaf_lifetime      30d" in said.out
    assert "names              *.internal,*.local" in said.out
    assert "CA permits         *.home.arpa, *.internal, *.local" in said.out
    written = [f"{key}={value}" for key, value in lines_of(POLICY)]
    assert patch_of(written) == PolicyPatch(**msgspec.structs.asdict(POLICY))


def test_whoever_gets_no_certificate_is_named(console: FakeConsole, certmesh: Certmesh) -> None:
    """Exit 3: a script notices before the certificate ends."""
    console.answer("GET", PATH, view((), "nas", "pi", total=9))
    said = certmesh("ca", "policy", "show")
    assert said.status == Exit.ATTENTION
    assert "outside  nas gets no certificate: nas.home.arpa" in said.out
    assert "outside  and 7 members more" in said.out
    body = certmesh("ca", "policy", "show", "--json").body
    assert body["schema"] == "certmesh.ca-policy-show/1"
    assert body["outside_total"] == 9
    assert body["policy"]["leaf_lifetime_s"] == 30 * 86_400


def test_a_change_that_leaves_nobody_out_asks_nobody(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Looked at first, done then."""
    console.answer("PUT", PATH, view(("leaf_lifetime_s",)))
    said = certmesh("ca", "policy", "set", "leaf_lifetime=30d")
    assert (said.status, said.out) == (Exit.OK, "leaf_lifetime  30d\n")
    looked, done = bodies(console)
    assert (looked["dry_run"], done["dry_run"]) == (True, False)
    assert done["patch"] == looked["patch"]
    assert done["patch"]["leaf_lifetime_s"] == 30 * 86_400  # type: ignore[index]  # an object


def test_a_change_that_leaves_members_out_needs_a_yes(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Their renewals stop; nobody should find out a month later."""
    console.answer("PUT", PATH, view(("names",), "nas"))
    for words in ((), ("--json",)):
        said = certmesh("ca", "policy", "set", "names=*.internal,*.local", *words)
        assert said.status == Exit.USAGE
        assert "--yes" in said.err or "--yes" in said.out
    assert [body["dry_run"] for body in bodies(console)] == [True, True]
    assert certmesh("ca", "policy", "set", "names=*.internal", "--yes").status == Exit.OK
    assert bodies(console)[-1]["dry_run"] is False


def test_a_dry_run_changes_nothing_and_needs_no_yes(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Exit 3 when somebody would fall outside."""
    console.answer("PUT", PATH, view(("names",), "nas"))
    said = certmesh("ca", "policy", "set", "names=*.internal", "--dry-run")
    assert said.status == Exit.ATTENTION
    assert "outside  nas would get no certificate: nas.home.arpa" in said.out
    assert [body["dry_run"] for body in bodies(console)] == [True]
    assert certmesh("ca", "policy", "set", "names=*.internal", "--dry-run", "--json").body[
        "dry_run"
    ]


def test_what_changes_nothing_is_not_sent(console: FakeConsole, certmesh: Certmesh) -> None:
    """And said so."""
    console.answer("PUT", PATH, view())
    said = certmesh("ca", "policy", "set", "wildcards=no")
    assert "nothing changes" in said.out
    assert [body["dry_run"] for body in bodies(console)] == [True]


def test_a_refused_policy_says_what_to_do(console: FakeConsole, certmesh: Certmesh) -> None:
    """Seven, with the command that makes it possible."""
    refusal = PolicyRefusedError("beyond the certificate", hint="certmesh ca rollover start")
    console.refuse("PUT", PATH, refusal, 400)
    said = certmesh("ca", "policy", "set", "names=*.example.com")
    assert said.status == Exit.REFUSED
    assert "certmesh ca rollover start" in said.err


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("leaf_lifetime", "is no KEY=VALUE"),
        ("colour=red", "is no setting of the policy"),
        ("leaf_lifetime=30", "write a number with"),
        ("leaf_lifetime=0s", "not between 1s and 366d"),
        ("leaf_lifetime=9999d", "not between 1s and 366d"),
        ("outage_budget=9999d", "over 366d"),
        ("renew_at=1.0", "a fraction between 0 and 1"),
        ("renew_at=nan", "a fraction between 0 and 1"),
        ("renew_at=half", "a fraction between 0 and 1"),
        ("wildcards=maybe", "expected yes or no"),
        ("profile=mine", "is no profile"),
    ],
)
def test_a_slip_is_wrong_usage_and_reaches_nobody(
    word: str, why: str, console: FakeConsole, certmesh: Certmesh
) -> None:
    """The text says what the key takes."""
    said = certmesh("ca", "policy", "set", word)
    assert said.status == Exit.USAGE
    assert why in " ".join(said.err.split())
    assert console.asked == []


def test_a_key_given_twice_is_wrong_usage() -> None:
    """Which of the two was meant?"""
    with pytest.raises(ValueError, match="given twice"):
        patch_of(["leaf_lifetime=1d", "leaf-lifetime=2d"])
    assert patch_of(["profile=org", "networks=-"]) == PolicyPatch(
        profile="my-organization", networks=()
    )


def test_the_new_secret_is_shown_and_proven_in_two_steps_without_a_terminal(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """The code comes by a file or stdin, never by argv."""
    console.answer("POST", ROTATE, TOTPRotationView(URI, "ABCD EFGH", 600))
    console.answer("POST", CONFIRM, ENROLLMENT)
    shown = certmesh("enrollment", "rotate-totp", "--start", "--json").body
    assert (shown["totp_uri"], shown["ttl_s"]) == (URI, 600)
    said = certmesh("enrollment", "rotate-totp", "--code-file", "-", typed="123 456\n")
    assert "the new TOTP key is in force" in said.out
    assert bodies(console)[-1] == {"code": "123456"}


@pytest.mark.parametrize("words", [(), ("--json",), ("--start", "--code-file", "-")])
def test_a_rotation_that_nobody_could_finish_is_not_begun(
    words: tuple[str, ...], console: FakeConsole, certmesh: Certmesh
) -> None:
    """A cron job must not replace the secret that somebody is just scanning."""
    said = certmesh("enrollment", "rotate-totp", *words)
    assert said.status == Exit.USAGE
    assert console.asked == []


def test_a_wrong_proof_leaves_the_old_secret(console: FakeConsole, certmesh: Certmesh) -> None:
    """Seven, and what is in force now."""
    console.refuse("POST", CONFIRM, BadCredentialError("the old secret stays in force"), 401)
    said = certmesh("enrollment", "rotate-totp", "--code-file", "-", typed="123456\n")
    assert said.status == Exit.REFUSED
    assert "the old secret stays in force" in said.err
    short = certmesh("enrollment", "rotate-totp", "--code-file", "-", typed="1\n")
    assert short.status == Exit.REFUSED
    assert len(console.asked) == 1


def test_on_a_terminal_the_qr_code_comes_before_the_question(
    console: FakeConsole, member_home: Paths
) -> None:
    """Scan, type, done."""
    console.answer("POST", ROTATE, TOTPRotationView(URI, "ABCD EFGH", 600))
    console.answer("POST", CONFIRM, ENROLLMENT)
    words = ("--home", str(member_home.home), "enrollment", "rotate-totp")
    status, shown = on_terminal(words, b"123456\n")
    assert status == Exit.OK, shown
    text = shown.decode()
    assert "ABCD EFGH" in text
    assert "▀" in text or "█" in text
    assert text.index("A code of the new key") > text.index("ABCD EFGH")
    assert bodies(console)[-1] == {"code": "123456"}


def test_the_qr_code_of_an_invite_leaves_stdout_to_the_invite(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """So that `$(certmesh invite create nas --qr)` is still the invite."""
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
    said = certmesh("invite", "create", "nas", "--qr")
    assert said.out == "cm1:abc\n"
    assert "▀" in said.err or "█" in said.err
    assert "▀" not in certmesh("invite", "create", "nas").err
    assert certmesh("invite", "create", "nas", "--qr", "--json").err == ""
