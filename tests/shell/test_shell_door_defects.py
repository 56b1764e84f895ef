"""Defects 24 to 28 of the reference, at the door where each of them let somebody in."""

import hashlib
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.errors import CSRRejectedError, NameNotAllowedError, StorageError
from broker.wire.audit import AuditView, ListAudit
from broker.wire.enrollment import CreateInvite, InviteView, JoinAnswer
from broker.wire.ids import Service
from broker.wire.roster import WhoAmI, WhoAmIAnswer
from tests.shell.office import Office, issued_of, join_request, make_csr, peer_of

SECRET = "an-invite-secret"


@pytest.fixture
def office(home: Path) -> Office:
    """A mesh without approval."""
    return Office.create(home)


def invite(office: Office, host: str = "nas", sans: tuple[str, ...] = ()) -> None:
    """Create the one invite of a test."""
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    office.ask(Service.CONSOLE, CreateInvite(digest, host, sans, 3600, "ann"), InviteView)


def join(office: Office, csr: bytes | None = None, host: str = "nas", **more: str) -> JoinAnswer:
    """Join with that invite."""
    request = join_request(host, csr or make_csr(host), invite_secret=SECRET, **more)
    return office.ask(Service.GATEWAY, request, JoinAnswer)


def test_defect_24_an_address_outside_the_networks_is_in_no_certificate(office: Office) -> None:
    """The reference stored, showed and audited its subnet policy, and enforced it nowhere."""
    invite(office)
    leaf = x509.load_der_x509_certificate(issued_of(join(office, source="203.0.113.9")).leaf)
    sans = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert sans.get_values_for_type(x509.IPAddress) == []


@pytest.mark.parametrize("san", ["bank.example", "*.home.internal", "203.0.113.9"])
def test_defect_24_no_way_in_takes_a_name_outside_the_policy(office: Office, san: str) -> None:
    """Neither the operator's invite nor the joiner's CSR reaches beyond it."""
    with pytest.raises(NameNotAllowedError):
        invite(office, sans=(san,))
    invite(office)
    with pytest.raises(CSRRejectedError):
        join(office, make_csr("nas", (san,)))


@pytest.mark.parametrize("host", ["../../root/.ssh", "a/b", "nas\nmember.joined", "nas\x1b[2J"])
def test_defect_25_a_hostile_name_is_no_path_and_no_line_of_the_trail(
    office: Office, host: str
) -> None:
    """The reference wrote certificates as root where the name said, and audit lines it forged."""
    with pytest.raises(NameNotAllowedError):
        join(office, host=host, csr=make_csr("nas"))
    view = office.ask(Service.CONSOLE, ListAudit(-1, 1), AuditView)
    (told,) = view.rows
    assert told.event == "join.refused"
    assert str(told.fields["host"]).isprintable()
    assert told.fields["host"] in {host, repr(host)}
    assert not office.paths.certificates.exists()


def test_defect_26_no_certificate_leaves_before_the_roster_has_it(office: Office) -> None:
    """The reference warned that saving failed, and left a certificate that nobody could revoke."""
    invite(office)
    key = make_csr("nas")
    office.ledger._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StorageError):
        join(office, key)
    office.ledger._connection.execute("PRAGMA query_only = OFF")
    assert office.ledger.member_by_host("nas") is None
    issued = issued_of(join(office, key))
    office.crash()
    assert office.ledger.certificate(issued.serial) is not None
    peer = peer_of(issued, "nas")
    assert office.ask(Service.GATEWAY, WhoAmI(peer), WhoAmIAnswer).state == "active"


def test_defect_27_a_lost_reply_can_be_asked_for_again(office: Office) -> None:
    """The reference answered that the name was taken: by the very machine that asked."""
    invite(office)
    key = make_csr("nas")
    first = issued_of(join(office, key))
    office.crash()
    assert issued_of(join(office, key)).leaf == first.leaf
    assert office.ledger.member_count() == 2


def test_defect_28_the_ca_has_and_hands_out_no_key_of_a_member(office: Office) -> None:
    """The reference made members' keys, kept them and sent them; here it sees the public one.

    (P3)
    """
    invite(office)
    key = ec.generate_private_key(ec.SECP256R1())
    answer = join(office, make_csr("nas", key=key))
    leaf = x509.load_der_x509_certificate(issued_of(answer).leaf)
    assert leaf.public_key() == key.public_key()
    scalar = key.private_numbers().private_value.to_bytes(32)
    pkcs8 = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    assert scalar in pkcs8
    written = [path.read_bytes() for path in office.paths.home.rglob("*") if path.is_file()]
    for content in (msgspec.msgpack.encode(answer), *written):
        assert scalar not in content
        assert b"PRIVATE KEY" not in content
