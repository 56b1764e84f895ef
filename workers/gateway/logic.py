"""Decisions of the gateway on plain values. Sans-IO."""

import re

from broker.errors import (
    BadCredentialError,
    MalformedMessageError,
    NotAMemberError,
    NotFoundError,
)
from broker.units import UnixSeconds
from broker.wire.enrollment import JoinAnswer
from broker.wire.mesh_api import REPLY_JSON, JoinBody
from broker.wire.replica import JournalAnswer
from broker.wire.roster import BundleAnswer, Peer
from workers.pem import crl_pem
from workers.problem import retry_after_s
from workers.route import Page, Visit

ACCEPTED = 202
NOT_MODIFIED = 304
OCTETS = "application/octet-stream"
CRL = "application/pkix-crl"
LISTS = "application/x-pem-file"
_VERSION_TAG = re.compile(r'(?:W/)?"([0-9]{1,15})\.([0-9]{1,15})"')


def refuse_expired(peer: Peer, now: UnixSeconds) -> None:
    """Refuse a certificate that was valid at the handshake of a long connection and is no more.

    Raises:
        NotAMemberError: It has expired; `not_after` itself is still valid (RFC 5280 4.1.2.5).
    """
    if now > peer.not_after:
        raise NotAMemberError(
            "the client certificate has expired",
            hint="run `certmesh cert renew` on that node, or join again",
        )


def one_credential(body: JoinBody) -> JoinBody:
    """Return `body` if it carries exactly one credential.

    Raises:
        MalformedMessageError: None or two of them.
    """
    if bool(body.invite) == bool(body.totp):
        raise MalformedMessageError("request body: exactly one of `invite` and `totp` is needed")
    return body


def ticket_secret(visit: Visit) -> str:
    """Return the secret a poll must carry.

    Raises:
        BadCredentialError: It carries none.
    """
    if not visit.bearer:
        raise BadCredentialError(
            "the ticket's secret is missing", hint="send it as `Authorization: Bearer ...`"
        )
    return visit.bearer


def join_page(answer: JoinAnswer, _visit: Visit) -> Page:
    """Show a join: 200 with the certificate, or 202 with the place to ask again."""
    body = REPLY_JSON.encode(answer)
    if answer.issued is not None:
        return Page(body)
    headers = {
        "Location": f"/v1/join/{answer.ticket_id}",
        "Retry-After": str(retry_after_s(answer.retry_after_ms)),
    }
    return Page(body, ACCEPTED, headers=headers)


def known_version(visit: Visit) -> tuple[int, int]:
    """Return (term, sequence) of the bundle that the caller has.

    It says so in the query (`?after=` its sequence, `&term=` its term) or in `If-None-Match`. A
    sequence without a term is older than every bundle: another primary may have used the number.
    """
    if "after" in visit.query:
        return visit.number("term", 0), visit.number("after", 0)
    tag = _VERSION_TAG.fullmatch(visit.etag)
    return (int(tag[1]), int(tag[2])) if tag else (0, 0)


def bundle_page(answer: BundleAnswer, _visit: Visit) -> Page:
    """Show a signed bundle, or that there is none newer."""
    headers = {"ETag": f'"{answer.term}.{answer.bundle_sequence}"'}
    if not answer.bundle:
        return Page(b"", NOT_MODIFIED, OCTETS, headers)
    return Page(answer.bundle, 200, OCTETS, headers)


def journal_page(answer: JournalAnswer, _visit: Visit) -> Page:
    """Show a page of the journal as it came from the broker."""
    return Page(answer.page, content_type=OCTETS)


def crl_page(crl: bytes, crl_number: int, etag: str) -> Page:
    """Show the newest CRL.

    Raises:
        NotFoundError: None was signed yet.
    """
    if not crl:
        raise NotFoundError("no revocation list was signed yet")
    return _numbered(crl, CRL, crl_number, etag)


def lists_page(lists: tuple[bytes, ...], crl_number: int, etag: str) -> Page:
    """Show the newest CRL of the issuing CA, the first, and those of the CAs above it, as PEM.

    Raises:
        NotFoundError: None was signed yet.
    """
    if not lists[0]:
        raise NotFoundError("no revocation list was signed yet")
    text = "".join(crl_pem(der) for der in lists if der)
    return _numbered(text.encode("ascii"), LISTS, crl_number, etag)


def _numbered(content: bytes, kind: str, crl_number: int, etag: str) -> Page:
    headers = {"ETag": f'"{crl_number}"'}
    if etag.removeprefix("W/") == headers["ETag"]:
        return Page(b"", NOT_MODIFIED, kind, headers)
    return Page(content, 200, kind, headers)
