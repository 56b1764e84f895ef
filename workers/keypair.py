"""A node's key pair and the request for its certificate.

The private key is made here, on the node that will use it, and never enters a message.
"""

import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

COMMON_NAME_LENGTH_MAX = 64
"""ub-common-name of RFC 5280 appendix A; a longer host name lives in the SANs alone."""


def make_key_and_csr(host: str, sans: Sequence[str] = ()) -> tuple[bytes, bytes]:
    """Return a fresh ECDSA P-256 key as PEM and a CSR for it as DER.

    Args:
        host: Host name of the member; becomes the common name.
        sans: DNS names and IP addresses to ask for; without any the CA chooses.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem, _request(key, host, sans)


def _request(key: ec.EllipticCurvePrivateKey, host: str, sans: Sequence[str]) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(host))
    if sans:
        names = x509.SubjectAlternativeName([_general_name(san) for san in sans])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _subject(host: str) -> x509.Name:
    if len(host) > COMMON_NAME_LENGTH_MAX:
        return x509.Name([])
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])


def _general_name(san: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(san))
    except ValueError:
        return x509.DNSName(san)
