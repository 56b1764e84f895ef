"""Disks that are full, read-only, broken or torn: typed refusals, and it goes on by itself."""

import errno
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from broker.wire.authority import AuthorityView, GetAuthority, LockAuthority
from broker.wire.base import Reply
from broker.wire.control import Fault
from broker.wire.enrollment import CreateInvite, InviteView
from broker.wire.node import GetNode, NodeView
from broker.wire.roster import ListMembers, MembersView
from broker.wire.slot import AddSlot, RemoveSlot
from tests.faults.crash import Lab
from tests.faults.lone import BrokerDiedError, Caller, Home
from tests.faults.shim.build import needs_compiler
from tests.faults.shim.disk import CHANGES, GROWTH, Action, Calls, Rule
from tests.faults.sick_room import SickRoom, ask, console, sick_room
from tests.faults.verb_run import run_case, verdict
from tests.faults.verb_table import CASES, prepared

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120), needs_compiler]
START_S_MAX = 5.0 * 8
"""Five seconds alone; this machine may be busy."""


@dataclass(frozen=True)
class Sickness:
    """What is wrong with the disk, and what a refusal says of it."""

    name: str
    calls: Calls
    action: Action
    error: int
    part: str = ""

    def rule(self, home: Home) -> Rule:
        """Return it for the files of one home."""
        return Rule(self.calls, self.action, self.error, f"{home.paths.home}/", self.part)


FULL = Sickness("full", GROWTH, Action.FAIL, errno.ENOSPC)
READ_ONLY = Sickness("read-only", CHANGES, Action.FAIL, errno.EROFS)
SICKNESSES = (
    FULL,
    READ_ONLY,
    Sickness("quota", Calls.WRITE, Action.FAIL, errno.EDQUOT),
    Sickness("writes-fail", Calls.WRITE, Action.FAIL, errno.EIO),
    Sickness("syncs-fail", Calls.SYNC, Action.FAIL, errno.EIO),
    Sickness("short-writes", Calls.WRITE, Action.SHORT, 0, "ledger"),
    Sickness("all-fails", Calls.READ | Calls.WRITE, Action.FAIL, errno.EIO, "ledger.db"),
)


@pytest.fixture(scope="module")
def room() -> Iterator[SickRoom]:
    """One nursery for all tests."""
    with sick_room() as room:
        yield room


@pytest.fixture
def ill(room: SickRoom) -> Iterator[Home]:
    """A home on the disk, which is well before and after the test."""
    home = Home.create(room.homes)
    yield home
    room.disk.clear()
    home.remove()


def invite() -> CreateInvite:
    """Return a request that writes a row."""
    return CreateInvite(secrets.token_hex(32), "nas", (), 60, "root")


@pytest.mark.parametrize("sickness", SICKNESSES, ids=lambda sickness: sickness.name)
def test_a_sick_disk_refuses_writes_and_nothing_else_and_gets_well_without_a_restart(
    room: SickRoom, ill: Home, sickness: Sickness
) -> None:
    """The refusal is typed and names the file; no answer is lost (row 13) (row 14) (row 15) (P12).

    With reads failing too, SQLite calls a good file malformed: that must not end the broker.
    """
    with console(room, ill) as caller:
        first, pid = ask(caller, invite()), room.nursery.pid
        assert isinstance(first, InviteView)
        room.disk.set(0, sickness.rule(ill))
        for _ in range(3):
            _assert_refused(ask(caller, invite()), ill)
        assert isinstance(ask(caller, GetNode()), NodeView)
        assert isinstance(ask(caller, ListMembers()), MembersView)
        room.disk.clear()
        again = ask(caller, invite())
        assert isinstance(again, InviteView), again
        assert (room.nursery.pid, room.nursery.is_over()) == (pid, False)
    with ill.ledger_copy() as ledger:
        assert ledger.verify_chain()[2] is None
        assert ledger.differing_projections() == ()
        found = {ledger.invite(view.invite_id) is not None for view in (first, again)}
    assert found == {True}


def test_what_cannot_be_written_down_does_not_happen(room: SickRoom, ill: Home) -> None:
    """An operation whose line in the audit trail is refused is refused itself (row 60)."""
    with console(room, ill) as caller:
        room.disk.set(0, FULL.rule(ill))
        _assert_refused(ask(caller, LockAuthority("root")), ill)
        room.disk.clear()
        view = ask(caller, GetAuthority())
    assert isinstance(view, AuthorityView)
    assert view.state == "unlocked"


def test_after_one_failed_sync_the_ledger_is_opened_anew(room: SickRoom, ill: Home) -> None:
    """The kernel may have dropped the pages: a second sync would say yes without them (row 13)."""
    with console(room, ill) as caller:
        once = Rule(Calls.SYNC, Action.FAIL, errno.EIO, f"{ill.paths.home}/", "-wal", 0, 1)
        room.disk.set(0, once)
        refused, taken = invite(), invite()
        _assert_refused(ask(caller, refused), ill)
        assert isinstance(ask(caller, taken), InviteView)
    with ill.ledger_copy() as ledger:
        assert ledger.verify_chain()[2] is None
        kept = [ledger.invite(each.secret_hash) is not None for each in (refused, taken)]
    assert kept == [False, True]


@pytest.mark.parametrize("sickness", [FULL, READ_ONLY, SICKNESSES[-1]], ids=lambda it: it.name)
def test_a_broker_that_cannot_start_says_which_file_and_what_to_do(
    room: SickRoom, ill: Home, sickness: Sickness
) -> None:
    """No traceback, and no advice to put an older ledger in place of a good one (row 15)."""
    room.disk.set(0, sickness.rule(ill))
    room.nursery.start(ill)
    with pytest.raises(BrokerDiedError), Caller(ill, room.nursery, CASES[AddSlot].service):
        pass
    assert room.nursery.wait() == 1
    words = ill.log()
    assert f"certmesh broker: cannot open {ill.paths.lock}" in words or "I/O error" in words
    assert "Traceback" not in words
    assert "backup" not in words
    room.disk.clear()
    with console(room, ill) as caller:
        assert isinstance(ask(caller, invite()), InviteView)


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs a mount namespace"
)
def test_a_really_read_only_mount_ends_in_a_clear_message() -> None:
    """The shim may be kinder than a kernel (row 15)."""
    home = Home.create()
    try:
        place, settings = home.paths.home, home.paths.settings
        script = (
            f"mount --bind {place} {place} && mount -o remount,ro,bind {place} && "
            f"exec {sys.executable} -m broker {settings} --foreground"
        )
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=START_S_MAX
        )
    finally:
        home.remove()
    assert done.returncode == 1
    assert f"cannot open {home.paths.lock}: Read-only file system" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("kind", [AddSlot, RemoveSlot], ids=lambda kind: kind.__name__)
def test_keys_are_the_old_or_the_new_ones_whichever_write_is_torn(
    room: SickRoom, kind: type[AddSlot | RemoveSlot]
) -> None:
    """Half a write and then the end: of a key, of the ledger's log (row 12) (P1)."""

    def arm(home: Home, point: str) -> None:
        part, _, number = point.partition(" ")
        tear = Rule(Calls.WRITE, Action.TEAR, 0, f"{home.paths.home}/", part, int(number or "0"), 1)
        room.disk.set(0, tear)

    lab = Lab(room.nursery, room.homes, lambda _home: room.disk.clear(), arm)
    place = room.homes / f"s-{kind.__name__}"
    place.mkdir(mode=0o700)
    stage, case = prepared(place), CASES[kind]
    control = run_case(lab, stage, case, "")
    for point in ("/ca.new/ 0", "/ca.new/ 2", "-wal 0", "-wal 2"):
        outcome = run_case(lab, stage, case, point)
        assert verdict(case, control, outcome) == "", point


def _assert_refused(reply: Reply, home: Home) -> None:
    assert isinstance(reply, Fault), reply
    assert reply.code == "storage", reply
    assert str(home.paths.ledger) in reply.detail
    assert reply.hint
