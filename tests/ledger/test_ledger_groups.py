"""Groups: one commit, all or nothing, and what is remembered with it."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from broker.ledger import projection
from broker.units import UnixSeconds
from broker.wire import facts
from tests.ledger.ledger_facts import NOW, issued, joined, mesh, renewed
from tests.ledger.ledger_room import opened, write

ROOT = Path(__file__).parents[2]
REQUEST = b"0123456789abcdef"
GROUP = 64


def test_a_group_is_one_commit_however_many_rows_it_has(home: Path) -> None:
    """Throughput comes from the group: one commit, one fsync."""
    ledger = opened(home)
    write(ledger, mesh(), joined("web1", "a1"), issued("a1", "0000"))
    seen: list[str] = []
    ledger._connection.set_trace_callback(seen.append)
    ledger.begin()
    for number in range(1, GROUP + 1):
        ledger.append(renewed("a1", f"{number:04x}", ""), actor="test", now=NOW)
        ledger.remember(number.to_bytes(16), b"reply", NOW)
        ledger.local_set("lease", str(number).encode())
    ledger.set_term(2)
    ledger.commit()
    ledger._connection.set_trace_callback(None)
    assert [line for line in seen if line.startswith(("BEGIN", "COMMIT"))] == [
        "BEGIN IMMEDIATE",
        "COMMIT",
    ]
    assert sum(line.startswith("UPDATE head") for line in seen) == 1
    ledger.close()


def test_a_rolled_back_group_leaves_head_rows_and_tables_as_they_were(home: Path) -> None:
    """Refused means nothing happened."""
    ledger = opened(home)
    write(ledger, mesh(), joined("web1", "a1"))
    before = (ledger.head, ledger.term, projection.dump(ledger._connection))
    ledger.begin()
    ledger.append(issued("a1", "01"), actor="test", now=NOW)
    ledger.set_term(7)
    assert ledger.term == 7
    ledger.rollback()
    assert (ledger.head, ledger.term, projection.dump(ledger._connection)) == before
    assert len(ledger.audit(0, 10)) == 2
    ledger.close()


def test_a_remembered_reply_survives_reopening_and_vanishes_with_a_rollback(home: Path) -> None:
    """A retry gets the first answer only when the answer's cause is durable (P2)."""
    ledger = opened(home)
    ledger.begin()
    ledger.remember(REQUEST, b"never sent", NOW)
    assert ledger.remembered(REQUEST) == b"never sent"
    ledger.rollback()
    assert ledger.remembered(REQUEST) is None
    ledger.begin()
    ledger.remember(REQUEST, b"first", NOW)
    ledger.commit()
    ledger.remember(REQUEST, b"second", NOW)
    ledger.close()
    again = opened(home)
    assert again.remembered(REQUEST) == b"first"
    again.forget_before(NOW)
    assert again.remembered(REQUEST) == b"first"
    again.forget_before(NOW + 1)
    assert again.remembered(REQUEST) is None
    again.close()


def test_the_term_only_goes_up_and_stamps_the_rows_after_it(home: Path) -> None:
    """A fencing number that went back would fence nobody."""
    ledger = opened(home)
    first = write(ledger, mesh())[0]
    ledger.set_term(3)
    ledger.set_term(3)
    with pytest.raises(ValueError, match="term=2 is behind current=3"):
        ledger.set_term(2)
    second = write(ledger, facts.EnrollmentOpened())[0]
    assert (first.term, second.term, ledger.head.term) == (1, 3, 3)
    ledger.close()
    again = opened(home)
    assert again.term == 3
    again.close()


def test_local_values_and_presence_are_durable_without_a_group(home: Path) -> None:
    """Each is a transaction of its own then."""
    ledger = opened(home)
    ledger.local_set("lease", b"7")
    ledger.presence_save({"a1": b"one", "a2": b"two"})
    ledger.presence_save({"a2": b"three"})
    ledger.close()
    again = opened(home)
    assert (again.local_get("lease"), again.local_get("other")) == (b"7", None)
    assert again.presence_load() == {"a1": b"one", "a2": b"three"}
    with pytest.raises(ValueError, match="reserved"):
        again.local_set("ledger.term", b"9")
    again.close()


def test_writing_outside_a_group_and_a_group_inside_a_group_are_mistakes(home: Path) -> None:
    """The caller decides what happens together; the ledger does not guess."""
    ledger = opened(home)
    with pytest.raises(ValueError, match="no transaction is open"):
        ledger.append(mesh(), actor="test", now=NOW)
    with pytest.raises(ValueError, match="no transaction is open"):
        ledger.commit()
    ledger.begin()
    with pytest.raises(ValueError, match="open already"):
        ledger.begin()
    ledger.rollback()
    ledger.rollback()
    ledger.close()


@pytest.mark.parametrize(
    "fact",
    [
        mesh(),
        joined("other", "a1"),
        issued("a1", "01"),
        issued("b9", "02"),
        facts.TOTPStepUsed(5),
    ],
    ids=["second mesh", "member id", "serial", "certificate for nobody", "totp step"],
)
def test_a_contradiction_is_refused_alone_and_leaves_nothing_behind(
    home: Path, fact: facts.AnyFact
) -> None:
    """A serial or a step taken twice must be impossible, whoever asks."""
    ledger = opened(home)
    write(ledger, mesh(), joined("web1", "a1"), issued("a1", "01"), facts.TOTPStepUsed(5))
    tables = projection.dump(ledger._connection)
    ledger.begin()
    with pytest.raises(ValueError, match="contradicts the ledger"):
        ledger.append(fact, actor="test", now=UnixSeconds(NOW + 1))
    assert projection.dump(ledger._connection) == tables
    row = ledger.append(facts.EnrollmentOpened(), actor="test", now=NOW)
    ledger.commit()
    assert row.sequence == 5
    ledger.close()
    opened(home).close()


_THREE_GROUPS = """
import os
import sys
from pathlib import Path
from tests.ledger.ledger_facts import NOW, issued, joined, mesh, renewed
from tests.ledger.ledger_room import opened, write

ledger = opened(Path(sys.argv[1]))
write(ledger, mesh(), joined("web1", "a1"), issued("a1", "0000"))
for group in range(3):
    os.write(1, b"group")
    write(ledger, *(renewed("a1", f"{group:02x}{number:02x}", "") for number in range(1, 65)))
os.write(1, b"group")
"""


@pytest.mark.faults
def test_a_group_of_64_is_synced_to_the_disk_exactly_once(home: Path) -> None:
    """Counted where it counts, in the kernel: no sync, no durability; two, half the speed."""
    trace = home / "trace"
    traced = ("strace", "-f", "-e", "trace=write,fsync,fdatasync", "-o", str(trace))
    if shutil.which("strace") is None or subprocess.run((*traced, "true"), check=False).returncode:
        pytest.skip("strace is missing or may not trace here")
    script = (sys.executable, "-c", _THREE_GROUPS, str(home))
    subprocess.run((*traced, *script), check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    groups = trace.read_text().split('write(1, "group"')
    assert [part.count("sync(") for part in groups[1:-1]] == [1, 1, 1]


_KILLED_IN_A_GROUP = """
import sys
from pathlib import Path
from tests.ledger.ledger_facts import NOW, issued, joined, mesh, renewed
from tests.ledger.ledger_room import opened, write

ledger = opened(Path(sys.argv[1]))
write(ledger, mesh(), joined("web1", "a1"), issued("a1", "0000"))
number = 0
while True:
    ledger.begin()
    for _ in range(16):
        number += 1
        ledger.append(renewed("a1", f"{number:04x}", ""), actor="test", now=NOW)
        ledger.remember(number.to_bytes(16), b"reply", NOW)
    if number > 160 and sys.argv[2] == "before":
        print("open", number - 16, flush=True)
        sys.stdin.read()
    ledger.commit()
    print("acknowledged", number, flush=True)
"""


@pytest.mark.faults
@pytest.mark.parametrize("moment", ["before", "any"])
def test_a_kill_in_the_middle_of_a_group_loses_nothing_acknowledged(
    home: Path, moment: str
) -> None:
    """SIGKILL with a group open, and at whatever instant it hits (row 2, P1)."""
    with subprocess.Popen(
        (sys.executable, "-c", _KILLED_IN_A_GROUP, str(home), moment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as child:
        assert child.stdout is not None
        acknowledged = 0
        for line in child.stdout:
            word, number = line.split()
            acknowledged = int(number)
            if word == "open" or (moment == "any" and acknowledged >= 320):
                child.send_signal(signal.SIGKILL)
                break
        for line in child.stdout:
            acknowledged = int(line.split()[1]) if line.endswith("\n") else acknowledged
    ledger = opened(home)
    renewals = ledger.head.sequence - 3
    assert renewals >= acknowledged
    assert renewals % 16 == 0
    assert ledger.remembered(acknowledged.to_bytes(16)) == b"reply"
    assert ledger.remembered((renewals + 1).to_bytes(16)) is None
    if moment == "before":
        assert renewals == acknowledged
    assert ledger.differing_projections() == ()
    ledger.close()
