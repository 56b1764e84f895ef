"""`--test-hook NAME`: runs one hook with CERTMESH_DRY_RUN=1 and prints the run."""

import sys

import msgspec

from broker.errors import NoMeshError
from broker.runtime.exits import Exit
from broker.runtime.logs import setup_logs
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.console_api import HookRun, HookTrial
from workers.certstore import CertificateStore
from workers.membership import load_membership
from workers.renewal.hook import PlainPause, full_environment
from workers.renewal.hookset import HookSet, environment_of

OPTION = "--test-hook"


def taken_name(argv: list[str]) -> str | None:
    """Remove `--test-hook NAME` from `argv` and return the name; None when it is not there."""
    if OPTION not in argv:
        return None
    place = argv.index(OPTION)
    name = argv[place + 1] if len(argv) > place + 1 else ""
    del argv[place : place + 2]
    return name


def try_hook(settings: Settings, paths: Paths, name: str) -> int:
    """Run the hook `name` once, print its run as JSON and return the exit status."""
    setup_logs(settings, "renewal", stream=sys.stderr)
    hooks = HookSet(paths, settings, PlainPause())
    order = hooks.named(name)
    if order is None:
        sys.stderr.write(f"certmesh: there is no hook {name!r}; see [[hook]] and hooks.d\n")
        return Exit.USAGE
    environment = {**_environment(settings, paths), "CERTMESH_EVENT": order.event}
    run = hooks.run_once(order, environment)
    try:
        seen = full_environment(order, environment)
    except (LookupError, PermissionError):
        seen = {}  # it was not started either, and the run says why
    trial = HookTrial(**msgspec.structs.asdict(run), user=order.user, environment=seen)
    sys.stdout.write(msgspec.json.encode(trial).decode() + "\n")
    return _status(run)


def _environment(settings: Settings, paths: Paths) -> dict[str, str]:
    try:
        membership = load_membership(paths)
    except NoMeshError:
        membership = None
    host = membership.host if membership else settings.node.name or "localhost"
    store = CertificateStore(paths.certificates, host)
    return environment_of(store, store.live(), dry_run=True)


def _status(run: HookRun) -> int:
    return Exit.FAILED if run.failed else Exit.OK
