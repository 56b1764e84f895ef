"""What is put into a store: the roots this node trusts, and their fingerprints. Pure."""

import hashlib
import hmac
import re
import ssl
from dataclasses import dataclass

from broker.errors import PinMismatchError
from broker.wire.node import Membership

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
_UNSAFE = re.compile(r"[^a-z0-9.-]")
PIN_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Anchor:
    """One root certificate; `pin` is the SHA-256 of its DER in hex."""

    mesh: str
    pin: str
    pem: str

    @property
    def name(self) -> str:
        """What it is called in a store: unique per mesh and root, safe as a file name."""
        return f"certmesh-{_UNSAFE.sub('-', self.mesh)}-{self.pin[:PIN_SHOWN]}"


def anchors_of(membership: Membership) -> tuple[Anchor, ...]:
    """Return the pinned root, and those a CA that is being replaced needs besides.

    Raises:
        PinMismatchError: What is stored as the root is not the certificate that was pinned.
    """
    found = fingerprints(membership.root_pem)
    if len(found) != 1 or not hmac.compare_digest(next(iter(found)), membership.pin):
        raise PinMismatchError(
            "the root certificate in membership.json is not the pinned one: nothing was trusted",
            hint="compare the pin with `certmesh ca show` on the CA, then join again",
        )
    pinned = Anchor(membership.mesh_name, membership.pin, tidy(membership.root_pem))
    others = (
        Anchor(membership.mesh_name, pin, tidy(pem))
        for pem in membership.other_roots
        for pin in fingerprints(pem)
    )
    return (pinned, *others)


def fingerprints(text: str) -> frozenset[str]:
    """Return the SHA-256 of every certificate in PEM text; what is none is passed over."""
    found = set()
    for block in _PEM.findall(text):
        try:
            der = ssl.PEM_cert_to_DER_cert(block)
        except ValueError:
            continue
        found.add(hashlib.sha256(der).hexdigest())
    return frozenset(found)


def tidy(pem: str) -> str:
    """Return a PEM block in the one form in which it is written."""
    return ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(pem.strip()))
