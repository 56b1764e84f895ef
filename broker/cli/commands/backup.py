"""`certmesh backup`: make, list, verify and restore backups."""

from pathlib import Path
from typing import Any

import click
import msgspec

from broker.cli.nodeoptions import NodeOptions, node_options, taken
from broker.cli.options import Noun, pass_session
from broker.cli.program import Refusal, crashed, run
from broker.cli.prompt import ask_secret, ask_yes, read_private_text, read_secret
from broker.cli.public import public
from broker.cli.rebuild import check_place, rebuilt_home, scratch_home
from broker.cli.session import Session
from broker.cli.shape import grouped, rfc3339
from broker.errors import ConflictError
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.wire.backup import BackupBody, BackupsView, BackupView, Restored, RestoreWish

MAKE_MS = 600_000
DIGEST_SHOWN = 16


@click.group(cls=Noun)
def backup() -> None:
    """Make, list, verify and restore backups of a key holder."""


@backup.command()
@click.option(
    "-o", "--output", default="", metavar="FILE", help="Write there; usual: the backup directory."
)
@pass_session
def create(session: Session, *, output: str) -> None:
    """Make a backup now: everything but private leaf keys, sealed for the recovery kit.

    It is read back and verified before it gets its name.
    """
    path = str(Path(output).expanduser().absolute()) if output else ""
    view = session.api(MAKE_MS).post("/v1/backups", BackupView, BackupBody(path=path))
    if session.json:
        session.screen.object("backup-create", public(view))
        return
    line = view.backup
    session.screen.line(f"{line.path}")
    session.screen.line(
        f"row {line.sequence} of term {line.term}, {line.size_bytes} bytes, "
        f"sha256 {line.digest[:DIGEST_SHOWN]}, read back and verified"
    )
    for name in view.removed:
        session.screen.note(f"removed the oldest: {name}")


@backup.command(name="list")
@pass_session
def list_(session: Session) -> None:
    """List the backups in the backup directory, newest first."""
    view = session.api().get("/v1/backups", BackupsView)
    if session.json:
        session.screen.object("backup-list", public(view))
        return
    session.screen.table(
        ("FILE", "MADE", "TERM", "ROW", "BYTES", "PROBLEM"),
        [
            (
                line.name,
                rfc3339(line.created_at) if line.created_at else "-",
                str(line.term),
                str(line.sequence),
                str(line.size_bytes),
                line.problem or "-",
            )
            for line in view.backups
        ],
    )
    due = f"next {rfc3339(view.next_at)}" if view.next_at else "none is due by itself"
    session.screen.note(f"in {view.directory}; {due}")


@backup.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--kit-file", metavar="PATH|-", help="The recovery kit: open and check everything.")
@pass_session
def verify(session: Session, file: Path, *, kit_file: str | None) -> None:
    """Check a backup file. Without the kit: whole, unchanged, and signed by the CA it names.

    Needs no node and no network.
    """
    kit = _kit(session, kit_file) if kit_file else ""
    with scratch_home() as paths:
        found = _program(paths, file, RestoreWish(kit=kit, verify_only=True))
    _say(session, "backup-verify", found)


@backup.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--kit-file", metavar="PATH|-", help="The recovery kit; asked for when left out.")
@click.option("--dry-run", is_flag=True, help="Open and check everything, change nothing.")
@click.option(
    "--new-passphrase-file", metavar="PATH|-", help="Add a passphrase, where the old one is lost."
)
@click.option("--unsigned", is_flag=True, help="Accept a backup made while the CA was locked.")
@node_options
@pass_session
def restore(session: Session, /, **given: Any) -> int:
    """Make this machine the node that was backed up, with the file and the recovery kit alone.

    Never overwrites a node. The restored one serves after it has asked all members what happened
    since: `certmesh up` starts that.
    """
    options, file = taken(given), Path(given["file"])
    check_place(session.home)
    kit = _kit(session, given["kit_file"])
    wish = RestoreWish(kit=kit, verify_only=True, unsigned=given["unsigned"])
    with scratch_home() as paths:
        found = _program(paths, file, wish)
    if not found.signed and not given["unsigned"]:
        raise ConflictError(
            "this backup is not signed: the CA was locked when it was made",
            hint="if you know where it comes from: --unsigned",
        )
    if given["dry_run"]:
        _say(session, "backup-restore", found)
        return Exit.OK
    question = (
        f"Make this machine {found.host} of the mesh {found.mesh_name}, row {found.sequence}?"
    )
    if not ask_yes(session, question):
        session.screen.note("nothing was changed")
        return Exit.FAILED
    source = given["new_passphrase_file"]
    wish = msgspec.structs.replace(
        wish, verify_only=False, new_passphrase=read_secret(source) if source else ""
    )
    _say(session, "backup-restore", _restore(session, file, wish, (found, options)))
    return Exit.OK


def _restore(
    session: Session, file: Path, wish: RestoreWish, told: tuple[Restored, NodeOptions]
) -> Restored:
    found, options = told
    home = rebuilt_home(session.home, found.settings, found.host, options)
    try:
        return _program(home.paths, file, wish)
    except ConflictError:
        raise  # somebody else is at work in this home: what was made here may be theirs by now
    except BaseException:
        home.undo()
        raise


def _kit(session: Session, source: str | None) -> str:
    """Return the kit: a file with the secret somewhere in it, or what a person types."""
    if source:
        return read_private_text(source)
    return ask_secret(session, "Recovery secret (from the kit)", "--kit-file")


def _program(paths: Paths, file: Path, wish: RestoreWish) -> Restored:
    """Have the broker's program open the file: the command itself never sees a CA key."""
    words = ("restore", str(paths.settings), str(file.absolute()))
    done = run("broker", paths, *words, given=msgspec.json.encode(wish))
    try:
        if done.status == 0:
            return msgspec.json.decode(done.output, type=Restored)
        raise msgspec.json.decode(done.output, type=Refusal).error()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise crashed("broker", done.status, paths) from None


def _say(session: Session, command: str, found: Restored) -> None:
    then = [] if found.verify_only else [session.command("up"), session.command("status")]
    if session.json:
        payload = {name: value for name, value in public(found).items() if name != "settings"}
        session.screen.object(command, payload | {"next": then})
        return
    screen = session.screen
    whose = f"{found.mesh_name}, made on {found.host} at {rfc3339(found.created_at)}"
    screen.pairs(
        [
            ("backup of", whose),
            ("sha256", grouped(found.pin)),
            ("journal", f"row {found.sequence} of term {found.term}"),
            ("signed", "by the CA it names" if found.signed else "no: the CA was locked"),
            ("content", _content(found)),
        ]
    )
    if found.verify_only:
        return
    screen.line()
    screen.line(f"this machine is {found.host} now; it serves after it has asked the members")
    if not found.unlocks:
        screen.line("its CA is locked: certmesh ca unlock, after each start")
    for line in then:
        screen.line(f"  {line}")


def _content(found: Restored) -> str:
    if not found.opened:
        return "not opened (no kit given)"
    return f"opened: {found.rows} rows, {found.members} members, keys and chain verified"
