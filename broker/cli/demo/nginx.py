"""nginx as a second service of node-c, where this machine has it: a renewal must reach it too."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

from broker.cli.demo.failure import until
from broker.cli.demo.node import Node, quiet_environment
from broker.cli.demo.tls import Door

PORT = 18444
HOOK = "reload-nginx"
PLACES = (".services/usr/sbin", "/usr/sbin", "/usr/local/sbin")
"""Where nginx lies when it is not on the PATH; the first one is filled by `make services`."""

READY_S = 10.0
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def program() -> str | None:
    """Return the path of nginx, None when this machine has none."""
    found = shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", ""), *PLACES)))
    return os.path.abspath(found) if found else None  # noqa: PTH100 (no symlink resolution)


def door(node: Node) -> Door:
    """Return where it listens."""
    return Door(node.address, PORT, node.server_name)


def start(home: Path, node: Node) -> None:
    """Start it with node-c's live certificate, asking callers for one of the mesh."""
    found = program()
    assert found is not None
    configuration = _configuration(home)
    configuration.write_text(_text(home, node))
    with (node.home / "log" / "nginx.log").open("ab") as log:
        subprocess.Popen(  # noqa: S603 (the operator's own nginx)
            (found, "-c", str(configuration), "-g", "daemon off;"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=quiet_environment(),
        )
    until("nginx on node-c running", _pid_file(home).exists, READY_S, log=node.log("nginx"))


def reload_words(home: Path) -> tuple[str, ...]:
    """Return the command that makes it read its certificate again."""
    found = program()
    assert found is not None
    return (found, "-c", str(_configuration(home)), "-s", "reload")


def stop(place: Path) -> None:
    """Stop the one that was started for the demo in `place`, and nobody else's."""
    try:
        pid = int(_pid_file(place).read_text())
        title = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return
    if os.fsencode(_configuration(place)) in title:
        os.kill(pid, signal.SIGTERM)


def _text(home: Path, node: Node) -> str:
    temporary = "".join(f"    {kind}_temp_path {home}/nginx-{kind};\n" for kind in TEMPORARY)
    return f"""\
pid {_pid_file(home)};
error_log stderr;
worker_processes 1;
events {{}}
http {{
    access_log off;
{temporary}
    server {{
        listen {node.address}:{PORT} ssl;
        ssl_certificate        {node.live}/fullchain.pem;
        ssl_certificate_key    {node.live}/key.pem;
        ssl_protocols          TLSv1.3;
        ssl_client_certificate {node.live}/chain.pem;
        ssl_verify_client      on;
        ssl_verify_depth       2;
        return 200 "hello from nginx\\n";
    }}
}}
"""


def _configuration(home: Path) -> Path:
    return home / "nginx.conf"


def _pid_file(home: Path) -> Path:
    return home / "nginx.pid"
