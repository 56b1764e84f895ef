"""Which roots this node trusts and which CA it signs with: ledger or bundle say, this follows.

A rollover is rows in the journal and bundles that are signed; what this process holds and what lies
on disk is brought in line afterwards, here, as often as it takes. So a kill between any two steps
costs nothing: the next start, or the next tick, goes on.
"""

from collections.abc import Callable
from dataclasses import replace

import msgspec

from broker.core.rollover import Anchors, follow, is_behind
from broker.errors import MeshError, StorageError
from broker.pki.authority import der_of_pem, fingerprint, pem
from broker.pki.chain import is_younger
from broker.pki.issuer import Issuer
from broker.pki.sealed import open_box
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.membership import write_membership
from broker.shell.nextvault import destroy_aside, exchange, find_aside, from_ledger
from broker.shell.state import BrokerState
from broker.shell.unlocking import close_keys, open_keys
from broker.shell.vault import Vault
from broker.units import Millis, UnixSeconds
from broker.wire.events import AuthorityMoved, RoleMoved, WorkAvailable
from broker.wire.ids import Service
from broker.wire.node import Membership
from broker.wire.roster import BundleBody

ISSUING_KEY = "issuing-key"
"""What the sealed issuing key of a CA is for, in a vault and in the journal alike."""
LOOK_AGAIN_MS = 1_000
SPREAD_BEATS = 6
"""Members that hear of another root renew within so many heartbeats, not all in one second."""
AGAIN_S = 60
"""A renewal that did not help is not repeated faster."""


def anchors_of(membership: Membership) -> Anchors:
    """Return the roots that a membership says to trust.

    Raises:
        MalformedMessageError: The file is damaged.
    """
    others = tuple(der_of_pem(text) for text in membership.other_roots)
    return Anchors(der_of_pem(membership.root_pem), others)


def pins_of(anchors: Anchors) -> tuple[str, ...]:
    """Return the pins of trusted roots, the pinned one first."""
    return tuple(fingerprint(root) for root in anchors.all)


def told_by_ledger(state: BrokerState) -> Anchors | None:
    """Return what the rows here say to trust; None when they do not tell the root."""
    mesh, row = state.mesh_row(), state.rollover()
    if mesh is None:
        return None
    if row is not None:
        if mesh.pin == row.pin:
            return Anchors(row.root, (row.retiring_root,))
        return Anchors(row.retiring_root, (row.root,))
    past = state.ledger.rollover_to(mesh.pin)
    if past is not None:
        return Anchors(past.root)
    vault = state.keys.vault
    return Anchors(vault.root) if vault and fingerprint(vault.root) == mesh.pin else None


def follow_trust(state: BrokerState, now_ms: Millis) -> bool:
    """Bring keys and membership in line with the ledger and the bundle; return whether they moved.

    Cheap while nothing changed. Trouble with a disk is said once and tried again.
    """
    book = state.trust
    if state.membership is None or now_ms < book.again_ms:
        return False
    if book.followed == _seen(state) and not book.again_ms:
        return False
    before = (state.membership, state.keys.vault)
    book.again_ms = 0
    for step in (_follow_keys, _follow_membership, _destroy_what_is_over):
        _try(state, step, now_ms)
    book.followed = _seen(state)
    return before != (state.membership, state.keys.vault)


def _seen(state: BrokerState) -> tuple[object, ...]:
    keys, bundle = id(state.keys.vault), state.follow.bundle_bytes
    return (state.ledger.durable_head.hash, bundle, state.role, keys)


def follow_and_tell(state: BrokerState, batch: Batch, now_ms: Millis, now: UnixSeconds) -> None:
    """Follow, wake whoever acts on it, and see whether this node's certificate is still right."""
    if follow_trust(state, now_ms):
        batch.publish(RoleMoved(state.role, state.term))
        batch.publish(AuthorityMoved(state.keys.state))
    if renew_for_trust(state, now):
        batch.publish(WorkAvailable(Service.RENEWAL))


def renew_for_trust(state: BrokerState, now: UnixSeconds) -> bool:
    """Note when this node should renew for the sake of trust; return whether that is new.

    Its certificate is to be of the CA in force, and its services are to trust what it trusts: both
    come with a renewal, hooks and probes included.
    """
    book, own = state.trust, state.own
    if state.membership is None or not own.present:
        return False
    anchors = anchors_of(state.membership)
    trusted = pins_of(anchors)
    left = frozenset(fingerprint(r) for r in anchors.others if is_younger(anchors.pinned, r))
    if not is_behind(own.roots, trusted, left):
        book.due_at = None
        return False
    if book.due_at is not None and (book.wanted, book.serial) == (trusted, own.serial):
        return False
    # The same trust with another serial: a renewal came and did not help.
    helped_not = book.due_at is not None and book.wanted == trusted
    spread_s = 0 if state.role in {"primary", "standby"} else _drawn_s(state)
    book.wanted, book.serial = trusted, own.serial
    book.due_at = UnixSeconds(now + (AGAIN_S if helped_not else spread_s))
    return True


def _drawn_s(state: BrokerState) -> int:
    return int(state.chance() * SPREAD_BEATS * state.settings.heartbeat.interval.ms / 1000)


def trusts_of(state: BrokerState) -> tuple[str, ...]:
    """Return the pins of the roots that this node and its services trust."""
    if state.membership is None:
        return ()
    pins = pins_of(anchors_of(state.membership))
    return tuple(pin for pin in pins if not state.own.roots or pin in state.own.roots)


def other_issuer(state: BrokerState) -> Issuer | None:
    """Return the CA that is trusted besides the one in force, opened for its revocation list.

    None while the keys are locked, or on a node that never had them: a standby that was nominated
    after the switch.
    """
    row, opened, vault = state.rollover(), state.keys.opened, state.keys.vault
    if row is None or opened is None or vault is None:
        return None
    retiring = fingerprint(vault.root) == row.pin
    other = _wanted(state, row.retiring_pin if retiring else row.pin, vault)
    if other is None:
        return None
    box = other.sealed.issuing_key
    key = open_box(opened.wrapping_key, other.sealed.mesh_id, ISSUING_KEY, box)
    if key is None:
        return None
    return Issuer.open(root=other.root, issuing=other.issuing, issuing_key=key)


def other_pins(state: BrokerState) -> tuple[str, ...]:
    """Return both pins of the open rollover, nothing without one."""
    row = state.rollover()
    return () if row is None else (row.pin, row.retiring_pin)


def _try(state: BrokerState, step: Callable[[BrokerState], None], now_ms: Millis) -> None:
    book = state.trust
    try:
        step(state)
    except (MeshError, OSError) as error:
        book.again_ms = now_ms + LOOK_AGAIN_MS
        detail = error.detail if isinstance(error, MeshError) else str(error)
        if book.said != detail:
            log(EventName.STORAGE_FAILED, detail=f"the change of the CA waits: {detail}")
        book.said = detail
    else:
        book.said = book.said if book.again_ms else ""


def _follow_keys(state: BrokerState) -> None:
    """Make the CA that the ledger names the one in the vault, and use its key."""
    mesh, vault = state.mesh_row(), state.keys.vault
    if mesh is None or vault is None or fingerprint(vault.root) == mesh.pin:
        return
    wanted = _wanted(state, mesh.pin, vault)
    if wanted is None:
        if state.serves:
            close_keys(state)  # better locked than signing for a CA that is not in force
            raise StorageError(f"the keys of CA {mesh.pin[:16]} are not on this node")
        return  # a standby whose rows are behind its key: they come
    state.keys.vault = exchange(state.paths.authority, wanted)
    _reopen(state, state.keys.vault)
    log(EventName.CA_ROLLOVER_FINISHED, pin=mesh.pin, detail="the keys on this node changed")


def _wanted(state: BrokerState, pin: str, present: Vault) -> Vault | None:
    aside = find_aside(state.paths.authority, pin)
    if aside is not None:
        return aside
    row = state.ledger.rollover_to(pin)
    return from_ledger(row, present.sealed) if row is not None and row.ciphertext else None


def _reopen(state: BrokerState, vault: Vault) -> None:
    """Go on with the key of the new CA: what opened the old one opens it too."""
    opened = state.keys.opened
    if opened is None:
        return
    box = vault.sealed.issuing_key
    key = open_box(opened.wrapping_key, vault.sealed.mesh_id, ISSUING_KEY, box)
    if key is None:
        close_keys(state)
        log(EventName.CA_UNLOCK_FAILED, detail="the key of the new CA does not open")
        return
    totp, by = state.keys.totp_secret, state.keys.opened_by
    open_keys(state, vault, replace(opened, issuing_key=key))
    state.keys.totp_secret, state.keys.opened_by = totp, by


def _follow_membership(state: BrokerState) -> None:
    """Keep in `membership.json` which roots to trust, where the workers look."""
    membership = state.membership
    assert membership is not None
    held = anchors_of(membership)
    told = _told(state, held)
    if told is None or told == held:
        return
    changed = msgspec.structs.replace(
        membership,
        pin=fingerprint(told.pinned),
        root_pem=pem(told.pinned),
        other_roots=tuple(pem(root) for root in told.others),
    )
    write_membership(state.paths, changed)
    state.membership = changed
    log(
        EventName.TRUST_MOVED,
        pin=changed.pin,
        others=[fingerprint(root)[:16] for root in told.others],
    )


def _told(state: BrokerState, held: Anchors) -> Anchors | None:
    """Return what to trust: by the rows of a key holder, else by the newest bundle."""
    bundle, head = state.follow.bundle, state.ledger.durable_head
    newer = bundle is not None and (bundle.head.term, bundle.head.sequence) > (
        head.term,
        head.sequence,
    )
    if state.role in {"primary", "standby"} and (state.serves or not newer):
        return told_by_ledger(state)
    return _told_by_bundle(bundle, held) if bundle is not None else None


def _told_by_bundle(bundle: BundleBody, held: Anchors) -> Anchors:
    by_pin = {fingerprint(root): root for root in (*held.all, *bundle.roots)}
    pinned = by_pin.get(bundle.pin)
    if pinned is None:
        return held  # it was believed under a root that this node trusts no longer
    return follow(held, Anchors(pinned, bundle.roots), is_younger)


def _destroy_what_is_over(state: BrokerState) -> None:
    """Destroy the keys of CAs that nobody trusts, aborted or retired, and needless copies."""
    if state.mesh_row() is None or state.keys.vault is None:
        return
    present = fingerprint(state.keys.vault.root)
    destroy_aside(state.paths.authority, present)  # it is in the vault now, root key included
    for row in state.ledger.rollovers():
        over = row.retiring_pin if row.phase == "retired" else row.pin
        if row.phase in {"retired", "aborted"} and over != present:
            destroy_aside(state.paths.authority, over)
