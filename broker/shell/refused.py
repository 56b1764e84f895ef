"""Refusals of people and members, for the audit trail: one place for all requests.

Whoever asks for a change has a name, an operator's or a member's, and is told no by a verb. Unless
the verb wrote the refusal down itself, that becomes a row here: a revocation that was refused, a
policy that did not fit, a key asked for by a member that was not offered it. Strangers have no name
and their attempts are counted elsewhere (`JoinRefused`); nobody can fill the disk with refusals.
"""

from broker.core.quiet import Quiet
from broker.errors import ErrorCode, MeshError
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.state import BrokerState
from broker.wire.base import Request
from broker.wire.facts import ActionRefused
from broker.wire.failover import Hello
from broker.wire.remote import BindWorker
from broker.wire.replica import ReadJournal
from broker.wire.roster import GetBundle, RecordHeartbeat, WhoAmI

SAME_EVERY_MS = 10_000
"""The same refusal of the same one is one row in this time."""
MEMBERS_EVERY_MS = 1_000
"""All members together get a row a second: one that is broken asks all the time."""
SUBJECT_LENGTH_MAX = 253

CHATTER: frozenset[type[Request]] = frozenset(
    {RecordHeartbeat, Hello, WhoAmI, GetBundle, ReadJournal, BindWorker}
)
"""What members ask all the time and changes nothing; who they are is checked and audited there."""

UNDECIDED = frozenset(
    {
        ErrorCode.NOT_PRIMARY,
        ErrorCode.STALE_TERM,
        ErrorCode.NO_MESH,
        ErrorCode.CA_LOCKED,
        ErrorCode.STORAGE,
        ErrorCode.INTERNAL,
        ErrorCode.MALFORMED,
    }
)
"""The state of this node, and no decision about the one who asked."""

_SUBJECTS = (
    "host",
    "approval_id",
    "invite_id",
    "review_id",
    "token_id",
    "slot_id",
    "name",
    "successor",
)


def is_answerable(kind: type[Request]) -> bool:
    """Return whether somebody with a name asks for a change with this request."""
    fields = kind.__struct_fields__
    return "operator" in fields or ("peer" in fields and kind not in CHATTER)


def note_refused(
    state: BrokerState, batch: Batch, caller: Caller, what: tuple[Request, MeshError]
) -> None:
    """Write down that a request was refused, if that was a decision and is news."""
    request, refusal = what
    if not state.serves or not is_answerable(type(request)) or getattr(request, "dry_run", False):
        return
    if refusal.retryable or refusal.retry_after_ms or refusal.code in UNDECIDED:
        return
    tag = type(request).__struct_config__.tag
    assert isinstance(tag, str)
    actor, subject = _actor(caller, request, refusal), _subject(request)
    key = (tag, actor, subject, refusal.code)
    if _is_news(state.refusals, key, caller, by_member=not hasattr(request, "operator")):
        batch.append(ActionRefused(tag, subject, refusal.code.value), actor)


def _is_news(quiet: Quiet, key: tuple[str, ...], caller: Caller, *, by_member: bool) -> bool:
    if not quiet.passes(key, caller.now_ms, SAME_EVERY_MS):
        return False
    if not by_member or quiet.passes("members refused", caller.now_ms, MEMBERS_EVERY_MS):
        return True
    quiet.forget(key)  # it was not written down, so its next time is news
    return False


def _actor(caller: Caller, request: Request, refusal: MeshError) -> str:
    """Return who asked; a service that may not ask at all speaks for nobody."""
    if refusal.code is ErrorCode.FORBIDDEN and caller.service is not None:
        return caller.service.value
    operator = getattr(request, "operator", "")
    peer = getattr(request, "peer", None)
    return operator or (peer.host if peer is not None else "") or str(caller.service or "")


def _subject(request: Request) -> str:
    found = (getattr(request, name, "") for name in _SUBJECTS)
    text = next((value for value in found if isinstance(value, str) and value), "")
    return (text if text.isprintable() else repr(text))[:SUBJECT_LENGTH_MAX]
