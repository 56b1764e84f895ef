"""The text forms of certificates and revocation lists, without what it costs to read them."""

import base64
import textwrap

_COLUMNS = 64


def certificate_pem(der: bytes) -> str:
    """Return a certificate as PEM (RFC 7468 section 5)."""
    return _pem("CERTIFICATE", der)


def crl_pem(der: bytes) -> str:
    """Return a revocation list as PEM (RFC 7468 section 6)."""
    return _pem("X509 CRL", der)


def _pem(label: str, der: bytes) -> str:
    lines = textwrap.wrap(base64.b64encode(der).decode("ascii"), _COLUMNS)
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])
