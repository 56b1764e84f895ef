"""Each check of the harness sees the one thing it is there for, on a forged record."""

from dataclasses import replace

import pytest

from broker.errors import ErrorCode
from tests.faults.harness import checks
from tests.faults.harness.caller import Outcome, judge
from tests.faults.harness.checks import Evidence, violations
from tests.faults.harness.client import is_final
from tests.faults.harness.picture import Picture
from tests.faults.harness.promises import Record, Told, last_words
from workers.problem import PROBLEM_TYPE

JOINED = {"serial": "51", "leaf": "a1", "member": "m1", "key": "k1", "secret": "s1"}


def told(op: str, kind: str, at_ms: int = 0, **facts: str) -> Told:
    """Return something that was done at `at_ms` on atlas, about the host nas."""
    return Told(op, kind, "nas", "atlas", at_ms, at_ms + 5, "done", facts=facts)


def refused(item: Told, code: ErrorCode, outcome: Outcome = "refused") -> Told:
    """Return the same attempt with another end."""
    return replace(item, outcome=outcome, code=code.value, facts=dict(item.facts))


INVITED = told("o1", "invite", invite="i1")
JOIN = told("o2", "join", 10, **JOINED)
RENEWAL = told("o3", "renew", 20, serial="52", leaf="a2", key="k2", by="m1")
PICTURE = Picture(
    "atlas",
    members={"m1": ("nas", "active")},
    certificates={"51": "m1", "52": "m1"},
    keys={("m1", "k1"): 1, ("m1", "k2"): 1},
    issued=("51", "52"),
    invites={"i1": ("nas", "used", "m1")},
    listed=frozenset(),
)
GONE = replace(PICTURE, members={"m1": ("nas", "revoked")}, listed=frozenset({"51", "52"}))
REVOKED = told("o4", "revoke", 30, member="m1", serials="51,52")
LIFE = (INVITED, JOIN, RENEWAL)
ENDED = (*LIFE, REVOKED)


def found(*items: Told, picture: Picture = PICTURE, calm: bool = True) -> list[str]:
    """Return all violations of a record against one ledger."""
    return violations(Evidence(items, [picture], calm))


def test_a_life_as_it_should_be_is_no_violation() -> None:
    """Otherwise the checks below could see anything."""
    assert found(*LIFE) == []
    assert found(*ENDED, picture=GONE) == []


@pytest.mark.parametrize(
    ("lost", "picture"),
    [
        ("certificate 52", replace(PICTURE, certificates={"51": "m1"})),
        ("member m1", replace(PICTURE, members={})),
        ("invite i1", replace(PICTURE, invites={})),
    ],
)
def test_an_acknowledged_thing_that_is_not_in_the_ledger_is_seen(
    lost: str, picture: Picture
) -> None:
    """What somebody was told happened, happened (P1)."""
    assert any(f"atlas lost {lost}" in line for line in found(*LIFE, picture=picture))


def test_a_decision_that_waits_for_nobody_is_seen_when_its_request_is_gone() -> None:
    """A ticket somebody holds leads somewhere (P1)."""
    asked = told("o9", "join", 40, approval="t1", key="k9", secret="s9")
    assert any("atlas lost request t1" in line for line in found(*LIFE, asked))


def test_one_serial_on_two_certificates_is_seen() -> None:
    """In two answers, or twice in one journal (P6)."""
    other = told("o5", "renew", 25, serial="52", leaf="a9", key="k5", by="m1")
    assert any("serial 52 is 2 certificates" in line for line in found(*LIFE, other))
    doubled = replace(PICTURE, issued=("51", "52", "52"))
    assert any("serial 52 was issued twice" in line for line in found(*LIFE, picture=doubled))


def test_one_request_with_two_certificates_is_seen() -> None:
    """By its key in the ledger, or by two answers to its retries (P2)."""
    twice = replace(PICTURE, keys={("m1", "k2"): 2})
    assert any("key k2 has two" in line for line in found(*LIFE, picture=twice))
    again = replace(RENEWAL, facts={**RENEWAL.facts, "serial": "51", "leaf": "a1"})
    assert any("o3 was answered" in line for line in found(*LIFE, again))


def test_an_order_that_was_carried_out_twice_is_seen() -> None:
    """Its answer was lost, it came again under its name, and there are two invites (P2)."""
    doubled = replace(PICTURE, invites={**PICTURE.invites, "i2": ("nas", "open", "")})
    assert any("2 invites for nas, 1 were" in line for line in found(*LIFE, picture=doubled))


def test_two_holders_of_a_name_or_of_an_invite_are_seen() -> None:
    """A name has one holder, an invite lets one in (P6)."""
    members = {"m1": ("nas", "active"), "m2": ("nas", "active")}
    second = told("o6", "join", 15, **{**JOINED, "serial": "52", "leaf": "a2", "member": "m2"})
    lines = found(*LIFE, second, picture=replace(PICTURE, members=members))
    assert any("nas is 2 members" in line for line in lines)
    assert any("one invite (s1) let" in line for line in lines)


def test_a_revocation_that_did_not_stay_is_seen() -> None:
    """In the ledger, and in the list that the primary shows (P5)."""
    assert any("has nas active again" in line for line in found(*ENDED))
    unlisted = replace(GONE, listed=frozenset({"51"}))
    assert any("does not list 52" in line for line in found(*ENDED, picture=unlisted))


def test_a_standby_may_show_an_older_list() -> None:
    """It fetches the list now and then; what it refuses is asked of it directly."""
    assert found(*ENDED, picture=replace(GONE, listed=None)) == []


@pytest.mark.parametrize("kind", ["renew", "heartbeat", "report"])
def test_a_revoked_member_that_is_served_is_seen(kind: str) -> None:
    """From the answer on, at the node that gave it (P5)."""
    late = told("o7", kind, 50, by="m1")
    assert any("served a revoked member" in line for line in found(*ENDED, late, picture=GONE))


def test_what_began_before_the_revocation_was_answered_may_still_be_done() -> None:
    """Two requests at once have no order."""
    meanwhile = told("o7", "heartbeat", 33, by="m1")
    assert found(*ENDED, meanwhile, picture=GONE) == []


def test_an_answer_without_a_code_is_seen() -> None:
    """A page, a bare status, a bug of ours: every refusal is typed (P15)."""
    odd = refused(RENEWAL, ErrorCode.INTERNAL, "wrong")
    assert any("every refusal is typed" in line for line in found(*LIFE, odd))


@pytest.mark.parametrize("code", [ErrorCode.UNAVAILABLE, ErrorCode.STORAGE])
def test_a_request_that_was_never_answered_is_seen(code: ErrorCode) -> None:
    """Whoever insists is told in the end."""
    never = refused(replace(RENEWAL, op="o8"), code)
    assert any("no answer to o8" in line for line in found(*LIFE, never))
    lost = replace(never, outcome="unknown", code="")
    assert any("no answer to o8" in line for line in found(*LIFE, lost))


def test_a_retry_that_is_refused_what_the_first_attempt_got_is_seen() -> None:
    """The answer was lost, so the same request comes again, and is no second use (P2)."""
    again = refused(JOIN, ErrorCode.INVITE_USED)
    assert any("refused without cause" in line for line in found(*LIFE, again))
    assert found(*LIFE, again, calm=False) == [], "another primary may not know the first one"


def test_a_refusal_is_not_made_good_by_an_answer_to_its_twin() -> None:
    """The same request came two times at once: both get the same answer, in any order (P2)."""
    twin = refused(JOIN, ErrorCode.INVITE_USED)
    assert any("refused without cause" in line for line in found(INVITED, twin, JOIN, RENEWAL))


def test_a_limit_is_no_reason_to_refuse_the_retry_of_a_renewal_that_was_made() -> None:
    """The certificate of its key is in the ledger, and its member cannot get it (P2)."""
    again = refused(RENEWAL, ErrorCode.RENEWAL_NOT_DUE)
    assert any("refused without cause" in line for line in found(INVITED, JOIN, again))
    another = replace(again, op="o8", facts={**RENEWAL.facts, "key": "k9"})
    assert found(*LIFE, another) == []


def test_a_takeover_in_an_earlier_seed_excuses_nothing_later() -> None:
    """Only what was asked while terms changed may be refused for it."""
    refusal = refused(JOIN, ErrorCode.INVITE_USED)
    before = Evidence((*LIFE, refusal), [PICTURE], calm=True, begun=4)
    assert violations(before) == []
    assert violations(replace(before, begun=0)) != []


def test_a_rival_for_the_same_invite_may_be_refused() -> None:
    """That is what an invite is."""
    rival = refused(replace(JOIN, op="o8"), ErrorCode.INVITE_USED)
    assert found(*LIFE, rival) == []


def test_a_source_is_held_back_only_for_failures_of_its_own() -> None:
    """Invites that died with a primary count as failed attempts at the next one (row 42)."""
    held = refused(replace(JOIN, op="o8"), ErrorCode.THROTTLED)
    assert any("refused without cause" in line for line in found(*LIFE, held))
    failed = refused(replace(JOIN, op="o7"), ErrorCode.BAD_CREDENTIAL)
    excused = Evidence((*LIFE, failed, held), [PICTURE], calm=True, begun=4)
    assert violations(excused) == []


def test_a_member_put_out_without_a_word_is_seen() -> None:
    """A host that nobody revoked, replaced or took leave for is a member."""
    assert any("nobody asked for it" in line for line in found(*LIFE, picture=GONE))


def test_a_certificate_without_a_yes_is_seen() -> None:
    """Issued with no operator, or after a no (P14)."""
    silent = replace(PICTURE, approvals={"t1": ("issued", "", "m1")})
    assert any("nobody said yes" in line for line in found(*LIFE, picture=silent))
    no = told("o9", "deny", 40, approval="t1")
    against = replace(PICTURE, approvals={"t1": ("issued", "drill", "m1")})
    assert any("was denied, and is issued" in line for line in found(*LIFE, no, picture=against))


def test_a_broken_chain_and_a_rotten_projection_are_seen() -> None:
    """The ledger itself comes first."""
    broken = replace(PICTURE, broken="row 7: the row does not match its hash")
    assert any("row 7" in line for line in found(*LIFE, picture=broken))
    rotten = replace(PICTURE, differing=("members",))
    assert any("members is not the fold" in line for line in found(*LIFE, picture=rotten))


PROBLEM = (
    b'{"type":"urn:x","title":"busy","status":429,"code":"busy","detail":"too many",'
    b'"hint":"","request_id":"","primary":null}'
)


@pytest.mark.parametrize(
    ("status", "media", "raw", "outcome"),
    [
        (200, "application/json", b"{}", "done"),
        (429, PROBLEM_TYPE, PROBLEM, "refused"),
        (503, PROBLEM_TYPE, PROBLEM, "wrong"),
        (429, "application/json", PROBLEM, "wrong"),
        (429, PROBLEM_TYPE, PROBLEM.replace(b"busy", b"tired"), "wrong"),
        (429, PROBLEM_TYPE, PROBLEM.replace(b'"too many"', b'""'), "wrong"),
        (500, PROBLEM_TYPE, PROBLEM.replace(b"429", b"500").replace(b"busy", b"internal"), "wrong"),
        (500, "text/html", b"<h1>oops</h1>", "wrong"),
        (302, "text/html", b"", "wrong"),
    ],
)
def test_an_answer_is_judged_by_everything_it_says(
    status: int, media: str, raw: bytes, outcome: str
) -> None:
    """A code of ours, its status, its media type and a reason; our own bugs are no refusals."""
    assert judge(status, media, raw)[0] == outcome


@pytest.mark.parametrize(
    ("code", "detail", "final"),
    [
        (ErrorCode.REVOKED, "nas was revoked", True),
        (ErrorCode.CONFLICT, "nas is revoked already", True),
        (ErrorCode.CONFLICT, "the same request is under way", False),
        (ErrorCode.STORAGE, "the disk is full", False),
    ],
)
def test_a_client_knows_when_to_ask_again(code: ErrorCode, detail: str, *, final: bool) -> None:
    """What passes is asked for again with the same request; anything else is an answer."""
    assert is_final(replace(refused(JOIN, code), detail=detail)) is final


def test_every_check_is_made() -> None:
    """A function that nobody calls checks nothing."""
    named = {
        name
        for name, thing in vars(checks).items()
        if callable(thing) and getattr(thing, "__annotations__", {}).get("return") == list[str]
    }
    assert {check.__name__ for check in checks.CHECKS} == named - {"violations"}


def test_the_last_word_of_an_operation_is_the_last_one_noted() -> None:
    """Attempts of one operation follow each other; other operations do not matter."""
    record = Record()
    for item in (refused(JOIN, ErrorCode.BUSY), RENEWAL, JOIN):
        record.note(item)
    assert last_words(record.all())["o2"].is_done
    assert record.since(2) == (JOIN,)
