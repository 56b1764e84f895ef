"""`certmesh init`: a mesh of one's own, with everything shown once that is shown only once."""

import sys
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import click
import msgspec

from broker.cli.nodehome import NodeHome, Wanted, prepare, refuse_second_mesh
from broker.cli.nodeoptions import node_options, taken, usual_settings
from broker.cli.options import MeshCommand, pass_session
from broker.cli.program import Refusal, crashed, run
from broker.cli.prompt import ask_text, read_secret
from broker.cli.public import public
from broker.cli.session import Session
from broker.cli.shape import grouped
from broker.runtime.wordlist import passphrase
from broker.wire.authority import CreateMesh, MeshCreation

USUAL_MESH = "home"
USUAL_PROFILE = "team"


@dataclass(frozen=True, slots=True)
class Profile:
    """Answers to the questions a new mesh asks.

    `credential`: the CA unlocks itself at boot. `enrollment_open`: TOTP codes are taken.
    `approval`: a person agrees to each of those joins.
    """

    credential: bool
    enrollment_open: bool
    approval: bool


PROFILES = {
    "solo": Profile(credential=True, enrollment_open=True, approval=False),
    "team": Profile(credential=True, enrollment_open=True, approval=True),
    "org": Profile(credential=False, enrollment_open=False, approval=True),
}


@click.command(cls=MeshCommand)
@click.argument("name", required=False)
@click.option(
    "--profile",
    type=click.Choice(list(PROFILES)),
    help="solo: joins need a TOTP code. team (usual): and a person's approval. "
    "org: enrollment closed, CA locked after each boot.",
)
@click.option(
    "--passphrase-file",
    metavar="PATH|-",
    help="Take the CA passphrase from a file or stdin instead of drawing six words.",
)
@node_options
@pass_session
def init(session: Session, /, **given: Any) -> None:
    """Create a mesh here: CA, passphrase, settings.

    Asks for what is not given when there is a terminal; NAME and the profile have usual answers.
    The passphrase and the TOTP key are shown once. A failed try leaves nothing in the way.
    """
    refuse_second_mesh(session.home)
    node = taken(given)
    name = given["name"] or ask_text(session, "Name of the mesh", USUAL_MESH)
    chosen = given["profile"] or _ask_profile(session)
    profile = PROFILES[chosen]
    source = given["passphrase_file"]
    words = read_secret(source) if source else passphrase()
    usual: Wanted = dict(usual_settings())
    if profile.approval:
        usual = {**usual, ("approval", "decider"): "queue"}
    home = prepare(session.home, node.wanted(), usual)
    try:
        made = _create(home, name, words, profile)
    except BaseException:
        home.undo()
        raise
    _show(session, made, words="" if source else words, profile=profile)


def _ask_profile(session: Session) -> str:
    answer = ask_text(session, f"Profile ({', '.join(PROFILES)})", USUAL_PROFILE)
    if answer not in PROFILES:
        raise click.UsageError(f'"{answer}" is no profile: {", ".join(PROFILES)}')
    return answer


def _create(home: NodeHome, name: str, words: str, profile: Profile) -> MeshCreation:
    """Have the broker's program make the CA and the first rows of the ledger."""
    wish = CreateMesh(
        name=name,
        passphrase=words,
        credential=profile.credential,
        enrollment_open=profile.enrollment_open,
        approval=profile.approval,
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


def _show(session: Session, made: MeshCreation, *, words: str, profile: Profile) -> None:
    then = [session.command(line) for line in ("up", "invite create HOST", "status")]
    if session.json:
        payload = public(made) | {"home": str(session.home), "next": then}
        # Drawn words are printed because nobody has seen them yet; given ones are not repeated.
        session.screen.object("init", payload | ({"passphrase": words} if words else {}))
        return
    screen = session.screen
    screen.line(f'mesh "{made.name}" created; this node is {made.host}, domain {made.domain}')
    screen.line()
    screen.pairs(_facts(session, made, words))
    _show_code(session, made)
    screen.line()
    screen.line("next")
    for line in then:
        screen.line(f"  {line}")
    if not profile.credential:
        screen.line(f"  {session.command('ca unlock')}   (after each start: this profile asks)")


def _facts(session: Session, made: MeshCreation, words: str) -> list[tuple[str, str]]:
    key = made.totp_key or "".join(urlsplit(made.totp_uri).query.partition("secret=")[2:])
    rows = [("CA", f"sha256 {grouped(made.pin)}")]
    if words:
        rows.append(("passphrase", words))
        rows.append(("", "write it down now: it is shown once and unlocks the CA"))
    if key:
        rows.append(("TOTP key", grouped(key.partition("&")[0].replace(" ", ""))))
        rows.append(("", "an authenticator with this key lets new hosts ask to join"))
    rows.append(("settings", str(session.settings_file)))
    return rows


def _show_code(session: Session, made: MeshCreation) -> None:
    """Draw the QR code for an authenticator; pointless in a file, so only on a terminal."""
    if not made.totp_uri or not sys.stdout.isatty() or session.quiet:
        return
    import segno  # noqa: PLC0415 (only init on a terminal draws)

    sys.stdout.write("\n")
    segno.make(made.totp_uri, error="l").terminal(out=sys.stdout, compact=True, border=2)
