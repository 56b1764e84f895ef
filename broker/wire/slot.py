"""Ways to unlock the CA of this node, and the half secrets that peers keep for each other.

A peer slot opens with two halves: one in this node's credential file, one that a named peer gives
over mutual TLS, only while its owner is a member. Neither half is a key, and neither opens anything
alone.
"""

from typing import Annotated, Literal

from msgspec import Meta

from broker.wire.authority import Passphrase
from broker.wire.base import Body, Reply, Request, Veiled
from broker.wire.ids import Count, Hex, Host, Text
from broker.wire.node import Endpoint
from broker.wire.roster import Peer

SlotKind = Literal["passphrase", "credential", "systemd", "totp", "peer", "recovery"]
HALF_BYTES = 32
Half = Annotated[bytes, Meta(min_length=HALF_BYTES, max_length=HALF_BYTES)]


class AddSlotBody(Veiled, Body, frozen=True):
    """POST /v1/ca/slots. `passphrase` proves the right to add; `new` is the second passphrase.

    `peer` names the member that is to agree to each unlocking (slot kind `peer`).
    """

    slot_kind: SlotKind
    passphrase: Annotated[str, Meta(min_length=1, max_length=1024)]
    new: Annotated[str, Meta(max_length=1024)] = ""
    peer: Text = ""


class RemoveSlotBody(Veiled, Body, frozen=True):
    """DELETE /v1/ca/slots/{id}: the passphrase proves the right to remove."""

    passphrase: Annotated[str, Meta(min_length=1, max_length=1024)]


class AddSlot(Veiled, Request, frozen=True, tag="add-slot"):
    """Add a way to unlock. A passphrase of this CA has to be given; derived off the loop."""

    slot_kind: SlotKind
    passphrase: Passphrase
    operator: Text
    new: Passphrase = b""
    peer: Text = ""


class RemoveSlot(Veiled, Request, frozen=True, tag="remove-slot"):
    """Remove a way to unlock; the last passphrase slot stays."""

    slot_id: Text
    passphrase: Passphrase
    operator: Text


class SlotAnswer(Veiled, Reply, frozen=True, tag="slot-answer"):
    """What was added or removed, and what is shown only now.

    `secret_path` is the file that now holds a credential; `totp_uri` and `totp_key` are the
    authenticator entry of a TOTP-guarded slot. `note` says what the change does not reach.
    """

    slot_id: Text
    slot_kind: Text
    secret_path: Text = ""
    totp_uri: Text = ""
    totp_key: Text = ""
    note: Text = ""


class UnlockCodeBody(Veiled, Body, frozen=True):
    """POST /v1/ca/unlock-code."""

    code: Annotated[str, Meta(min_length=6, max_length=16)]


class UnlockByCode(Veiled, Request, frozen=True, tag="unlock-by-code"):
    """Open the TOTP-guarded slot with a code; each step is taken once, guesses have to wait."""

    code: Text
    operator: Text


class PlanUnlock(Request, frozen=True, tag="plan-unlock"):
    """The roster-sync worker asks whether a peer is needed to unlock, or to be told a half."""


class UnlockPlan(Veiled, Reply, frozen=True, tag="unlock-plan"):
    """`errand`: `none`; `give` (bring `half` of `slot_id` to `peer`); `ask` (fetch it back)."""

    errand: Literal["none", "give", "ask"]
    slot_id: Text = ""
    peer: Endpoint | None = None
    half: bytes = b""
    retry_in_ms: Count = 0


class NoteHalf(Veiled, Request, frozen=True, tag="note-half"):
    """The worker brought the half to the peer (`half` empty), or fetched it.

    `problem` says why neither happened; it is empty when all went well.
    """

    slot_id: Text
    host: Host
    half: bytes = b""
    problem: Text = ""


class KeepHalfBody(Veiled, Body, frozen=True):
    """POST /v1/unlock/keep."""

    slot_id: Text
    half: Half


class KeepHalf(Veiled, Request, frozen=True, tag="keep-half"):
    """A key holder asks this node to keep the half of one of its slots."""

    peer: Peer
    slot_id: Text
    half: Half


class GiveHalfBody(Body, frozen=True):
    """POST /v1/unlock/ask."""

    slot_id: Text


class GiveHalf(Request, frozen=True, tag="give-half"):
    """The owner of a half asks for it; refused once it is revoked, audited, limited."""

    peer: Peer
    slot_id: Text


class HalfAnswer(Veiled, Reply, frozen=True, tag="half-answer"):
    """The half."""

    half: Half
    slot_id: Hex
