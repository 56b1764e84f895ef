"""What a broker remembers about slots: a change under way, and when to ask a peer again.

Plain memory of one broker lifetime: a crash forgets a change, and leaves the vault as it was.
"""

from dataclasses import dataclass, field

from broker.pki.sealed import SealedKeys, Slot
from broker.shell.caller import Caller
from broker.shell.vault import Vault

ASK_AGAIN_MS = (5_000, 15_000, 60_000)
"""Waits between questions to a peer that did not help; the last one is repeated."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A new slot and what belongs to it, before anything of it is on disk.

    Attributes:
        sealed: The vault with the slot.
        slot: The slot.
        secret: Content of its file on this machine, empty when it has none.
        half: What the peer of the slot is to keep, empty for other kinds.
        guarded: The TOTP secret of a code slot, shown once.
    """

    sealed: SealedKeys
    slot: Slot
    secret: bytes = field(default=b"", repr=False)
    half: bytes = field(default=b"", repr=False)
    guarded: bytes = field(default=b"", repr=False)


@dataclass(slots=True)
class SlotChange:
    """The one change of slots under way; `vault` is what it was computed from.

    `drawn` is set while the peer of a new slot has not taken its half.
    """

    caller: Caller
    operator: str
    vault: Vault
    until_ms: int
    drawn: Drawn | None = None


@dataclass(slots=True)
class Asks:
    """When each peer slot may ask again, by slot id: failures in a row, next moment."""

    by_slot: dict[str, tuple[int, int]] = field(default_factory=dict)

    def next_ms(self, slot_id: str) -> int:
        """Return from when on the peer of this slot may be asked."""
        return self.by_slot.get(slot_id, (0, 0))[1]

    def failed(self, slot_id: str, now_ms: int) -> None:
        """Count a question that did not help."""
        failures = self.by_slot.get(slot_id, (0, 0))[0]
        wait_ms = ASK_AGAIN_MS[min(failures, len(ASK_AGAIN_MS) - 1)]
        self.by_slot[slot_id] = (failures + 1, now_ms + wait_ms)
