"""A new CA says of itself exactly what the design allows it."""

import ipaddress
import warnings
from typing import TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.errors import MalformedMessageError, SettingsError
from broker.pki.authority import create_authority, der_of_pem, fingerprint, pem
from broker.pki.chain import check_authority, check_current, check_issued, read_certificate, utc
from tests.pki.making import DAY, NOW, authority, ca_profile, new_authority

E = TypeVar("E", bound=x509.ExtensionType)


def _extension(der: bytes, kind: type[E]) -> x509.Extension[E]:
    return x509.load_der_x509_certificate(der).extensions.get_extension_for_class(kind)


def test_the_root_may_have_one_level_below_it_and_the_issuing_ca_none() -> None:
    """A stolen issuing key cannot make further CAs."""
    created = authority()
    for der, length in ((created.root, 1), (created.issuing, 0)):
        basic = _extension(der, x509.BasicConstraints)
        assert basic.critical
        assert (basic.value.ca, basic.value.path_length) == (True, length)


def test_ca_keys_sign_certificates_and_lists_and_nothing_else() -> None:
    """RFC 5280 4.2.1.3, critical."""
    for der in (authority().root, authority().issuing):
        usage = _extension(der, x509.KeyUsage)
        assert usage.critical
        assert usage.value.key_cert_sign
        assert usage.value.crl_sign
        assert not usage.value.digital_signature


def test_name_constraints_are_critical_and_hold_the_permitted_subtrees() -> None:
    """A subtree is written without the star (RFC 5280 4.2.1.10)."""
    constraints = _extension(authority().issuing, x509.NameConstraints)
    assert constraints.critical
    permitted = constraints.value.permitted_subtrees or []
    assert [name.value for name in permitted] == [
        "home.arpa",
        "internal",
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_network("192.168.0.0/16"),
        ipaddress.ip_network("fc00::/7"),
    ]
    assert constraints.value.excluded_subtrees is None


@pytest.mark.parametrize(
    ("networks", "excluded"),
    [
        (("10.0.0.0/8",), ["::/0"]),
        (("fc00::/7",), ["0.0.0.0/0"]),
        ((), ["0.0.0.0/0", "::/0"]),
    ],
)
def test_an_address_family_without_a_permitted_network_is_excluded_whole(
    networks: tuple[str, ...], excluded: list[str]
) -> None:
    """A family that is not mentioned would be unrestricted."""
    created = new_authority(ca_profile(networks=networks))
    value = _extension(created.issuing, x509.NameConstraints).value
    assert [str(name.value) for name in value.excluded_subtrees or []] == excluded


def test_without_permitted_names_all_dns_names_are_excluded() -> None:
    """The empty DNS name covers every name."""
    value = _extension(new_authority(ca_profile(names=())).issuing, x509.NameConstraints).value
    assert [name.value for name in value.excluded_subtrees or []] == [""]


def test_the_issuing_ca_is_bound_to_tls() -> None:
    """A household root in a trust store must not vouch for mail or code."""
    usages = set(_extension(authority().issuing, x509.ExtendedKeyUsage).value)
    assert usages == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def test_identifiers_link_the_issuing_ca_to_its_root() -> None:
    """Verifiers find the parent by it."""
    root_id = _extension(authority().root, x509.SubjectKeyIdentifier).value.digest
    link = _extension(authority().issuing, x509.AuthorityKeyIdentifier).value
    assert link.key_identifier == root_id


def test_keys_are_pkcs8_of_their_own_certificates_and_never_in_the_representation() -> None:
    """A CA object in a traceback must not be a leak."""
    created = authority()
    for der, key in ((created.root, created.root_key), (created.issuing, created.issuing_key)):
        private = serialization.load_der_private_key(key, password=None)
        assert private.public_key() == x509.load_der_x509_certificate(der).public_key()
        assert repr(key) not in repr(created)
        assert "_key" not in repr(created)


def test_the_issuing_ca_never_outlives_its_root() -> None:
    """Its last leaves would verify nowhere (row 58)."""
    created = new_authority(ca_profile(issuer_lifetime_s=9000 * DAY))
    root = x509.load_der_x509_certificate(created.root)
    issuing = x509.load_der_x509_certificate(created.issuing)
    assert issuing.not_valid_after_utc == root.not_valid_after_utc == utc(NOW + 3650 * DAY)
    assert issuing.not_valid_before_utc == utc(NOW - 60)


def test_serials_are_the_given_ones_and_two_meshes_differ_in_everything() -> None:
    """Randomness comes from outside; keys are fresh each time."""
    first = create_authority(ca_profile(), now=NOW, serials=(7, 8))
    second = create_authority(ca_profile(), now=NOW, serials=(7, 8))
    assert x509.load_der_x509_certificate(first.issuing).serial_number == 8
    assert first.issuing_key != second.issuing_key
    assert fingerprint(first.root) != fingerprint(second.root)


@pytest.mark.parametrize("name", ["*.", "", "*", "a..b", "*.*.home", "-x.home", "home.arpa."])
def test_a_permitted_name_that_is_no_domain_is_a_settings_error(name: str) -> None:
    """Found at init, before anything exists."""
    with pytest.raises(SettingsError, match=r"policy\.names"):
        new_authority(ca_profile(names=(name,)))


@pytest.mark.parametrize("network", ["10.0.0.1/8", "10.0.0.0/33", "home", ""])
def test_a_permitted_network_that_is_none_is_a_settings_error(network: str) -> None:
    """A network with host bits set is a typing error, not a network."""
    with pytest.raises(SettingsError, match=r"policy\.networks"):
        new_authority(ca_profile(networks=(network,)))


def test_pem_and_der_are_two_forms_of_one_certificate() -> None:
    """The pin is computed over DER, people copy PEM."""
    der = authority().root
    assert der_of_pem(pem(der)) == der
    certificate = x509.load_der_x509_certificate(der)
    assert fingerprint(der) == certificate.fingerprint(hashes.SHA256()).hex()


@pytest.mark.parametrize("text", ["", "hello", pem(authority().root) + pem(authority().issuing)])
def test_a_pem_text_must_hold_exactly_one_certificate(text: str) -> None:
    """The first of two would be a choice nobody made."""
    with pytest.raises(MalformedMessageError):
        der_of_pem(text)


def test_chain_checks_refuse_a_foreign_parent_a_leaf_parent_and_the_wrong_time() -> None:
    """Each has its own sentence."""
    issuing = read_certificate(authority().issuing)
    with pytest.raises(ValueError, match="not signed by the root"):
        check_issued(issuing, read_certificate(new_authority().root))
    with pytest.raises(ValueError, match="expired"):
        check_current(issuing, NOW + 731 * DAY)
    with pytest.raises(ValueError, match="not valid yet"):
        check_current(issuing, NOW - DAY)
    check_current(issuing, NOW + 730 * DAY)
    check_authority(issuing)


def test_every_changed_byte_of_a_root_is_noticed_by_its_own_signature() -> None:
    """One certificate has one encoding; otherwise it had several pins."""
    der = authority().root
    for index in range(len(der)):
        for change in (1, 2, 0x80):
            changed = bytearray(der)
            changed[index] ^= change
            with pytest.raises(ValueError, match="it"):
                _check_root(bytes(changed))
    _check_root(der)


def _check_root(der: bytes) -> None:
    root = read_certificate(der)
    check_issued(root, root)


def test_a_certificate_whose_signature_is_not_whole_octets_is_refused() -> None:
    """The signature does not cover the count of unused bits, so it would be a second encoding."""
    der = new_authority().root
    while der[-1] & 1:
        der = new_authority().root
    changed = bytearray(der)
    changed[-len(x509.load_der_x509_certificate(der).signature) - 1] = 1
    with pytest.raises(ValueError, match="whole octets"):
        read_certificate(bytes(changed))


def test_what_the_library_only_warns_of_is_refused_in_silence() -> None:
    """A peer must not write lines into our error log."""
    created = create_authority(ca_profile(), now=NOW, serials=(0x7766554433221100, 8))
    negative = created.root.replace(bytes.fromhex("7766554433221100"), b"\x80" + b"\x11" * 7)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match="readable"):
            read_certificate(negative)
    assert seen == []
