"""The hooks of this node: where they come from, when they run, and what is kept of each run.

`[[hook]]` entries of the settings and executables in `hooks.d/deploy` run after a certificate went
live; those in `hooks.d/pre` before, those in `hooks.d/post` at the very end. Of other events only
those `[[hook]]` entries hear that name them: scripts written for certbot know of renewals only, and
would restart services for nothing. Settings are read again at each use, so that a hook added by
the operator counts at the next renewal.

On a node that runs as root, a `[[hook]]` runs as the user it names, else as `[node] hook_user`,
which cannot become anybody else; `user = "root"` has to be said. A file of `hooks.d` runs as root
there, its owner, as certbot's users expect: that it is in that place is root's own doing.
"""

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from broker.clock import wall_s
from broker.errors import SettingsError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.runtime.paths import Paths
from broker.runtime.settings import Hook, Node, Settings, load_settings
from broker.wire.console_api import HookRun
from workers.certstore import CertificateStore
from workers.pairs import LiveCertificate
from workers.renewal.hook import NOT_STARTED, Ended, HookOrder, Pause, run_program
from workers.renewal.logic import rfc3339
from workers.renewal.patience import StoppedError
from workers.renewal.runlog import RunLog
from workers.renewal.strays import Strays

Stage = Literal["pre", "deploy", "post"]
STAGES: tuple[Stage, ...] = ("pre", "deploy", "post")

DIRECTORY_TIMEOUT_MS = 30_000
"""For executables in `hooks.d`, which have no settings of their own."""

DIRECTORY_EVENTS = ("issued", "renewed")
USUAL_USER = "nobody"
AGAIN_MS = 1000
"""Pause before a failed hook is tried again."""


class HookSet:
    """Finds and runs the hooks of one node.

    Args:
        paths: Of the node.
        settings: Used when the file cannot be read any more.
        pause: How to wait.
    """

    def __init__(self, paths: Paths, settings: Settings, pause: Pause) -> None:
        self._paths = paths
        self._settings = settings
        self._pause = pause
        self._log = RunLog(paths)
        self._strays = Strays()

    def run(
        self,
        stage: Stage,
        event: str,
        environment: Mapping[str, str],
        *,
        retry: bool = True,
    ) -> list[HookRun]:
        """Run all hooks of a stage in order and return the last run of each.

        Raises:
            StoppedError: A stop was asked; one was ended half-way, or not begun.
        """
        return [
            self._run_until_done(order, event, environment, retry=retry)
            for order in self._orders(stage, event)
        ]

    def named(self, name: str) -> HookOrder | None:
        """Return the hook called `name`; None when there is none of that name."""
        orders = (order for stage in STAGES for order in self._orders(stage, None))
        return next((order for order in orders if order.name == name), None)

    def run_once(self, order: HookOrder, environment: Mapping[str, str]) -> HookRun:
        """Try one hook."""
        return self._run(order, order.event, environment)

    def longest_ms(self) -> int:
        """Return how long all hooks may take, a second round for a rollback included."""
        orders = [order for stage in STAGES for order in self._orders(stage, None)]
        return sum(_longest_ms(order) + order.timeout_ms for order in orders)

    def _orders(self, stage: Stage, event: str | None) -> list[HookOrder]:
        found = self._found(stage) if event is None or event in DIRECTORY_EVENTS else []
        if stage != "deploy":
            return found
        settings = self._present()
        wanted = [hook for hook in settings.hook if event is None or event in hook.event]
        return [*(order_of(hook, settings.node) for hook in wanted), *found]

    def _present(self) -> Settings:
        try:
            return load_settings(self._paths.settings)
        except SettingsError as error:
            log(EventName.CONFIG_REJECTED, detail=error.detail)
            return self._settings

    def _found(self, stage: Stage) -> list[HookOrder]:
        directory = self._paths.home / "hooks.d" / stage
        try:
            files = sorted(directory.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [
            HookOrder(f"{stage}/{file.name}", (str(file),), DIRECTORY_TIMEOUT_MS)
            for file in files
            if _is_program(file)
        ]

    def _run_until_done(
        self, order: HookOrder, event: str, environment: Mapping[str, str], *, retry: bool
    ) -> HookRun:
        run = self._run(order, event, environment)
        for _ in range(order.retries if retry else 0):
            if not run.failed:
                break
            self._pause.wait(AGAIN_MS)
            run = self._run(order, event, environment)
        return run

    def _run(self, order: HookOrder, event: str, environment: Mapping[str, str]) -> HookRun:
        if self._pause.stopping():
            raise StoppedError
        began = wall_s()
        log(EventName.HOOK_STARTED, hook=order.name, hook_event=event)
        fault = _distrust(order)
        if fault:
            ended = Ended(NOT_STARTED, 0, timed_out=False, output=fault)
        else:
            told = {**environment, "CERTMESH_EVENT": event}
            ended = run_program(order, told, self._pause, self._strays)
        run = HookRun(
            at=began,
            hook=order.name,
            event=event,
            exit=ended.exit,
            took_s=round(ended.took_ms / 1000, 3),
            timed_out=ended.timed_out,
            output=ended.output,
            serial=environment["CERTMESH_SERIAL"],
            cut_short=ended.cut_short,
        )
        with contextlib.suppress(OSError):
            # A full disk must not keep the other hooks from running; our log has the run too.
            self._log.add(run)
        _tell(run)
        if run.cut_short:
            # No verdict on the certificate: whoever starts next runs the hooks again.
            raise StoppedError
        return run


def environment_of(
    store: CertificateStore, live: LiveCertificate | None, *, dry_run: bool = False
) -> dict[str, str]:
    """Return what a hook learns; paths go through the `live` link, so they stay valid."""
    link = store.live_link
    names = [
        san for san in (live.sans if live else ()) if not san[-1:].isdigit() and ":" not in san
    ]
    return {
        "CERTMESH_HOST": store.host,
        "CERTMESH_LIVE_DIR": str(link),
        "CERTMESH_CERT": str(link / "cert.pem"),
        "CERTMESH_KEY": str(link / "key.pem"),
        "CERTMESH_CHAIN": str(link / "chain.pem"),
        "CERTMESH_FULLCHAIN": str(link / "fullchain.pem"),
        "CERTMESH_SERIAL": live.serial if live else "",
        "CERTMESH_NOT_AFTER": rfc3339(live.not_after) if live else "",
        "CERTMESH_DRY_RUN": "1" if dry_run else "",
        "RENEWED_LINEAGE": str(link),
        "RENEWED_DOMAINS": " ".join(names),
    }


def order_of(hook: Hook, node: Node) -> HookOrder:
    """Return how a `[[hook]]` runs on this node."""
    falls = not hook.user and os.geteuid() == 0
    user = (node.hook_user or USUAL_USER) if falls else hook.user
    return HookOrder(
        name=hook.name,
        argv=hook.command,
        timeout_ms=hook.timeout.ms,
        user=user,
        retries=hook.retries,
        # Who names a user may have given it rights by sudo on purpose; the usual one has none.
        confined=falls and user != "root",
        event=hook.event[0] if hook.event else DIRECTORY_EVENTS[0],
    )


def _longest_ms(order: HookOrder) -> int:
    return (order.retries + 1) * (order.timeout_ms + AGAIN_MS)


def _is_program(file: Path) -> bool:
    # Editors leave backups behind; certbot skips the same ones.
    leftover = file.name.startswith(".") or file.name.endswith(("~", ".bak", ".orig", ".rej"))
    return not leftover and file.is_file() and os.access(file, os.X_OK)


def _distrust(order: HookOrder) -> str:
    """Return why an executable of `hooks.d` is not run: others could have written it."""
    file = Path(order.argv[0]) if order.argv else Path()
    if "/" not in order.name or file.parent.parent.name != "hooks.d":
        return ""
    for path in (file, file.parent):
        try:
            found = path.stat()
        except OSError as error:
            return f"not run: cannot look at {path}: {error.strerror}"
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or found.st_uid not in {0, os.geteuid()}:
            return f"not run: {path} can be written by others (chmod go-w, and check its owner)"
    return ""


def _tell(run: HookRun) -> None:
    if run.cut_short:
        log(EventName.HOOK_CUT_SHORT, hook=run.hook, took_s=run.took_s, serial=run.serial)
    elif run.timed_out:
        log(EventName.HOOK_TIMED_OUT, hook=run.hook, took_s=run.took_s, serial=run.serial)
    elif run.failed:
        log(EventName.HOOK_FAILED, hook=run.hook, exit=run.exit, took_s=run.took_s)
    else:
        log(EventName.HOOK_SUCCEEDED, hook=run.hook, took_s=run.took_s, serial=run.serial)
