"""`certmesh join`: this host becomes a member; its key is made here and stays here.

The program `workers.enroll` does the dialling; this is the conversation around it. The CA's
fingerprint is known (from the invite, `--pin`, or a person's eyes) before any secret is sent.
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click
import msgspec

from broker.cli.nodehome import NodeHome, prepare, refuse_second_mesh
from broker.cli.nodeoptions import NodeOptions, node_options, taken, usual_settings
from broker.cli.options import DURATION, MeshCommand, pass_session
from broker.cli.program import Refusal, crashed, follow
from broker.cli.prompt import STDIN, ask_secret, ask_yes, read_secret, require_person
from broker.cli.session import Session
from broker.cli.shape import grouped, rfc3339
from broker.errors import NameNotAllowedError, PinMismatchError
from broker.runtime.duration import Duration
from broker.runtime.exits import Exit
from broker.wire.invite import decode_invite

PROGRAM = "workers.enroll"
PIN_DIGITS = 64
FINAL = frozenset({"joined", "waiting", "fault", "checked"})

Saying = Mapping[str, Any]


def only_stdin(_context: click.Context, _option: click.Parameter, given: str | None) -> str | None:
    """Return `-` or nothing: arguments are seen by every user of this machine.

    Raises:
        click.UsageError: It is something else, perhaps the code itself.
    """
    if given not in {None, STDIN}:
        raise click.UsageError(
            "a TOTP code is no argument, other users can read those: "
            "give --totp - (standard input) or --totp-file PATH"
        )
    return given


@click.command(cls=MeshCommand)
@click.argument("invite", required=False)
@click.option("--url", help="Without an invite: the CA's enrol door, https://HOST:7642.")
@click.option("--totp", metavar="-", callback=only_stdin, help="Read the TOTP code from stdin.")
@click.option("--totp-file", metavar="PATH", help="Read the TOTP code from a file; else ask.")
@click.option("--pin", default="", metavar="HEX", help="SHA-256 fingerprint of the CA.")
@click.option("--wait", type=DURATION, help="How long to wait for a person's approval.")
@click.option("--dry-run", is_flag=True, help="Check the CA and the invite; send no secret.")
@node_options
@pass_session
def join(session: Session, /, **given: Any) -> int:
    """Enrol this host in a mesh, by invite or TOTP code.

    INVITE is the `cm1:...` line of `certmesh invite create`, or - to read it from stdin. Without
    one, give --url and a TOTP code. Exit 8: the join waits for approval; run the same again.
    """
    refuse_second_mesh(session.home)
    node = taken(given)
    wish, host = _wish(session, given)
    wanted = node.wanted()
    _refuse_other_name(node, host)
    home = prepare(session.home, wanted, usual_settings(host))
    try:
        outcome = _enroll(session, home, wish, given)
    except BaseException:
        home.undo()
        raise
    if given["dry_run"]:
        home.undo()
    return _conclude(session, outcome)


def _wish(session: Session, given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return what the program is told, and the host name an invite binds."""
    if bool(given["invite"]) == bool(given["url"]):
        raise click.UsageError("give an INVITE, or --url with a TOTP code")
    if given["url"]:
        _require_a_way_to_trust(session, given["pin"])
        return {"url": given["url"], "pin": pin_digits(given["pin"])}, ""
    text = _invite_text(given["invite"])
    ticket = decode_invite(text)
    if given["pin"] and pin_digits(given["pin"]) != ticket.pin:
        raise PinMismatchError(
            "--pin and the invite name different CAs; nothing was sent",
            hint="ask whoever made the invite for the fingerprint: certmesh ca show",
        )
    return {"invite": text}, ticket.host


def _invite_text(given: str) -> str:
    """Return the invite itself, from standard input for `-`; it is longer than other secrets."""
    if given != STDIN:
        return given.strip()
    line = sys.stdin.readline().strip()
    if not line:
        raise click.UsageError("standard input is empty: pipe the invite in")
    return line


def pin_digits(text: str) -> str:
    """Return a fingerprint as 64 lower-case digits, however it was grouped.

    Raises:
        click.UsageError: Not a SHA-256 fingerprint.
    """
    digits = text.lower().removeprefix("sha256").translate(dict.fromkeys(map(ord, ": -")))
    if text and (len(digits) != PIN_DIGITS or set(digits) - set("0123456789abcdef")):
        raise click.UsageError(f"--pin wants the {PIN_DIGITS} hex digits of `certmesh ca show`")
    return digits


def _require_a_way_to_trust(session: Session, pin: str) -> None:
    if not pin:
        require_person(session, "the CA's fingerprint must be compared", "--pin")


def _refuse_other_name(node: NodeOptions, host: str) -> None:
    if host and node.node_name and node.node_name != host:
        raise NameNotAllowedError(
            f"the invite is for {host}, not for {node.node_name}; nothing was sent",
            hint=f"drop --node-name, or ask for an invite for {node.node_name}",
        )


def _enroll(
    session: Session, home: NodeHome, wish: dict[str, Any], given: Mapping[str, Any]
) -> Saying:
    wait: Duration | None = given["wait"]
    wish |= {"host": home.settings.node.name, "sans": list(home.settings.node.sans)}
    wish |= {"wait_s": wait.s if wait else 0, "dry_run": given["dry_run"]}
    compared = ""
    if "url" in wish:
        if not wish["pin"]:
            wish["pin"] = compared = _compared_pin(session, home, wish)
        wish["totp"] = "" if given["dry_run"] else _code(session, given)
    return _talk(session, home, wish, compared)


def _compared_pin(session: Session, home: NodeHome, wish: Mapping[str, Any]) -> str:
    """Return the fingerprint of the CA that answers, once a person has compared it."""
    probe = {"url": wish["url"], "probe": True, "host": wish["host"], "totp": "", "pin": ""}
    for saying in _sayings(home, probe):
        if saying.get("kind") == "fault":
            raise msgspec.convert(saying, Refusal, strict=False).error()
        if saying.get("kind") == "fingerprint":
            session.screen.note(f"CA  sha256 {grouped(str(saying['pin']))}")
            if ask_yes(session, "Is this what `certmesh ca show` says there?"):
                return str(saying["pin"])
            raise PinMismatchError("you did not recognise the CA; nothing was sent")
    raise crashed(PROGRAM, 0, home.paths)


def _code(session: Session, given: Mapping[str, Any]) -> str:
    source = given["totp_file"] or given["totp"]
    if source:
        return read_secret(source)
    return ask_secret(session, "TOTP code", "--totp-file")


def _sayings(home: NodeHome, wish: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    content = msgspec.json.encode(dict(wish))
    return follow(PROGRAM, home.paths, str(home.paths.settings), given=content)


def _talk(session: Session, home: NodeHome, wish: Mapping[str, Any], compared: str) -> Saying:
    """Return the program's last word; what it says before goes to the person.

    The fingerprint `compared` is not shown again: the person has just read it.
    """
    last: Saying = {}
    for saying in _sayings(home, wish):
        # The last word of a wait does not repeat the words to compare; its reader needs them.
        last = {**last, **saying} if saying.get("kind") == "waiting" else saying
        if saying.get("kind") == "fingerprint" and saying.get("pin") != compared:
            session.screen.note(f"CA  sha256 {grouped(str(saying.get('pin', '')))}")
        if saying.get("kind") == "pending":
            words = "  ".join(map(str, saying.get("words", ())))
            session.screen.note(f"waiting for approval; words on both screens:  {words}")
    if last.get("kind") == "fault":
        raise msgspec.convert(last, Refusal, strict=False).error()
    if last.get("kind") not in FINAL:
        raise crashed(PROGRAM, 0, home.paths)
    return last


def _conclude(session: Session, outcome: Saying) -> int:
    """Show the last word and return the exit status that goes with it."""
    kind = str(outcome.get("kind", "checked"))
    rest = {name: value for name, value in outcome.items() if name != "kind"}
    if isinstance(rest.get("not_after"), int):
        rest["not_after"] = rfc3339(rest["not_after"])
    if isinstance(rest.get("retry_after_ms"), int):
        rest["retry_after_s"] = rest.pop("retry_after_ms") / 1000
    if session.json:
        session.screen.object("join", {"state": kind} | rest)
    elif kind == "joined":
        session.screen.line(
            f"joined {outcome.get('mesh')} as {outcome.get('host')}"
            f"  certificate {str(outcome.get('serial', ''))[:16]}"
        )
        session.screen.line(f"next  {session.command('up')}")
    elif kind == "waiting":
        session.screen.line("still waiting for approval; run the same command again to go on")
    else:
        session.screen.line("checked: the CA answers with the expected fingerprint")
    return Exit.WAITING if kind == "waiting" else Exit.OK
