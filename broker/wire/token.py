"""API tokens: scoped, expiring, stored as hashes."""

from typing import Annotated, Literal

from msgspec import Meta

from broker.wire.base import Body, Message, Reply, Request, Veiled
from broker.wire.ids import Count, Hex, Text, UnixSeconds

Scope = Literal["read", "invite", "approve", "audit", "admin"]
Scopes = Annotated[tuple[Scope, ...], Meta(min_length=1, max_length=5)]


class TokenBody(Body, frozen=True):
    """POST /v1/tokens; `ttl_s` 0 means thirty days."""

    name: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$(?!\n)")]
    scopes: Scopes
    ttl_s: Annotated[int, Meta(ge=0, le=366 * 86_400)] = 0


class CreateToken(Request, frozen=True, tag="create-token"):
    """Register a token. The caller drew the secret; only its SHA-256 travels and is stored."""

    token_hash: Hex
    name: Text
    scopes: Scopes
    ttl_s: Count
    operator: Text


class TokenView(Reply, frozen=True, tag="token-view"):
    """One token; `state` is `active`, `expired` or `revoked`."""

    token_id: Hex
    name: Text
    scopes: tuple[Text, ...]
    expires_at: UnixSeconds
    created_at: UnixSeconds
    created_by: Text
    state: Text


class TokenCreated(Veiled, Message, frozen=True, tag="token-created"):
    """The only time the secret is shown: `token` goes into `Authorization: Bearer`."""

    token: Annotated[str, Meta(max_length=256)]
    token_id: Hex
    name: Text
    scopes: tuple[Text, ...]
    expires_at: UnixSeconds


class ListTokens(Request, frozen=True, tag="list-tokens"):
    """Ask for all tokens that still matter."""


class TokensView(Reply, frozen=True, tag="tokens-view"):
    """The tokens, newest first."""

    tokens: tuple[TokenView, ...]


class RevokeToken(Request, frozen=True, tag="revoke-token"):
    """Make a token worthless; `name` is its name or its id."""

    name: Text
    operator: Text


class CheckToken(Request, frozen=True, tag="check-token"):
    """The console was shown a token; answered with its `TokenView` or a refusal."""

    token_hash: Hex
    source: Text
