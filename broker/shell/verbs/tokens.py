"""API tokens: made, listed, revoked, and shown at a door.

Only hashes come here. A token is a fact of the journal, so every key holder knows it; a plain
member has no journal and can check none. Making and revoking both merge, so a caretaker may do
either.
"""

import re

from broker.core.limiter import source_key
from broker.errors import (
    BadCredentialError,
    ConflictError,
    MalformedMessageError,
    NotFoundError,
    ThrottledError,
)
from broker.ledger.rows import TokenRow
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.state import BrokerState
from broker.units import UnixSeconds
from broker.wire.control import Ack
from broker.wire.facts import AuthFailed, TokenMade, TokenRevoked
from broker.wire.token import (
    CheckToken,
    CreateToken,
    ListTokens,
    RevokeToken,
    TokensView,
    TokenView,
)

TTL_S = 30 * 86_400
TTL_S_MAX = 366 * 86_400
"""A program's key that nobody renews within a year belongs to a program nobody looks after."""
ACTIVE_MAX = 256
LISTED_MAX = 512
REFUSAL_EVERY_MS = 10_000
ANY_REFUSAL_EVERY_MS = 1_000
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")


def create_token(
    state: BrokerState, batch: Batch, caller: Caller, request: CreateToken
) -> TokenView:
    """Register a token under a name that no token in use has."""
    state.mesh()
    if not _NAME.fullmatch(request.name) or not _HASH.fullmatch(request.token_hash):
        raise MalformedMessageError(
            "a token needs a name of lower-case letters, digits, dots, hyphens, at most 64",
            hint="certmesh token create grafana --scope read",
        )
    active = state.ledger.tokens_active(caller.now)
    if any(row.name == request.name for row in active):
        raise ConflictError(
            f"a token named {request.name} is in use",
            hint=f"certmesh token revoke {request.name} first, or choose another name",
        )
    if len(active) >= ACTIVE_MAX:
        raise ConflictError(
            f"{ACTIVE_MAX} tokens are in use, that is all there may be",
            hint="certmesh token list, and revoke what nobody uses",
        )
    if state.ledger.token(request.token_hash) is not None:
        raise ConflictError("this token exists already", hint="make another one")
    ttl_s = min(request.ttl_s or TTL_S, TTL_S_MAX)
    scopes = tuple(dict.fromkeys(request.scopes))
    expires_at = UnixSeconds(caller.now + ttl_s)
    made = TokenMade(request.token_hash, request.name, scopes, expires_at)
    batch.append(made, request.operator)
    row = state.ledger.token(request.token_hash)
    assert row is not None
    return _view(row, caller.now)


def list_tokens(
    state: BrokerState, _batch: Batch, caller: Caller, _request: ListTokens
) -> TokensView:
    """Return the newest tokens, those of the past included."""
    state.known_mesh()
    rows = state.ledger.tokens(LISTED_MAX)
    return TokensView(tuple(_view(row, caller.now) for row in rows))


def revoke_token(state: BrokerState, batch: Batch, caller: Caller, request: RevokeToken) -> Ack:
    """Make a token worthless; a name means every token in use that has it.

    Two sides of a fork may each have made one of that name: whoever revokes it means both.
    """
    state.mesh()
    found = _meant(state, request.name, caller.now)
    if not found:
        raise NotFoundError("no token in use has this name or id", hint="certmesh token list")
    for row in found:
        batch.append(TokenRevoked(row.token_id, row.name), request.operator)
    return Ack()


def check_token(state: BrokerState, batch: Batch, caller: Caller, request: CheckToken) -> TokenView:
    """Return what the shown token may do.

    Only refused callers are ever throttled: bad tokens of one program never lock out the good one
    of another on the same machine.

    Raises:
        BadCredentialError: Nobody made such a token, or it is worth nothing any more.
        ThrottledError: The same, from an address that tried many.
        NotPrimaryError: This node holds no journal; the hint names who does.
    """
    state.known_mesh()
    # 256 random bits were hashed: what the comparison inside the index takes teaches nobody a bit.
    row = state.ledger.token(request.token_hash)
    if row is not None and not row.revoked and row.expires_at > caller.now:
        return _view(row, caller.now)
    refusal = BadCredentialError(
        f"this token {_why(row)}", hint="make one on the primary: certmesh token create NAME"
    )
    _note_refusal(state, batch, caller, request.source)
    try:
        state.bad_tokens.check(request.source, caller.now_ms)
    except ThrottledError as throttled:
        raise throttled from refusal
    state.bad_tokens.failed(request.source, caller.now_ms)
    raise refusal


def _why(row: TokenRow | None) -> str:
    if row is None:
        return "was never made"
    return "was revoked" if row.revoked else "has expired"


def _meant(state: BrokerState, word: str, now: UnixSeconds) -> list[TokenRow]:
    active = state.ledger.tokens_active(now)
    return [row for row in active if word in (row.name, row.token_id)]


def _note_refusal(state: BrokerState, batch: Batch, caller: Caller, source: str) -> None:
    """Audit refused tokens, one source at most every ten seconds, all of them once a second."""
    if not state.serves:
        return
    key = ("token", source_key(source))
    if not state.refusals.passes(key, caller.now_ms, REFUSAL_EVERY_MS):
        return
    if state.refusals.passes("tokens", caller.now_ms, ANY_REFUSAL_EVERY_MS):
        batch.append(AuthFailed(source[:64], "", "bad_credential"), "console")


def _view(row: TokenRow, now: UnixSeconds) -> TokenView:
    state = "revoked" if row.revoked else "expired" if row.expires_at <= now else "active"
    return TokenView(
        token_id=row.token_id,
        name=row.name,
        scopes=row.scopes,
        expires_at=row.expires_at,
        created_at=row.created_at,
        created_by=row.created_by,
        state=state,
    )
