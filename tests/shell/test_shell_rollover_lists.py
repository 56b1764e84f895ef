"""Revocation lists while one CA replaces the other."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from broker.clock import wall_s
from broker.errors import BundleRejectedError
from broker.pki.crl import sign_crl
from broker.pki.issuer import Issuer
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


def test_the_numbers_of_the_old_ca_do_not_bind_the_new_one(room: RolloverRoom) -> None:
    """Whoever stole the old key could else count so far that no later list is ever taken."""
    started(room)
    atlas, pi = room["atlas"], room["pi"]
    thief = atlas.office.desk.state.keys.issuer
    assert thief is not None
    assert pi.ask(Service.ROSTER_SYNC, forged(thief, (1 << 63) - 1), CRLInstalled).changed
    room.finish()
    over(room)
    take(pi, trust_of(atlas))
    assert trust_of(pi).crl == trust_of(atlas).crl


def test_a_list_with_a_number_of_twenty_octets_is_refused(room: RolloverRoom) -> None:
    """RFC 5280 5.2.3 allows them; no peer may end the broker with one."""
    issuer = room["atlas"].office.desk.state.keys.issuer
    assert issuer is not None
    with pytest.raises(BundleRejectedError, match="number"):
        room["pi"].ask(Service.ROSTER_SYNC, forged(issuer, 1 << 150), CRLInstalled)


def forged(issuer: Issuer, number: int) -> InstallCRL:
    """Return a list with a number of somebody's choice."""
    now = wall_s()
    crl = sign_crl(issuer, [], number=number, now=now, next_update=now + 86_400)
    return InstallCRL(crl_pem(crl).encode(), "thief")


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
