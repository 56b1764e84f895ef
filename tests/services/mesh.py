"""A node whose certificate a real server uses, and a client that is a member of the mesh."""

import json
import os
import pwd
import re
import shutil
import socket
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from tests.faults.pool import Pool
from tests.support import eventually

HOST = "web"
SETTINGS = (
    "discovery.mdns=false",
    'heartbeat.interval="500ms"',
    'failover.tick="1s"',
    'renewal.check_every="2s"',
    'renewal.attempt_every="0s"',
    'renewal.backoff_min="1s"',
    "ca.kdf_memory=8388608",
    "ca.kdf_passes=1",
)


@dataclass(frozen=True)
class Node:
    """A mesh of one node, for a service on `port`."""

    pool: Pool
    port: int

    @property
    def home(self) -> Path:
        """Of the node."""
        return self.pool.home

    @property
    def live(self) -> Path:
        """The live certificate's directory."""
        return self.home / "certs" / HOST / "live"

    @property
    def server_name(self) -> str:
        """Name that its certificate is for."""
        return str(json.loads((self.home / "membership.json").read_bytes())["server_name"])

    @property
    def serial(self) -> str:
        """Serial of the live certificate."""
        leaf = x509.load_pem_x509_certificate((self.live / "cert.pem").read_bytes())
        return format(leaf.serial_number, "x")

    def served(self) -> str:
        """Serial of what the port serves to a member."""
        with connected(self) as connection:
            der = connection.getpeercert(binary_form=True)
        assert der is not None
        return format(x509.load_der_x509_certificate(der).serial_number, "x")

    def state(self) -> str:
        """How it stands with the own certificate, as the roster says."""
        member: dict[str, Any] = self.pool.certmesh("member", "show", HOST)["member"]
        return str(member["delivery"])

    def add_hook(self, block: str, *command: str) -> None:
        """Say how the service reloads: the page's own entry with this machine's command."""
        _, heading, entry = block.partition("[[hook]]")
        assert heading, block
        entry = re.sub(
            r"^command = .*$", f"command = {json.dumps(command)}", entry, flags=re.MULTILINE
        )
        me = json.dumps(pwd.getpwuid(os.geteuid()).pw_name)
        entry = re.sub(r"^user = .*$", f"user = {me}", entry, flags=re.MULTILINE)
        with (self.home / "certmesh.toml").open("a") as file:
            file.write(f"\n[[hook]]{entry}")

    def renew(self) -> str:
        """Renew, wait until the service serves it, and return the new serial."""
        before = self.serial
        self.pool.certmesh("cert", "renew")
        eventually(lambda: self.serial != before, within_s=20)
        eventually(lambda: self.served() == self.serial, within_s=20)
        eventually(lambda: self.state() == "served", within_s=20)
        return self.serial


def create(port: int, probe: str) -> Node:
    """Create the node; it runs, and its service does not yet."""
    home = Path(tempfile.mkdtemp(prefix="cms-", dir="/tmp"))
    pool = Pool(home)
    words = ["init", "pool", "--node-name", HOST, "--listen", "127.0.0.1"]
    words += ["--enroll-port", str(port + 1), "--mesh-port", str(port + 2)]
    for setting in (*SETTINGS, f"renewal.probe=[{json.dumps(probe)}]"):
        words += ["--setting", setting]
    pool.certmesh(*words)
    pool.certmesh("up")
    node = Node(pool, port)
    eventually((home / "trust" / "crl.pem").exists, within_s=20)
    return node


def remove(node: Node) -> None:
    """Stop the node and remove its home."""
    node.pool.remove()
    shutil.rmtree(node.home, ignore_errors=True)


def connected(node: Node, *, member: bool = True) -> ssl.SSLSocket:
    """Return a connection to the service, verified against the root of the mesh."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(node.home / "trust" / "ca.pem")
    if member:
        context.load_cert_chain(node.live / "fullchain.pem", node.live / "key.pem")
    plain = socket.create_connection(("127.0.0.1", node.port), 10)
    return context.wrap_socket(plain, server_hostname=node.server_name)


def request_of(node: Node, path: str) -> bytes:
    """Return a request for `path`, by the name that TLS asked for."""
    return f"GET {path} HTTP/1.1\r\nHost: {node.server_name}\r\n\r\n".encode()


def is_refused(node: Node) -> bool:
    """Whether a stranger without a certificate gets nothing from the service."""
    try:
        with connected(node, member=False) as connection:
            connection.sendall(request_of(node, "/"))
            answer = connection.recv(64)
    except (ssl.SSLError, OSError):
        return True
    return not answer or answer.startswith(b"HTTP/1.1 400")
