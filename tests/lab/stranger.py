"""What a hostile host on the LAN does: asks, answers as somebody else, repeats what was said."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from broker.clock import wall_s
from broker.wire.claims import Gossip
from broker.wire.mesh_api import HeartbeatBody
from tests.lab.forger import membership_of
from tests.lab.host import Host
from tests.lab.machine import CARD, mac_of
from tests.lab.mesh import STRANGER, Mesh

ENROLL_PORT, MESH_PORT = 7642, 7643
ANNOUNCER = (sys.executable, "-m", "tests.lab.announcer")
CALLER = (sys.executable, "-m", "tests.lab.caller")
IMPOSTOR = (sys.executable, "-m", "tests.lab.impostor")


@dataclass(slots=True)
class Attempt:
    """What an impostor came to; known when it is over."""

    answers: Path
    asked: dict[str, int] = field(default_factory=dict)
    refused: int = 0

    def offer(self, answers: Mapping[str, bytes]) -> None:
        """Answer these questions from now on."""
        encoded = {what: base64.b64encode(body).decode() for what, body in answers.items()}
        fresh = self.answers.with_suffix(".new")
        fresh.write_text(json.dumps(encoded))
        fresh.replace(self.answers)


def identity_of(host: Host) -> Path:
    """Return the directory of a host's live certificate and key."""
    return (host.home / "certs" / host.name / "live").resolve()


def ask(
    source: Host, target: Host, question: str, body: msgspec.Struct | None, identity: Path | None
) -> dict[str, Any]:
    """Ask a door of another node from a host; `question` is `POST /v1/hello` and the like."""
    trust = source.home / "seen-root.pem"
    trust.parent.mkdir(exist_ok=True)
    membership = membership_of(target)
    trust.write_text(membership.root_pem)
    method, path = question.split()
    port = MESH_PORT if method == "POST" else ENROLL_PORT
    words = (target.address, str(port), membership.server_name, str(trust), str(identity or "-"))
    text = "" if body is None else msgspec.json.encode(body).decode()
    done = source.execute(*CALLER, *words, method, path, text=text)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def body_of(answer: Mapping[str, Any]) -> bytes:
    """Return the body of an answer that was one."""
    assert answer.get("status") == 200, answer
    return base64.b64decode(answer["body"])


def heartbeat(mesh: Mesh, serial: str, gossip: Gossip | None = None) -> HeartbeatBody:
    """Return what a member with this certificate says, and what it claims to have heard."""
    return HeartbeatBody(
        pin=mesh.pin,
        served_serial=serial,
        served="unknown",
        clock=wall_s(),
        bundle_sequence=0,
        term=1,
        gossip=gossip or Gossip(),
    )


@contextmanager
def pretending(
    mesh: Mesh, address: str, identity: Path, answers: Mapping[str, bytes]
) -> Iterator[Attempt]:
    """Serve at one of the stranger's addresses with a certificate, while inside."""
    stranger = mesh.host(STRANGER)
    attempt = Attempt(stranger.home / "answers.json")
    attempt.answers.parent.mkdir(exist_ok=True)
    attempt.offer(answers)
    words = (address, str(MESH_PORT), str(identity), str(attempt.answers))
    with stranger.background(*IMPOSTOR, *words) as impostor:
        expect_ready(impostor)
        yield attempt
        out, _ = impostor.communicate("", timeout=20)
    told = json.loads(out)
    attempt.asked, attempt.refused = told["asked"], told["refused"]


@contextmanager
def announcing(mesh: Mesh, instance: str, **claims: str) -> Iterator[None]:
    """Announce the stranger's mesh port under a name, with these TXT records, while inside."""
    stranger = mesh.host(STRANGER)
    pairs = [f"{key}={value}" for key, value in claims.items()]
    words = (stranger.address, instance, stranger.address, str(MESH_PORT), *pairs)
    with stranger.background(*ANNOUNCER, *words) as announcer:
        expect_ready(announcer)
        yield


@contextmanager
def deceived(mesh: Mesh, victims: tuple[str, ...], whom: str) -> Iterator[str]:
    """Make victims send to the stranger what is for `whom`, as a forged ARP answer does."""
    stranger, address = mesh.host(STRANGER), mesh.host(whom).address
    liar = mac_of(stranger.address)
    _shell(stranger, f"ip addr add {address}/32 dev {CARD}")
    for victim in victims:
        host = mesh.host(victim)
        _shell(stranger, _neighbour(host.address, mac_of(host.address)))
        _shell(host, _neighbour(address, liar))
    try:
        yield address
    finally:
        for victim in victims:
            _shell(mesh.host(victim), _neighbour(address, mac_of(address)))
        stranger.power_off()
        stranger.power_on()


def expect_ready(process: "subprocess.Popen[str]") -> None:
    """Wait until a program says that it is ready."""
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def _neighbour(address: str, mac: str) -> str:
    return f"ip neigh replace {address} lladdr {mac} dev {CARD} nud permanent"


def _shell(host: Host, command: str) -> None:
    done = host.execute("sh", "-c", command)
    assert done.returncode == 0, (host.name, command, done.stderr)
