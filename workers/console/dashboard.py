"""The dashboard port: plain HTTP on a loopback address, for programs that show a token.

A token is the only proof there, so three things keep it where it is: the address is a loopback
one, a request has to name this machine (a page of another site that had its name pointed here
names that one: DNS rebinding), and nothing in an answer lets a page of another origin read it.
"""

import hashlib
import re
from collections import OrderedDict
from dataclasses import replace
from ipaddress import ip_address

from broker.clock import boottime_ms
from broker.errors import BadCredentialError, ForbiddenError, SettingsError
from broker.units import Millis
from broker.wire.token import CheckToken, TokenView
from workers.listener import parse_address
from workers.route import Asker, Caller, RouteScope
from workers.web import Knock

TOKEN_PREFIX = "cmt_"  # noqa: S105 (a mark, not a secret)
"""So that scanners of source code and logs find a token that lies where it should not."""
FRESH_MS = 1000
"""How long a good token is believed without asking; a revocation holds after it at the latest."""
KNOWN_MAX = 256
_TOKEN = re.compile(TOKEN_PREFIX + r"[A-Za-z0-9_-]{43}")
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::[0-9]{1,5})?")
_OWN_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


def check_loopback(address: str) -> None:
    """Let an address pass that nobody outside this machine can reach.

    Raises:
        SettingsError: It is not `host:port`, or not on the loopback interface.
    """
    host, _port = parse_address(address)
    try:
        inside = ip_address(host).is_loopback
    except ValueError:
        inside = False
    if not inside:
        raise SettingsError(
            f'listen.dashboard "{address}" is not a loopback address',
            hint='it speaks plain HTTP: write "127.0.0.1:7641" or "[::1]:7641", or "" to turn it '
            "off; reach it from elsewhere through an SSH tunnel",
        )


def check_host(header: str) -> None:
    """Let a request pass that was meant for this machine.

    Raises:
        ForbiddenError: Its `Host` names another one, or none.
    """
    found = _HOST.fullmatch(header)
    if found is None or found["name"].lower() not in _OWN_NAMES:
        raise ForbiddenError(
            "this port answers under the names of this machine alone",
            hint="ask http://localhost or http://127.0.0.1",
        )


def check_scope(view: TokenView, scope: RouteScope) -> None:
    """Let a token pass that may come in; `admin` may do all that a token can.

    Raises:
        ForbiddenError: It may not, or no token may.
    """
    if scope == "uid":
        raise ForbiddenError(
            "no token may do this, only the user who runs the node",
            hint="use the certmesh command on this machine",
        )
    if scope not in ("none", "any", *view.scopes) and "admin" not in view.scopes:
        raise ForbiddenError(
            f"token {view.name} lacks the scope {scope}",
            hint=f"certmesh token create NAME --scope {scope}",
        )


class TokenGuard:
    """Asks the broker what a shown token may do, and remembers a good one for a second.

    What is bad is never remembered: a token that was just made works at once.
    """

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._known: OrderedDict[str, tuple[Millis, TokenView]] = OrderedDict()

    async def __call__(self, caller: Caller, knock: Knock) -> Caller:
        """Return the caller under the name of its token.

        Raises:
            BadCredentialError: It shows no token, or none that is good.
            ForbiddenError: The token may not come in here, or the request is for another machine.
            MeshError: The broker cannot say, so nobody comes in.
        """
        check_host(knock.host)
        if knock.scope == "none":
            return caller
        if _TOKEN.fullmatch(knock.bearer) is None:
            raise BadCredentialError(
                "this port wants an API token",
                hint="certmesh token create NAME; send it as `Authorization: Bearer cmt_...`",
            )
        view = await self._look_up(hash_of(knock.bearer), caller.source)
        check_scope(view, knock.scope)
        return replace(caller, operator=f"token:{view.name}")

    async def _look_up(self, token_hash: str, source: str) -> TokenView:
        now_ms = boottime_ms()
        fresh_until, view = self._known.get(token_hash, (Millis(0), None))
        if view is not None and now_ms < fresh_until:
            return view
        self._known.pop(token_hash, None)
        view = await self._asker.ask(CheckToken(token_hash, source), TokenView)
        self._known[token_hash] = (Millis(now_ms + FRESH_MS), view)
        while len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return view


def hash_of(token: str) -> str:
    """Return what the mesh keeps of a token."""
    return hashlib.sha256(token.encode()).hexdigest()
