"""The CA key on its way to a standby: sealed by the primary, opened and kept by the nominated.

The key is in no message except sealed to a one-time key that lives in the receiver's memory, bound
to the mesh, both certificates and the term.
"""

from broker.errors import ConflictError, KeyRejectedError, NotPrimaryError
from broker.pki.authority import der_of_pem, fingerprint
from broker.pki.seal import CREDENTIAL_BYTES, KeyMaterial, OpenedKeys, seal_for_standby
from broker.pki.transfer import (
    Binding,
    check_material,
    gather_material,
    open_material,
    seal_material,
)
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.peers import authorize_member
from broker.shell.state import BrokerState
from broker.shell.trust import anchors_of, pins_of
from broker.shell.unlocking import open_keys
from broker.shell.vault import install_vault, load_vault, write_credential
from broker.wire.control import Ack
from broker.wire.events import AuthorityMoved
from broker.wire.replica import AcceptKey, InstallKey, KeyPackage


def accept_key(state: BrokerState, batch: Batch, caller: Caller, request: AcceptKey) -> KeyPackage:
    """Seal the key to a nominated member's one-time key, bound to both certificates and the term.

    Raises:
        ConflictError: The caller was not nominated.
        CALockedError: There is nothing to give away.
    """
    mesh = state.mesh()
    state.issuer()
    state.full_powers(caller.now_ms)
    member = authorize_member(state, batch, caller, request.peer)
    if not member.nominated and member.role != "standby":
        raise ConflictError(
            f"{member.host} was not nominated",
            hint=f"on the primary: certmesh standby nominate {member.host}",
        )
    own = state.ledger.certificate(state.own.serial)
    vault, opened = state.keys.vault, state.keys.opened
    if own is None or vault is None or opened is None:
        raise ConflictError("this primary has no certificate of its own yet", retry_after_ms=1000)
    giver = own[1].fingerprint
    material = gather_material(
        vault.sealed,
        opened,
        root=vault.root,
        issuing=vault.issuing,
        unattended=mesh.policy.unattended,
    )
    binding = Binding(mesh.mesh_id, giver, request.peer.fingerprint, state.ledger.term)
    log(EventName.STANDBY_NOMINATED, host=member.host, detail="the key was sealed for it")
    return KeyPackage(
        seal_material(material, request.public_key, binding), state.ledger.term, giver
    )


def install_key(state: BrokerState, batch: Batch, caller: Caller, request: InstallKey) -> Ack:
    """Open, check and keep the key under this node's own slots.

    Raises:
        KeyRejectedError: It does not open, or is not the key of the pinned CA.
    """
    membership, key, leader = state.membership, state.transfer, state.leader()
    if membership is None or leader is None or request.source != leader.host:
        raise NotPrimaryError(f"{request.source} is not whom this node follows")
    if key is None:
        raise KeyRejectedError("this node asked for no key", hint="the next round asks again")
    state.transfer = None  # a key pair for one package, whatever becomes of it
    taker = _own_fingerprint(state)
    package = request.package
    if package.term != state.term:
        raise KeyRejectedError(f"the package is of term {package.term}, not of {state.term}")
    binding = Binding(membership.mesh_id, package.giver, taker, package.term)
    material = open_material(package.sealed, key, binding)
    # While the CA is replaced, the primary may be a step ahead of what this node pins.
    trusted, offered = pins_of(anchors_of(membership)), fingerprint(material.root)
    pin = offered if offered in trusted else membership.pin
    check_material(material, pin=pin, mesh_id=membership.mesh_id, now=caller.now)
    unattended = state.settings.standby.unattended and material.unattended
    secret = state.draw(CREDENTIAL_BYTES) if unattended else None
    sealed = seal_for_standby(material, credential=secret, entropy=state.draw, now=caller.now)
    install_vault(
        state.paths.authority,
        material.root,
        material.issuing,
        sealed,
        replace=True,
    )
    if secret is not None:
        write_credential(state.paths.credential, secret)
    else:
        state.paths.credential.unlink(missing_ok=True)
    _use(state, material)
    state.follow.key_taken = True
    log(EventName.STANDBY_KEY_RECEIVED, source=request.source, term=package.term)
    batch.publish(AuthorityMoved(state.keys.state))
    return Ack()


def _use(state: BrokerState, material: KeyMaterial) -> None:
    """Take the key into use as this node keeps it now."""
    vault = load_vault(state.paths.authority)
    assert vault is not None
    state.keys.vault = vault
    slot = vault.sealed.slots[-1].slot_id
    opened = OpenedKeys(slot, material.issuing_key, material.totp_secret, material.wrapping_key)
    open_keys(state, vault, opened)
    state.keys.opened_by = slot


def _own_fingerprint(state: BrokerState) -> str:
    """Return the fingerprint of the certificate that this node shows on the mesh port."""
    live = state.paths.certificates / state.host / "live" / "cert.pem"
    try:
        return fingerprint(der_of_pem(live.read_text(encoding="ascii")))
    except (OSError, UnicodeDecodeError):
        raise ConflictError(
            "this node has no certificate of its own", retry_after_ms=1000
        ) from None
