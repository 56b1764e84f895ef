"""Renewal: the CSR in, the certificate out, and what became of it."""

from typing import Annotated

from msgspec import Meta

from broker.wire.base import Reply, Request
from broker.wire.claims import KeyProof, SignedMandate
from broker.wire.enrollment import Issued
from broker.wire.ids import DER, Count, Hex, LeaseId, ServedState, Term, Text, UnixSeconds
from broker.wire.roster import Peer


class RenewWithLease(Request, frozen=True, tag="renew-with-lease"):
    """A renewal worker holding the host's lease hands in the CSR the host made.

    A worker on another machine needs the host's `proof` that it made it.
    """

    lease_id: LeaseId
    csr: DER
    proof: KeyProof | None = None


class RenewAsPeer(Request, frozen=True, tag="renew-as-peer"):
    """A member pulls a renewal for itself over the mesh port."""

    peer: Peer
    csr: DER


class RenewalAnswer(Reply, frozen=True, tag="renewal-answer"):
    """The new certificate."""

    issued: Issued


class ReportInstalled(Request, frozen=True, tag="report-installed"):
    """What a host serves after an installation, told by itself.

    `peer` is set when it comes over the mesh port; without it the local renewal worker speaks
    for this node. The serial must be one that was issued to the host.
    """

    serial: Hex
    state: ServedState
    detail: Text
    peer: Peer | None = None


class NoteOwnCertificate(Request, frozen=True, tag="note-own-certificate"):
    """The local renewal worker tells its broker what is live on disk and what is served.

    `present` is False while there is no usable certificate on disk (fields then zero or empty).
    `roots` are the pins of the roots in its chain file, that of the certificate itself first.
    """

    present: bool
    serial: Hex
    not_before: UnixSeconds
    not_after: UnixSeconds
    state: ServedState
    detail: Text
    roots: Annotated[tuple[Hex, ...], Meta(max_length=4)] = ()


class StartRekey(Request, frozen=True, tag="start-rekey"):
    """A key holder asks this member, through its gateway, for a CSR with a fresh key.

    Answered with `RekeyAnswer` when the local renewal worker has made it. With a `mandate` the peer
    is no key holder, but works for one.
    """

    peer: Peer
    term: Term
    mandate: SignedMandate | None = None


class RekeyAnswer(Reply, frozen=True, tag="rekey-answer"):
    """The CSR; the key stays in the member's pending directory. `proof` is by its live key."""

    csr: DER
    proof: KeyProof | None = None


class StartInstall(Request, frozen=True, tag="start-install"):
    """A key holder delivers the certificate for the pending key.

    Answered with `InstallAnswer` when installed, hooks run, port probed; may take as long as the
    hooks' own timeouts.
    """

    peer: Peer
    leaf: DER
    issuing: DER
    term: Term
    mandate: SignedMandate | None = None


class RenewExpired(Request, frozen=True, tag="renew-expired"):
    """A member whose certificate has expired asks at the enrol door, inside `expired_grace`.

    `signature` is by the old key, over `expired_statement` of the mesh, the old leaf and the CSR.
    Answered with `RenewalAnswer`.
    """

    leaf: DER
    csr: DER
    signature: Annotated[bytes, Meta(max_length=128)]
    source: Text


class InstallAnswer(Reply, frozen=True, tag="install-answer"):
    """What became of the certificate on the member."""

    serial: Hex
    state: ServedState
    detail: Text
    hook_ms: Count = 0


class ForceRenewal(Request, frozen=True, tag="force-renewal"):
    """The operator wants this node's own certificate renewed now, due or not."""

    operator: Text
