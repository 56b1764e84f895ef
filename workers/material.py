"""What a node shows and trusts on its doors: the live certificate and the pinned root."""

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from broker.errors import MalformedMessageError, UnavailableError
from broker.runtime.paths import Paths
from broker.units import UnixSeconds
from broker.wire.node import Membership
from broker.wire.plain import decode_json
from workers.leaf import PARSE_ERRORS

MEMBERSHIP_BYTES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class Material:
    """One version directory and the roots to trust; the numbers are those of the leaf in it.

    `root_pem` is the pinned root, and while the CA is replaced the other one too.
    """

    directory: Path
    root_pem: str
    serial: str
    not_after: UnixSeconds


def find_material(paths: Paths) -> Material:
    """Return the current membership's root and the live certificate.

    The link is resolved here, once: certificate and key then come from the same version whatever
    an installation does meanwhile.

    Raises:
        UnavailableError: One of them is not there yet; the detail is fit for a state line.
    """
    membership = _membership(paths.membership)
    try:
        directory = (paths.certificates / membership.host / "live").resolve(strict=True)
        leaf = x509.load_pem_x509_certificate((directory / "fullchain.pem").read_bytes())
    except (OSError, RuntimeError):
        raise UnavailableError("waiting for certificate") from None
    except PARSE_ERRORS:
        raise UnavailableError("waiting for a readable certificate") from None
    return Material(
        directory=directory,
        root_pem="".join((membership.root_pem, *membership.other_roots)),
        serial=f"{leaf.serial_number:x}",
        not_after=UnixSeconds(int(leaf.not_valid_after_utc.timestamp())),
    )


def _membership(path: Path) -> Membership:
    try:
        with path.open("rb") as file:
            return decode_json(file.read(MEMBERSHIP_BYTES_MAX), Membership)
    except FileNotFoundError:
        raise UnavailableError("waiting for membership") from None
    except (OSError, MalformedMessageError):
        raise UnavailableError("waiting for a readable membership.json") from None
