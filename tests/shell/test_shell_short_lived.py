"""Certificates of five minutes for a mesh of two hundred hosts, for hours."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from broker.clock import wall_s
from broker.wire.ids import Service
from broker.wire.roster import RevocationAnswer, RevokeMember
from tests.shell.fleet import PACE_MS, Fleet, Trouble
from tests.shell.paced import Paced, paced

LIFETIME_S, DUE_S = 300, 177
HOSTS = 200
ROUND_S = 300
ROUNDS = 15
TROUBLES: dict[int, Trouble] = {1: "unreachable", 2: "flaky"}


def fleet_of(mesh: Paced) -> Fleet:
    """Return two hundred hosts: a tenth only pull, a tenth is flaky, five are off."""
    troubles: dict[str, Trouble] = {
        f"m{number}": TROUBLES.get(number % 10, "") for number in range(HOSTS)
    }
    troubles |= {f"m{number}": "off" for number in range(3, HOSTS, 40)}
    return Fleet(mesh, troubles, seed=1)


@pytest.mark.timeout(120)
def test_two_hundred_hosts_with_certificates_of_five_minutes_for_hours(home: Path) -> None:
    """Nobody runs out, nobody is tried too often, and what it costs grows with the renewals."""
    with paced(home) as mesh:
        fleet = fleet_of(mesh)
        began = mesh.office.ledger.head.sequence
        for number in range(ROUNDS):
            fleet.beat()
            fleet.run(ROUND_S)
            if number in {5, 10}:
                mesh.kill()
            assert fleet.lost == []
        _check_pace(fleet)
        _check_renewals(fleet)
        _check_costs(mesh, fleet, began)
        _check_revocation(mesh)


def _check_pace(fleet: Fleet) -> None:
    """No host was tried twice within the minute, over two kills of the broker."""
    for member in fleet.members.values():
        times = member.attempts_ms
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert min(gaps, default=PACE_MS) >= PACE_MS, member.host


def _check_renewals(fleet: Fleet) -> None:
    """Each as often as its certificates ask for, neither less nor more."""
    seconds = ROUNDS * ROUND_S
    for member in fleet.members.values():
        if member.trouble == "off":
            assert member.renewals == []
            assert len(member.attempts_ms) <= (LIFETIME_S - DUE_S) * 1000 // PACE_MS + 1
            continue
        assert seconds // LIFETIME_S <= len(member.renewals) <= seconds // DUE_S + 1, member.host
    well = [len(member.renewals) for member in fleet.members.values() if not member.trouble]
    assert max(well) - min(well) <= 1


def _check_costs(mesh: Paced, fleet: Fleet, began: int) -> None:
    """Two rows a renewal, one for a first failure; tables hold what is going on, no history."""
    state, ledger = mesh.office.desk.state, mesh.office.ledger
    rows = Counter[str]()
    after = began
    while page := ledger.audit(after, 500):
        rows.update(row.event for row in page)
        after = page[-1].sequence
    renewals = sum(len(member.renewals) for member in fleet.members.values())
    attempts = sum(len(member.attempts_ms) for member in fleet.members.values())
    assert renewals <= rows["certificate.renewed"] <= attempts
    assert rows["certificate.served"] <= rows["certificate.renewed"] + HOSTS
    assert rows["certificate.renewal_failed"] <= fleet.failures
    assert sum(rows.values()) <= 2 * attempts + HOSTS
    pulled = [m for m in fleet.members.values() if m.trouble == "unreachable"]
    failed = sum(len(member.attempts_ms) - len(member.renewals) for member in pulled)
    assert failed <= 3 * len(pulled), "the sweep goes on to try hosts that come by themselves"
    assert len(state.leases) == 0
    assert len(state.pace) <= HOSTS
    assert len(state.backoff) <= HOSTS
    assert len(state.tasks.all()) == 0
    assert len(state.due) + len(state.due_away) <= HOSTS
    member = ledger.member_by_host("m0")
    assert member is not None
    live = [c for c in ledger.certificates_of(member.member_id, 64) if c.not_after > wall_s()]
    assert len(live) <= 2


def _check_revocation(mesh: Paced) -> None:
    """A revoked host leaves the lists as soon as its last certificate has ended."""
    revoke = RevokeMember("m0", "lost", "root")
    serials = mesh.office.ask(Service.CONSOLE, revoke, RevocationAnswer).serials
    assert 1 <= len(serials) <= 2
    listed = {serial for serial, _ in mesh.office.ledger.revoked_serials(wall_s())}
    assert listed == set(serials)
    mesh.wait(LIFETIME_S + 1)
    assert mesh.office.ledger.revoked_serials(wall_s()) == []
