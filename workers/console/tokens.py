"""API tokens over the local socket: drawn here, shown once, kept as a hash."""

import base64
import secrets

from broker.wire.control import Ack
from broker.wire.token import (
    CreateToken,
    ListTokens,
    RevokeToken,
    TokenBody,
    TokenCreated,
    TokensView,
    TokenView,
)
from workers.console.dashboard import TOKEN_PREFIX, hash_of
from workers.idempotency import SecretDraw, require_same
from workers.route import Asker, Page, Route, Visit, as_json, checked

CREATED = 201
SECRET_BYTES = 32


class TokenDesk:
    """Makes tokens.

    Args:
        draws: Where secrets come from.
    """

    def __init__(self, draws: SecretDraw) -> None:
        self._draws = draws

    def routes(self) -> tuple[Route, ...]:
        """Return the routes about tokens; none of them is for a token."""
        return (
            Route(
                method="GET",
                path="/v1/tokens",
                summary="The newest tokens and what became of them.",
                make=lambda _visit: ListTokens(),
                reply=TokensView,
            ),
            Route(
                method="POST",
                path="/v1/tokens",
                summary="Make an API token; the only time its secret is shown.",
                body=TokenBody,
                reply=TokenCreated,
                serve=self._create,
                statuses=(CREATED,),
            ),
            Route(
                method="DELETE",
                path="/v1/tokens/{name}",
                summary="Make a token worthless, by its name or id.",
                make=lambda visit: RevokeToken(
                    name=visit.parameters["name"], operator=visit.caller.operator
                ),
                reply=Ack,
            ),
        )

    async def _create(self, visit: Visit, asker: Asker) -> Page:
        """Draw a secret, register its hash, show the token once."""
        body = visit.content(TokenBody)
        secret = self._draws.draw(visit.request_id, secrets.token_bytes(SECRET_BYTES))
        token = TOKEN_PREFIX + base64.urlsafe_b64encode(secret).decode().rstrip("=")
        wish = CreateToken(
            token_hash=hash_of(token),
            name=body.name,
            scopes=body.scopes,
            ttl_s=body.ttl_s,
            operator=visit.caller.operator,
        )
        view = await asker.ask(checked(wish), TokenView, request_id=visit.request_id)
        require_same(view.token_id, wish.token_hash)
        made = TokenCreated(
            token=token,
            token_id=view.token_id,
            name=view.name,
            scopes=view.scopes,
            expires_at=view.expires_at,
        )
        return Page(as_json(made).body, CREATED)
