"""Members on paper: they join, beat, are renewed, leave, and others take their places."""

import hashlib
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from broker.clock import wall_s
from broker.errors import MeshError
from broker.wire.control import Ack
from broker.wire.enrollment import CreateInvite, InviteView, Issued, JoinAnswer, RevokeInvite
from broker.wire.ids import Service
from broker.wire.renewal import RenewalAnswer, RenewAsPeer, ReportInstalled
from broker.wire.roster import (
    HeartbeatAnswer,
    LeaveMesh,
    MemberView,
    RecordHeartbeat,
    RenameMember,
    RevocationAnswer,
    RevokeMember,
)
from tests.shell.mesh_room import Room
from tests.shell.office import issued_of, join_request, make_csr, peer_of

LATE_S = 1200
"""Who has less than this left was not renewed in time and comes by itself."""
KEEP = 24
"""How many live at a time: what is in proportion to them stays as it is."""


@dataclass
class Crowd:
    """The live ones by host, oldest first; `done` counts what happened, `refused` what did not."""

    room: Room
    live: OrderedDict[str, Issued] = field(default_factory=OrderedDict)
    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    number: int = 0
    csr: bytes = field(default_factory=lambda: make_csr("paper"))

    def attempt(self, name: str, act: Callable[[], object]) -> None:
        """Do something that the mesh may refuse at this moment; a refusal has to be typed."""
        try:
            act()
        except MeshError as error:
            self.refused[f"{name}: {error.code.value}"] += 1
        else:
            self.done[name] += 1

    def new_host(self) -> str:
        """Return a name that nobody had before."""
        self.number += 1
        return f"m{self.number:05}"

    def join(self, host: str = "", *, rejoin: bool = False) -> None:
        """Let a host join by invite."""
        host, secret = host or self.new_host(), secrets.token_urlsafe(8)
        digest = hashlib.sha256(secret.encode()).hexdigest()
        primary = self.room.primary()
        invite = CreateInvite(digest, host, (), 3600, "ann", rejoin=rejoin)
        primary.ask(Service.CONSOLE, invite, InviteView)
        request = join_request(host, make_csr(host), invite_secret=secret, source=self.source())
        self.live[host] = issued_of(primary.ask(Service.GATEWAY, request, JoinAnswer))
        self.live.move_to_end(host)

    def source(self) -> str:
        """Return another address each time."""
        number = secrets.randbelow(1 << 16)
        return f"10.7.{number >> 8}.{number & 255}"

    def void_invite(self) -> None:
        """Make an invite and take it back."""
        digest, console = secrets.token_hex(32), Service.CONSOLE
        primary = self.room.primary()
        invite = CreateInvite(digest, self.new_host(), (), 3600, "ann")
        made = primary.ask(console, invite, InviteView)
        primary.ask(console, RevokeInvite(made.invite_id, "ann"), Ack)

    def oldest(self) -> str:
        """Return who has been here longest."""
        return next(iter(self.live))

    def revoke(self) -> None:
        """Put the oldest out."""
        host = self.oldest()
        request = RevokeMember(host, "churn", "ann")
        self._note_pause(host)
        self.room.primary().ask(Service.CONSOLE, request, RevocationAnswer)
        del self.live[host]

    def leave(self) -> None:
        """Let the oldest give its certificate back."""
        host = self.oldest()
        request = LeaveMesh(peer_of(self.live[host], host))
        self._note_pause(host)
        self.room.primary().ask(Service.GATEWAY, request, Ack)
        del self.live[host]

    def _note_pause(self, host: str) -> None:
        """Count those who go while their renewals fail: somebody waits for their next attempt."""
        state = self.room.primary().office.desk.state
        member = state.ledger.member_by_host(host)
        if member is not None and ("member", member.member_id) in state.backoff:
            self.done["gone while failing"] += 1

    def rejoin(self) -> None:
        """Let the oldest lose its disk and join again under its name."""
        self.join(self.oldest(), rejoin=True)

    def rename(self) -> None:
        """Give the oldest another name; its certificate follows with the next renewal."""
        host, name = self.oldest(), self.new_host()
        self.room.primary().ask(Service.CONSOLE, RenameMember(host, name, "ann"), MemberView)
        self.live[name] = self.live.pop(host)

    def beat(self) -> None:
        """Let everybody say that it lives, to every key holder that is up."""
        for node in self.room.nodes.values():
            if not node.down and node.role in {"primary", "standby"}:
                pin = node.office.desk.state.known_mesh().pin
                for host, issued in self.live.items():
                    beat = _beat(issued, host, pin)
                    self.attempt("beat", partial(node.ask, Service.GATEWAY, beat, HeartbeatAnswer))

    def pull(self) -> None:
        """Let those renew themselves whose renewal is late."""
        for host, issued in list(self.live.items()):
            if issued.not_after - wall_s() < LATE_S:
                self.attempt("pull", partial(self._pull, host, issued))

    def _pull(self, host: str, issued: Issued) -> None:
        primary = self.room.primary()
        request = RenewAsPeer(peer_of(issued, host), make_csr(host))
        renewed = primary.ask(Service.GATEWAY, request, RenewalAnswer).issued
        self.live[host] = renewed
        report = ReportInstalled(renewed.serial, "served", "", peer_of(renewed, host))
        primary.ask(Service.GATEWAY, report, Ack)

    def renewed(self, host: str, issued: Issued) -> None:
        """Note what a worker of the CA delivered."""
        if host in self.live:
            self.live[host] = issued


def _beat(issued: Issued, host: str, pin: str) -> RecordHeartbeat:
    return RecordHeartbeat(
        peer=peer_of(issued, host),
        pin=pin,
        served_serial=issued.serial,
        served_not_after=issued.not_after,
        served="served",
        endpoint=None,
        clock=wall_s(),
        bundle_sequence=0,
        term=1,
    )
