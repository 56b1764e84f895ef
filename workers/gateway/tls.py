"""TLS contexts of the two doors. Each is built once from files and never changed again.

Loading a new pair into a live context breaks it when the pair does not match: every later
handshake fails. So a new context is built, fails on its own if it must, and only then takes over.
"""

import ssl
from dataclasses import dataclass

from broker.errors import UnavailableError
from workers.material import Material


@dataclass(frozen=True, slots=True)
class Contexts:
    """A context for each door, made from the same material."""

    enroll: ssl.SSLContext
    mesh: ssl.SSLContext


def build_contexts(material: Material) -> Contexts:
    """Return contexts of their own for both doors.

    Raises:
        UnavailableError: Key and certificate do not match, or a file is missing or damaged.
    """
    try:
        return Contexts(enroll_context(material), mesh_context(material))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or error
        raise UnavailableError(
            f"the certificate in {material.directory} cannot be used: {reason}",
            hint="run `certmesh cert renew`",
        ) from None


def enroll_context(material: Material) -> ssl.SSLContext:
    """Return a TLS 1.3 context that shows our certificate and asks for none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # A resumed session would skip a root that is no longer trusted; under TLS 1.3 no tickets
    # means no resumption.
    context.num_tickets = 0
    context.load_cert_chain(
        material.directory / "fullchain.pem",
        material.directory / "key.pem",
        password=_no_password,
    )
    return context


def mesh_context(material: Material) -> ssl.SSLContext:
    """Return as `enroll_context`, and require a client certificate under the pinned root."""
    context = enroll_context(material)
    context.load_verify_locations(cadata=material.root_pem)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> str:
    """Make an encrypted key fail; without this OpenSSL would ask on the terminal and wait."""
    raise ValueError("the key is encrypted")
