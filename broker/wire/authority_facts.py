"""Facts of the CA and of the mesh as a whole: keys, rollover, backups, its end."""

from broker.wire.base import Fact
from broker.wire.ids import (
    DER,
    Count,
    Hex,
    Host,
    Sequence,
    Text,
)


class AuthorityUnlocked(Fact, frozen=True, tag="ca.unlocked"):
    """The issuing key became usable."""

    slot: Text


class AuthorityUnlockFailed(Fact, frozen=True, tag="ca.unlock_failed"):
    """Somebody tried and no slot opened."""

    slot: Text


class AuthorityLocked(Fact, frozen=True, tag="ca.locked"):
    """The issuing key was forgotten on purpose."""


class SlotAdded(Fact, frozen=True, tag="ca.slot_added"):
    """A new way to unlock the CA on `host`."""

    host: Host
    slot: Text
    slot_kind: Text


class SlotRemoved(Fact, frozen=True, tag="ca.slot_removed"):
    """A way to unlock the CA on `host` is gone."""

    host: Host
    slot: Text
    slot_kind: Text


class HalfGiven(Fact, frozen=True, tag="ca.half_given"):
    """This node agreed to an unlocking by giving back the half that it keeps."""

    host: Host
    slot: Text


class RolloverStarted(Fact, frozen=True, tag="ca.rollover_started"):
    """The next CA; every node is to trust its root besides the old one.

    `nonce` and `ciphertext` are its issuing key under the wrapping key that all key holders share,
    so that whoever has the row can become primary in every phase. `retiring_*` is the CA in force.
    """

    root: DER
    issuing: DER
    pin: Hex
    retiring_pin: Hex = ""
    retiring_root: DER = b""
    retiring_issuing: DER = b""
    nonce: bytes = b""
    ciphertext: bytes = b""
    root_crl: DER = b""


class RolloverFinished(Fact, frozen=True, tag="ca.rollover_finished"):
    """The next CA signs from now on; the old root stays trusted for a while."""

    pin: Hex
    retired_pin: Hex


class RolloverAborted(Fact, frozen=True, tag="ca.rollover_aborted"):
    """The next CA is forgotten; it never signed."""

    pin: Hex


class RolloverRetired(Fact, frozen=True, tag="ca.rollover_retired"):
    """No member shows a certificate of the old CA any more; its root is trusted no longer."""

    pin: Hex


class BackupCreated(Fact, frozen=True, tag="backup.created"):
    """A backup was written and read back."""

    host: Host
    name: Text
    digest: Hex


class BackupRestored(Fact, frozen=True, tag="backup.restored"):
    """This journal goes on from a backup; `revoked` members were learnt from the living."""

    host: Host
    digest: Hex
    asked: Count
    answered: Count
    revoked: Count


class MeshDestroyed(Fact, frozen=True, tag="mesh.destroyed"):
    """Last row of every mesh that ends on purpose."""

    host: Host


class AuditBroken(Fact, frozen=True, tag="audit.broken"):
    """A member's memory of this journal differs from the journal."""

    host: Host
    sequence: Sequence
    here: Hex
    there: Hex


class ActionRefused(Fact, frozen=True, tag="action.refused"):
    """Somebody known asked for a change and was refused; `action` is the request's kind.

    `subject` is the host or id that it was about, as asked for.
    """

    action: Text
    subject: Text
    code: Text
