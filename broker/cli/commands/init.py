"""`certmesh init`: a mesh of one's own, with everything shown once that is shown only once."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import msgspec

from broker.cli.kit import free_place, kit_text, secret_lines, write_kit
from broker.cli.nodehome import NodeHome, prepare, refuse_second_mesh
from broker.cli.nodeoptions import node_options, taken, usual_settings
from broker.cli.options import MeshCommand, pass_session
from broker.cli.profiles import (
    SHORT_NAMES,
    USUAL_PROFILE,
    answers_of,
    first_policy,
    overridden,
    profile_named,
)
from broker.cli.program import Refusal, crashed, run
from broker.cli.prompt import ask_text, read_secret
from broker.cli.public import public
from broker.cli.qr import draw
from broker.cli.session import Session
from broker.cli.shape import grouped
from broker.clock import wall_s
from broker.errors import MeshError
from broker.runtime.exits import Exit
from broker.runtime.wordlist import passphrase
from broker.wire.authority import CreateMesh, MeshCreation
from broker.wire.profiles import PROFILES, ProfileRow

USUAL_MESH = "home"


@click.command(cls=MeshCommand)
@click.argument("name", required=False)
@click.option(
    "--profile",
    type=click.Choice([*PROFILES, *SHORT_NAMES]),
    help="just-me (solo): joins need a TOTP code. my-team (team, usual): and the approval of a "
    "named person. my-organization (org): enrollment closed, CA locked after each boot. Each "
    "answer can be given otherwise:",
)
@click.option(
    "--open-enrollment/--closed", "enrollment_open", default=None, help="Whether codes are taken."
)
@click.option(
    "--approval/--no-approval", default=None, help="Whether a person agrees to each join by code."
)
@click.option(
    "--operator-required/--no-operator-required",
    default=None,
    help="Whether that person must be named.",
)
@click.option(
    "--unattended/--attended", default=None, help="Whether the CA unlocks itself after a boot."
)
@click.option(
    "--passphrase-file",
    metavar="PATH|-",
    help="Take the CA passphrase from a file or stdin instead of drawing six words.",
)
@click.option("--kit", default="", metavar="FILE", help="Write the recovery kit there, for paper.")
@node_options
@pass_session
def init(session: Session, /, **given: Any) -> int:
    """Create a mesh here: CA, passphrase, settings.

    Asks for what is not given when there is a terminal; NAME and the profile have usual answers.
    Passphrase, TOTP key and recovery secret are shown once. A failed try leaves nothing in the way.

    Exit: 0 made; 3 made, but the kit could not be written.
    """
    refuse_second_mesh(session.home)
    kit = free_place(given["kit"])
    node = taken(given)
    name = given["name"] or ask_text(session, "Name of the mesh", USUAL_MESH)
    profile = overridden(profile_named(given["profile"] or _ask_profile(session)), given)
    source = given["passphrase_file"]
    words = read_secret(source) if source else passphrase()
    home = prepare(session.home, node.wanted(), usual_settings())
    try:
        made = _create(home, name, words, profile)
    except BaseException:
        home.undo()
        raise
    status = Exit.OK
    if kit is not None and _is_written(session, kit, made):
        made = msgspec.structs.replace(made, recovery="")
    elif kit is not None:
        status = Exit.ATTENTION
    _show(session, made, words="" if source else words, profile=profile)
    return status


def _is_written(session: Session, kit: Path, made: MeshCreation) -> bool:
    """Write the kit, or say why not: the mesh is made, and what is shown once has to be shown."""
    try:
        write_kit(kit, kit_text(made, wall_s()))
    except MeshError as error:
        session.screen.warn(f"{error.detail}: there is no kit, so the secret is shown here, once")
        return False
    session.screen.note(f"recovery kit written to {kit}: print it, then remove the file")
    return True


def _ask_profile(session: Session) -> str:
    answer = ask_text(session, f"Profile ({', '.join(PROFILES)})", USUAL_PROFILE)
    if answer not in {*PROFILES, *SHORT_NAMES}:
        raise click.UsageError(f'"{answer}" is no profile: {", ".join(PROFILES)}')
    return answer


def _create(home: NodeHome, name: str, words: str, profile: ProfileRow) -> MeshCreation:
    """Have the broker's program make the CA and the first rows of the ledger."""
    wish = CreateMesh(
        name=name,
        passphrase=words,
        credential=profile.unattended,
        enrollment_open=profile.enrollment_open,
        policy=first_policy(profile, home.settings.policy),
    )
    done = run(
        "broker", home.paths, "create", str(home.paths.settings), given=msgspec.json.encode(wish)
    )
    try:
        if done.status == 0:
            return msgspec.json.decode(done.output, type=MeshCreation)
        raise msgspec.json.decode(done.output, type=Refusal).error()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise crashed("broker", done.status, home.paths) from None


def _show(session: Session, made: MeshCreation, *, words: str, profile: ProfileRow) -> None:
    then = [session.command(line) for line in ("up", "invite create HOST", "status")]
    if session.json:
        payload = public(made) | asdict(profile) | {"name": made.name, "profile": profile.name}
        payload |= {"home": str(session.home), "next": then}
        # Drawn words are printed because nobody has seen them yet; given ones are not repeated.
        session.screen.object("init", payload | ({"passphrase": words} if words else {}))
        return
    screen = session.screen
    for text in made.warnings:
        screen.warn(text)
    screen.line(f'mesh "{made.name}" created; this node is {made.host}, domain {made.domain}')
    screen.line()
    screen.pairs(_facts(session, made, words, profile))
    _show_code(session, made)
    screen.line()
    screen.line("next")
    for line in then:
        screen.line(f"  {line}")
    if not profile.unattended:
        screen.line(f"  {session.command('ca unlock')}   (after each start: this profile asks)")


def _facts(
    session: Session, made: MeshCreation, words: str, profile: ProfileRow
) -> list[tuple[str, str]]:
    key = made.totp_key or "".join(urlsplit(made.totp_uri).query.partition("secret=")[2:])
    rows = [("CA", f"sha256 {grouped(made.pin)}")]
    if words:
        rows.append(("passphrase", words))
        rows.append(("", "write it down now: it is shown once and unlocks the CA"))
    if key:
        rows.append(("TOTP key", grouped(key.partition("&")[0].replace(" ", ""))))
        rows.append(("", "an authenticator with this key lets new hosts ask to join"))
    rows += _recovery(made)
    rows.append(("profile", f"{profile.name}: {answers_of(profile)}"))
    rows.append(("settings", str(session.settings_file)))
    return rows


def _recovery(made: MeshCreation) -> list[tuple[str, str]]:
    """Return the recovery secret, unless it went into a kit."""
    if not made.recovery:
        return []
    first, *others = secret_lines(made.recovery)
    rows = [("recovery", first), *(("", line) for line in others)]
    return [*rows, ("", "write it down now: with it and a backup everything can be restored")]


def _show_code(session: Session, made: MeshCreation) -> None:
    """Draw the QR code for an authenticator; pointless in a file, so only on a terminal."""
    if not made.totp_uri or not sys.stdout.isatty() or session.quiet:
        return
    draw(made.totp_uri, sys.stdout)
