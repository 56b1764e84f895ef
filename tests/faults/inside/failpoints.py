"""Named points inside a process at which it is killed, without a hook in the product.

Functions are wrapped from outside before anything else imports them; `name.before` and
`name.after` are then points. A small file says at which one the process dies; it is read at every
point, so that a running process can be armed. Nothing runs after the kill: no `finally`, no flush.

The file holds `POINT NTH`, and nothing else. While a file of the same name with `.hits` exists,
the names of the points that are reached are added to it.
"""

import functools
import importlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

VARIABLE = "CERTMESH_FAILPOINT"
WEAKENED = "CERTMESH_WEAKENED"
"""For negative controls: takes a guarantee away, and the harness must notice."""

BROKER = (
    ("write-new", "broker.runtime.files", "write_new"),
    ("sync-names", "broker.runtime.files", "fsync_directory"),
    ("write-atomic", "broker.runtime.files", "write_atomic"),
    ("row", "broker.ledger.journal", "insert"),
    ("head", "broker.ledger.journal", "write_head"),
    ("fold", "broker.ledger.folding", "enter"),
    ("begin", "broker.ledger.store", "Store.begin"),
    ("commit", "broker.ledger.store", "Store.commit"),
    ("remember", "broker.ledger.local_state", "LocalState.remember"),
    ("decide", "broker.shell.desk", "Desk.decide"),
    ("finish", "broker.shell.desk", "Desk.finish"),
    ("answer", "broker.shell.loop", "_answer_frames"),
    ("send", "broker.shell.loop", "Loop._send"),
    ("publish", "broker.shell.loop", "Loop._publish"),
    ("tick", "broker.shell.ticks", "Ticks.run"),
    ("job", "broker.shell.offloop", "OffLoop._run"),
)
"""In this order: what others import by name is wrapped before they do."""

RENEWAL = (
    ("write-new", "broker.runtime.files", "write_new"),
    ("sync-names", "broker.runtime.files", "fsync_directory"),
    ("write-atomic", "broker.runtime.files", "write_atomic"),
)


class _Hits:
    """What this process has come by since it was armed."""

    order = ""
    count = 0


def install(program: str) -> None:
    """Wrap the functions of `broker` or of a worker, named as after `python -m`."""
    weaken(os.environ.get(WEAKENED, ""))
    for name, module, path in BROKER if program == "broker" else RENEWAL:
        owner: Any = importlib.import_module(module)
        *classes, attribute = path.split(".")
        for part in classes:
            owner = getattr(owner, part)
        setattr(owner, attribute, _wrapped(name, getattr(owner, attribute)))


def reach(point: str) -> None:
    """Die here if the file says so."""
    control = Path(os.environ[VARIABLE])
    hits = control.with_name(control.name + ".hits")
    if hits.exists():
        with hits.open("a") as file:
            file.write(f"{point}\n")
    try:
        order = control.read_text()
    except FileNotFoundError:
        return
    if order != _Hits.order:
        _Hits.order, _Hits.count = order, 0
    wanted, _, nth = order.partition(" ")
    if wanted != point:
        return
    _Hits.count += 1
    if _Hits.count >= int(nth):
        os.kill(os.getpid(), signal.SIGKILL)


def weaken(what: str) -> None:
    """Take a guarantee away: `synchronous=NORMAL`, or `names` (directories are not synced)."""
    if what.startswith("synchronous="):
        file: Any = importlib.import_module("broker.ledger.file")
        strong = file.configure

        def configure(path: Path, connection: Any) -> None:
            strong(path, connection)
            connection.execute(f"PRAGMA {what}")

        file.configure = configure
    elif what == "names":
        files: Any = importlib.import_module("broker.runtime.files")
        files.fsync_directory = lambda _path: None


def _wrapped(name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(inner)
    def outer(*given: Any, **named: Any) -> Any:
        reach(f"{name}.before")
        result = inner(*given, **named)
        reach(f"{name}.after")
        return result

    return outer
