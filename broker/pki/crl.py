"""The certificate revocation list, for software that knows nothing of bundles.

Source: RFC 5280 section 5; the list is complete (no deltas), has a CRL number and an AKI.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.pki.chain import PARSE_ERRORS, naive_utc, p256_key, read_certificate
from broker.pki.issuer import Issuer

LISTS_MAX = 4
"""One list for each authority of a chain, during a rollover of two chains."""
EARLY_S = 300
"""Clocks of a LAN differ by less."""
_BEGIN, _END = b"-----BEGIN X509 CRL-----", b"-----END X509 CRL-----"


@dataclass(frozen=True, slots=True)
class RevocationList:
    """What a verified list says of itself; times are seconds since the epoch."""

    der: bytes
    number: int
    this_update: int
    next_update: int


def sign_crl(
    issuer: Issuer,
    revoked: Sequence[tuple[int, int]],
    *,
    number: int,
    now: int,
    next_update: int,
) -> bytes:
    """Return the CRL as DER.

    Args:
        issuer: The open issuing CA.
        revoked: Serial number and time of each revocation; of a serial given twice the earliest
            time counts.
        number: CRL number; grows with every list (RFC 5280 5.2.3).
        now: This update.
        next_update: When the next list is out at the latest.

    Raises:
        ValueError: `next_update` is not after `now`, or `number` is negative.
    """
    if next_update <= now or number < 0:
        raise ValueError(f"now={now} next_update={next_update} number={number}")
    # The constructor takes the whole list; adding one by one copies it each time.
    draft = x509.CertificateRevocationListBuilder(
        last_update=naive_utc(now),
        next_update=naive_utc(next_update),
        revoked_certificates=_entries(revoked),
    )
    draft = draft.add_extension(issuer.authority_key_identifier(), critical=False)
    draft = draft.add_extension(x509.CRLNumber(number), critical=False)
    return issuer.sign_revocations(draft).public_bytes(Encoding.DER)


def read_lists(text: bytes) -> list[bytes]:
    """Return the lists in a PEM text as DER, in their order.

    Raises:
        ValueError: None in it, too many, or one that cannot be read.
    """
    # Not by one expression with both ends: it would look for each end from each beginning, and a
    # mebibyte of beginnings would keep the broker busy for a minute.
    *bodies, _ = text.split(_END, LISTS_MAX + 1)
    if not 0 < len(bodies) <= LISTS_MAX:
        raise ValueError("no list in this text, or too many")
    blocks = [body[max(0, body.rfind(_BEGIN)) :] + _END for body in bodies]
    try:
        return [x509.load_pem_x509_crl(block).public_bytes(Encoding.DER) for block in blocks]
    except PARSE_ERRORS:
        raise ValueError("it is not a readable X.509 CRL") from None


def verified_list(der: bytes, authority: bytes, now: int | None) -> RevocationList | None:
    """Return a list that `authority` signed, None when it is some other authority's.

    That its time is over is no reason to refuse it: an old list is better than none, and who
    relies on it looks at the time himself.

    Args:
        der: The list; nothing in it is believed yet.
        authority: Certificate of the signer, DER, verified before.
        now: Wall time; a list of the future is refused. None: not asked.

    Raises:
        ValueError: Unreadable, a bad signature under the right name, no number or no end (RFC 5280
            5.1.2.5 and 5.2.3 want both), or of the future.
    """
    signer = read_certificate(authority)
    try:
        found = x509.load_der_x509_crl(der)
        if found.issuer != signer.subject:
            return None
        valid = found.is_signature_valid(p256_key(signer))
        number = found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except PARSE_ERRORS:
        raise ValueError("it is not a readable X.509 CRL with a number") from None
    if not valid:
        raise ValueError("its signature does not verify")
    until = found.next_update_utc
    if until is None:
        raise ValueError("it has no next update")
    this_update = int(found.last_update_utc.timestamp())
    if now is not None and this_update > now + EARLY_S:
        raise ValueError("it is not valid yet")
    return RevocationList(der, number, this_update, int(until.timestamp()))


def lists_serial(der: bytes, serial: int) -> bool:
    """Return whether a list, verified before, names the serial; an unreadable one names none."""
    try:
        found = x509.load_der_x509_crl(der)
        return found.get_revoked_certificate_by_serial_number(serial) is not None
    except PARSE_ERRORS:
        return False


def _entries(revoked: Sequence[tuple[int, int]]) -> list[x509.RevokedCertificate]:
    earliest: dict[int, int] = {}
    for serial, at in revoked:
        earliest[serial] = min(at, earliest.get(serial, at))
    return [
        x509.RevokedCertificateBuilder(serial, naive_utc(at)).build()
        for serial, at in sorted(earliest.items())
    ]
