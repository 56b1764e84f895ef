"""Real servers, wired up as docs/renewal.md says: a renewal reaches them, and nobody is cut off."""

import contextlib
import http.server
import os
import shutil
import ssl
import sys
import tempfile
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typing_extensions import override

from broker.runtime.settings import parse_settings
from tests.services.database import Database
from tests.services.mesh import Node, connected, is_refused, request_of
from tests.services.page import blocks, placed
from tests.services.program import find, listens, running
from tests.support import eventually

pytestmark = [pytest.mark.faults, pytest.mark.mesh, pytest.mark.timeout(180)]

BIG = 64 * 1024 * 1024
"""More than what the sockets of both sides buffer: the server is still sending when it reloads."""

Make = Callable[[str], Node]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that servers of other users may enter."""
    found = Path(tempfile.mkdtemp(prefix="cmw-", dir="/tmp"))
    found.chmod(0o755)
    yield found
    shutil.rmtree(found, ignore_errors=True)


def with_site(place: Path) -> Path:
    """Make a site of one large file."""
    site = place / "site"
    site.mkdir()
    with (site / "big").open("wb") as file:
        file.truncate(BIG)
    (site / "index.html").write_text("here\n")
    return site


def begin_download(node: Node) -> tuple[ssl.SSLSocket, bytes]:
    """Ask for the large file and read its beginning; the server waits for us to read on."""
    connection = connected(node)
    connection.settimeout(60)
    connection.sendall(request_of(node, "/big"))
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(4096)
    assert head.startswith(b"HTTP/1.1 200"), head
    return connection, head.partition(b"\r\n\r\n")[2]


def finish_download(connection: ssl.SSLSocket, got: bytes) -> int:
    """Read the rest and return how much there was."""
    count = len(got)
    while count < BIG:
        part = connection.recv(1024 * 1024)
        if not part:
            break
        count += len(part)
    return count


def check_renewal_reaches(node: Node) -> None:
    """Renew twice under a download that began before: both arrive, and strangers stay out."""
    eventually(lambda: node.served() == node.serial, within_s=20)
    assert is_refused(node)
    connection, got = begin_download(node)
    with connection:
        first = node.renew()
        assert node.renew() != first
        assert finish_download(connection, got) == BIG


def test_nginx_serves_the_new_certificate_and_finishes_what_it_sends(
    make_node: Make, place: Path
) -> None:
    """The commonest complaint: renewed on disk, and nginx never heard of it."""
    program, node = find("nginx"), make_node("tcp")
    site = with_site(place)
    server = placed(blocks("nginx")["nginx"], node.home, node.port, {"/var/www/html": str(site)})
    configuration = place / "nginx.conf"
    temporary = "".join(
        f"{kind}_temp_path {place}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration.write_text(
        f"pid {place}/nginx.pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{ access_log off;\n{temporary}{server} }}\n"
    )
    log = place / "nginx.log"
    with running([program, "-c", str(configuration), "-g", "daemon off;"], log):
        listens(node.port, log)
        node.add_hook(blocks("nginx")["toml"], program, "-c", str(configuration), "-s", "reload")
        check_renewal_reaches(node)


@contextlib.contextmanager
def backend() -> Iterator[int]:
    """Yield the port of an HTTP server that sends the large file, for what stands in front."""

    class Sender(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            size = BIG if self.path == "/big" else 5
            self.send_response(200)
            self.send_header("Content-Length", str(size))
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(max(1, size // 65_536)):
                    self.wfile.write(bytes(min(size, 65_536)))

        @override
        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sender) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_haproxy_serves_the_new_certificate_and_keeps_its_connections(
    make_node: Make, place: Path
) -> None:
    """One file with key and chain, a reload that leaves the old process to its connections."""
    program, node = find("haproxy"), make_node("tcp")
    with backend() as behind:
        block = blocks("HAProxy")["haproxy"]
        text = placed(block, node.home, node.port, {"127.0.0.1:8080": f"127.0.0.1:{behind}"})
        configuration, pid = place / "haproxy.cfg", place / "haproxy.pid"
        timeouts = "timeout connect 5s\ntimeout client 60s\ntimeout server 60s"
        configuration.write_text(f"defaults\n{timeouts}\n\n{text}")
        log = place / "haproxy.log"
        command = [program, "-W", "-f", str(configuration), "-p", str(pid)]
        with running(command, log) as main:
            listens(node.port, log)
            node.add_hook(blocks("HAProxy")["toml"], "/bin/kill", "-USR2", str(main))
            check_renewal_reaches(node)


def test_caddy_serves_the_new_certificate_and_finishes_what_it_sends(
    make_node: Make, place: Path
) -> None:
    """Its configuration is the same; only --force makes it read the files again."""
    program, node = find("caddy"), make_node("tcp")
    site = with_site(place)
    others = {"/var/www/html": str(site), "localhost:2019": f"unix/{place}/admin.sock"}
    configuration = place / "Caddyfile"
    configuration.write_text(placed(blocks("Caddy")["caddy"], node.home, node.port, others))
    log, reload = place / "caddy.log", ["reload", "--force", "--config", str(configuration)]
    hook = place / "hook"
    hook.write_text(f'#!/bin/sh\nHOME={place} exec {program} "$@"\n')
    hook.chmod(0o755)
    with running([str(hook), "run", "--config", str(configuration)], log):
        listens(node.port, log)
        node.add_hook(blocks("Caddy")["toml"], str(hook), *reload)
        check_renewal_reaches(node)


def test_a_python_service_serves_the_new_certificate(make_node: Make, place: Path) -> None:
    """The context in use takes the new pair; who is connected stays."""
    node, site = make_node("tcp"), with_site(place)
    script = place / "app.py"
    script.write_text(placed(blocks("A Python service")["python"], node.home, node.port))
    log = place / "app.log"
    command = ["/bin/sh", "-c", f"cd {site} && exec {sys.executable} {script}"]
    with running(command, log) as pid:
        listens(node.port, log)
        node.add_hook(blocks("A Python service")["toml"], "/bin/kill", "-HUP", str(pid))
        check_renewal_reaches(node)


@pytest.mark.skipif(os.geteuid() != 0, reason="copying the key for another user needs root")
def test_postgresql_serves_the_new_certificate_and_keeps_its_sessions(
    make_node: Make, place: Path
) -> None:
    """The hook that copies for another user, and a probe that speaks PostgreSQL's way into TLS."""
    database = Database(place, find("postgres"), find("initdb"), find("psql"))
    node = make_node("postgresql")
    database.create(node)
    node.pool.certmesh("cert", "renew", "--no-wait")
    eventually((database.tls / "server.key").exists, within_s=20)
    with database.running(node), database.session(node) as ask:
        assert ask("select 41 + 1;") == "42"
        before = node.serial
        node.pool.certmesh("cert", "renew")
        eventually(lambda: node.serial != before, within_s=20)
        eventually(lambda: node.state() == "served", within_s=20)
        assert ask("select 42 + 1;") == "43"


def test_every_block_of_settings_on_the_page_is_taken() -> None:
    """A snippet that the settings refuse helps nobody."""
    for heading in ("nginx", "HAProxy", "Caddy", "PostgreSQL", "A Python service"):
        settings = parse_settings(tomllib.loads(blocks(heading)["toml"]), heading)
        assert settings.renewal.probe, heading
