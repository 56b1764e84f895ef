"""The standard mesh of a laboratory, on short timers: atlas leads, birch and cedar stand by.

Everything is done with the commands a person types, on the host they are typed at; waiting asks
the nodes' consoles, which costs no process.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.wire.audit import AuditLine, AuditView
from broker.wire.node import StatusView
from broker.wire.roster import MemberView
from broker.wire.standby import StandbyLine, StandbysView
from tests.lab.host import Host
from tests.lab.hosts import Lab
from tests.support import eventually

NAME = "lab"
READY_S = 40.0
HOSTS = ("atlas", "birch", "cedar", "dogwood")
STANDBYS = ("birch", "cedar")
STRANGER = "elm"
TICK_S, GRACE_S, STAGGER_S = 0.5, 4.0, 2.0
TIMERS: Mapping[str, object] = {
    "failover.tick": f"{TICK_S * 1000:.0f}ms",
    "failover.grace": f"{GRACE_S:.0f}s",
    "failover.stagger": f"{STAGGER_S:.0f}s",
    "heartbeat.interval": "500ms",
    "sync.every": "5s",
    "renewal.check_every": "5s",
    "renewal.attempt_every": "1s",
    "broker.worker_dead_after": "5s",
    "ca.kdf_memory": 8_388_608,
    "ca.kdf_passes": 1,
    "log.level": "debug",
}
"""The hurry of these nodes; a stagger that no busy machine takes for noise."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """A founder, standbys, and a member that holds no key; which node leads may change."""

    lab: Lab
    nodes: tuple[Host, ...]
    passphrase: str
    pin: str

    @property
    def founder(self) -> Host:
        """The node that leads when a test begins."""
        return self.nodes[0]

    @property
    def members(self) -> tuple[Host, ...]:
        """All others."""
        return self.nodes[1:]

    def host(self, name: str) -> Host:
        """Return one of the hosts, the stranger included."""
        return self.lab.host(name)

    # Who leads.

    def view(self, name: str) -> StandbysView:
        """Return the order of succession as a key holder sees it.

        Raises:
            AssertionError: It does not answer.
        """
        return self.host(name).ask("/v1/standbys", StandbysView)

    def phase(self, name: str) -> str:
        """Return the phase of a key holder, empty when it is down."""
        return self.view(name).phase if self.host(name).answers() else ""

    def serving(self) -> list[str]:
        """Return the hosts that serve as primary now."""
        holders = [host.name for host in self.nodes if host.name != "dogwood"]
        return [name for name in holders if self.phase(name) in ("serving", "caretaking")]

    def leader(self, name: str) -> str:
        """Return whom a node follows, be it a key holder or not."""
        mesh = self.host(name).node().mesh
        return mesh.primary.host if mesh and mesh.primary else ""

    def term(self, name: str) -> int:
        """Return the highest term whose primary a node knows."""
        return self.host(name).node().term

    def line(self, name: str, on: str) -> StandbyLine:
        """Return what one key holder knows of another."""
        (line,) = (line for line in self.view(on).lines if line.host == name)
        return line

    def is_ready(self, name: str, on: str) -> bool:
        """Whether a primary counts on this standby, which has all its rows."""
        line = self.line(name, on)
        return (line.state, line.lag) == ("ready", 0)

    def journal(self, on: str, event: str) -> list[AuditLine]:
        """Return the newest rows of one kind, oldest first."""
        rows = self.host(on).ask("/v1/audit?after=-1&limit=200", AuditView).rows
        return [row for row in rows if row.event == event]

    def serial(self, name: str, on: str) -> str:
        """Return the serial of the newest certificate that a CA node knows of a member."""
        return self._member(name, on).member.serial

    def is_revoked(self, name: str, serial: str, on: str) -> bool:
        """Whether a CA node has put a certificate of this member out."""
        found = {line.serial: line.state for line in self._member(name, on).certificates}
        return found[serial] == "revoked"

    def _member(self, name: str, on: str) -> MemberView:
        return self.host(on).ask(f"/v1/members/{name}", MemberView)

    def enroll_stranger(self) -> str:
        """Make the stranger a member whose pool does not run; return its serial."""
        stranger, revoke = self.host(STRANGER), ("member", "revoke", STRANGER, "--yes")
        if self.states(self.founder.name).get(STRANGER, "revoked") != "revoked":
            self.founder.certmesh(*revoke, "--reason", "it comes again")
        shutil.rmtree(stranger.home, ignore_errors=True)
        join(stranger, invite(self.founder, STRANGER))
        return self.serial(STRANGER, on=self.founder.name)

    # Order.

    def lines(self, on: Host | None = None) -> dict[str, dict[str, Any]]:
        """Return the roster as `certmesh status` shows it on a CA node (the founder), by host."""
        shown = (on or self.founder).status()
        return {line["host"]: line for line in shown.get("members", ())}

    def states(self, on: str) -> dict[str, str]:
        """Return what a CA node thinks of every member."""
        members = self.host(on).ask("/v1/status", StatusView).members
        return {member.host: member.state for member in members}

    def all_up(self, on: str) -> bool:
        """Whether a CA node hears every node, and is content with what it hears."""
        states = self.states(on)
        return all(states.get(host.name) == "up" for host in self.nodes)

    def is_whole(self) -> bool:
        """Whether the founder leads, its standbys are in step, and it hears everybody."""
        return (
            self.serving() == [self.founder.name]
            and all(self.is_ready(name, self.founder.name) for name in STANDBYS)
            and all(self.phase(name) == "following" for name in STANDBYS)
            and all(self.leader(host.name) == self.founder.name for host in self.members)
            and self.all_up(self.founder.name)
        )

    def mend(self) -> None:
        """Give every node power, processes, its key and perfect links, and the founder the lead."""
        self.lab.heal()
        down = [host.name for host in self.nodes if not host.answers()]
        if down:
            self.lab.each(_revive, down)
        for name in (self.founder.name, *STANDBYS):
            if self.host(name).node().ca == "locked":
                self.host(name).certmesh(
                    *("ca", "unlock", "--passphrase-file", "-"), text=self.passphrase + "\n"
                )
        eventually(self._handed_back, within_s=2 * READY_S)
        eventually(self.is_whole, within_s=READY_S)

    def _handed_back(self) -> bool:
        """Whether the founder leads alone; who leads instead is asked to step down, each time.

        Two may have led until the net was mended, and a standby says that it is ready a moment
        before its primary has its word for the rows.
        """
        leaders = self.serving()
        if leaders == [self.founder.name] or len(leaders) != 1:
            return leaders == [self.founder.name]
        (leader,) = leaders
        if self.is_ready(self.founder.name, leader):
            self.host(leader).run("standby", "step-down", "--to", self.founder.name, "--yes")
        return False


def found_mesh(lab: Lab) -> Mesh:
    """Return a running mesh of the standard hosts; nothing runs on them yet."""
    founder, *others = (lab.host(name) for name in HOSTS)
    created = founder.certmesh("init", NAME, *node_words(founder))
    founder.start_pool()
    names = [host.name for host in others]
    lab.each(lambda host: join(host, invite(founder, host.name)), names)
    lab.each(Host.start_pool, names)
    for name in STANDBYS:
        founder.certmesh("standby", "nominate", name, "--wait", f"{READY_S:.0f}s")
    mesh = Mesh(lab, (founder, *others), created["passphrase"], created["pin"])
    eventually(mesh.is_whole, within_s=READY_S)
    return mesh


def invite(issuer: Host, name: str) -> str:
    """Return a fresh invite for a host."""
    return str(issuer.certmesh("invite", "create", name)["invite"])


def join(host: Host, ticket: str) -> None:
    """Make a host a member; its pool is not started."""
    host.certmesh("join", "-", *node_words(host), text=ticket + "\n")


def node_words(host: Host) -> list[str]:
    """Return the options of `init` and `join` that fit a host; JSON values are TOML values."""
    settings = {"discovery.interfaces": [host.address], **TIMERS}
    words = ["--node-name", host.name, "--listen", host.address]
    for key, value in settings.items():
        words += ["--setting", f"{key}={json.dumps(value)}"]
    return words


def _revive(host: Host) -> None:
    if not host.is_on:
        host.power_on()
    host.start_pool()
