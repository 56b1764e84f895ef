"""Routes of the mesh port between key holders: rows, the issuing key, halves of secrets."""

from broker.wire.control import Ack
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
from broker.wire.slot import GiveHalf, GiveHalfBody, HalfAnswer, KeepHalf, KeepHalfBody
from workers.gateway.logic import OCTETS, journal_page
from workers.route import Route, Visit

SIGNING_TIMEOUT_MS = 10_000
ADOPT_TIMEOUT_MS = 30_000
GOSSIP_BODY_BYTES = 32_768
"""Eight signed beats, a signed head and what goes with them; failover must not depend on how
small an operator made the limit of the door."""
ORPHAN_BODY_BYTES = 1_052_672
"""The largest page in base64, and its frame."""


def _read_journal(visit: Visit) -> ReadJournal:
    body = visit.content(ReplicaBody)
    return ReadJournal(peer=visit.peer, locator=body.locator, wait_ms=body.wait_ms)


def _wait_ms(visit: Visit) -> int:
    return visit.content(ReplicaBody).wait_ms


def _adopt(visit: Visit) -> AdoptRows:
    return AdoptRows(peer=visit.peer, page=visit.content(AdoptBody).page)


def _accept(visit: Visit) -> AcceptKey:
    return AcceptKey(peer=visit.peer, public_key=visit.content(AcceptBody).public_key)


def _keep_half(visit: Visit) -> KeepHalf:
    body = visit.content(KeepHalfBody)
    return KeepHalf(peer=visit.peer, slot_id=body.slot_id, half=body.half)


def _give_half(visit: Visit) -> GiveHalf:
    return GiveHalf(peer=visit.peer, slot_id=visit.content(GiveHalfBody).slot_id)


REPLICA_ROUTES = (
    Route(
        method="POST",
        path="/v1/replica/events",
        summary="Journal rows after what a standby has, as soon as there are any.",
        body=ReplicaBody,
        body_bytes=GOSSIP_BODY_BYTES,
        make=_read_journal,
        reply=JournalAnswer,
        show=journal_page,
        media=OCTETS,
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
    Route(
        method="POST",
        path="/v1/unlock/keep",
        summary="A key holder leaves half of a slot's secret with this node.",
        body=KeepHalfBody,
        make=_keep_half,
        reply=Ack,
    ),
    Route(
        method="POST",
        path="/v1/unlock/ask",
        summary="Its owner fetches it back to unlock; refused once it is revoked.",
        body=GiveHalfBody,
        make=_give_half,
        reply=HalfAnswer,
    ),
)
