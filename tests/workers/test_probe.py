"""Looking at live ports: which certificate they serve, and whose it is."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from tests.workers.small_ca import DOMAIN, SmallCA
from workers.renewal.hook import PlainPause
from workers.renewal.logic import judge
from workers.renewal.probe import NAME_LENGTH_MAX, Prober, Seen, look_at

APP = f"app.{DOMAIN}"


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """One CA is enough for all tests here."""
    return SmallCA()


@contextlib.contextmanager
def tls_port(
    ca: SmallCA, directory: Path, host: str = "app", address: str = "127.0.0.1"
) -> Iterator[tuple[str, str, list[str]]]:
    """Serve one certificate on a port; yield target, serial, and the names that were asked for."""
    fullchain, key = ca.pair(host)
    (directory / "c.pem").write_bytes(fullchain)
    (directory / "k.pem").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "c.pem", directory / "k.pem")
    asked: list[str] = []
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    serial = format(x509.load_pem_x509_certificate(fullchain).serial_number, "x")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, *_ = listener.accept()
                with context.wrap_socket(connection, server_side=True) as secured:
                    secured.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        shown = f"[{address}]" if ":" in address else address
        yield f"tcp://{shown}:{listener.getsockname()[1]}", serial, asked
        thread.join(5)


def test_a_probe_reads_the_serial_that_a_real_port_serves(ca: SmallCA, tmp_path: Path) -> None:
    """Whatever the port's chain is: only the serial matters here."""
    with tls_port(ca, tmp_path) as (target, serial, _):
        assert look_at(target, APP) == Seen(serial)


def test_a_probe_asks_for_the_nodes_own_server_name(ca: SmallCA, tmp_path: Path) -> None:
    """One port may serve many hosts; the one that matters has to answer."""
    with tls_port(ca, tmp_path) as (target, _, asked):
        look_at(target, APP)
    assert asked == [APP]


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_a_probe_reaches_a_port_on_an_ipv6_address(ca: SmallCA, tmp_path: Path) -> None:
    """Written with brackets, as in a URL."""
    with tls_port(ca, tmp_path, address="::1") as (target, serial, _):
        assert target.startswith("tcp://[::1]:")
        assert look_at(target, APP) == Seen(serial)


def test_a_port_that_serves_another_certificate_altogether_is_told_by_its_owner(
    ca: SmallCA, tmp_path: Path
) -> None:
    """The wrong port in the settings, or the wrong virtual host: the reload is not to blame."""
    with tls_port(ca, tmp_path, host="printer") as (target, serial, _):
        seen = look_at(target, APP)
        results = Prober(PlainPause(), look=lambda *_: seen).glance((target,), "1", APP)
        verdict = judge((), results, may_roll_back=False)
    assert seen == Seen(serial, "subject CN=printer, issuer CN=test issuing")
    assert verdict.state == "stale"
    assert verdict.detail == (
        f"{target} serves another certificate: subject CN=printer, issuer CN=test issuing"
    )


def test_what_a_foreign_certificate_says_of_itself_cannot_forge_lines(
    tmp_path: Path,
) -> None:
    """The text goes into logs and on screens, and whoever has the port chose it."""
    evil = SmallCA("\x1b[2J\n" + "y" * 47)
    with tls_port(evil, tmp_path, host="e" * 60) as (target, _, _):
        stranger = look_at(target, APP).stranger
    assert stranger.isprintable()
    assert len(stranger) == len("subject , issuer ") + 2 * NAME_LENGTH_MAX


def test_every_target_is_looked_at_and_one_that_lags_is_named() -> None:
    """A service with two ports has reloaded when both show it."""
    served = {"tcp://a:1": "aa", "tcp://b:2": "old"}
    prober = Prober(PlainPause(), wait_ms=300, look=lambda target, _: Seen(served[target]))
    results = prober.probe(tuple(served), "aa", APP)
    assert [result.served for result in results] == [True, False]
    assert judge((), results, may_roll_back=False).detail == "tcp://b:2 still serves old"


@pytest.mark.parametrize(
    "target",
    ["tcp://127.0.0.1:1", "udp://127.0.0.1:1", "127.0.0.1:443", "tcp://[::1", "tcp://h:99999"],
)
def test_a_probe_of_nothing_finds_nothing(target: str) -> None:
    """A typing error in the settings must not end the worker."""
    assert look_at(target, APP) == Seen()


def test_a_port_that_does_not_speak_tls_does_not_answer() -> None:
    """Such as one that wants STARTTLS first: it waits for us, or greets in clear."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"220 mail.example ESMTP\r\n")
                connection.recv(1024)

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        assert look_at(f"tcp://127.0.0.1:{listener.getsockname()[1]}", APP) == Seen()
        thread.join(5)


@contextlib.contextmanager
def postgresql_port(ca: SmallCA, directory: Path, answer: bytes) -> Iterator[tuple[str, str]]:
    """Answer an SSLRequest, then speak TLS if the answer says so; yield target and serial."""
    fullchain, key = ca.pair("app")
    (directory / "c.pem").write_bytes(fullchain)
    (directory / "k.pem").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "c.pem", directory / "k.pem")
    serial = format(x509.load_pem_x509_certificate(fullchain).serial_number, "x")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, *_ = listener.accept()
                with connection:
                    if connection.recv(8) == bytes.fromhex("0000000804d2162f"):
                        connection.sendall(answer)
                    if answer == b"S":
                        with context.wrap_socket(connection, server_side=True) as secured:
                            secured.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"postgresql://127.0.0.1:{listener.getsockname()[1]}", serial
        thread.join(5)


def test_a_postgresql_port_is_asked_for_tls_first(ca: SmallCA, tmp_path: Path) -> None:
    """It closes on a ClientHello that comes as the first octets."""
    with postgresql_port(ca, tmp_path, b"S") as (target, serial):
        assert look_at(target, APP) == Seen(serial)


def test_a_postgresql_port_without_tls_serves_nothing(ca: SmallCA, tmp_path: Path) -> None:
    """`N`: the certificate did not reach it."""
    with postgresql_port(ca, tmp_path, b"N") as (target, _):
        assert look_at(target, APP) == Seen()
