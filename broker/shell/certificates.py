"""Facts read from certificates for display."""

from cryptography import x509

from broker.units import UnixSeconds


def not_after_of(der: bytes) -> UnixSeconds:
    """Return the last second of validity."""
    return UnixSeconds(int(x509.load_der_x509_certificate(der).not_valid_after_utc.timestamp()))
