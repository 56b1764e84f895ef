"""Does one leased item of this node itself: calls to other nodes, to the broker, to its own disk.

Waiting for another node is not mistaken for hanging, and a stop hands the work back between two
steps. What was signed but not delivered is answered again for the same key.
"""

import select
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.clock import boottime_ms, wall_s
from broker.errors import CSRRejectedError, MeshError, NotPrimaryError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.wire.base import Body, Reply
from broker.wire.control import Ack
from broker.wire.enrollment import Issued
from broker.wire.mesh_api import InstalledBody, RenewBody
from broker.wire.node import Endpoint, Membership
from broker.wire.renewal import RenewalAnswer, RenewWithLease
from broker.wire.work import (
    Approve,
    Failed,
    HooksRan,
    Install,
    Installed,
    Lease,
    Rekey,
    Rekeyed,
    RenewMember,
    RenewOwn,
    RunHooks,
    SendNotice,
    WorkResult,
)
from workers.certstore import CertificateStore
from workers.keyproof import prove
from workers.pairs import LiveCertificate
from workers.process import Desk
from workers.renewal.delivery import UNSERVED, Delivery
from workers.renewal.held import Wanted
from workers.renewal.hold import Hold
from workers.renewal.hookset import HookSet
from workers.renewal.logic import PENDING_REUSE_S, issuer_of, lease_ms
from workers.renewal.patience import StoppedError, patiently
from workers.renewal.probe import Prober
from workers.root import roots_of
from workers.sessions import Open, opener

if TYPE_CHECKING:
    from workers.peer import PeerSession

A = TypeVar("A", bound=Reply)

LEASE_MARGIN_MS = 10_000
STOPPED_WAIT_MS = 200
REPORT_AFTER_MS = 60_000
"""Well before the CA stops waiting for the answer to a delivery."""

LocalItem = RenewOwn | Rekey | Install | RunHooks


@dataclass(slots=True)
class Errand:
    """What one renewal worker needs for its items.

    Attributes:
        desk: The broker.
        membership: The mesh.
        open_peers: Opens a session to other nodes, when one is called for the first time.
        delivery: This node's own certificate.
        hold: The lease of the item.
        roots: The roots to trust, DER, the pinned one first.
        call_ms: Longest time of one call to another node.
        report_after_ms: A pushed installation that took longer is reported to the primary too.
    """

    desk: Desk
    membership: Membership
    open_peers: Open
    delivery: Delivery
    hold: Hold
    roots: tuple[bytes, ...]
    call_ms: int
    report_after_ms: int = REPORT_AFTER_MS
    _peers: "PeerSession | None" = None

    def close(self) -> None:
        """Drop the connections to other nodes."""
        if self._peers is not None:
            self._peers.close()

    def lease_ms(self, lease: Lease) -> int:
        """Return how long the lease must last from now."""
        assert isinstance(lease.item, LocalItem), "this is not done here"
        longest_ms = self.delivery.longest_ms()
        return lease_ms(lease.item, longest_ms, self.call_ms) + LEASE_MARGIN_MS

    def run(self, lease: Lease) -> WorkResult:
        """Do the item and return its result.

        Raises:
            MeshError: It could not be done now.
            StoppedError: It was not finished, because a stop was asked.
        """
        match lease.item:
            case RenewOwn():
                return self._renew_own(lease.lease_id, lease.item)
            case Rekey():
                return self._rekey()
            case Install():
                return self._install_pushed(lease.item)
            case RunHooks():
                return HooksRan(self.delivery.tell(lease.item.event))
            case RenewMember() | Approve() | SendNotice():
                raise AssertionError("this is not done here")

    def _rekey(self) -> Rekeyed:
        csr, live = self._request(), self.delivery.store.live()
        if live is None:
            return Rekeyed(csr)
        leaf = x509.load_pem_x509_certificate(live.cert.read_bytes()).public_bytes(Encoding.DER)
        return Rekeyed(csr, prove(live.key.read_bytes(), leaf, self.membership.mesh_id, csr))

    def _renew_own(self, lease_id: int, item: RenewOwn) -> Installed | Failed:
        waiting, issuer = self._waiting(item), item.primary
        if waiting is not None:
            result = self._deliver_again(waiting)
        else:
            issued, issuer = self._issued(lease_id, item)
            result = self._install(issued.leaf, issued.issuing)
        told = self.delivery.report()
        if not item.via_broker and issuer is not None:
            # What is live, as the heartbeats say it too: the same failure again is no news.
            self._tell_primary(issuer, Installed(told.serial, told.state, told.detail))
        if told.serial != result.serial or (waiting is not None and result.state in UNSERVED):
            # It is due at once again: only a failure makes the broker back off.
            return Failed(result.detail)
        return result

    def _issued(self, lease_id: int, item: RenewOwn) -> tuple[Issued, Endpoint | None]:
        """Return a new certificate for this node, and who issued it; None is the local broker."""
        issuer, csr = issuer_of(item), self._request()
        if item.by_old_key:
            return self._by_old_key(item, csr)
        if issuer is None:
            return self._sign(lease_id, csr), None
        return self._renewed(issuer, RenewBody(csr)).issued, issuer

    def _renewed(self, issuer: Endpoint, body: RenewBody) -> RenewalAnswer:
        return self._call(issuer, "/v1/renew", body, RenewalAnswer)

    def _by_old_key(self, item: RenewOwn, csr: bytes) -> tuple[Issued, Endpoint]:
        from workers.renewal.expired import OldKey  # noqa: PLC0415 (12 MB, see workers.sessions)

        old = OldKey(self.desk, self.membership, self.roots, self.call_ms, self._renewed)
        live = self.delivery.store.live()
        try:
            return old.ask(item, live, csr)
        except CSRRejectedError:
            # The waiting key got a certificate that nobody received in time: then a fresh one.
            return old.ask(item, live, self.delivery.store.prepare())

    def _waiting(self, item: RenewOwn) -> LiveCertificate | None:
        """Return what was issued before and is still to come into service."""
        wanted = Wanted(
            roots=self.roots,
            sans=item.sans,
            renew_at=item.renew_at,
            revoked=self.desk.paths.trust / "crl.pem",
            young_s=PENDING_REUSE_S if item.fresh else 0,
        )
        return self.delivery.waiting(wanted, wall_s())

    def _deliver_again(self, found: LiveCertificate) -> Installed:
        result = self.delivery.deliver_again(found)
        self.desk.ask(self.delivery.report(), Ack)
        return result

    def _request(self) -> bytes:
        """Return a CSR for this node; the CA knows the names it has."""
        return self.delivery.store.prepare(reuse_s=PENDING_REUSE_S)

    def _sign(self, lease_id: int, csr: bytes) -> Issued:
        return self.desk.ask(RenewWithLease(lease_id, csr), RenewalAnswer).issued

    def _install(self, leaf: bytes, issuing: bytes) -> Installed:
        result = self.delivery.install(leaf, issuing, *self.roots)
        self.desk.ask(self.delivery.report(), Ack)
        return result

    def _install_pushed(self, item: Install) -> Installed:
        began_ms = boottime_ms()
        result = self._install(item.leaf, item.issuing)
        if boottime_ms() - began_ms >= self.report_after_ms:
            # Whoever delivered the certificate may have stopped waiting for the answer.
            self._tell_primary(None, result)
        return result

    def _tell_primary(self, primary: Endpoint | None, result: Installed) -> None:
        """Close the loop; the next heartbeat says the same, so a failure here costs little."""
        body = InstalledBody(serial=result.serial, state=result.state, detail=result.detail)
        try:
            self._call(primary or self._primary(), "/v1/installed", body, Ack)
        except StoppedError:
            return
        except MeshError as error:
            host = primary.host if primary else ""
            log(EventName.PEER_UNREACHABLE, host=host, detail=error.detail)

    def _primary(self) -> Endpoint:
        mesh = self.desk.node().mesh
        if mesh is None or mesh.primary is None:
            raise NotPrimaryError("the primary of the mesh is not known")
        return mesh.primary

    def _call(self, endpoint: Endpoint, path: str, body: Body | None, kind: type[A]) -> A:
        timeout_s = self.call_ms / 1000
        if self._peers is None:
            self._peers = self.open_peers(self.desk.paths, self.membership)
        call = partial(self._peers.call, endpoint, "POST", path, body, kind, timeout_s=timeout_s)
        return patiently(self.desk, call)


class DeskPause:
    """Waits at the desk, holding the lease meanwhile.

    Once a stop was asked the desk no longer waits, but a hook may go on for a moment.
    """

    def __init__(self, desk: Desk, hold: Hold) -> None:
        self._desk = desk
        self._hold = hold

    def wait(self, wait_ms: int, *descriptors: int) -> None:
        """Return when a descriptor is readable, or after `wait_ms` at the latest."""
        self._hold.keep()
        if not self._desk.stopping():
            self._desk.wait(min(wait_ms, self._hold.every_ms), *descriptors)
            return
        poller = select.poll()
        for descriptor in descriptors:
            poller.register(descriptor, select.POLLIN)
        poller.poll(max(0, min(wait_ms, STOPPED_WAIT_MS)))
        self._desk.beat(0)

    def announce(self, within_ms: int) -> None:
        """Promise the broker the next sign of life within `within_ms`."""
        self._desk.beat(within_ms)

    def stopping(self) -> bool:
        """Return whether the process was asked to stop."""
        return self._desk.stopping()


def build_errand(desk: Desk, membership: Membership) -> Errand:
    """Return what works for this membership at this desk."""
    settings, paths = desk.settings, desk.paths
    hold = Hold(desk)
    pause = DeskPause(desk, hold)
    delivery = Delivery(
        store=CertificateStore(paths.certificates, membership.host, settings.renewal.keep_versions),
        hooks=HookSet(paths, settings, pause),
        prober=Prober(pause),
        policy=settings.renewal,
        server_name=membership.server_name,
    )
    return Errand(
        desk=desk,
        membership=membership,
        open_peers=opener(settings.renewal.peer_timeout.seconds),
        delivery=delivery,
        hold=hold,
        roots=roots_of(membership),
        call_ms=settings.renewal.peer_timeout.ms,
    )
