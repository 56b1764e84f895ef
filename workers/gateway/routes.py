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
    RekeyBody,
    RenewBody,
    RenewExpiredBody,
)
from broker.wire.remote import BindWorker, WorkerBody, WorkerDoor
from broker.wire.renewal import (
    InstallAnswer,
    RekeyAnswer,
    RenewalAnswer,
    RenewAsPeer,
    RenewExpired,
    ReportInstalled,
    StartInstall,
    StartRekey,
)
from broker.wire.roster import (
    BundleAnswer,
    GetBundle,
    HeartbeatAnswer,
    LeaveMesh,
    RecordHeartbeat,
    WhoAmI,
    WhoAmIAnswer,
)
from workers.gateway.logic import (
    CRL,
    LISTS,
    OCTETS,
    bundle_page,
    crl_page,
    join_page,
    known_version,
    lists_page,
    one_credential,
    ticket_secret,
)
from workers.gateway.replication import GOSSIP_BODY_BYTES, REPLICA_ROUTES, SIGNING_TIMEOUT_MS
from workers.query import Number
from workers.route import Page, Route, Visit

PEM_CHAIN = "application/pem-certificate-chain"
KNOWN_BUNDLE = (
    Number(name="after", summary="Sequence of the bundle that the caller has."),
    Number(name="term", summary="Its term."),
)
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
    return Page(pem.encode(), content_type=PEM_CHAIN)


def _crl_page(answer: TrustAnswer, visit: Visit) -> Page:
    return crl_page(answer.crl, answer.crl_number, visit.etag)


def _lists_page(answer: TrustAnswer, visit: Visit) -> Page:
    lists = (answer.crl, answer.root_crl, *answer.other_lists)
    return lists_page(lists, answer.crl_number, visit.etag)


def _renew(visit: Visit) -> RenewAsPeer:
    return RenewAsPeer(peer=visit.peer, csr=visit.content(RenewBody).csr)


def _renew_expired(visit: Visit) -> RenewExpired:
    body = visit.content(RenewExpiredBody)
    return RenewExpired(
        leaf=body.leaf, csr=body.csr, signature=body.signature, source=visit.caller.source
    )


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
        gossip=body.gossip,
        trusts=body.trusts,
        witness=body.witness,
        bundle_term=body.bundle_term,
    )


def _hello(visit: Visit) -> Hello:
    body = visit.content(HelloBody)
    return Hello(peer=visit.peer, claim=body.claim, gossip=body.gossip)


def _bundle(visit: Visit) -> GetBundle:
    term, sequence = known_version(visit)
    return GetBundle(after=sequence, after_term=term, peer=visit.caller.peer)


def _handover(_visit: Visit) -> GetBundle:
    return GetBundle(handover=True)


def _rekey(visit: Visit) -> StartRekey:
    body = visit.content(RekeyBody)
    return StartRekey(peer=visit.peer, term=body.term, mandate=body.mandate)


def _install(visit: Visit) -> StartInstall:
    body = visit.content(InstallBody)
    return StartInstall(
        peer=visit.peer,
        leaf=body.leaf,
        issuing=body.issuing,
        term=body.term,
        mandate=body.mandate,
    )


def _bind(visit: Visit) -> BindWorker:
    return BindWorker(peer=visit.peer, public_key=visit.content(WorkerBody).public_key)


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
        statuses=(200, 202),
        timeout_ms=SIGNING_TIMEOUT_MS,
    ),
    Route(
        method="GET",
        path="/v1/join/{ticket}",
        summary="What became of a pending join; needs the ticket's secret as bearer.",
        make=_poll,
        reply=JoinAnswer,
        show=join_page,
        statuses=(200, 202),
        timeout_ms=SIGNING_TIMEOUT_MS,
    ),
    Route(
        method="POST",
        path="/v1/renew-expired",
        summary="The key of an expired certificate signs for its successor, within expired_grace.",
        body=RenewExpiredBody,
        make=_renew_expired,
        reply=RenewalAnswer,
        timeout_ms=SIGNING_TIMEOUT_MS,
    ),
    Route(
        method="GET",
        path="/v1/ca.pem",
        summary="The root certificate; compare its pin before trusting it.",
        make=lambda _visit: GetTrust(),
        reply=TrustAnswer,
        show=_ca_page,
        media=PEM_CHAIN,
    ),
    Route(
        method="GET",
        path="/v1/crl.der",
        summary="The newest revocation list.",
        make=lambda _visit: GetTrust(),
        reply=TrustAnswer,
        show=_crl_page,
        media=CRL,
        statuses=(200, 304),
    ),
    Route(
        method="GET",
        path="/v1/crl.pem",
        summary="The newest lists of issuing CA and root, for nginx or PostgreSQL.",
        make=lambda _visit: GetTrust(),
        reply=TrustAnswer,
        show=_lists_page,
        media=LISTS,
        statuses=(200, 304),
    ),
    Route(
        method="GET",
        path="/v1/bundle",
        summary="The signed trust bundle, if newer than ?after of ?term.",
        make=_bundle,
        reply=BundleAnswer,
        show=bundle_page,
        statuses=(200, 304),
        query=KNOWN_BUNDLE,
        media=OCTETS,
    ),
    Route(
        method="GET",
        path="/v1/handover",
        summary="The last bundle of a CA that was replaced, for nodes that slept meanwhile.",
        make=_handover,
        reply=BundleAnswer,
        show=bundle_page,
        media=OCTETS,
        statuses=(200, 304),
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
        body_bytes=GOSSIP_BODY_BYTES,
        make=_heartbeat,
        reply=HeartbeatAnswer,
    ),
    Route(
        method="POST",
        path="/v1/hello",
        summary="Probe between key holders: claims and signed beats, both ways.",
        body=HelloBody,
        body_bytes=GOSSIP_BODY_BYTES,
        make=_hello,
        reply=HelloAnswer,
    ),
    Route(
        method="GET",
        path="/v1/bundle",
        summary="The signed trust bundle, if newer than ?after of ?term.",
        make=_bundle,
        reply=BundleAnswer,
        show=bundle_page,
        statuses=(200, 304),
        query=KNOWN_BUNDLE,
        media=OCTETS,
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
        path="/v1/leave",
        summary="The caller leaves the mesh: its certificates end, its name is free.",
        make=lambda visit: LeaveMesh(peer=visit.peer),
        reply=Ack,
    ),
    Route(
        method="POST",
        path="/v1/renewal/csr",
        summary="A key holder asks this member for a CSR with a fresh key.",
        body=RekeyBody,
        make=_rekey,
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
    Route(
        method="POST",
        path="/v1/worker",
        summary="The caller tells the CURVE key of its renewal workers, if it was let.",
        body=WorkerBody,
        make=_bind,
        reply=WorkerDoor,
    ),
    *REPLICA_ROUTES,
)
