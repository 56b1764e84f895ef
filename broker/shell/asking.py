"""Put a join before a person: a durable ticket that waits for a yes or a no."""

from dataclasses import dataclass

from broker.core.approval import check_room
from broker.core.policy import policy_note
from broker.errors import ThrottledError
from broker.ledger.rows import ApprovalRow, InviteRow
from broker.pki.request import CertificateRequest
from broker.pki.words import comparison_words
from broker.runtime.wordlist import words as wordlist
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.credential import Credential, spend
from broker.shell.issue import Subject
from broker.shell.state import BrokerState
from broker.units import UnixSeconds
from broker.wire.enrollment import Join
from broker.wire.events import WorkAvailable
from broker.wire.facts import ApprovalRequested
from broker.wire.ids import Service
from broker.wire.policy import Policy

TTL_S_MAX = 366 * 86_400
NOTE_LENGTH_MAX = 1024
AGAIN_EVERY_MS = 60_000
"""How often one invite may put a question; a code is spent by it."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a person is asked.

    `replaces` is the member whose name the joiner claims, active or revoked; `note` says which.
    """

    request: Join
    credential: Credential
    csr: CertificateRequest
    subject: Subject
    replaces: str = ""
    note: str = ""


def ask_a_person(
    state: BrokerState, batch: Batch, caller: Caller, question: Question
) -> ApprovalRow | None:
    """Open a ticket and return its row; a code is spent by asking, an invite only by success.

    Raises:
        BusyError: Too many wait for a person.
        ThrottledError: This address has its share, waits for this name already, or asked by this
            invite a moment ago.
    """
    request, csr, subject = question.request, question.csr, question.subject
    check_room(state.ledger.approvals_waiting(), request.source, request.host)
    invite = question.credential.invite
    if invite is None:
        spend(batch, question.credential, csr.key_hash, subject.member_id)
    else:
        _check_pause(state, batch, caller, invite)
    batch.append(
        ApprovalRequested(
            approval_id=state.draw(8).hex(),
            host=request.host,
            sans=subject.sans,
            csr=request.csr,
            key_hash=csr.key_hash,
            ticket_hash=request.ticket_hash,
            method=question.credential.method,
            source=request.source,
            words=comparison_words(csr.spki, state.mesh().pin, request.nonce, wordlist()),
            addresses=request.addresses,
            mesh_port=request.mesh_port,
            enroll_port=request.enroll_port,
            expires_at=UnixSeconds(
                caller.now + min(state.settings.enrollment.approval_ttl.s, TTL_S_MAX)
            ),
            invite_id=invite.invite_id if invite is not None else "",
            replaces=question.replaces,
            note=_note(state.mesh().policy, question),
        ),
        actor=request.host,
    )
    batch.publish(WorkAvailable(Service.APPROVAL))
    return state.ledger.approval_by_key(request.host, csr.key_hash)


def _check_pause(state: BrokerState, batch: Batch, caller: Caller, invite: InviteRow) -> None:
    """Let an invite ask a person once in a while: asking does not spend it, and fills the journal.

    Raises:
        ThrottledError: It asked a moment ago, and was told no since.
    """
    key = ("asked", invite.invite_id)
    if not state.rows.passes(key, caller.now_ms, AGAIN_EVERY_MS):
        raise ThrottledError(
            f"a person was asked about {invite.host} a moment ago",
            hint=f"wait {AGAIN_EVERY_MS // 1000} s, or ask for a new invite",
            retry_after_ms=AGAIN_EVERY_MS,
        )
    batch.on_void.append(lambda: state.rows.forget(key))


def _note(policy: Policy, question: Question) -> str:
    """Return what the person has to know: who is replaced, then what the policy says."""
    found = policy_note(policy, question.request.source, question.subject.sans)
    return "; ".join(part for part in (question.note, found) if part)[:NOTE_LENGTH_MAX]
