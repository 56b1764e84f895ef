"""Opening and closing the key room: the one place where the issuing key becomes usable."""

from broker.errors import MeshError
from broker.pki.issuer import Issuer
from broker.pki.seal import OpenedKeys, open_with_credential
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.state import BrokerState
from broker.shell.vault import Vault, read_credential


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
    state.keys.opened = None
    state.keys.opened_by = ""


def open_by_credential(state: BrokerState) -> None:
    """Unlock by the credential file, if any; anything wrong with it leaves the CA locked.

    The audit trail gets its row when this node serves: a standby has no journal of its own.
    """
    vault = state.keys.vault
    if vault is None:
        return
    try:
        credential = read_credential(state.paths.credential)
        if credential is None:
            return
        opened = open_with_credential(vault.sealed, credential)
    except MeshError as error:
        log(EventName.CA_UNLOCK_FAILED, detail=error.detail, hint=error.hint)
        return
    open_keys(state, vault, opened)
    state.keys.opened_by = opened.slot_id
    log(EventName.CA_UNLOCKED, slot=opened.slot_id)
