"""Where the demo lives: three homes in one directory that carries our mark."""

import json
import os
import shutil
import signal
import socket
import tempfile
from pathlib import Path

from broker.cli.demo import nginx
from broker.cli.demo.failure import StepError, require, until
from broker.cli.demo.node import ENROLL_PORT, MESH_PORT, Node
from broker.cli.demo.tls import APP_PORT
from broker.runtime.paths import SOCKET_PATH_BYTES_MAX

MARK = ".certmesh-demo"
"""A directory without this file is not ours and is never removed."""

LONGEST_SOCKET = "node-a/run/supervisor.sock.12345678"
STOP_S = 15.0
TIMERS: dict[str, object] = {
    "policy.leaf_lifetime": "60s",
    "policy.renew_at": 0.333,
    "policy.outage_budget": "30s",
    "approval.decider": "queue",
    "renewal.check_every": "1s",
    "renewal.attempt_every": "1s",
    "renewal.backoff_min": "1s",
    "renewal.backoff_max": "5s",
    "heartbeat.interval": "500ms",
    "sync.every": "2s",
    "failover.tick": "500ms",
    "failover.grace": "4s",
    "failover.stagger": "1s",
    "discovery.interfaces": ["127.0.0.1"],
}
"""The only thing about the demo that is not real: its hurry."""


def nodes_in(home: Path) -> tuple[Node, Node, Node]:
    """Return the three nodes below `home`, on addresses of their own."""
    return (
        _node(home, "node-a", "127.0.0.1"),
        _node(home, "node-b", "127.0.0.2"),
        _node(home, "node-c", "127.0.0.3", {"renewal.probe": _probes("127.0.0.3")}),
    )


def _probes(address: str) -> list[str]:
    """Return the ports of node-c's services: our own one, and nginx where there is one."""
    ports = (APP_PORT, nginx.PORT) if nginx.program() else (APP_PORT,)
    return [f"tcp://{address}:{port}" for port in ports]


def _node(home: Path, name: str, address: str, more: dict[str, object] | None = None) -> Node:
    settings: dict[str, object] = {
        "node.name": name,
        "node.addresses": [address],
        "listen.enroll": f"{address}:{ENROLL_PORT}",
        "listen.mesh": f"{address}:{MESH_PORT}",
    }
    return Node(name, address, home / name, settings | TIMERS | (more or {}))


def claim(home: Path) -> Path:
    """Return a fresh, marked directory for the demo, reached as `home`.

    A checkout may lie too deep for Unix sockets; then `home` becomes a link to a short directory.

    Raises:
        StepError: `home` exists and is not a demo's.
    """
    clear(home)
    place = Path(os.path.abspath(home))  # noqa: PTH100 (no symlink resolution)
    if len(os.fsencode(place / LONGEST_SOCKET)) > SOCKET_PATH_BYTES_MAX:
        short = Path(tempfile.mkdtemp(prefix="certmesh-demo-"))
        place.symlink_to(short)
        place = short
    else:
        place.mkdir(mode=0o700, parents=True)
    (place / MARK).touch()
    return place


def clear(home: Path) -> bool:
    """Stop what still runs in an earlier demo's directory and remove it; say whether it was."""
    if not home.is_symlink() and not home.exists():
        return False
    place = home.resolve() if home.is_symlink() else Path(os.path.abspath(home))  # noqa: PTH100
    require(
        not place.exists() or (place / MARK).exists(),
        f"{home} exists and is not a demo's directory",
        todo=f"remove it yourself or choose another: certmesh demo --home DIR (found {place})",
    )
    stop_all(place)
    shutil.rmtree(place, ignore_errors=True)
    if home.is_symlink():
        home.unlink()
    return True


def stop_all(place: Path) -> None:
    """Stop the supervisords of the homes below `place` and the demo's service; nobody else's."""
    nodes = nodes_in(place)
    for node in nodes:
        node.signal_supervisor(signal.SIGTERM)
    _stop_app(place)
    nginx.stop(place)
    for node in nodes:
        _await_end(node)


def _await_end(node: Node) -> None:
    try:
        until(f"{node.name} stopped", lambda: node.supervisor_pid() is None, STOP_S)
    except StepError:
        node.signal_supervisor(signal.SIGKILL)


def _stop_app(place: Path) -> None:
    try:
        pid = int((place / "app.pid").read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return
    if os.fsencode(place / "app.pid") in words:
        os.kill(pid, signal.SIGTERM)


def check_ports(place: Path) -> None:
    """Refuse to start while somebody else holds a port the demo needs.

    Raises:
        StepError: One is taken.
    """
    wanted = [(node.address, port) for node in nodes_in(place) for port in (ENROLL_PORT, MESH_PORT)]
    for address, port in [*wanted, ("127.0.0.3", APP_PORT), ("127.0.0.3", nginx.PORT)]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                raise StepError(
                    f"{address}:{port} cannot be used: {error.strerror}",
                    todo="another demo may be running: make demo-clean, or look with: ss -ltnp",
                ) from None


def setting_flags(node: Node) -> list[str]:
    """Return the node's settings as `--setting key=value` words; JSON values are TOML values."""
    return [
        word
        for key, value in node.settings.items()
        for word in ("--setting", f"{key}={json.dumps(value)}")
    ]


def prepare(node: Node) -> None:
    """Lay out the home of a node that belongs to no mesh yet, so that it can be started."""
    for directory in (node.home, node.home / "log", node.home / "run"):
        directory.mkdir(mode=0o700)
    sections: dict[str, list[str]] = {}
    for name, value in node.settings.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, [f"[{section}]"]).append(f"{key} = {json.dumps(value)}")
    text = "\n\n".join("\n".join(lines) for lines in sections.values())
    (node.home / "certmesh.toml").write_text(text + "\n")
