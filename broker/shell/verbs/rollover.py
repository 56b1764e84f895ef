"""Replacing the CA: start, status, finish, abort; and the old one's end, which comes by itself.

Every step is a row, and only the row counts: keys on disk, trust and certificates follow it, see
`broker.shell.trust`. The keys of the next CA are made and sealed off the loop, and are on disk
before the row that announces them.
"""

from dataclasses import dataclass

from broker.core import rollover as phases
from broker.core.policy import patched
from broker.core.rollover import Step, Survey, check_finish, next_phase
from broker.errors import (
    BadPassphraseError,
    BusyError,
    ConflictError,
    InternalError,
    MeshError,
    StorageError,
)
from broker.ledger.rows import MeshRow, RolloverRow
from broker.pki.authority import CAProfile, create_authority, fingerprint
from broker.pki.chain import is_younger
from broker.pki.seal import open_with_passphrase
from broker.pki.sealed import KDFCost, SealedKeys, Sealer
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.bundling import current_bundle
from broker.shell.caller import DEFERRED, Caller, Deferred
from broker.shell.issue import SERIAL_BYTES, serial_from
from broker.shell.nextvault import destroy_aside, keep_aside, pins_aside
from broker.shell.overlap import old_ones, standbys_lacking, survey_of
from broker.shell.state import BrokerState
from broker.shell.trust import ISSUING_KEY, follow_and_tell
from broker.shell.vault import ASIDE_DIGITS, Vault
from broker.units import Millis, UnixSeconds
from broker.wire.codec import encode, fault_of
from broker.wire.control import Fault
from broker.wire.events import BundleMoved
from broker.wire.facts import (
    AnyFact,
    InviteRevoked,
    RolloverAborted,
    RolloverFinished,
    RolloverRetired,
    RolloverStarted,
)
from broker.wire.ids import Text
from broker.wire.messages import Answer
from broker.wire.policy import PolicyPatch
from broker.wire.rollover import (
    AbortRollover,
    FinishRollover,
    GetRollover,
    Phase,
    RolloverView,
    StartRollover,
)

SOURCE = "rollover"
"""Whose wrong passphrases are counted."""
INVITES_MAX = 10_000
KDF_LANES = 4
ACTOR = "broker"


@dataclass(frozen=True, slots=True)
class Made:
    """A CA that lies aside, whole and sealed, and the fact that would announce it."""

    fact: RolloverStarted


def get_rollover(
    state: BrokerState, _batch: Batch, caller: Caller, _request: GetRollover
) -> RolloverView:
    """Return where the rollover stands; every key holder knows, the primary knows most."""
    state.known_mesh()
    return _view(state, caller.now)


def start_rollover(
    state: BrokerState, _batch: Batch, caller: Caller, request: StartRollover
) -> RolloverView | Deferred:
    """Make the next CA and announce its root.

    Raises:
        ConflictError: A rollover is open, or this machine's clock is behind the present CA.
        BadPassphraseError: The passphrase does not open the present keys; nothing was made.
        PolicyRefusedError: A further name or network is malformed.
        WithheldError: Another primary may exist unseen.
    """
    if caller.request_id in state.waiting:
        state.wait(caller, caller.now_ms + caller.ttl_ms)
        return DEFERRED
    mesh, vault = _may_start(state, caller.now_ms), state.keys.vault
    assert vault is not None
    state.limiter.check(SOURCE, caller.now_ms)
    if state.trust.making:
        raise BusyError("the next CA is being made already", retry_after_ms=1000)
    _forget_unannounced(state)
    profile = _profile(state, mesh, request)

    def make() -> Made:
        return _make(state, vault, profile, (request.passphrase, caller.now))

    def settle(later: Batch, outcome: object) -> None:
        state.trust.making = False
        if isinstance(outcome, Made) and state.keys.vault is not vault:
            # It was sealed for the ways to unlock of before: one of them may be gone for a reason.
            outcome = ConflictError("the CA's files changed meanwhile", hint="start again")
        _started(state, later, (caller, request.operator), outcome)

    if not state.offloop.submit(make, settle):
        raise BusyError("too many slow jobs wait already", retry_after_ms=1000)
    state.trust.making = True
    state.wait(caller, caller.now_ms + caller.ttl_ms)
    return DEFERRED


def finish_rollover(
    state: BrokerState, batch: Batch, caller: Caller, request: FinishRollover
) -> RolloverView:
    """Let the next CA sign from now on.

    Invites that are open name the old root, so a joiner could not verify the door with them: they
    are revoked, and the answer says how many.

    Raises:
        ConflictError: A live member lacks the next root, or a standby the next key.
    """
    state.mesh()
    state.issuer()
    state.full_powers(caller.now_ms)
    next_phase(_phase(state), Step.FINISH)
    row = state.rollover()
    assert row is not None
    check_finish(survey_of(state, row, caller.now), standbys_lacking(state, row))
    invites = _open_invites(state, caller.now)
    pending = state.ledger.approvals_pending()
    if request.dry_run:
        return _view(state, caller.now, _consequences(len(invites), pending, "would be"))
    # The old CA's last word on the roster: what a node that sleeps now will be able to believe.
    current_bundle(state, batch, caller.now)
    for invite_id in invites:
        batch.append(InviteRevoked(invite_id), request.operator)
    fact = RolloverFinished(pin=row.pin, retired_pin=row.retiring_pin)
    _write(state, batch, caller, (fact, request.operator))
    log(EventName.CA_ROLLOVER_FINISHED, pin=row.pin, operator=request.operator)
    return _view(state, caller.now, _consequences(len(invites), pending, "were"))


def abort_rollover(
    state: BrokerState, batch: Batch, caller: Caller, request: AbortRollover
) -> RolloverView:
    """Forget the next CA; its keys are destroyed.

    Raises:
        ConflictError: None is under way, or it signs already.
    """
    state.mesh()
    state.full_powers(caller.now_ms)
    next_phase(_phase(state), Step.ABORT)
    row = state.rollover()
    assert row is not None
    _write(state, batch, caller, (RolloverAborted(row.pin), request.operator))
    log(EventName.CA_ROLLOVER_ABORTED, pin=row.pin, operator=request.operator)
    return _view(state, caller.now)


def retire_when_over(state: BrokerState, batch: Batch, now_ms: Millis, now: UnixSeconds) -> None:
    """Retire the old CA once no active member shows a certificate of it that is still valid.

    A page of members at a time: each look is short, however many there are.
    """
    row = state.rollover()
    if row is None or row.phase != "switched" or not state.serves or state.keys.issuer is None:
        return
    try:
        state.full_powers(now_ms)
    except MeshError:
        return
    book = state.trust
    if not book.asked and state.ledger.certified_before(row.switched_sequence, now):
        return
    found, book.asked = old_ones(state, row, book.asked, now)
    if found or book.asked:
        return
    batch.append(RolloverRetired(row.retiring_pin), ACTOR)
    batch.publish(BundleMoved(state.ledger.bundle_sequence()))
    log(EventName.CA_ROLLOVER_RETIRED, pin=row.retiring_pin)


def _phase(state: BrokerState) -> Phase:
    row = state.rollover()
    if row is None or row.phase not in {"trusting", "switched"}:
        return "none"
    return "trusting" if row.phase == "trusting" else "switched"


def _may_start(state: BrokerState, now_ms: Millis) -> MeshRow:
    mesh = state.mesh()
    state.issuer()
    state.full_powers(now_ms)
    next_phase(_phase(state), Step.START)
    return mesh


def _forget_unannounced(state: BrokerState) -> None:
    """Destroy what an attempt left that a crash cut short: no row has ever named it."""
    known = {state.mesh().pin[:ASIDE_DIGITS]}
    for row in state.ledger.rollovers():
        known |= {row.pin[:ASIDE_DIGITS], row.retiring_pin[:ASIDE_DIGITS]}
    for pin in pins_aside(state.paths.authority):
        if pin not in known:
            destroy_aside(state.paths.authority, pin)


def _profile(state: BrokerState, mesh: MeshRow, request: StartRollover) -> CAProfile:
    wider = PolicyPatch(
        names=(*mesh.policy.names, *request.names),
        networks=(*mesh.policy.networks, *request.networks),
    )
    permitted = patched(mesh.policy, wider)
    return CAProfile(
        mesh_id=mesh.mesh_id,
        mesh_name=mesh.name,
        permitted_names=permitted.names,
        permitted_networks=permitted.networks,
        root_lifetime_s=state.settings.ca.root_lifetime.s,
        issuer_lifetime_s=state.settings.ca.issuer_lifetime.s,
        generation=len(state.ledger.rollovers()) + 2,
    )


def _make(
    state: BrokerState, vault: Vault, profile: CAProfile, given: tuple[bytes, UnixSeconds]
) -> Made:
    """Make and seal a CA and write it aside. Runs off the loop; reads nothing that changes."""
    passphrase, now = given
    opened = open_with_passphrase(vault.sealed, passphrase)
    serials = (serial_from(state.draw(SERIAL_BYTES)), serial_from(state.draw(SERIAL_BYTES)))
    created = create_authority(profile, now=now, serials=serials)
    if not is_younger(created.root, vault.root):
        raise ConflictError(
            "the clock of this machine is behind the present CA's first day",
            hint="set the clock: nodes move to a younger root only",
        )
    ca = state.settings.ca
    sealer = Sealer(profile.mesh_id, state.draw, now)
    cost = KDFCost(ca.kdf_memory // 1024, ca.kdf_passes, KDF_LANES)
    sealed = SealedKeys(
        version=vault.sealed.version,
        mesh_id=profile.mesh_id,
        root=sealer.root(created.root_key, passphrase, cost, opened.slot_id),
        issuing_key=sealer.box(opened.wrapping_key, ISSUING_KEY, created.issuing_key),
        totp=vault.sealed.totp,
        slots=vault.sealed.slots,
    )
    keep_aside(state.paths.authority, Vault(created.root, created.issuing, sealed))
    return Made(
        RolloverStarted(
            root=created.root,
            issuing=created.issuing,
            pin=fingerprint(created.root),
            retiring_pin=fingerprint(vault.root),
            retiring_root=vault.root,
            retiring_issuing=vault.issuing,
            nonce=sealed.issuing_key.nonce,
            ciphertext=sealed.issuing_key.ciphertext,
            root_crl=created.root_crl,
        )
    )


def _started(state: BrokerState, batch: Batch, who: tuple[Caller, str], outcome: object) -> None:
    """Announce what was made, if it still may be; answer with the commit."""
    caller, operator = who
    try:
        reply = _announce(state, batch, caller, (operator, outcome))
    except StorageError as failure:
        state.resolve(caller.request_id, fault_of(failure))
        raise
    except MeshError as refusal:
        state.resolve(caller.request_id, fault_of(refusal))
        return
    lost = fault_of(StorageError("no rollover was started"))
    batch.after_commit.append(lambda: state.resolve(caller.request_id, reply))
    batch.on_void.append(lambda: state.resolve(caller.request_id, lost))


def _announce(
    state: BrokerState, batch: Batch, caller: Caller, what: tuple[str, object]
) -> RolloverView | Fault:
    operator, outcome = what
    if isinstance(outcome, BadPassphraseError):
        state.limiter.failed(SOURCE, caller.now_ms)
    if isinstance(outcome, MeshError):
        return fault_of(outcome)
    if not isinstance(outcome, Made):
        log(EventName.CA_ROLLOVER_ABORTED, detail=f"making the next CA failed: {outcome!r}")
        return fault_of(InternalError("making the next CA failed", hint="see log/broker.log"))
    mesh = _may_start(state, caller.now_ms)
    if mesh.pin != outcome.fact.retiring_pin:
        raise ConflictError("the CA changed while the next one was made", hint="start again")
    _write(state, batch, caller, (outcome.fact, operator))
    log(EventName.CA_ROLLOVER_STARTED, pin=outcome.fact.pin, operator=operator)
    view = _view(state, caller.now)
    # The link repeats a request whose answer was lost; this one came too late to be remembered.
    batch.remember(caller.request_id, encode(Answer(caller.request_id, view))[1])
    return view


def _write(state: BrokerState, batch: Batch, caller: Caller, what: tuple[AnyFact, str]) -> None:
    fact, operator = what
    batch.append(fact, operator)
    batch.publish(BundleMoved(state.ledger.bundle_sequence()))
    batch.after_commit.append(lambda: follow_and_tell(state, batch, caller.now_ms, caller.now))


def _open_invites(state: BrokerState, now: UnixSeconds) -> tuple[str, ...]:
    rows = state.ledger.invites(INVITES_MAX)
    return tuple(row.invite_id for row in rows if row.state == "open" and row.expires_at > now)


def _consequences(invites: int, pending: int, verb: str) -> Text:
    parts = []
    if invites:
        parts.append(f"{invites} open invites name the old root and {verb} revoked: make new ones")
    if pending:
        parts.append(f"{pending} joins wait for a decision and have to begin again afterwards")
    return "; ".join(parts)


def _view(state: BrokerState, now: UnixSeconds, detail: Text = "") -> RolloverView:
    row, mesh = state.rollover(), state.known_mesh()
    if row is None:
        return RolloverView("none", mesh.pin, "", None, 0, state.ledger.member_count(), (), ())
    found: Survey = survey_of(state, row, now)
    lacking = standbys_lacking(state, row) if row.phase == "trusting" and state.serves else ()
    return RolloverView(
        phase=_phase(state),
        pin=mesh.pin,
        next_pin=row.pin,
        started_at=UnixSeconds(row.started_at),
        trusting=found.ready,
        members=found.members,
        lacking=found.lacking[: phases.LISTED_MAX],
        away=found.away[: phases.LISTED_MAX],
        standbys_lacking=lacking,
        detail=detail or _detail(row, found),
    )


def _detail(row: RolloverRow, found: Survey) -> Text:
    if row.phase == "switched":
        return "the old CA retires by itself when no member shows a certificate of it any more"
    if found.lacking:
        return "members learn of the next root with the next bundle, their services with a renewal"
    return "everybody who is here trusts the next root: certmesh ca rollover finish"
