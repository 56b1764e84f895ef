"""Opening and closing the key room: the one place where the issuing key becomes usable."""

from collections.abc import Callable, Mapping

from broker.errors import MeshError
from broker.pki.issuer import Issuer
from broker.pki.seal import OpenedKeys, open_with_secret
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.slotfile import systemd_secret
from broker.shell.state import BrokerState
from broker.shell.vault import Vault, read_credential
from broker.wire.events import AuthorityMoved, WorkAvailable
from broker.wire.facts import AuthorityUnlocked
from broker.wire.ids import Service
from broker.wire.slot import SlotKind


def open_keys(state: BrokerState, vault: Vault, opened: OpenedKeys) -> None:
    """Make the issuing key usable in this process."""
    state.keys.issuer = Issuer.open(
        root=vault.root, issuing=vault.issuing, issuing_key=opened.issuing_key
    )
    state.keys.totp_secret = opened.totp_secret
    state.keys.opened = opened


def close_keys(state: BrokerState) -> None:
    """Drop the key; the interpreter frees the memory, the process forgets the way to it."""
    state.keys.issuer = None
    state.keys.totp_secret = b""
    state.keys.rotation = None
    state.keys.opened = None
    state.keys.opened_by = ""


def open_unattended(state: BrokerState, environment: Mapping[str, str]) -> None:
    """Unlock by the credential file, then by systemd's credential; else the CA stays locked.

    Anything wrong with one of them is logged, and the next is tried. There is no third way: a peer
    is asked later, by the roster-sync worker. The audit trail gets its row when this node serves: a
    standby has no journal of its own.
    """
    vault = state.keys.vault
    if vault is None:
        return
    ways: tuple[tuple[SlotKind, Callable[[], bytes | None]], ...] = (
        ("credential", lambda: read_credential(state.paths.credential)),
        ("systemd", lambda: systemd_secret(environment)),
    )
    for kind, read in ways:
        opened = _try(vault, kind, read)
        if opened is not None:
            open_keys(state, vault, opened)
            state.keys.opened_by = opened.slot_id
            log(EventName.CA_UNLOCKED, slot=opened.slot_id, kind=kind)
            return


def take_into_use(
    state: BrokerState, batch: Batch, opened: OpenedKeys, *, by: str, operator: str
) -> None:
    """Make keys usable that were opened while this broker runs, and write that down.

    At once, so that a lock later in this drain is the last word; undone with the drain.
    """
    assert state.keys.vault is not None
    log(EventName.CA_UNLOCKED, slot=by, operator=operator)
    if state.serves:
        batch.append(AuthorityUnlocked(by), operator)
    open_keys(state, state.keys.vault, opened)
    if not state.serves:
        # The audit trail is the primary's to write; it gets this row when this node serves.
        state.keys.opened_by = by
    batch.on_void.append(lambda: close_keys(state))
    batch.publish(AuthorityMoved("unlocked"))
    batch.publish(WorkAvailable(Service.RENEWAL))


def _try(vault: Vault, kind: SlotKind, read: Callable[[], bytes | None]) -> OpenedKeys | None:
    if not vault.sealed.of_kind(kind):
        return None
    try:
        secret = read()
        return None if secret is None else open_with_secret(vault.sealed, kind, secret)
    except MeshError as error:
        log(EventName.CA_UNLOCK_FAILED, kind=kind, detail=error.detail, hint=error.hint)
        return None
