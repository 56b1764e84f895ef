"""The files of one version of a certificate, in the forms that services want."""

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding


def version_files(
    key: bytes, leaf: x509.Certificate, issuing: x509.Certificate, roots: list[x509.Certificate]
) -> dict[str, bytes]:
    """Return file names and contents; `key` is PEM, the first root is that of the certificate.

    nginx and curl take the parts, HAProxy wants everything in one file (`combined.pem`), scripts
    written for certbot know the key as `privkey.pem`.
    """
    cert, middle, *tops = (item.public_bytes(Encoding.PEM) for item in (leaf, issuing, *roots))
    return {
        "cert.pem": cert,
        "key.pem": key,
        "privkey.pem": key,
        "chain.pem": b"".join((middle, *tops)),
        "fullchain.pem": cert + middle,
        "combined.pem": key + cert + middle,
    }
