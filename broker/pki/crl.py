"""The certificate revocation list, for software that knows nothing of bundles.

Source: RFC 5280 section 5; the list is complete (no deltas), has a CRL number and an AKI.
"""

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.pki.chain import naive_utc
from broker.pki.issuer import Issuer


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


def _entries(revoked: Sequence[tuple[int, int]]) -> list[x509.RevokedCertificate]:
    earliest: dict[int, int] = {}
    for serial, at in revoked:
        earliest[serial] = min(at, earliest.get(serial, at))
    return [
        x509.RevokedCertificateBuilder(serial, naive_utc(at)).build()
        for serial, at in sorted(earliest.items())
    ]
