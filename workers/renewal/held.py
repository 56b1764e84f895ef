"""Which certificate on disk can still be brought into service, instead of asking for another one.

After a failed hook or probe the certificate that was to come lies beside the one that is live. It
is as good as on the day it was issued: once the hook is mended, serving it costs the CA nothing. So
a hook that fails for days costs hook runs, and no certificates.

A version is held when, of those newer than the live one, it is the newest whose pair matches and it
passes everything a new one has to pass: names, validity, chain to the roots trusted now, not listed
as revoked, and not due for renewal itself. While the CA is replaced the roots differ, and a new
certificate is needed anyway.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from broker.errors import MeshError
from broker.units import UnixSeconds
from workers.certstore import CertificateStore, number_of
from workers.leaf import PARSE_ERRORS, check_leaf
from workers.pairs import LiveCertificate
from workers.root import fingerprint

BACKDATE_S = 60
"""The CA dates certificates back by this; see `broker.core.renewal`."""

UNFIT: tuple[type[Exception], ...] = (MeshError, OSError, *PARSE_ERRORS)
_LIST_END = b"-----END X509 CRL-----"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a certificate of this node has to be like now.

    Attributes:
        roots: DER of the roots to trust, the pinned one first.
        sans: Names that it must have.
        renew_at: Part of its lifetime after which a certificate is due.
        revoked: File with revocation lists (PEM) that were verified when it was written.
        young_s: Refuse one issued longer ago than this; 0 means any age.
    """

    roots: tuple[bytes, ...]
    sans: tuple[str, ...]
    renew_at: float
    revoked: Path
    young_s: int = 0


def held_of(store: CertificateStore, wanted: Wanted, now: UnixSeconds) -> LiveCertificate | None:
    """Return the newest version that can go into service after the live one; None without any."""
    live = store.live()
    if live is None:
        return None
    newest = next(_newer_than(store, live), None)
    return newest if newest is not None and is_good(newest, wanted, now) else None


def is_good(found: LiveCertificate, wanted: Wanted, now: UnixSeconds) -> bool:
    """Return whether a certificate on disk is what a new one would have to be."""
    if not set(wanted.sans) <= set(found.sans) or _is_due(found, wanted, now):
        return False
    if found.trusted_pins() != tuple(map(fingerprint, wanted.roots)):
        return False
    try:
        leaf = x509.load_pem_x509_certificate(found.cert.read_bytes())
        issuing, root, *_ = x509.load_pem_x509_certificates(found.chain.read_bytes())
        check_leaf(leaf, (issuing, root), found.host, now)
    except UNFIT:
        return False
    return not is_listed(wanted.revoked, leaf.serial_number)


def is_listed(lists: Path, serial: int) -> bool:
    """Return whether a revocation list in the file names the serial; no list names nobody."""
    try:
        text = lists.read_bytes()
    except OSError:
        return False
    for block in text.split(_LIST_END)[:-1]:
        try:
            found = x509.load_pem_x509_crl(block + _LIST_END + b"\n")
            if found.get_revoked_certificate_by_serial_number(serial) is not None:
                return True
        except PARSE_ERRORS:
            continue
    return False


def _newer_than(store: CertificateStore, live: LiveCertificate) -> Iterator[LiveCertificate]:
    """Yield usable versions that were installed after the live one, newest first."""
    for name in reversed(store.versions()):
        if number_of(name) <= number_of(live.version):
            return
        found = store.version(name)
        if found is not None and found.not_before >= live.not_before:
            yield found


def _is_due(found: LiveCertificate, wanted: Wanted, now: UnixSeconds) -> bool:
    issued_at = found.not_before + BACKDATE_S
    age_s = now - issued_at
    if wanted.young_s and age_s > wanted.young_s:
        return True
    return age_s >= (found.not_after - issued_at) * wanted.renew_at
