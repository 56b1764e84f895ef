"""Steps 1 and 2: three supervisords, and the CA that `certmesh init` made on the first."""

import hashlib
import stat
import sys
from pathlib import Path

import segno
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from broker.cli.demo.failure import StepError, require, until
from broker.cli.demo.node import MESH, Node, pick, run_program
from broker.cli.demo.place import prepare, setting_flags
from broker.cli.demo.stage import Stage
from broker.cli.shape import grouped
from broker.clock import boottime_ms
from broker.runtime.wordlist import passphrase

READY_S = 30.0
PRIVATE = 0o600


def start_nodes(stage: Stage) -> str:
    """Create the mesh on node-a, start three supervisords, wait until every program runs."""
    stage.passphrase = passphrase()
    began_ms = boottime_ms()
    secret = stage.home / "passphrase"
    secret.touch(mode=PRIVATE)
    secret.write_text(stage.passphrase + "\n")
    stage.creation = stage.node_a.ask(
        "init",
        MESH,
        *("--profile", "team", "--passphrase-file", str(secret)),
        *setting_flags(stage.node_a),
    )
    for node in (stage.node_b, stage.node_c):
        prepare(node)
    for node in stage.nodes:
        node.ask("up", "--no-wait")
    for node in stage.nodes:
        node.ask("up")
    programs = sum(_running(node) for node in stage.nodes)
    _unlock(stage.node_a, secret)
    secret.unlink()
    took = (boottime_ms() - began_ms) / 1000
    return f"3 supervisords, {programs} processes RUNNING in {took:.1f} s"


def _running(node: Node) -> int:
    """Return the number of programs once supervisord calls every one of them RUNNING."""
    table = str(node.home / "supervisord.conf")

    def all_running() -> int | None:
        done = run_program(
            (sys.executable, "-m", "supervisor.supervisorctl", "-c", table, "status")
        )
        words = [line.split() for line in done.stdout.splitlines()]
        running = [parts for parts in words if parts[1:2] == ["RUNNING"]]
        return len(running) if running and len(running) == len(words) else None

    return until(
        f"every program of {node.name} RUNNING", all_running, READY_S, log=node.log("supervisord")
    )


def _unlock(node: Node, secret: Path) -> None:
    if pick(node.ask("ca", "show"), "state") == "locked":
        node.ask("ca", "unlock", "--passphrase-file", str(secret))


def check_authority(stage: Stage) -> str:
    """Check what init made: constraints, fingerprint, sealed keys, file modes."""
    shown = stage.node_a.ask("ca", "show")
    root = x509.load_pem_x509_certificate(str(pick(shown, "root_pem")).encode())
    issuing = x509.load_pem_x509_certificate(str(pick(shown, "issuing_pem")).encode())
    der = root.public_bytes(serialization.Encoding.DER)
    require(hashlib.sha256(der).hexdigest() == stage.pin, "the pin is not the root's SHA-256")
    _check_constraints(root, issuing)
    _check_sealed(stage.node_a.home / "ca")
    stage.trust.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    key = str(stage.creation.get("totp_key", "")).replace(" ", "")
    stage.board.show(
        f"passphrase: {stage.passphrase}   (shown because this mesh is thrown away)",
        f"TOTP key for new members: {grouped(key)}",
    )
    uri = str(stage.creation.get("totp_uri", ""))
    stage.board.art(_qr(uri) if uri else "")
    return f'"{MESH}"  CA sha256:{grouped(stage.pin[:16])}, constraints, seals'


def _check_constraints(root: x509.Certificate, issuing: x509.Certificate) -> None:
    """Two tiers (RFC 5280 4.2.1.9), and names the issuing CA cannot leave (4.2.1.10)."""
    issuing.verify_directly_issued_by(root)
    lengths = [
        certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        for certificate in (root, issuing)
    ]
    require(lengths == [1, 0], f"path lengths are {lengths}, not 1 and 0")
    constraints = issuing.extensions.get_extension_for_class(x509.NameConstraints)
    permitted = [str(part.value) for part in constraints.value.permitted_subtrees or ()]
    require(constraints.critical, "the issuing CA's name constraints are not critical")
    require(
        any(f"{MESH}.internal".endswith(name.lstrip(".")) for name in permitted),
        f"the mesh's domain is not among the permitted names {permitted}",
    )


def _check_sealed(directory: Path) -> None:
    """No key of the CA lies readable on disk, and nothing there is open to others."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    require(files, f"{directory} is empty")
    for path in files:
        content, mode = path.read_bytes(), stat.S_IMODE(path.stat().st_mode)
        public = content.startswith(b"-----BEGIN CERTIFICATE-----")
        require(public or mode == PRIVATE, f"{path} has mode {mode:o}, not 600")
        require(b"PRIVATE KEY" not in content, f"{path} holds a key in the clear")
        _refuse_plain_key(path)


def _refuse_plain_key(path: Path) -> None:
    try:
        serialization.load_der_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError):
        return
    raise StepError(f"{path} is a private key without any seal")


def _qr(uri: str) -> str:
    """Return the QR code of `uri` in half blocks, dark on light as phones want it."""
    matrix = [list(row) for row in segno.make(uri, error="l", micro=False).matrix_iter(border=2)]
    if len(matrix) % 2:
        matrix.append([0] * len(matrix[0]))
    halves = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}
    return "\n".join(
        "".join(halves[bool(top), bool(bottom)] for top, bottom in zip(upper, lower, strict=True))
        for upper, lower in zip(matrix[::2], matrix[1::2], strict=True)
    )
