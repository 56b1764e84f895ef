"""The route tables of both doors: everything a caller can ask, one line each."""

import ssl

from broker.wire.control import Ack
from broker.wire.enrollment import (
    GetMesh,
    GetTrust,
    Join,
    JoinAnswer,
    MeshAnswer,
    PollTicket,
    TrustAnswer,
)
from broker.wire.failover import Hello, HelloAnswer
from broker.wire.mesh_api import (
    HeartbeatBody,
    HelloBody,
    InstallBody,
    InstalledBody,
    JoinBody,
    RenewBody,
)
from broker.wire.renewal import (
    InstallAnswer,
    RekeyAnswer,
    RenewalAnswer,
    RenewAsPeer,
    ReportInstalled,
    StartInstall,
    StartRekey,
)
from broker.wire.roster import (
    BundleAnswer,
    GetBundle,
    HeartbeatAnswer,
    RecordHeartbeat,
    WhoAmI,
    WhoAmIAnswer,
)
from workers.gateway.logic import (
    bundle_page,
    crl_page,
    join_page,
    known_sequence,
    one_credential,
    ticket_secret,
)
from workers.route import Page, Route, Visit

SIGNING_TIMEOUT_MS = 10_000
REKEY_TIMEOUT_MS = 30_000
INSTALL_TIMEOUT_MS = 120_000
"""Hooks may take longer; then the answer is `timeout`, and the member's own report follows."""


def _join(visit: Visit) -> Join:
    body = one_credential(visit.content(JoinBody))
    return Join(
        host=body.host,
        csr=body.csr,
        sans=body.sans,
        invite_secret=body.invite,
        totp_code=body.totp,
        ticket_hash=body.ticket_hash,
        nonce=body.nonce,
        addresses=body.addresses,
        mesh_port=body.mesh_port,
        enroll_port=body.enroll_port,
        source=visit.caller.source,
    )


def _poll(visit: Visit) -> PollTicket:
    return PollTicket(ticket_id=visit.parameters["ticket"], ticket_secret=ticket_secret(visit))


def _ca_page(answer: TrustAnswer, _visit: Visit) -> Page:
    pem = ssl.DER_cert_to_PEM_cert(answer.root)
    return Page(pem.encode(), content_type="application/pem-certificate-chain")


def _crl_page(answer: TrustAnswer, visit: Visit) -> Page:
    return crl_page(answer.crl, answer.crl_number, visit.etag)


def _renew(visit: Visit) -> RenewAsPeer:
    return RenewAsPeer(peer=visit.peer, csr=visit.content(RenewBody).csr)


def _installed(visit: Visit) -> ReportInstalled:
    body = visit.content(InstalledBody)
    return ReportInstalled(
        serial=body.serial, state=body.state, detail=body.detail, peer=visit.peer
    )


def _heartbeat(visit: Visit) -> RecordHeartbeat:
    body = visit.content(HeartbeatBody)
    return RecordHeartbeat(
        peer=visit.peer,
        pin=body.pin,
        served_serial=body.served_serial,
        served_not_after=body.served_not_after,
        served=body.served,
        endpoint=body.endpoint,
        clock=body.clock,
        bundle_sequence=body.bundle_sequence,
        term=body.term,
    )


def _hello(visit: Visit) -> Hello:
    body = visit.content(HelloBody)
    return Hello(peer=visit.peer, term=body.term, role=body.role)


def _install(visit: Visit) -> StartInstall:
    body = visit.content(InstallBody)
    return StartInstall(peer=visit.peer, leaf=body.leaf, issuing=body.issuing)


ENROLL_ROUTES = (
    Route(
        method="GET",
        path="/v1/mesh",
        summary="Mesh id, CA pin, term, and whether the door is open.",
        make=lambda _visit: GetMesh(),
        reply=MeshAnswer,
    ),
    Route(
        method="POST",
        path="/v1/join",
        summary="CSR and credential in, certificate or ticket out.",
        body=JoinBody,
        make=_join,
        reply=JoinAnswer,
        show=join_page,
        timeout_ms=SIGNING_TIMEOUT_MS,
    ),
    Route(
        method="GET",
        path="/v1/join/{ticket}",
        summary="What became of a pending join; needs the ticket's secret as bearer.",
        make=_poll,
        reply=JoinAnswer,
        show=join_page,
        timeout_ms=SIGNING_TIMEOUT_MS,
    ),
    Route(
        method="GET",
        path="/v1/ca.pem",
        summary="The root certificate; compare its pin before trusting it.",
        make=lambda _visit: GetTrust(),
        reply=TrustAnswer,
        show=_ca_page,
    ),
    Route(
        method="GET",
        path="/v1/crl.der",
        summary="The newest revocation list.",
        make=lambda _visit: GetTrust(),
        reply=TrustAnswer,
        show=_crl_page,
    ),
    Route(
        method="GET",
        path="/v1/bundle",
        summary="The signed trust bundle, if newer than ?after.",
        make=lambda visit: GetBundle(after=known_sequence(visit)),
        reply=BundleAnswer,
        show=bundle_page,
    ),
)

MESH_ROUTES = (
    Route(
        method="POST",
        path="/v1/renew",
        summary="A new CSR in, a new certificate out; own name only.",
        body=RenewBody,
        make=_renew,
        reply=RenewalAnswer,
        timeout_ms=SIGNING_TIMEOUT_MS,
    ),
    Route(
        method="POST",
        path="/v1/installed",
        summary="What the caller serves after an installation.",
        body=InstalledBody,
        make=_installed,
        reply=Ack,
    ),
    Route(
        method="POST",
        path="/v1/heartbeat",
        summary="The caller lives; the answer says who is primary.",
        body=HeartbeatBody,
        make=_heartbeat,
        reply=HeartbeatAnswer,
    ),
    Route(
        method="POST",
        path="/v1/hello",
        summary="Probe between key holders: role and term over a verified connection.",
        body=HelloBody,
        make=_hello,
        reply=HelloAnswer,
    ),
    Route(
        method="GET",
        path="/v1/bundle",
        summary="The signed trust bundle, if newer than ?after.",
        make=lambda visit: GetBundle(after=known_sequence(visit), peer=visit.peer),
        reply=BundleAnswer,
        show=bundle_page,
    ),
    Route(
        method="GET",
        path="/v1/whoami",
        summary="Name, serial and role of the caller as the CA sees them.",
        make=lambda visit: WhoAmI(peer=visit.peer),
        reply=WhoAmIAnswer,
    ),
    Route(
        method="POST",
        path="/v1/renewal/csr",
        summary="A key holder asks this member for a CSR with a fresh key.",
        make=lambda visit: StartRekey(peer=visit.peer),
        reply=RekeyAnswer,
        timeout_ms=REKEY_TIMEOUT_MS,
    ),
    Route(
        method="POST",
        path="/v1/renewal/install",
        summary="A key holder delivers the certificate for that key.",
        body=InstallBody,
        make=_install,
        reply=InstallAnswer,
        timeout_ms=INSTALL_TIMEOUT_MS,
    ),
)
