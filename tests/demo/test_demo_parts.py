"""The demo's own parts: its service, its directory, its options."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from broker.cli.demo import main
from broker.cli.demo.board import Board, tail
from broker.cli.demo.command import StepRange
from broker.cli.demo.failure import StepError, until
from broker.cli.demo.foreign import foreign_identity
from broker.cli.demo.node import Answer, Node, pick
from broker.cli.demo.place import MARK, claim, clear, nodes_in, setting_flags
from broker.cli.demo.script import STEPS, chosen
from broker.cli.demo.tls import Connection, Door, client_context, refusal, served_serial
from tests.demo.authority import Authority, free_port
from tests.support import eventually


class Service:
    """The demo's HTTPS service, running on a certificate of our own CA."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.authority = Authority()
        self.live = home / "certs" / "node-c" / "live"
        self.live.parent.mkdir(parents=True)
        self.pid_file = home / "app.pid"
        self.door = Door("127.0.0.1", free_port(), "node-c.demo.internal")
        self.trust = home / "root.pem"
        self.trust.write_bytes(self.authority.pem)
        self.caller = self.authority.write(home / "caller", "node-b.demo.internal")
        self.install(1)
        words = (str(self.live), "127.0.0.1", str(self.door.port), str(self.pid_file))
        self.process = subprocess.Popen((sys.executable, "-m", "broker.cli.demo.app", *words))
        eventually(self.pid_file.exists)

    def install(self, version: int) -> None:
        """Put a new pair on disk and swap `live`, as the renewal worker does."""
        directory = self.live.parent / f"v{version:04}"
        self.authority.write(directory, self.door.server_name)
        staged = self.live.with_name("staged")
        staged.symlink_to(directory.name)
        staged.replace(self.live)

    def reload(self) -> int:
        """Run the hook as the renewal worker does; return its status."""
        environ = {**os.environ, "CERTMESH_LIVE_DIR": str(self.live)}
        words = (sys.executable, "-m", "broker.cli.demo.reload", str(self.pid_file))
        return subprocess.run(words, env=environ, check=False).returncode

    def serial(self) -> str:
        """Return the serial that a fresh handshake shows."""
        return served_serial(self.door, client_context(self.trust, self.caller))


@pytest.fixture
def service(home: Path) -> Iterator[Service]:
    """The service, stopped at the end."""
    running = Service(home)
    yield running
    running.process.terminate()
    running.process.wait()


def test_the_service_greets_a_member_and_refuses_everybody_else(service: Service) -> None:
    """With a certificate of the mesh, without one, with another CA's."""
    connection = Connection(service.door, client_context(service.trust, service.caller))
    connection.connect()
    status, body = connection.get("/")
    connection.close()
    assert (status, body) == (200, b"hello node-b, this is node-c\n")
    assert refusal(service.door, client_context(service.trust, None))
    stranger = foreign_identity(service.home / "foreign", "node-b.demo.internal")
    assert refusal(service.door, client_context(service.trust, stranger))


def test_a_served_request_is_no_refusal(service: Service) -> None:
    """The probe for refusals can fail: it is evidence only because of that."""
    with pytest.raises(StepError, match="served a caller it had to refuse"):
        refusal(service.door, client_context(service.trust, service.caller))


def test_a_reload_swaps_the_certificate_and_keeps_open_connections(service: Service) -> None:
    """A renewal must not cost anybody a connection."""
    connection = Connection(service.door, client_context(service.trust, service.caller))
    connection.connect()
    assert connection.get("/")[0] == 200
    line, before = connection.tls, service.serial()
    service.install(2)
    assert service.reload() == 0
    assert service.serial() != before
    assert connection.get("/")[0] == 200
    assert connection.sock is line
    connection.close()


def test_a_broken_pair_leaves_the_old_certificate_in_service(service: Service) -> None:
    """Loading into the live context would break the listener; a context of its own does not."""
    before = service.serial()
    service.install(2)
    (service.live / "key.pem").write_bytes((service.caller.key).read_bytes())
    os.kill(service.process.pid, 1)
    assert eventually(lambda: service.serial() == before)
    assert service.process.poll() is None


def test_a_connection_that_was_closed_is_not_opened_again_silently(service: Service) -> None:
    """Otherwise "the connection survived" would be true of any service that still runs."""
    connection = Connection(service.door, client_context(service.trust, service.caller))
    connection.connect()
    assert connection.get("/")[0] == 200
    connection.close()
    with pytest.raises(Exception, match=r"^$"):
        connection.get("/")


def test_the_foreign_authority_names_our_members_and_nothing_else_matches(home: Path) -> None:
    """Names prove nothing: only the key of our CA does."""
    identity = foreign_identity(home / "foreign", "node-b.demo.internal")
    leaf = x509.load_pem_x509_certificate(identity.certificate.read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["node-b.demo.internal"]
    key = serialization.load_pem_private_key(identity.key.read_bytes(), None)
    assert key.public_key() == leaf.public_key()


def test_a_directory_that_is_not_the_demos_is_never_removed(home: Path) -> None:
    """`--home ~` must not cost anybody their home."""
    precious = home / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("ten years")
    with pytest.raises(StepError, match="not a demo's directory"):
        claim(precious)
    with pytest.raises(StepError):
        clear(precious)
    assert main(["--clean", "--home", str(precious)]) == 1
    assert (precious / "thesis.txt").read_text() == "ten years"


def test_the_demo_replaces_its_own_earlier_directory(home: Path) -> None:
    """The second run starts where the first one did."""
    place = claim(home / "demo")
    (place / "node-a").mkdir()
    assert claim(home / "demo") == place
    assert [entry.name for entry in place.iterdir()] == [MARK]
    assert clear(home / "demo")
    assert not (home / "demo").exists()
    assert not clear(home / "demo")


def test_a_checkout_too_deep_for_sockets_still_gets_a_demo(home: Path) -> None:
    """The directory then is a link to a short one, removed together with it."""
    deep = home / ("d" * 90) / "demo"
    deep.parent.mkdir()
    place = claim(deep)
    assert deep.is_symlink()
    assert (place / MARK).exists()
    assert clear(deep)
    assert not deep.is_symlink()
    assert not place.exists()


def test_a_process_with_a_reused_pid_is_not_taken_for_our_supervisord(home: Path) -> None:
    """Cleaning up must never signal a stranger."""
    node = Node("node-a", "127.0.0.1", home)
    table = home / "supervisord.conf"
    table.write_text("[supervisord]\npidfile=%(here)s/supervisord.pid\n")
    (home / "supervisord.pid").write_text(str(os.getpid()))
    assert node.supervisor_pid() is None
    words = (sys.executable, "-c", "input()", "-c", str(table))
    with subprocess.Popen(words, stdin=subprocess.PIPE) as ours:
        (home / "supervisord.pid").write_text(str(ours.pid))
        assert eventually(lambda: node.supervisor_pid() == ours.pid)
        ours.communicate(b"\n")
    assert node.supervisor_pid() is None


def test_settings_become_options_whose_values_are_toml(home: Path) -> None:
    """What the demo asks for is what the file says."""
    flags = setting_flags(nodes_in(home)[2])
    assert 'node.addresses=["127.0.0.3"]' in flags
    assert 'policy.leaf_lifetime="60s"' in flags
    assert "policy.renew_at=0.333" in flags
    assert flags[::2] == ["--setting"] * (len(flags) // 2)


@pytest.mark.parametrize(
    ("text", "numbers"), [("6", {6}), ("1-6", {1, 2, 3, 4, 5, 6}), ("1-2,12", {1, 2, 12})]
)
def test_a_range_of_steps_is_read_as_people_write_it(text: str, numbers: set[int]) -> None:
    """`--only 1-6`."""
    assert StepRange().convert(text, None, None) == numbers


@pytest.mark.parametrize("text", ["", "a", "1-", "99", "-"])
def test_a_range_without_any_step_is_wrong_usage(text: str) -> None:
    """Not a demo of nothing that passes."""
    with pytest.raises(click.UsageError):
        StepRange().convert(text, None, None)


def test_a_chosen_step_brings_what_it_stands_on() -> None:
    """`--only 12` needs node-c, which needs the mesh."""
    assert [step.number for step in chosen(frozenset({12}))] == [1, 2, 4, 12]
    assert chosen(frozenset()) == STEPS


def test_every_step_keeps_the_number_and_name_it_was_announced_with() -> None:
    """Scripts read them."""
    assert {step.number: step.name for step in STEPS} == {
        1: "start nodes",
        2: "create mesh",
        3: "node-b joins",
        4: "node-c joins",
        5: "mutual TLS",
        6: "renewal + hook",
        7: "kill a worker",
        8: "hot standby",
        9: "kill the primary",
        10: "renew at the heir",
        11: "node-a returns",
        12: "revoke node-c",
        13: "audit",
    }


def test_a_failed_step_tells_why_what_to_do_and_the_end_of_the_log(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The person reading it goes on from there."""
    log = home / "broker.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    error = StepError("the port is shut", todo="certmesh up", log=log)
    Board(json=False, colour=False).failed(5, "mutual TLS", error, 1.2)
    shown = capsys.readouterr().out
    assert "FAIL" in shown
    assert "why   the port is shut" in shown
    assert "do    certmesh up" in shown
    assert "line 99" in shown
    assert "line 80" not in shown
    assert "\x1b" not in shown


def test_a_log_cannot_steer_the_terminal(home: Path) -> None:
    """What other machines wrote is shown, not obeyed."""
    log = home / "gateway.log"
    log.write_text("join from \x1b[2Jevil\n")
    assert "\x1b" not in "".join(tail(log))
    assert tail(home / "nowhere.log") == ["(no such log)"]


def test_waiting_ends_with_the_reason_of_the_last_look() -> None:
    """A time-out without a cause helps nobody."""

    def probe() -> bool:
        raise StepError("connection refused")

    with pytest.raises(StepError, match=r"the port open: not within 0.1 s \(connection refused\)"):
        until("the port open", probe, 0.1)


def test_an_answer_is_found_wherever_the_command_puts_it() -> None:
    """Outermost first, so that a nested field of the same name never wins."""
    answer = {"schema": "s", "node": {"role": "member"}, "members": [{"role": "primary"}]}
    assert pick(answer, "role") == "member"
    assert pick(answer, "nothing") is None


def test_a_refusal_is_told_with_its_own_words() -> None:
    """Code for the assertion, sentence for the person."""
    refused = Answer(7, ({"code": "pin_mismatch", "detail": "another CA"},), "", ("join",))
    assert refused.code == "pin_mismatch"
    assert "exit 7, another CA" in refused.sentence


def test_ports_in_use_end_the_demo_with_one_object_and_status_one(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two demos at once: the second says so and leaves the first alone."""
    import socket  # noqa: PLC0415 (only this test takes a port)

    with socket.create_server(("127.0.0.2", 18742)):
        assert main(["--json", "--home", str(home / "demo")]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert shown["schema"] == "certmesh.demo/1"
    assert shown["failed"] == 1
    assert "cannot be used" in shown["steps"][0]["detail"]
