"""Does one leased item: the calls to other nodes, to the broker and to this node's own disk.

Waiting for another node is not mistaken for hanging, and a stop hands the work back between two
steps. What was signed but not delivered is answered again for the same key.
"""

import select
from dataclasses import dataclass
from typing import TypeVar

from broker.errors import MeshError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.wire.base import Body, Reply
from broker.wire.control import Ack
from broker.wire.enrollment import Issued
from broker.wire.mesh_api import InstallBody, InstalledBody, RenewBody
from broker.wire.node import Endpoint, Membership
from broker.wire.renewal import InstallAnswer, RekeyAnswer, RenewalAnswer, RenewWithLease
from broker.wire.work import (
    Approve,
    Failed,
    Install,
    Installed,
    Lease,
    Rekey,
    Rekeyed,
    RenewMember,
    RenewOwn,
    WorkResult,
)
from workers.certstore import CertificateStore
from workers.peer import PeerSession, root_der_of
from workers.process import Desk
from workers.renewal.delivery import Delivery
from workers.renewal.hookset import HookSet
from workers.renewal.logic import DELIVERY_CALL_MS, PENDING_REUSE_S, issuer_of, lease_ms
from workers.renewal.patience import patiently
from workers.renewal.probe import Prober

A = TypeVar("A", bound=Reply)

LEASE_MARGIN_MS = 10_000
STOPPED_WAIT_MS = 200


@dataclass(slots=True)
class Errand:
    """What one renewal worker needs for its items.

    Attributes:
        desk: The broker.
        peers: Other nodes.
        delivery: This node's own certificate.
        root: The pinned root, DER.
        call_ms: Longest time of one call to another node.
    """

    desk: Desk
    peers: PeerSession
    delivery: Delivery
    root: bytes
    call_ms: int

    def lease_ms(self, lease: Lease) -> int:
        """Return how long the lease must last from now."""
        assert not isinstance(lease.item, Approve), "approvals are leased to another service"
        longest_ms = self.delivery.longest_ms()
        return lease_ms(lease.item, longest_ms, self.call_ms) + LEASE_MARGIN_MS

    def run(self, lease: Lease) -> WorkResult:
        """Do the item and return its result.

        Raises:
            MeshError: It could not be done now.
            StoppedError: It was not finished, because a stop was asked.
        """
        match lease.item:
            case RenewMember():
                return self._renew_member(lease.lease_id, lease.item)
            case RenewOwn():
                return self._renew_own(lease.lease_id, lease.item)
            case Rekey():
                return Rekeyed(self._request())
            case Install():
                return self._install(lease.item.leaf, lease.item.issuing)
            case Approve():
                raise AssertionError("approvals are leased to another service")

    def _renew_member(self, lease_id: int, item: RenewMember) -> Installed:
        asked = self._call(item.endpoint, "/v1/renewal/csr", None, RekeyAnswer)
        issued = self._sign(lease_id, asked.csr)
        body = InstallBody(leaf=issued.leaf, issuing=issued.issuing)
        path = "/v1/renewal/install"
        answer = self._call(item.endpoint, path, body, InstallAnswer, DELIVERY_CALL_MS)
        return Installed(answer.serial, answer.state, answer.detail, answer.hook_ms)

    def _renew_own(self, lease_id: int, item: RenewOwn) -> Installed | Failed:
        issuer = issuer_of(item)
        csr = self._request()
        if issuer is None:
            issued = self._sign(lease_id, csr)
        else:
            issued = self._call(issuer, "/v1/renew", RenewBody(csr), RenewalAnswer).issued
        result = self._install(issued.leaf, issued.issuing)
        if issuer is not None:
            self._tell_primary(issuer, result)
        live = self.delivery.store.live()
        if live is not None and live.serial != result.serial:
            # The old pair is back and due at once: only a failure makes the broker back off.
            return Failed(result.detail)
        return result

    def _request(self) -> bytes:
        """Return a CSR for this node; the CA knows the names it has."""
        return self.delivery.store.prepare(reuse_s=PENDING_REUSE_S)

    def _sign(self, lease_id: int, csr: bytes) -> Issued:
        return self.desk.ask(RenewWithLease(lease_id, csr), RenewalAnswer).issued

    def _install(self, leaf: bytes, issuing: bytes) -> Installed:
        result = self.delivery.install(leaf, issuing, self.root)
        self.desk.ask(self.delivery.report(), Ack)
        return result

    def _tell_primary(self, primary: Endpoint, result: Installed) -> None:
        """Close the loop; the next heartbeat says the same, so a failure here costs little."""
        body = InstalledBody(serial=result.serial, state=result.state, detail=result.detail)
        try:
            self._call(primary, "/v1/installed", body, Ack)
        except MeshError as error:
            log(EventName.PEER_UNREACHABLE, host=primary.host, detail=error.detail)

    def _call(
        self, endpoint: Endpoint, path: str, body: Body | None, kind: type[A], within_ms: int = 0
    ) -> A:
        timeout_s = (within_ms or self.call_ms) / 1000
        return patiently(
            self.desk,
            lambda: self.peers.call(endpoint, "POST", path, body, kind, timeout_s=timeout_s),
        )


class DeskPause:
    """Waits at the desk; once a stop was asked the desk no longer waits, but a hook may go on."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def wait(self, wait_ms: int, *descriptors: int) -> None:
        """Return when a descriptor is readable, or after `wait_ms` at the latest."""
        if not self._desk.stopping():
            self._desk.wait(wait_ms, *descriptors)
            return
        poller = select.poll()
        for descriptor in descriptors:
            poller.register(descriptor, select.POLLIN)
        poller.poll(max(0, min(wait_ms, STOPPED_WAIT_MS)))
        self._desk.beat(0)

    def announce(self, within_ms: int) -> None:
        """Promise the broker the next sign of life within `within_ms`."""
        self._desk.beat(within_ms)


def build_errand(desk: Desk, membership: Membership) -> Errand:
    """Return what works for this membership at this desk."""
    settings, paths = desk.settings, desk.paths
    pause = DeskPause(desk)
    delivery = Delivery(
        store=CertificateStore(paths.certificates, membership.host, settings.renewal.keep_versions),
        hooks=HookSet(paths, settings, pause),
        prober=Prober(pause),
        policy=settings.renewal,
        server_name=membership.server_name,
    )
    peers = PeerSession(paths, membership, timeout_s=settings.renewal.peer_timeout.seconds)
    return Errand(desk, peers, delivery, root_der_of(membership), settings.renewal.peer_timeout.ms)
