"""What the door answers: mesh settings, invites, approvals, TOTP steps."""

from pathlib import Path

from broker.ledger import door_reads
from broker.ledger.rows import ApprovalRow, InviteRow, MeshRow
from broker.ledger.sqlite import Ledger
from broker.units import UnixSeconds
from broker.wire import facts
from broker.wire.policy import Policy
from tests.ledger.ledger_facts import DAY_S, NOW, asked, invited, joined, mesh
from tests.ledger.ledger_room import opened, write


def _mesh(ledger: Ledger) -> MeshRow:
    row = ledger.mesh()
    assert row is not None
    return row


def _invite(ledger: Ledger, invite_id: str = "b1") -> InviteRow:
    row = ledger.invite(invite_id)
    assert row is not None
    return row


def _approval(ledger: Ledger, approval_id: str = "c1") -> ApprovalRow:
    row = ledger.approval(approval_id)
    assert row is not None
    return row


def test_the_mesh_reads_back_and_its_door_opens_and_closes(home: Path) -> None:
    """Every field as created; only the door moves."""
    ledger = opened(home)
    write(ledger, mesh())
    assert _mesh(ledger) == MeshRow(
        mesh_id="aa",
        name="lab",
        domain="lab.internal",
        pin="cc",
        enrollment_open=False,
        policy=Policy(names=("lab.internal",), networks=("127.0.0.0/8",), approval=True),
        created_at=NOW,
    )
    write(ledger, facts.EnrollmentOpened())
    assert _mesh(ledger).enrollment_open
    write(ledger, facts.EnrollmentClosed())
    assert not _mesh(ledger).enrollment_open
    ledger.close()


def test_an_invite_belongs_to_its_first_redeemer_for_ever(home: Path) -> None:
    """Neither a second redeemer nor a late revocation changes that (row 43, P6)."""
    ledger = opened(home)
    write(ledger, invited("b1"))
    assert _invite(ledger) == InviteRow(
        "b1", "web1", (), UnixSeconds(NOW + DAY_S), "open", "", "", NOW, 1
    )
    write(ledger, facts.InviteUsed("b1", "a1", "dd"))
    write(ledger, facts.InviteUsed("b1", "a2", "ee"), facts.InviteRevoked("b1"))
    used = _invite(ledger)
    assert (used.state, used.member_id, used.key_hash) == ("used", "a1", "dd")
    ledger.close()


def test_a_revoked_invite_stays_revoked_and_lists_are_newest_first(home: Path) -> None:
    """An operator's list shows what was made last."""
    ledger = opened(home)
    write(ledger, *(invited(f"b{number}") for number in range(5)), facts.InviteRevoked("b1"))
    assert _invite(ledger).state == "revoked"
    assert [row.invite_id for row in ledger.invites(3)] == ["b4", "b3", "b2"]
    assert ledger.invite("zz") is None
    ledger.close()


def test_an_invite_is_found_by_its_beginning_however_many_came_after_it(home: Path) -> None:
    """Else the oldest open permissions could be revoked no more."""
    ledger = opened(home)
    write(ledger, mesh(), *(invited(f"{number:08x}") for number in range(1200)))
    assert [row.invite_id for row in ledger.invites_beginning("00000000")] == ["00000000"]
    assert len(ledger.invites_beginning("0000000")) == 2
    assert ledger.invites_beginning("f") == []
    plan = ledger._connection.execute(
        f"EXPLAIN QUERY PLAN {door_reads._BEGINNING}", ("a", "ag")
    ).fetchall()
    assert "SEARCH" in plan[0][3]
    ledger.close()


def test_an_approval_carries_everything_its_decision_and_the_join_need(home: Path) -> None:
    """Durable: the joiner's request is all there after a restart."""
    ledger = opened(home)
    write(ledger, asked("c1"))
    ledger.close()
    again = opened(home)
    fact = asked("c1")
    row = _approval(again)
    for field in fact.__struct_fields__:
        assert getattr(row, field) == getattr(fact, field)
    assert (row.requested_at, row.state, row.operator, row.member_id) == (NOW, "pending", "", "")
    again.close()


def test_the_first_decision_counts(home: Path) -> None:
    """Two operators, one answer (row 47)."""
    ledger = opened(home)
    write(ledger, asked("c1"), facts.ApprovalDenied("c1", "ann", "unknown box"))
    write(ledger, facts.ApprovalGranted("c1", "bob"), facts.ApprovalExpired("c1"))
    row = _approval(ledger)
    assert (row.state, row.operator, row.reason) == ("denied", "ann", "unknown box")
    assert ledger.approvals_pending() == 0
    ledger.close()


def test_a_join_settles_its_approval(home: Path) -> None:
    """Approved, then issued to a member."""
    ledger = opened(home)
    write(ledger, asked("c1"), facts.ApprovalGranted("c1", "ann"))
    assert _approval(ledger).state == "approved"
    write(ledger, joined("web1", "a1", approval_id="c1"))
    row = _approval(ledger)
    assert (row.state, row.operator, row.member_id) == ("issued", "ann", "a1")
    ledger.close()


def test_approvals_list_those_who_wait_first(home: Path) -> None:
    """Oldest waiting first; decided ones newest first; a state alone when asked."""
    ledger = opened(home)
    write(ledger, *(asked(f"c{number}") for number in range(6)))
    write(ledger, facts.ApprovalGranted("c1", "ann"), facts.ApprovalDenied("c3", "ann", ""))

    def listed(state: str, limit: int = 9) -> list[str]:
        return [row.approval_id for row in ledger.approvals(state, limit)]

    assert listed("") == ["c0", "c2", "c4", "c5", "c3", "c1"]
    assert listed("", 5) == ["c0", "c2", "c4", "c5", "c3"]
    assert listed("", 2) == ["c0", "c2"]
    assert (listed("pending", 1), listed("denied"), listed("issued")) == (["c0"], ["c3"], [])
    assert ledger.approvals_pending() == 4
    ledger.close()


def test_the_newest_request_of_a_host_and_key_is_found(home: Path) -> None:
    """A joiner that asks again meets its own ticket, not a stranger's."""
    ledger = opened(home)
    write(ledger, asked("c1"), asked("c2"), asked("c3", host="db"))
    found = ledger.approval_by_key("web1", "ee")
    assert found is not None
    assert found.approval_id == "c2"
    assert ledger.approval_by_key("web1", "00") is None
    assert ledger.approval_by_key("mail", "ee") is None
    ledger.close()


def test_only_waiting_approvals_run_out(home: Path) -> None:
    """A decided one has no deadline any more."""
    ledger = opened(home)
    write(ledger, asked("c1", expires_at=NOW + 9), asked("c2", expires_at=NOW + 5), asked("c3"))
    write(ledger, asked("c4", expires_at=NOW + 1), facts.ApprovalGranted("c4", "ann"))
    assert ledger.approvals_expired(NOW + 4) == []
    assert ledger.approvals_expired(NOW + 9) == ["c2", "c1"]
    write(ledger, facts.ApprovalExpired("c2"))
    assert ledger.approvals_expired(NOW + 9) == ["c1"]
    assert _approval(ledger, "c2").state == "expired"
    ledger.close()


def test_a_totp_step_is_burned_for_ever(home: Path) -> None:
    """Also over a restart: a replayed code stays useless (row 20)."""
    ledger = opened(home)
    assert not ledger.totp_step_used(7)
    write(ledger, facts.TOTPStepUsed(7))
    ledger.close()
    again = opened(home)
    assert (again.totp_step_used(7), again.totp_step_used(8)) == (True, False)
    again.close()
