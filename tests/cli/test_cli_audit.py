"""`audit export` and `verify --file`, how far a revocation has come, and the compliance summary."""

import json
import stat
from pathlib import Path

import msgspec
import pytest

from broker.runtime.exits import Exit
from broker.wire.audit import AuditLine, AuditVerdict, AuditView, ComplianceLine, ComplianceView
from broker.wire.chain import GENESIS, fields_of, row_hash
from broker.wire.codec import encode_fact
from broker.wire.facts import MemberRevoked
from broker.wire.roster import RevocationAnswer
from tests.cli.command import Certmesh
from tests.cli.fake_console import FakeConsole
from tests.cli.views import NOW

REVOKE = "/v1/members/nas/revoke"
REACH = "/v1/members/nas/reach"


def trail(count: int) -> list[AuditLine]:
    """Return the first rows of a journal, hashed as it does."""
    lines: list[AuditLine] = []
    previous = GENESIS
    for sequence in range(1, count + 1):
        payload = encode_fact(MemberRevoked("ab" * 16, f"h{sequence}", "stolen"))
        hashed = (sequence, 1, NOW, "atlas", "ab", "ann\n", "member.revoked", payload)
        digest = row_hash(previous, hashed)
        lines.append(
            AuditLine(
                sequence=sequence,
                term=1,
                at=NOW,
                actor="ann\n",
                event="member.revoked",
                fields=fields_of(payload),
                hash=digest.hex(),
                node="atlas",
                incarnation="ab",
                previous_hash=previous.hex(),
                payload=payload,
            )
        )
        previous = digest
    return lines


def offer(console: FakeConsole, lines: list[AuditLine], page: int, after: int = 0) -> None:
    """Let the console answer with these rows in pages."""
    for start in range(after, len(lines) + 1, page):
        path = f"/v1/audit?after={start}&limit=500&full=1"
        rows = tuple(lines[start : start + page])
        console.answer("GET", path, AuditView(rows=rows, head_sequence=len(lines)))


def test_an_export_is_one_json_object_a_line_and_verifies_offline(
    console: FakeConsole, certmesh: Certmesh, home: Path
) -> None:
    """An auditor needs the file and nothing else; a newline in a name stays inside its line."""
    offer(console, trail(7), page=3)
    said = certmesh("audit", "export")
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [row["sequence"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert rows[0]["schema"] == "certmesh.audit-row/1"
    assert rows[0]["time"].endswith("Z")

    export = home / "trail.ndjson"
    export.write_text(said.out)
    asked = len(console.asked)
    checked = certmesh("audit", "verify", "--file", str(export))
    assert (checked.status, len(console.asked)) == (Exit.OK, asked)
    assert "7 rows from the first row" in checked.out


def test_an_exported_file_is_private_and_whole(
    console: FakeConsole, certmesh: Certmesh, home: Path
) -> None:
    """Names and addresses of a whole network are in it."""
    offer(console, trail(4), page=2)
    export = home / "trail.ndjson"
    said = certmesh("audit", "export", "-o", str(export), "--json")
    assert said.body["rows"] == 4
    assert stat.S_IMODE(export.stat().st_mode) == 0o600
    assert [path.name for path in home.glob("*trail*")] == ["trail.ndjson"]


def test_an_export_that_breaks_off_leaves_no_file(
    console: FakeConsole, certmesh: Certmesh, home: Path
) -> None:
    """Half a trail would verify, and say nothing of what is missing at its end."""
    lines = trail(4)
    path = "/v1/audit?after=0&limit=500&full=1"
    console.answer("GET", path, AuditView(rows=tuple(lines[:2]), head_sequence=4))
    said = certmesh("audit", "export", "-o", str(home / "trail.ndjson"))
    assert said.status != Exit.OK
    assert list(home.glob("*trail*")) == []


def test_an_export_from_a_row_on_asks_for_those_rows(
    console: FakeConsole, certmesh: Certmesh, home: Path
) -> None:
    """Last month's export need not be repeated."""
    offer(console, trail(6), page=10, after=4)
    export = home / "rest.ndjson"
    assert certmesh("audit", "export", "--after", "4", "-o", str(export)).status == Exit.OK
    said = certmesh("audit", "verify", "--file", str(export), "--json")
    assert (said.body["rows"], said.body["first"], said.body["ok"]) == (2, 5, True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('"host":"h3"', '"host":"h9"'), "row 3: what it shows is not what it hashed"),
        (('"actor":"ann\\n"', '"actor":"bob"'), "row 1: the row does not match its hash"),
    ],
)
def test_a_changed_export_names_the_first_bad_row(
    change: tuple[str, str], said: str, console: FakeConsole, certmesh: Certmesh, home: Path
) -> None:
    """Whoever edits the file edits what people read."""
    offer(console, trail(5), page=9)
    text = certmesh("audit", "export").out
    assert change[0] in text
    export = home / "trail.ndjson"
    export.write_text(text.replace(*change))
    checked = certmesh("audit", "verify", "--file", str(export))
    assert (checked.status, checked.out.strip()) == (Exit.FAILED, f"fail  {said}")


@pytest.mark.parametrize("content", ["not json\n", "", '{"sequence": 1}\n', "[[[[\n"])
def test_a_file_that_is_no_export_fails(content: str, certmesh: Certmesh, home: Path) -> None:
    """An empty file proves nothing."""
    export = home / "trail.ndjson"
    export.write_text(content)
    assert certmesh("audit", "verify", "--file", str(export)).status == Exit.FAILED


def test_another_time_than_the_hashed_one_is_found(
    console: FakeConsole, certmesh: Certmesh, home: Path
) -> None:
    """`time` is for people and log stores; the hash covers `at`."""
    offer(console, trail(2), page=9)
    text = certmesh("audit", "export").out
    shown = json.loads(text.splitlines()[0])["time"]
    export = home / "trail.ndjson"
    export.write_text(text.replace(shown, "2001-01-01T00:00:00Z", 1))
    said = certmesh("audit", "verify", "--file", str(export))
    assert said.status == Exit.FAILED
    assert "another time" in said.err


def test_a_journal_that_members_remember_otherwise_fails_though_its_chain_holds(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """The chain of an older copy is perfect."""
    verdict = AuditVerdict(9, "ab", None, "", witnesses=1, contradicted_by=("nas", "pi"))
    console.answer("GET", "/v1/audit/verify", verdict)
    said = certmesh("audit", "verify")
    assert said.status == Exit.FAILED
    assert "another journal is remembered by nas, pi" in said.out
    assert certmesh("audit", "verify", "--json").body["ok"] is False


def test_witnesses_are_told(console: FakeConsole, certmesh: Certmesh) -> None:
    """Without any, an exchanged file would not be noticed."""
    console.answer("GET", "/v1/audit/verify", AuditVerdict(9, "ab", None, "", witnesses=3))
    said = certmesh("audit", "verify")
    assert (said.status, "3 members vouch for it" in said.out) == (Exit.OK, True)


def answer(*lacking: str, away: tuple[str, ...] = ()) -> RevocationAnswer:
    """Return how far the revocation of nas has come."""
    enforced = 3 - len(lacking)
    return RevocationAnswer(
        host="nas",
        member_id="ab" * 16,
        serials=("4c11e0aa",),
        sequence=7,
        enforced_by=enforced,
        members=3,
        lacking=lacking,
        away=away,
    )


def test_a_revocation_names_who_does_not_enforce_it_yet(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """These are the doors that still open."""
    console.answer("POST", REVOKE, answer("pi", away=("laptop",)))
    said = certmesh("member", "revoke", "nas", "--yes")
    assert said.status == Exit.OK
    assert "not yet by pi" in said.out
    assert "not heard lately: laptop" in said.out


def test_a_revocation_waits_until_every_node_that_was_heard_enforces_it(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """A script goes on when the key is worthless everywhere."""
    console.answer("POST", REVOKE, answer("pi", "tv"))
    console.answer_in_turn("GET", REACH, answer("tv"), answer(away=("laptop",)))
    said = certmesh("member", "revoke", "nas", "--yes", "--wait", "10s")
    assert said.status == Exit.OK
    assert "refused already by 3 of 3 nodes" in said.out


def test_waiting_for_a_revocation_ends(console: FakeConsole, certmesh: Certmesh) -> None:
    """Status 8 says that it is on its way, and not that it failed."""
    console.answer("POST", REVOKE, answer("pi"))
    console.answer("GET", REACH, answer("pi"))
    said = certmesh("member", "revoke", "nas", "--yes", "--wait", "1s", "--json")
    assert (said.status, said.body["lacking"]) == (Exit.WAITING, ["pi"])


def test_the_reach_of_an_earlier_revocation_is_told(
    console: FakeConsole, certmesh: Certmesh
) -> None:
    """Hours later somebody wants to know again."""
    console.answer("GET", REACH, answer("pi"))
    assert certmesh("member", "reach", "nas").status == Exit.WAITING
    console.answer("GET", REACH, answer())
    said = certmesh("member", "reach", "nas", "--json")
    assert (said.status, said.body["complete"]) == (Exit.OK, True)


def compliance(state: str) -> ComplianceView:
    """Return a summary with one rule in this state."""
    line = ComplianceLine("backup", "ok", "there is none", "certmesh backup create")
    changed = msgspec.structs.replace(line, state=state)
    return ComplianceView("home", "my-team", (ComplianceLine("audit", "ok", "9 rows"), changed))


@pytest.mark.parametrize(
    ("state", "status"),
    [("ok", Exit.OK), ("warn", Exit.OK), ("fail", Exit.ATTENTION)],
)
def test_compliance_needs_attention_only_when_a_rule_fails(
    state: str, status: Exit, console: FakeConsole, certmesh: Certmesh
) -> None:
    """A cron job goes by the exit status; a person by the hint."""
    console.answer("GET", "/v1/compliance", compliance(state))
    said = certmesh("status", "--compliance")
    assert said.status == status
    assert ("certmesh backup create" in said.out) == (state != "ok")
    body = certmesh("status", "--compliance", "--json").body
    assert body["schema"] == "certmesh.compliance/1"
    assert body["ok"] is (state != "fail")
