"""Versions of a certificate as they lie on disk: a leaf and its own key, or nothing."""

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.units import UnixSeconds
from workers.leaf import PARSE_ERRORS, names_of, serial_of, spki_of, spki_of_key, unix
from workers.root import fingerprint

UNREADABLE: tuple[type[Exception], ...] = (OSError, *PARSE_ERRORS)
"""What reading a damaged or missing file of ours raises."""


@dataclass(frozen=True, slots=True)
class LiveCertificate:
    """A certificate that can be used: the pair matches. Paths are those of its version."""

    host: str
    version: str
    serial: str
    not_before: UnixSeconds
    not_after: UnixSeconds
    sans: tuple[str, ...]
    directory: Path

    @property
    def cert(self) -> Path:
        """The leaf."""
        return self.directory / "cert.pem"

    @property
    def key(self) -> Path:
        """The private key."""
        return self.directory / "key.pem"

    @property
    def chain(self) -> Path:
        """Issuing certificate and root; while the CA is replaced the other root too."""
        return self.directory / "chain.pem"

    def trusted_pins(self) -> tuple[str, ...]:
        """Return the pins of the roots in the chain file; nothing when it cannot be read."""
        try:
            _, *roots = x509.load_pem_x509_certificates(self.chain.read_bytes())
        except UNREADABLE:
            return ()
        return tuple(fingerprint(root.public_bytes(Encoding.DER)) for root in roots)

    @property
    def fullchain(self) -> Path:
        """Leaf and issuing certificate: what a server sends."""
        return self.directory / "fullchain.pem"


class Pairs:
    """Reads versions of one host, each only once: a renewal asks for the live one a dozen times.

    A version never changes once it has its name. What changes all the same was damaged, and is
    read again.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._read: dict[str, tuple[object, LiveCertificate]] = {}

    def read(self, directory: Path) -> LiveCertificate | None:
        """Return the version in `directory`; None when it is missing, unreadable, or no pair."""
        name = directory.name
        try:
            stamp = _stamp(directory / "cert.pem"), _stamp(directory / "key.pem")
            known = self._read.get(name)
            if known is not None and known[0] == stamp:
                return known[1]
            found = _pair(self._host, directory)
        except UNREADABLE:
            self.forget(name)
            return None
        if found is not None:
            self._read[name] = stamp, found
        return found

    def forget(self, name: str) -> None:
        """Drop what was read of a version that is removed."""
        self._read.pop(name, None)


def _pair(host: str, directory: Path) -> LiveCertificate | None:
    leaf = x509.load_pem_x509_certificate((directory / "cert.pem").read_bytes())
    if spki_of_key((directory / "key.pem").read_bytes()) != spki_of(leaf):
        return None
    return LiveCertificate(
        host=host,
        version=directory.name,
        serial=serial_of(leaf),
        not_before=unix(leaf.not_valid_before_utc),
        not_after=unix(leaf.not_valid_after_utc),
        sans=names_of(leaf),
        directory=directory,
    )


def _stamp(path: Path) -> tuple[int, int, int]:
    """Return what changes whenever a file's content does: any write moves its ctime."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_ctime_ns
