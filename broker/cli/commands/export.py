"""`certmesh ca export`: what others need to trust this mesh, as PEM."""

import base64
import textwrap
from pathlib import Path

import click

from broker.cli.options import MeshCommand, pass_session
from broker.cli.session import Session
from broker.errors import ConflictError, StorageError
from broker.runtime.files import write_atomic
from broker.wire.enrollment import TrustAnswer

PUBLIC_MODE = 0o644
CERTIFICATE, LIST = "CERTIFICATE", "X509 CRL"


@click.command(cls=MeshCommand)
@click.option("--bundle", is_flag=True, help="Root and issuing certificate, root last.")
@click.option("--crl", is_flag=True, help="The newest revocation lists instead.")
@click.option("-o", "--output", default="", metavar="FILE", help="Write there instead of stdout.")
@pass_session
def export(session: Session, *, bundle: bool, crl: bool, output: str) -> None:
    """Print the root certificate, the bundle, or the revocation lists as PEM.

    Works on every node. Nothing in it is secret.
    """
    if bundle and crl:
        raise click.UsageError("--bundle or --crl, not both")
    trust = session.api().get("/v1/ca/trust", TrustAnswer)
    text = _lists(trust) if crl else _certificates(trust, bundle=bundle)
    if output:
        _write(Path(output).expanduser(), text)
    if session.json:
        payload = {"pem": text, "file": output, "crl_number": trust.crl_number}
        session.screen.object("ca-export", payload)
    elif output:
        session.screen.note(f"wrote {output}")
    else:
        session.screen.block(text)


def _certificates(trust: TrustAnswer, *, bundle: bool) -> str:
    chain = [trust.issuing, trust.root] if bundle else [trust.root]
    return "".join(_pem(der, CERTIFICATE) for der in chain if der)


def _lists(trust: TrustAnswer) -> str:
    """Return the lists of both authorities: software that checks a whole chain wants both."""
    if not trust.crl:
        raise ConflictError(
            "no revocation list has been signed yet, or it is too large for one answer",
            hint="it is signed by the primary, once its CA is unlocked",
        )
    return "".join(_pem(der, LIST) for der in (trust.crl, trust.root_crl) if der)


def _pem(der: bytes, label: str) -> str:
    body = "\n".join(textwrap.wrap(base64.b64encode(der).decode(), 64))
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"


def _write(path: Path, text: str) -> None:
    try:
        write_atomic(path, text.encode(), PUBLIC_MODE)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from None
