"""Revocation lists while one CA replaces the other."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from broker.wire.enrollment import CRLInstalled, GetTrust, InstallCRL, TrustAnswer
from broker.wire.ids import Service
from tests.shell.mesh_room import Node, pushed_clock
from tests.shell.rollover_room import RolloverRoom
from tests.shell.test_shell_rollover import over, started
from workers.pem import crl_pem


@pytest.fixture
def room(home: Path) -> Iterator[RolloverRoom]:
    """Primary atlas, standby borea, member pi."""
    with pushed_clock() as clock:
        room = RolloverRoom.begin(home, clock, "borea", "pi")
        room.nominate("borea")
        yield room


def test_software_that_checks_lists_finds_those_of_both_cas_and_their_roots(
    room: RolloverRoom,
) -> None:
    """A server with a list per authority refuses a certificate of the one whose list is missing."""
    started(room)
    both = authorities(room)
    assert len(both) == 4
    room.finish()
    room.run(2_000)
    assert authorities(room) == both
    fetched = trust_of(room["borea"])
    take(room["borea"], trust_of(room["atlas"]))
    assert names(trust_of(room["borea"])) == both, fetched
    over(room)
    assert len(authorities(room)) == 2


def trust_of(node: Node) -> TrustAnswer:
    """Return what a node hands out."""
    return node.ask(Service.GATEWAY, GetTrust(), TrustAnswer)


def names(answer: TrustAnswer) -> set[str]:
    """Return the names of the authorities whose lists are in an answer."""
    lists = filter(None, (answer.crl, answer.root_crl, *answer.other_lists))
    return {x509.load_der_x509_crl(der).issuer.rfc4514_string() for der in lists}


def authorities(room: RolloverRoom) -> set[str]:
    """Return whose lists the primary hands out."""
    return names(trust_of(room.primary()))


def take(node: Node, answer: TrustAnswer) -> None:
    """Let a node install the lists of an answer, as its roster-sync worker does."""
    lists = filter(None, (answer.crl, answer.root_crl, *answer.other_lists))
    request = InstallCRL("".join(map(crl_pem, lists)).encode(), "atlas")
    assert node.ask(Service.ROSTER_SYNC, request, CRLInstalled).changed
