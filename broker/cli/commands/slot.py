"""`certmesh ca slot`: the ways to unlock the CA of this node.

Every change asks for a passphrase of this CA, off the screen or from a file. A passphrase is
changed by adding the new one and then removing the old one, which needs the new one.
"""

from typing import cast

import click

from broker.cli.api import segment
from broker.cli.choice import meant
from broker.cli.options import Noun, pass_session
from broker.cli.prompt import ask_secret, ask_yes, read_secret
from broker.cli.public import public
from broker.cli.session import Session
from broker.cli.shape import day
from broker.errors import NameNotAllowedError
from broker.runtime.exits import Exit
from broker.wire.authority import AuthorityView, SlotView
from broker.wire.slot import AddSlotBody, RemoveSlotBody, SlotAnswer, SlotKind

SLOTS = "/v1/ca/slots"
CHANGE_MS = 60_000
"""Several key derivations, on a small board under load, and for a peer slot a way to the peer."""
KINDS = ("passphrase", "credential", "systemd", "totp", "peer")
MEANINGS = {
    "passphrase": "a person types it",
    "credential": "a file of this node, at every start",
    "systemd": "a secret that systemd decrypts, at every start",
    "totp": "a person with the authenticator; protects no stolen disk",
    "peer": "another member agrees, at every start",
    "recovery": "the printed kit",
}
PASSPHRASE_FILE = click.option(
    "--passphrase-file", metavar="PATH|-", help="Read the proving passphrase from there."
)


@click.group(cls=Noun)
def slot() -> None:
    """Ways to unlock the CA of this node: list, add, remove."""


@slot.command("list")
@pass_session
def list_(session: Session) -> None:
    """List the ways to unlock this node's CA."""
    view = session.api().get(SLOTS, AuthorityView)
    if session.json:
        shown = {"state": view.state, "slots": [public(each) for each in view.slots]}
        session.screen.object("ca-slot-list", shown)
        return
    session.screen.table(
        ("ID", "KIND", "SINCE", "OPENS BY"),
        [(each.slot_id, each.kind, day(each.created_at), _meaning(each)) for each in view.slots],
    )


@slot.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--peer", default="", metavar="HOST", help="Who has to agree (kind peer).")
@PASSPHRASE_FILE
@click.option(
    "--new-passphrase-file", metavar="PATH|-", help="Read the new passphrase (kind passphrase)."
)
@pass_session
def add(
    session: Session,
    *,
    kind: str,
    peer: str,
    passphrase_file: str | None,
    new_passphrase_file: str | None,
) -> None:
    """Add a way to unlock. A wrong passphrase changes nothing (exit 7)."""
    if bool(peer) != (kind == "peer"):
        raise click.UsageError("--peer HOST belongs to kind peer, and only to that")
    if new_passphrase_file and kind != "passphrase":
        raise click.UsageError("--new-passphrase-file belongs to kind passphrase")
    passphrase = _proof(session, passphrase_file)
    new = _new_passphrase(session, new_passphrase_file) if kind == "passphrase" else ""
    body = AddSlotBody(slot_kind=cast("SlotKind", kind), passphrase=passphrase, new=new, peer=peer)
    answer = session.api(CHANGE_MS).post(SLOTS, SlotAnswer, body)
    if session.json:
        session.screen.object("ca-slot-add", public(answer))
        return
    session.screen.line(f"added slot {answer.slot_id}: {_opens(kind, peer)}")
    for line in _what_now(session, answer):
        session.screen.line(line)
    _tell_note(session, answer)


@slot.command()
@click.argument("slot_id", metavar="ID")
@PASSPHRASE_FILE
@pass_session
def remove(session: Session, *, slot_id: str, passphrase_file: str | None) -> int:
    """Remove a way to unlock. The passphrase has to be one that stays."""
    known = session.api().get(SLOTS, AuthorityView).slots
    found = meant(slot_id, [(each.slot_id, each.kind) for each in known], "slot")
    chosen = next(each for each in known if each.slot_id == found)
    if not ask_yes(session, f"Remove slot {found} ({_opens(chosen.kind, chosen.peer)})?"):
        session.screen.note("nothing was changed")
        return Exit.FAILED
    body = RemoveSlotBody(passphrase=_proof(session, passphrase_file))
    answer = session.api(CHANGE_MS).ask("DELETE", f"{SLOTS}/{segment(found)}", SlotAnswer, body)
    if session.json:
        session.screen.object("ca-slot-remove", public(answer))
    else:
        session.screen.line(f"removed slot {found}")
        _tell_note(session, answer)
    return Exit.OK


def _proof(session: Session, source: str | None) -> str:
    if source:
        return read_secret(source)
    return ask_secret(session, "CA passphrase", "--passphrase-file")


def _new_passphrase(session: Session, source: str | None) -> str:
    if source:
        return read_secret(source)
    first = ask_secret(session, "New passphrase", "--new-passphrase-file")
    if ask_secret(session, "New passphrase again", "--new-passphrase-file") != first:
        raise NameNotAllowedError("the two new passphrases differ", hint="nothing was changed")
    return first


def _what_now(session: Session, answer: SlotAnswer) -> list[str]:
    """Return what is left to be done by hand."""
    match answer.slot_kind:
        case "totp":
            return [
                f"authenticator   {answer.totp_uri}",
                f"or type         {answer.totp_key}",
                "shown only now; it protects no stolen disk, only the keyboard",
                f"unlock          {session.command('ca unlock --code')}",
            ]
        case "systemd":
            sealed = "/etc/credstore.encrypted/certmesh-ca"
            return [
                "as root, then add the unit line and restart:",
                f"  systemd-creds encrypt --name=certmesh-ca {answer.secret_path} {sealed}",
                f"  shred -u {answer.secret_path}",
                f"  LoadCredentialEncrypted=certmesh-ca:{sealed}",
            ]
        case "credential":
            return [f"its secret is in {answer.secret_path}, which no backup holds"]
        case _:
            return []


def _tell_note(session: Session, answer: SlotAnswer) -> None:
    if answer.note:
        session.screen.note(answer.note)


def _meaning(view: SlotView) -> str:
    return _opens(view.kind, view.peer)


def _opens(kind: str, peer: str) -> str:
    return f"{peer} agrees, at every start" if peer else MEANINGS.get(kind, kind)
