"""A host's certificates on disk: numbered versions and one link that says which is live.

    certs/HOST/v0001/{cert,key,privkey,chain,fullchain,combined}.pem
    certs/HOST/live -> v0001        certs/HOST/previous -> v0001
    certs/HOST/pending/{key.pem,csr.der}

Invariants, whatever instant the process is killed at: what `live` points at is a certificate with
its own key; no key is readable by others, from its first byte; a version directory is complete
before it gets its name and its name is durable before `live` moves; the pending key is removed only
after that. Changes are serialised by a lock on the host's directory, so that a worker that was
frozen cannot interleave with the one that took over.
"""

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.clock import wall_s
from broker.errors import CSRRejectedError, NameNotAllowedError, NotFoundError
from broker.runtime.files import fsync_directory, private_directory, write_new
from broker.units import UnixSeconds
from workers.certfiles import version_files
from workers.keypair import make_key_and_csr
from workers.leaf import (
    check_leaf,
    check_pair,
    names_of,
    read_certificate,
    serial_of,
    signed_by,
    spki_of,
    spki_of_key,
)
from workers.pairs import UNREADABLE, LiveCertificate, Pairs

HOST_LENGTH_MAX = 253
VERSIONS_MIN = 2
"""The live pair and the one to go back to."""

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_VERSION = re.compile(r"v([0-9]{4,})")

Step = Callable[[str], None]
"""Called before each durable step with its name; tests die there."""


@dataclass(frozen=True, slots=True)
class Installed:
    """What an installation did; `previous` is the version to go back to, if there is one."""

    version: str
    serial: str
    previous: str
    changed: bool


class CertificateStore:
    """The certificates of one host.

    Args:
        root: Directory of all hosts.
        host: RFC 1123 host name; becomes a directory name.
        keep: Versions to keep, at least two.
        now: Wall clock.
        step: See `Step`.

    Raises:
        NameNotAllowedError: `host` is no host name.
    """

    def __init__(
        self,
        root: Path,
        host: str,
        keep: int = 5,
        *,
        now: Callable[[], UnixSeconds] = wall_s,
        step: Step = lambda _name: None,
    ) -> None:
        self.host = check_host(host)
        self.directory = root / host
        self._root = root
        self._keep = max(keep, VERSIONS_MIN)
        self._now = now
        self._step = step
        self._pairs = Pairs(host)

    @property
    def live_link(self) -> Path:
        """The link that consumers configure."""
        return self.directory / "live"

    @property
    def pending(self) -> Path:
        """Directory of the key that waits for its certificate."""
        return self.directory / "pending"

    def live(self) -> LiveCertificate | None:
        """Return the live certificate, or None while there is no usable pair."""
        return self.version(_target(self.live_link))

    def version(self, name: str) -> LiveCertificate | None:
        """Return one version, or None when it is missing, unreadable, or not a pair."""
        if _VERSION.fullmatch(name) is None:
            return None
        return self._pairs.read(self.directory / name)

    def prepare(self, sans: tuple[str, ...] = (), *, reuse_s: int = 0) -> bytes:
        """Return a CSR (DER) whose key waits in the pending directory.

        Args:
            sans: Names to ask for.
            reuse_s: Take the waiting pair when it is younger than this and asks for the same
                names: a retry then proves the same key and can get the same certificate.
        """
        with self._locked():
            # A pair of this very second is older than no age at all: the clock counts whole ones.
            waiting = self._waiting(sans, reuse_s) if reuse_s > 0 else None
            return waiting or self._stage_pending(sans)

    def install(self, leaf_der: bytes, issuing_der: bytes, *root_ders: bytes) -> Installed:
        """Verify the certificate for the pending key, then make it live; return what was done.

        The same certificate again changes nothing. The chain file gets all roots, that of the
        certificate first: while the CA is replaced, services have to trust two.

        Raises:
            CSRRejectedError: Not for the pending key, not for this host, not valid now, or not
                below one of the roots. Nothing changed.
            MalformedMessageError: Unreadable certificates.
            NotFoundError: No key waits for a certificate.
        """
        leaf = read_certificate(leaf_der, "new certificate")
        issuing = read_certificate(issuing_der, "issuing certificate")
        roots = [read_certificate(der, "root certificate") for der in root_ders]
        roots.sort(key=lambda root: not signed_by(issuing, root))
        with self._locked():
            check_leaf(leaf, (issuing, roots[0]), self.host, self._now())
            live = self.live()
            if live is not None and _is_leaf(live, leaf):
                self._drop_pending(leaf)
                return self._installed(live.version, leaf, changed=False)
            version = self._staged_version(leaf) or self._stage_version(leaf, issuing, roots)
            self._go_live(version, live)
            self._drop_pending(leaf)
            self._prune()
            return self._installed(version, leaf, changed=True)

    def rollback(self, version: str, instead_of: str = "") -> LiveCertificate:
        """Make an earlier version live again and return it.

        Raises:
            NotFoundError: It is gone, or what is live is no longer the version to go back from.
            CSRRejectedError: It is expired; the present one, whatever is wrong with it, is better.
        """
        with self._locked():
            found = self._usable(version)
            if instead_of and _target(self.live_link) != instead_of:
                raise NotFoundError("another installation has replaced this certificate already")
            self._swap(self.live_link, version)
            return found

    def bring_forward(self, version: str) -> LiveCertificate:
        """Make a version live again that went live before; raises as `rollback`."""
        with self._locked():
            found, live = self._usable(version), self.live()
            if live is not None and number_of(live.version) > number_of(version):
                raise NotFoundError("another installation has replaced this certificate already")
            self._go_live(version, live if live is not None and live.version != version else None)
            return found

    def _usable(self, version: str) -> LiveCertificate:
        found = self.version(version)
        if found is None:
            raise NotFoundError(f"there is no usable version {version!r} on disk")
        if self._now() > found.not_after:
            raise CSRRejectedError(f"version {version} is expired and stays retired")
        return found

    def previous(self) -> str:
        """Return the version that was live before; empty when there is none to go back to."""
        version = _target(self.directory / "previous")
        usable = version != _target(self.live_link) and self.version(version) is not None
        return version if usable else ""

    def _installed(self, version: str, leaf: x509.Certificate, *, changed: bool) -> Installed:
        return Installed(version, serial_of(leaf), self.previous(), changed)

    def _waiting(self, sans: tuple[str, ...], reuse_s: int) -> bytes | None:
        path = self.pending / "csr.der"
        try:
            age_s = self._now() - path.stat().st_mtime
            request = path.read_bytes()
            parsed = x509.load_der_x509_csr(request)
            pair = spki_of_key((self.pending / "key.pem").read_bytes()) == spki_of(parsed)
        except UNREADABLE:
            return None
        if not pair or age_s >= reuse_s or sorted(names_of(parsed)) != sorted(sans):
            return None
        return request

    def _stage_pending(self, sans: tuple[str, ...]) -> bytes:
        key, request = make_key_and_csr(self.host, sans)
        staged = self._stage(".pending", {"key.pem": key, "csr.der": request})
        self._discard(self.pending)
        self._step("pending named")
        staged.rename(self.pending)
        fsync_directory(self.directory)
        return request

    def _stage_version(
        self, leaf: x509.Certificate, issuing: x509.Certificate, roots: list[x509.Certificate]
    ) -> str:
        try:
            key = (self.pending / "key.pem").read_bytes()
        except FileNotFoundError:
            raise NotFoundError(f"no key of {self.host} waits for a certificate") from None
        check_pair(leaf, key)
        staged = self._stage(".version", version_files(key, leaf, issuing, roots))
        version = self._next_version()
        self._step("version named")
        staged.rename(self.directory / version)
        fsync_directory(self.directory)
        return version

    def _staged_version(self, leaf: x509.Certificate) -> str:
        """Return the version that a killed installation of this certificate left behind."""
        newest = self.versions()[-1:]
        found = self.version(newest[0]) if newest else None
        return found.version if found is not None and _is_leaf(found, leaf) else ""

    def _stage(self, name: str, files: dict[str, bytes]) -> Path:
        """Write `files` into a fresh directory, durable but not named yet."""
        staged = self.directory / name
        self._discard(staged)
        private_directory(staged)
        for file, content in files.items():
            self._step(f"{name}/{file}")
            write_new(staged / file, content)
        fsync_directory(staged)
        return staged

    def _go_live(self, version: str, live: LiveCertificate | None) -> None:
        if live is not None:
            self._swap(self.directory / "previous", live.version)
        self._swap(self.live_link, version)

    def _swap(self, link: Path, version: str) -> None:
        staged = self.directory / f".{link.name}"
        staged.unlink(missing_ok=True)
        self._step(f"{link.name} staged")
        staged.symlink_to(version)
        self._step(f"{link.name} swapped")
        staged.replace(link)
        fsync_directory(self.directory)

    def _drop_pending(self, leaf: x509.Certificate) -> None:
        """Remove the pending key if it is the one that is live now; another one still waits."""
        with contextlib.suppress(OSError, ValueError):
            if spki_of_key((self.pending / "key.pem").read_bytes()) == spki_of(leaf):
                self._step("pending removed")
                self._discard(self.pending)

    def _discard(self, path: Path) -> None:
        if path.exists():
            doomed = self.directory / ".doomed"
            shutil.rmtree(doomed, ignore_errors=True)
            path.rename(doomed)
            shutil.rmtree(doomed)

    def versions(self) -> list[str]:
        """Return the names of all versions on disk, oldest first, usable or not."""
        if not self.directory.exists():
            return []
        names = [entry.name for entry in self.directory.iterdir() if _VERSION.fullmatch(entry.name)]
        return sorted(names, key=number_of)

    def _next_version(self) -> str:
        newest = self.versions()[-1:]
        return f"v{number_of(newest[0]) + 1 if newest else 1:04d}"

    def _prune(self) -> None:
        needed = {_target(self.live_link), _target(self.directory / "previous")}
        for version in self.versions()[: -self._keep]:
            if version not in needed:
                self._pairs.forget(version)
                self._discard(self.directory / version)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        private_directory(self._root)
        private_directory(self.directory)
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def check_host(host: str) -> str:
    """Return `host` if it is a lower-case RFC 1123 name, and so safe as a directory name.

    Raises:
        NameNotAllowedError: It is not.
    """
    sound = len(host) <= HOST_LENGTH_MAX and all(map(_LABEL.fullmatch, host.split(".")))
    if not sound:
        raise NameNotAllowedError(
            f"{host[:64]!r} is not a host name",
            hint="use lower-case letters, digits and hyphens, parts joined by dots (RFC 1123)",
        )
    return host


def _is_leaf(found: LiveCertificate, leaf: x509.Certificate) -> bool:
    pem = found.cert.read_bytes()
    return pem == leaf.public_bytes(Encoding.PEM)


def number_of(version: str) -> int:
    """Return the number in a version's name, such as 7 of `v0007`."""
    return int(version[1:])


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""
