"""Revocation lists on every node: verified against the pinned CA, forward only, for OpenSSL."""

import hashlib
import ssl
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.clock import wall_s
from broker.errors import BundleRejectedError
from broker.pki.authority import pem
from broker.pki.crl import sign_crl
from broker.shell.lists import CRL_LIFETIME_S
from broker.wire.authority import AuthorityView, LockAuthority
from broker.wire.enrollment import (
    CreateInvite,
    CRLInstalled,
    GetTrust,
    InstallCRL,
    InviteView,
    JoinAnswer,
    TrustAnswer,
)
from broker.wire.ids import Service
from broker.wire.roster import RevocationAnswer, RevokeMember
from tests.pki.making import issuer
from tests.shell.mesh_room import Room
from tests.shell.office import Office, issued_of, join_request, make_csr
from tests.shell.scenes import Make, fail_over


def trust(room: Room, host: str) -> TrustAnswer:
    """Return what a node's enrol port shows."""
    return room[host].ask(Service.GATEWAY, GetTrust(), TrustAnswer)


def text_of(*lists: bytes) -> bytes:
    """Return lists as PEM."""
    return b"".join(x509.load_der_x509_crl(der).public_bytes(Encoding.PEM) for der in lists)


def carry(room: Room, target: str, source: str = "atlas") -> CRLInstalled:
    """Play the roster-sync worker of `target`."""
    held = trust(room, source)
    request = InstallCRL(text_of(held.crl, held.root_crl), source)
    return room[target].ask(Service.ROSTER_SYNC, request, CRLInstalled)


def revoke(room: Room, host: str) -> None:
    """Revoke a member at the primary."""
    room.primary().ask(Service.CONSOLE, RevokeMember(host, "lost", "ann"), RevocationAnswer)


@pytest.fixture
def trio(make: Make) -> Room:
    """Atlas leads birch and cedar, which know its bundle."""
    room = make("birch", "cedar")
    room.run(2_000)
    return room


def test_a_member_serves_the_list_it_fetched_when_the_primary_is_gone(trio: Room) -> None:
    """Services that check the list must survive the primary, also over a restart of the member.

    (row 59)
    """
    assert trust(trio, "birch").crl == b""
    revoke(trio, "cedar")
    assert carry(trio, "birch").changed
    assert not carry(trio, "birch").changed
    shown = trust(trio, "atlas")
    trio["atlas"].down = True
    trio["birch"].restart()
    kept = trust(trio, "birch")
    assert (kept.crl, kept.root_crl) == (shown.crl, shown.root_crl)
    assert (kept.crl_number, kept.next_update) == (shown.crl_number, shown.next_update)
    assert kept.this_update is not None
    assert kept.next_update == kept.this_update + CRL_LIFETIME_S


def test_an_older_list_is_refused(trio: Room) -> None:
    """Whoever replays one brings a revoked certificate back to life."""
    old = trust(trio, "atlas")
    revoke(trio, "cedar")
    carry(trio, "birch")
    with pytest.raises(BundleRejectedError, match="has seen"):
        trio["birch"].ask(Service.ROSTER_SYNC, InstallCRL(text_of(old.crl), "atlas"), CRLInstalled)


def test_another_list_under_the_same_number_is_an_alarm(trio: Room) -> None:
    """One number, two contents: two primaries, or somebody with the key."""
    carry(trio, "birch")
    issuer = trio["atlas"].office.desk.state.keys.issuer
    assert issuer is not None
    number, now = trust(trio, "atlas").crl_number, wall_s()
    other = sign_crl(issuer, [(7, now)], number=number, now=now, next_update=now + 99)
    with pytest.raises(BundleRejectedError, match="another content"):
        trio["birch"].ask(Service.ROSTER_SYNC, InstallCRL(text_of(other), "atlas"), CRLInstalled)


def test_a_list_that_the_pinned_ca_did_not_sign_is_refused(trio: Room) -> None:
    """A foreign one, one that is damaged, none at all, or the root's alone."""
    foreign, now = issuer(), wall_s()
    stranger = sign_crl(foreign, [], number=1 << 60, now=now, next_update=now + 99)
    held = trust(trio, "atlas")
    damaged = bytearray(held.crl)
    damaged[-1] ^= 1
    for lists in (
        text_of(stranger),
        text_of(bytes(damaged)),
        text_of(held.root_crl),
        text_of(held.crl, stranger),
        b"",
        b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
    ):
        with pytest.raises(BundleRejectedError):
            trio["birch"].ask(Service.ROSTER_SYNC, InstallCRL(lists, "atlas"), CRLInstalled)
    assert trust(trio, "birch").crl == b""


def test_a_primary_takes_no_list_from_anybody(trio: Room) -> None:
    """It signs them: a number from elsewhere must not drive its own, not even under its own key."""
    before = trust(trio, "atlas")
    issuing, now = trio["atlas"].office.desk.state.keys.issuer, wall_s()
    assert issuing is not None
    ahead = sign_crl(issuing, [], number=1 << 60, now=now, next_update=now + 99)
    request = InstallCRL(text_of(ahead), "birch")
    assert not trio["atlas"].ask(Service.ROSTER_SYNC, request, CRLInstalled).changed
    assert trust(trio, "atlas") == before


def test_a_list_is_signed_again_at_half_of_its_time(trio: Room) -> None:
    """Nobody may be left with one that has run out because nothing was revoked."""
    first = trust(trio, "atlas")
    trio.clock.push(CRL_LIFETIME_S * 1000 // 2 - 60_000)
    assert trust(trio, "atlas").crl == first.crl
    trio.clock.push(120_000)
    again = trust(trio, "atlas")
    assert again.crl_number > first.crl_number
    assert again.this_update is not None
    assert first.next_update is not None
    assert again.this_update < first.next_update


def test_a_locked_primary_still_shows_its_last_list(trio: Room) -> None:
    """Verification goes on while nobody can sign."""
    before = trust(trio, "atlas")
    trio["atlas"].ask(Service.CONSOLE, LockAuthority("ann"), AuthorityView)
    assert trust(trio, "atlas") == before


def test_an_heirs_list_goes_on_where_the_fetched_one_ended(room: Room) -> None:
    """A member that knows the old primary's list must be able to take the heir's."""
    room.run(2_000)
    revoke(room, "cedar")
    carry(room, "birch")
    room.run(1_000)
    before = trust(room, "birch")
    fail_over(room)
    after = trust(room, "birch")
    assert after.crl_number > before.crl_number
    assert after.root_crl == before.root_crl


def test_openssl_checks_a_whole_chain_with_what_every_node_serves(home: Path) -> None:
    """As nginx and PostgreSQL do: with the list of one authority alone they refuse everybody.

    Source: X509_V_FLAG_CRL_CHECK_ALL, in Python VERIFY_CRL_CHECK_CHAIN.
    """
    office = Office.create(home)
    key = ec.generate_private_key(ec.SECP256R1())
    digest = hashlib.sha256(b"secret").hexdigest()
    office.ask(Service.CONSOLE, CreateInvite(digest, "nas", (), 3600, "ann"), InviteView)
    request = join_request("nas", make_csr("nas", key=key), invite_secret="secret")
    leaf = issued_of(office.ask(Service.GATEWAY, request, JoinAnswer)).leaf
    pair = (pem(leaf), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    held = office.ask(Service.GATEWAY, GetTrust(), TrustAnswer)
    handshake(home, held, pair)
    with pytest.raises(ssl.SSLCertVerificationError, match="CRL"):
        handshake(home, msgspec.structs.replace(held, root_crl=b""), pair)
    office.ask(Service.CONSOLE, RevokeMember("nas", "lost", "ann"), RevocationAnswer)
    held = office.ask(Service.GATEWAY, GetTrust(), TrustAnswer)
    with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
        handshake(home, held, pair)


def handshake(place: Path, held: TrustAnswer, pair: tuple[str, bytes]) -> None:
    """Let a relying party that checks every list of the chain meet the owner of this pair."""
    relying = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    relying.check_hostname = False
    relying.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_CHAIN
    lists = text_of(*filter(None, (held.crl, held.root_crl)))
    (place / "relying.pem").write_bytes(
        pem(held.issuing).encode() + pem(held.root).encode() + lists
    )
    relying.load_verify_locations(place / "relying.pem")
    owner = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (place / "pair.pem").write_bytes(pair[0].encode() + pem(held.issuing).encode() + pair[1])
    owner.load_cert_chain(place / "pair.pem")
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        relying.wrap_bio(back, there, server_side=False),
        owner.wrap_bio(there, back, server_side=True),
    ]
    while ends:
        for end in tuple(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)
