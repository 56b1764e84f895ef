"""`python -m broker rehearse SETTINGS`: take over on copies, and say what would go wrong.

Invariants: the live ledger and the live CA directory are only read; the copies lie in a directory
of mode 0700 that is gone when this ends, however it ends. The throwaway certificate is a real one:
it lives for a minute, its private key never leaves this process's memory, and no door of the mesh
takes it, because the live roster does not know its serial.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from broker.clock import boottime_ms, wall_s
from broker.errors import LedgerDamagedError, MeshError, NoMeshError
from broker.ledger.rows import MemberRow, MeshRow
from broker.ledger.sqlite import Ledger
from broker.pki.authority import fingerprint
from broker.pki.issuer import Issuer
from broker.pki.seal import open_with_credential
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.shell.copies import copy_authority, copy_ledger, private_place
from broker.shell.membership import read_membership
from broker.shell.throwaway import throwaway
from broker.shell.vault import load_vault, read_credential
from broker.wire.console_api import Rehearsal, RehearsalStep
from broker.wire.facts import FailoverPromoted
from broker.wire.node import Membership

ACTOR = "drill"
TEXT_MAX = 1024


class Answer(NamedTuple):
    """What a question came to; trouble is raised instead."""

    state: Literal["ok", "warn", "skip"]
    detail: str
    hint: str = ""


def rehearse(settings: Settings, paths: Paths) -> int:
    """Print a `Rehearsal` as JSON; exit 1 when a step failed."""
    del settings
    with private_place() as place:
        trial = Trial(paths, place)
        try:
            found = trial.run()
        finally:
            trial.close()
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    failed = any(step.state == "fail" for step in found.steps)
    return Exit.FAILED if failed else Exit.OK


class Trial:
    """One takeover on copies.

    Args:
        paths: The live node, read only.
        place: A private directory for the copies.
    """

    def __init__(self, paths: Paths, place: Path) -> None:
        self._paths, self._place = paths, place
        self._steps: list[RehearsalStep] = []
        self._ledger: Ledger | None = None
        self._issuer: Issuer | None = None
        self._membership: Membership | None = None

    def run(self) -> Rehearsal:
        """Ask every question whose ground holds; the others are skipped, visibly."""
        whole = self._ask("copies", self._copies) and self._ask("journal", self._journal)
        if not whole:
            return Rehearsal(tuple(self._steps))
        self._ask("roster", self._roster)
        found = self._described()
        # Nobody without a usable key becomes primary, so nothing is rehearsed after that.
        if self._ask("keys", self._keys) and self._ask("takeover", self._takeover):
            self._ask("certificate", self._certificate)
        return msgspec.structs.replace(found, steps=tuple(self._steps))

    def close(self) -> None:
        """Let go of the copied ledger."""
        if self._ledger is not None:
            self._ledger.close()

    def _ask(self, name: str, question: Callable[[], Answer]) -> bool:
        began = boottime_ms()
        state: Literal["ok", "warn", "fail", "skip"]
        try:
            state, detail, hint = question()
        except MeshError as error:
            state, detail, hint = "fail", error.detail, error.hint
        took = boottime_ms() - began
        step = RehearsalStep(name, state, detail[:TEXT_MAX], hint[:TEXT_MAX], took)
        self._steps.append(step)
        return state != "fail"

    def _copies(self) -> Answer:
        self._membership = read_membership(self._paths)
        if self._membership is None:
            raise NoMeshError("this node belongs to no mesh", hint="certmesh status")
        size = copy_ledger(self._paths.ledger, self._place / "ledger.db")
        files = copy_authority(self._paths.authority, self._place / "ca")
        keys = f"and {files} files of the CA" if files else "and no CA, for there is none"
        return Answer("ok", f"ledger of {-(-size // 1024)} KiB {keys}")

    def _journal(self) -> Answer:
        assert self._membership is not None
        self._ledger = ledger = Ledger.open(self._place / "ledger.db", node=self._membership.host)
        if wrong := ledger.differing_projections():
            raise LedgerDamagedError(
                f"the journal is whole, but these tables are not its fold: {', '.join(wrong)}",
                hint="stop this node; restore its ledger from a backup or a standby",
            )
        self._mesh()
        return Answer("ok", f"{ledger.head.sequence} rows, hash chain and tables verified")

    def _roster(self) -> Answer:
        standbys = self._standbys()
        if not standbys:
            raise NoMeshError(
                "the roster names no standby", hint="certmesh standby nominate HOST, on the primary"
            )
        return Answer("ok", f"standby {', '.join(standbys)}")

    def _keys(self) -> Answer:
        vault = load_vault(self._place / "ca")
        if vault is None:
            raise NoMeshError(
                "this node holds no CA key", hint="run the drill on the primary or a standby"
            )
        pins = {self._mesh().pin, self._member_of().pin, fingerprint(vault.root)}
        if len(pins) != 1:
            raise LedgerDamagedError("the root certificate, the roster and the pin disagree")
        credential = read_credential(self._paths.credential)
        if credential is None or all(slot.kind != "credential" for slot in vault.sealed.slots):
            return Answer(
                "warn",
                "opening the CA key needs a person: there is no credential file",
                "after each start: certmesh ca unlock",
            )
        opened = open_with_credential(vault.sealed, credential)
        self._issuer = Issuer.open(
            root=vault.root, issuing=vault.issuing, issuing_key=opened.issuing_key
        )
        return Answer("ok", "the credential file opens the key; it fits certificate and pin")

    def _takeover(self) -> Answer:
        ledger, own = self._open_ledger(), self._member_of()
        before = max(ledger.term, ledger.head.term)
        fact = FailoverPromoted(own.member_id, own.host, ACTOR, "rehearsed on a copy")
        ledger.begin()
        ledger.set_term(before + 1)
        ledger.append(fact, actor=ACTOR, now=wall_s())
        ledger.commit()
        roles = {row.host: row.role for row in ledger.key_holders()}
        leaders = [host for host, role in roles.items() if role == "primary"]
        if leaders != [own.host]:
            named = ", ".join(leaders) or "nobody"
            raise LedgerDamagedError(f"after the takeover the roster names {named} as primary")
        return Answer("ok", f"term {before} to {ledger.term}, in the copy")

    def _certificate(self) -> Answer:
        if self._issuer is None:
            return Answer("skip", "the CA key was not opened")
        ledger, now = self._open_ledger(), wall_s()
        member = self._somebody()
        issued = throwaway(self._issuer, self._mesh(), member, now)
        ledger.begin()
        ledger.append(issued, actor=ACTOR, now=now)
        ledger.commit()
        _, _, first_bad, detail = ledger.verify_chain()
        if first_bad is not None:
            raise LedgerDamagedError(f"the copy is broken at row {first_bad}: {detail}")
        return Answer("ok", f"one for {member.host}, trusted under the pin, thrown away")

    def _described(self) -> Rehearsal:
        """Return what the copy says of the mesh, before anything is rehearsed in it."""
        ledger, own = self._open_ledger(), self._member_of()
        leaders = [row.host for row in ledger.key_holders() if row.role == "primary"]
        weakest = ledger.weakest()
        return Rehearsal(
            steps=(),
            host=own.host,
            primary=leaders[0] if leaders else "",
            standbys=self._standbys(),
            others=max(0, ledger.member_count() - 1),
            term=ledger.term,
            sequence=ledger.head.sequence,
            survives_until=weakest[0].serving_until if weakest is not None else None,
        )

    def _standbys(self) -> tuple[str, ...]:
        rows = self._open_ledger().key_holders()
        return tuple(row.host for row in rows if row.role == "standby")

    def _somebody(self) -> MemberRow:
        """Return a member whose certificate can be rehearsed: another one, else this node."""
        pairs = self._open_ledger().members_page("", 100)
        known = [row for row, held in pairs if row.state == "active" and held is not None]
        others = [row for row in known if row.host != self._member_of().host]
        if not known:
            raise NoMeshError("no member has a certificate yet", hint="certmesh status")
        return (others or known)[0]

    def _open_ledger(self) -> Ledger:
        assert self._ledger is not None, "the journal is asked first"
        return self._ledger

    def _member_of(self) -> Membership:
        assert self._membership is not None, "the copies are made first"
        return self._membership

    def _mesh(self) -> MeshRow:
        mesh = self._open_ledger().mesh()
        if mesh is None:
            raise NoMeshError(
                "this node keeps no roster", hint="run the drill on the primary or a standby"
            )
        return mesh
