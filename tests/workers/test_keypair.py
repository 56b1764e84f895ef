"""Keys are made here and asked for with sound requests."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from workers.keypair import make_key_and_csr


def test_a_request_is_signed_by_the_fresh_p256_key_it_asks_for() -> None:
    """The CA checks possession; a request without it is refused."""
    key, csr = make_key_and_csr("nas", ("nas.home.arpa", "192.168.1.7"))
    request = x509.load_der_x509_csr(csr)
    private = load_pem_private_key(key, password=None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert isinstance(private.curve, ec.SECP256R1)
    assert request.is_signature_valid
    assert request.public_key() == private.public_key()


def test_two_requests_never_share_a_key() -> None:
    """Renewal means a new key, always."""
    assert make_key_and_csr("nas")[0] != make_key_and_csr("nas")[0]


def test_names_and_addresses_become_sans_of_their_own_type() -> None:
    """An address as a DNS name matches nothing."""
    _, csr = make_key_and_csr("nas", ("nas.home.arpa", "192.168.1.7", "fe80::1"))
    sans = x509.load_der_x509_csr(csr).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert sans.value.get_values_for_type(x509.DNSName) == ["nas.home.arpa"]
    assert len(sans.value.get_values_for_type(x509.IPAddress)) == 2


@pytest.mark.parametrize(("host", "names"), [("nas", 1), ("n" * 63 + ".home.arpa", 0)])
def test_a_host_name_longer_than_a_common_name_is_left_out_of_the_subject(
    host: str, names: int
) -> None:
    """RFC 5280 bounds a common name to 64 characters, a host name may have 253."""
    _, csr = make_key_and_csr(host)
    assert len(list(x509.load_der_x509_csr(csr).subject)) == names
