"""Answers of the console that are more than one question to the broker."""

import base64
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from broker.runtime.paths import Paths
from broker.runtime.settings import Settings, load_settings
from broker.wire.console_api import HookLine, HookRunsView, HooksView, InviteBody
from broker.wire.enrollment import InviteView
from broker.wire.node import GetStatus, StatusView
from workers.console.logic import (
    certificate_view,
    compose_invite,
    hook_line,
    hook_runs,
    invite_request,
)
from workers.idempotency import SecretDraw, require_same
from workers.route import Asker, Page, Visit, as_json, checked

CREATED = 201
SECRET_BYTES = 32
RUNS_SHOWN = 50
RUNS_SHOWN_MAX = 500
RUNS_BYTES_MAX = 4 * 1024 * 1024
HOOK_STAGES = ("pre", "deploy", "post")
CERTIFICATE_FILES = ("cert", "key", "chain", "fullchain", "combined")


class LocalDesk:
    """Answers from this machine's settings and files, and composes invites."""

    def __init__(self, settings: Settings, paths: Paths, draws: SecretDraw) -> None:
        self._settings = settings
        self._paths = paths
        self._draws = draws

    async def create_invite(self, visit: Visit, asker: Asker) -> Page:
        """Draw a secret, register its hash, show the invite once."""
        drawn = self._draws.draw(visit.request_id, secrets.token_bytes(SECRET_BYTES))
        secret = base64.urlsafe_b64encode(drawn).decode().rstrip("=")
        body = visit.content(InviteBody)
        ttl_s = self._settings.enrollment.invite_ttl.s
        question = invite_request(body, secret, visit.caller.operator, ttl_s)
        view = await asker.ask(checked(question), InviteView, request_id=visit.request_id)
        require_same(view.invite_id, question.secret_hash)
        page = as_json(compose_invite(view, secret))
        return Page(page.body, CREATED)

    async def certificate(self, _visit: Visit, asker: Asker) -> Page:
        """Show this node's own certificate and its files."""
        status = await asker.ask(GetStatus(limit=1), StatusView)
        live = self._paths.certificates / status.node.host / "live"
        files = {name: str(live / f"{name}.pem") for name in CERTIFICATE_FILES}
        return as_json(certificate_view(status, files if live.exists() else {}))

    async def hooks(self, _visit: Visit, _asker: Asker) -> Page:
        """Show the hooks as they would run now: the file is read again."""
        settings = load_settings(self._paths.settings)
        lines = tuple(hook_line(hook) for hook in settings.hook)
        return as_json(HooksView(lines + tuple(_executables(self._paths.home / "hooks.d"))))

    async def hook_runs(self, visit: Visit, _asker: Asker) -> Page:
        """Show the newest runs, `?name=` of one hook."""
        limit = min(visit.number("limit"), RUNS_SHOWN_MAX)
        lines = _tail(self._paths.hook_runs)
        return as_json(HookRunsView(hook_runs(lines, visit.query.get("name", ""), limit)))


def _executables(directory: Path) -> Iterator[HookLine]:
    for stage in HOOK_STAGES:
        folder = directory / stage
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.is_file() and os.access(path, os.X_OK):
                yield HookLine(
                    name=path.name,
                    command=(str(path),),
                    event=("issued", "renewed"),
                    timeout_ms=0,
                    user="",
                    retries=0,
                    source=f"hooks.d/{stage}",
                )


def _tail(path: Path) -> list[bytes]:
    """Return the last lines of a file that grows; its first one may be cut."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - RUNS_BYTES_MAX))
            return file.read(RUNS_BYTES_MAX).splitlines()
    except FileNotFoundError:
        return []
