"""`cert check`, `cert needs-renewal` and `cert path`: certificates as they are, node or no node."""

import datetime as dt
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.clock import wall_s
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from tests.cli.command import Certmesh

DAY_S = 86_400


def write_pair(directory: Path, *, serial: int, from_days: int, to_days: int) -> Path:
    """Write key and self-signed certificate, valid from and to so many days from now."""
    directory.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "atlas")])
    now = dt.datetime.fromtimestamp(wall_s(), dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now + dt.timedelta(days=from_days))
        .not_valid_after(now + dt.timedelta(days=to_days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("atlas.internal")]), False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (directory / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (directory / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return directory / "cert.pem"


@contextmanager
def serving(pair: Path) -> Iterator[str]:
    """Serve a pair over TLS; a client certificate is required, as mesh ports do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair / "cert.pem", pair / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=_answer_once, args=(listener, context))
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def _answer_once(listener: socket.socket, context: ssl.SSLContext) -> None:
    accepted, _ = listener.accept()
    with accepted:
        try:
            context.wrap_socket(accepted, server_side=True).close()
        except OSError:
            return  # the caller has no certificate and leaves: it saw ours already


def test_a_served_certificate_is_told_also_behind_mutual_tls(
    tmp_path: Path, certmesh: Certmesh
) -> None:
    """The server shows its certificate before it asks for ours."""
    write_pair(tmp_path / "p", serial=0x4C11, from_days=-1, to_days=10)
    with serving(tmp_path / "p") as door:
        said = certmesh("cert", "check", door, "--json")
    assert said.status == Exit.OK
    assert (said.body["serial"], said.body["names"]) == ("4c11", ["atlas.internal"])
    assert said.body["matches"] is None


def test_a_service_that_was_not_reloaded_is_stale(
    member_home: Paths, tmp_path: Path, certmesh: Certmesh
) -> None:
    """Renewed on disk, old on the port: the failure nobody notices until it expires."""
    live = member_home.certificates / "atlas" / "live"
    write_pair(live, serial=0xB39D, from_days=-1, to_days=30)
    write_pair(tmp_path / "p", serial=0x4C11, from_days=-1, to_days=10)
    with serving(tmp_path / "p") as door:
        stale = certmesh("cert", "check", door, "--name", "atlas")
    assert stale.status == Exit.ATTENTION
    assert "STALE: the live certificate is b39d" in stale.out
    with serving(live) as door:
        assert certmesh("cert", "check", door, "--name", "atlas").status == Exit.OK


def test_an_expired_certificate_needs_attention(tmp_path: Path, certmesh: Certmesh) -> None:
    """It is shown all the same; not trusting it is not the question."""
    write_pair(tmp_path / "p", serial=1, from_days=-9, to_days=-2)
    with serving(tmp_path / "p") as door:
        said = certmesh("cert", "check", door)
    assert said.status == Exit.ATTENTION
    assert "expired" in said.out


def test_a_closed_port_is_status_four(certmesh: Certmesh) -> None:
    """And a word that is no door is wrong usage."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert certmesh("cert", "check", f"127.0.0.1:{port}").status == Exit.UNREACHABLE
    for text in ("localhost", "localhost:", ":1", "localhost:99999", "a:b"):
        assert certmesh("cert", "check", text).status == Exit.USAGE


@pytest.mark.parametrize("name", ["../../etc", "..", "nobody", "a/b"])
def test_a_name_cannot_leave_the_directory(
    name: str, member_home: Paths, certmesh: Certmesh
) -> None:
    """`--name` is a host, not a path."""
    assert member_home.home.exists()
    assert certmesh("cert", "check", "127.0.0.1:1", "--name", name).status == Exit.NO_MESH


@pytest.mark.parametrize(
    ("from_days", "to_days", "status"), [(-25, 5, 0), (-1, 29, 1), (-40, -10, 0)]
)
def test_needs_renewal_answers_by_status(
    from_days: int, to_days: int, status: int, member_home: Paths, certmesh: Certmesh
) -> None:
    """Zero needs, one does not, as step says it; nothing has to run for it."""
    live = member_home.certificates / "atlas" / "live"
    write_pair(live, serial=1, from_days=from_days, to_days=to_days)
    assert certmesh("cert", "needs-renewal").status == status


def test_needs_renewal_takes_a_file_and_a_limit(
    paths: Paths, tmp_path: Path, certmesh: Certmesh
) -> None:
    """Two is missing, 255 is everything else."""
    assert paths.settings.exists()
    file = write_pair(tmp_path / "p", serial=1, from_days=-1, to_days=10)
    assert certmesh("cert", "needs-renewal", str(file), "--expires-in", "11d").status == 0
    assert certmesh("cert", "needs-renewal", str(file), "--expires-in", "9d").status == 1
    assert certmesh("cert", "needs-renewal", str(tmp_path / "none.pem")).status == 2
    file.write_text("no certificate")
    assert certmesh("cert", "needs-renewal", str(file)).status == 255
    assert certmesh("cert", "needs-renewal", str(tmp_path)).status == 255
    assert certmesh("cert", "needs-renewal", "--json").body["state"] == "missing"


def test_the_live_files_are_printed_for_a_services_configuration(
    member_home: Paths, certmesh: Certmesh
) -> None:
    """Through the link, so that the path stays right after a renewal."""
    live = member_home.certificates / "atlas" / "live"
    assert certmesh("cert", "path").status == Exit.NO_MESH
    write_pair(live, serial=1, from_days=-1, to_days=10)
    assert certmesh("cert", "path").out == f"{live}\n"
    assert certmesh("cert", "path", "fullchain").out == f"{live}/fullchain.pem\n"
    assert certmesh("cert", "path", "--json").body["files"]["key"] == f"{live}/key.pem"
