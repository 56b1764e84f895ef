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
from broker.wire.replica import (
    AcceptBody,
    AcceptKey,
    AdoptAnswer,
    AdoptBody,
    AdoptRows,
    JournalAnswer,
    KeyPackage,
    ReadJournal,
    ReplicaBody,
    ReportReady,
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
    journal_page,
    known_version,
    one_credential,
    ticket_secret,
)
from workers.route import Page, Route, Visit

SIGNING_TIMEOUT_MS = 10_000
REKEY_TIMEOUT_MS = 30_000
INSTALL_TIMEOUT_MS = 120_000
"""Hooks may take longer; then the answer is `timeout`, and the member's own report follows."""
ADOPT_TIMEOUT_MS = 30_000
GOSSIP_BODY_BYTES = 32_768
"""Eight signed beats, a signed head and what goes with them; failover must not depend on how
small an operator made the limit of the door."""
ORPHAN_BODY_BYTES = 1_052_672
"""The largest page in base64, and its frame."""


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
        gossip=body.gossip,
    )


def _hello(visit: Visit) -> Hello:
    body = visit.content(HelloBody)
    return Hello(peer=visit.peer, claim=body.claim, gossip=body.gossip)


def _bundle(visit: Visit) -> GetBundle:
    term, sequence = known_version(visit)
    return GetBundle(after=sequence, after_term=term, peer=visit.caller.peer)


def _rekey(visit: Visit) -> StartRekey:
    return StartRekey(peer=visit.peer, term=visit.content(RekeyBody).term)


def _install(visit: Visit) -> StartInstall:
    body = visit.content(InstallBody)
    return StartInstall(peer=visit.peer, leaf=body.leaf, issuing=body.issuing, term=body.term)


def _read_journal(visit: Visit) -> ReadJournal:
    body = visit.content(ReplicaBody)
    return ReadJournal(peer=visit.peer, locator=body.locator, wait_ms=body.wait_ms)


def _wait_ms(visit: Visit) -> int:
    return visit.content(ReplicaBody).wait_ms


def _adopt(visit: Visit) -> AdoptRows:
    return AdoptRows(peer=visit.peer, page=visit.content(AdoptBody).page)


def _accept(visit: Visit) -> AcceptKey:
    return AcceptKey(peer=visit.peer, public_key=visit.content(AcceptBody).public_key)


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
        summary="The signed trust bundle, if newer than ?after of ?term.",
        make=_bundle,
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
        path="/v1/replica/events",
        summary="Journal rows after what a standby has, as soon as there are any.",
        body=ReplicaBody,
        body_bytes=GOSSIP_BODY_BYTES,
        make=_read_journal,
        reply=JournalAnswer,
        show=journal_page,
        defer=_wait_ms,
    ),
    Route(
        method="POST",
        path="/v1/replica/adopt",
        summary="A standby brings rows that it wrote while it was primary on its own.",
        body=AdoptBody,
        body_bytes=ORPHAN_BODY_BYTES,
        make=_adopt,
        reply=AdoptAnswer,
        timeout_ms=ADOPT_TIMEOUT_MS,
    ),
    Route(
        method="POST",
        path="/v1/standby/accept",
        summary="A nominated node fetches the issuing key, sealed to its one-time key.",
        body=AcceptBody,
        make=_accept,
        reply=KeyPackage,
        timeout_ms=SIGNING_TIMEOUT_MS,
    ),
    Route(
        method="POST",
        path="/v1/standby/ready",
        summary="A nominated node has the key and proved that it fits.",
        make=lambda visit: ReportReady(peer=visit.peer),
        reply=Ack,
        timeout_ms=SIGNING_TIMEOUT_MS,
    ),
)
