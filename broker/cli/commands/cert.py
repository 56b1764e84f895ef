"""`certmesh cert`: this host's certificate, on disk and as it is served."""

import select
from pathlib import Path
from typing import Any

import click
import msgspec

from broker.cli.api import Api
from broker.cli.options import DURATION, MeshCommand, Noun, pass_session
from broker.cli.outcome import report
from broker.cli.public import public
from broker.cli.served import Leaf, read_leaf, served_leaf
from broker.cli.session import Session
from broker.cli.shape import due_in, left, rfc3339, short_serial
from broker.cli.versions import Version, last_delivery, versions_of
from broker.clock import boottime_ms, wall_s
from broker.errors import DeadlineError, MalformedMessageError, MeshError, NoMeshError
from broker.runtime.duration import Duration
from broker.runtime.exits import Exit
from broker.wire.console_api import CertificateView
from broker.wire.control import Ack
from broker.wire.node import Membership
from broker.wire.plain import decode_json

PATH = "/v1/certificate"
FILES = ("cert", "key", "chain", "fullchain", "combined")
RENEW_MS = 90_000
LOOK_MS = 250
NEEDS, NEEDS_NOT, MISSING, OTHER = 0, 1, 2, 255
"""Exit statuses of `needs-renewal`, the same as step's, so that its units can switch over."""


@click.group(cls=Noun)
def cert() -> None:
    """Show, renew or check this host's certificate."""


@cert.command()
@pass_session
def show(session: Session) -> int:
    """Show serial, validity, names and what is served. Exit 3 when there is none or it is due."""
    view, now = session.api().get(PATH, CertificateView), wall_s()
    due = not view.present or (view.renew_at is not None and view.renew_at <= now)
    place = session.paths.certificates / view.host
    versions = versions_of(place)
    held = next((found for found in versions if found.held), None)
    if session.json:
        more = {"due": due, "held": held.serial if held else None}
        session.screen.object("cert-show", public(view) | more | _on_disk(place, versions))
    elif not view.present:
        session.screen.line(f"{view.host} has no certificate yet")
    else:
        session.screen.pairs([*_facts(view, now), ("held", _held_text(held))])
    return Exit.ATTENTION if due else Exit.OK


def _on_disk(place: Path, versions: tuple[Version, ...]) -> dict[str, Any]:
    rows = [
        {
            "version": found.name,
            "serial": found.serial,
            "not_after": rfc3339(found.not_after),
            "live": found.live,
            "held": found.held,
        }
        for found in versions
    ]
    last = last_delivery(place)
    delivery = {"serial": last.serial, "state": last.state, "detail": last.detail}
    return {"versions": rows, "delivery": delivery}


def _held_text(held: Version | None) -> str:
    if held is None:
        return "-"
    return f"{short_serial(held.serial)} ({held.name}) waits until its hooks and probes succeed"


def _facts(view: CertificateView, now: int) -> list[tuple[str, str]]:
    until = "-" if view.not_after is None else rfc3339(view.not_after)
    return [
        ("host", view.host),
        ("serial", view.serial),
        ("valid until", f"{until} ({left(view.not_after, now)})"),
        ("renews in", due_in(view.renew_at, now)),
        ("names", ", ".join(view.sans) or "-"),
        ("served", f"{view.served} {short_serial(view.served_serial)}"),
        ("trouble", view.last_error or "none"),
        ("files", str(Path(next(iter(view.files.values()))).parent) if view.files else "-"),
    ]


@cert.command()
@click.option("--wait/--no-wait", default=True, help="Wait for the new certificate (usual).")
@click.option("--dry-run", is_flag=True, help="Say what would be renewed.")
@pass_session
def renew(session: Session, *, wait: bool, dry_run: bool) -> None:
    """Renew this host's certificate now, due or not: new key, hooks, probe."""
    api = session.api()
    before = api.get(PATH, CertificateView)
    after = before
    if not dry_run:
        api.post(f"{PATH}/renew", Ack)
        after = _await_change(session, api, _forgiven(api, before)) if wait else before
    if session.json:
        shown = {"host": before.host, "before": before.serial, "dry_run": dry_run}
        renewed = after.serial != before.serial
        session.screen.object("cert-renew", shown | {"after": after.serial, "renewed": renewed})
    elif dry_run:
        session.screen.line(f"would renew {before.host} ({short_serial(before.serial)})")
    elif wait:
        serials = f"{short_serial(before.serial)} -> {short_serial(after.serial)}"
        session.screen.line(f"{after.host} renewed: {serials}, {after.served}")
    else:
        session.screen.line(f"renewal of {before.host} asked for")


def _forgiven(api: Api, before: CertificateView) -> CertificateView:
    """Return `before` without the failure that asking has cleared: it may be the next one too."""
    said = api.get(PATH, CertificateView).last_error
    return msgspec.structs.replace(before, last_error=said)


def _await_change(session: Session, api: Api, before: CertificateView) -> CertificateView:
    """Return the certificate once it is another one."""
    patience_ms = session.patience_ms(RENEW_MS)
    deadline = boottime_ms() + patience_ms
    nothing = select.poll()
    while True:
        view = api.get(PATH, CertificateView)
        if view.present and view.serial != before.serial:
            return view
        failed = view.last_error not in {"", before.last_error}
        if failed or boottime_ms() > deadline:
            limit = "" if failed else f" within {patience_ms / 1000:g} s"
            raise DeadlineError(
                f"{view.host} was not renewed{limit}: {view.last_error or 'no reason known yet'}",
                hint=f"{session.command('ps')} shows what the renewal waits for",
            )
        nothing.poll(LOOK_MS)


@cert.command()
@click.argument("door", metavar="HOST:PORT")
@click.option("--name", default="", metavar="HOST", help="Compare with this host's live files.")
@click.option("--server-name", default="", help="Name to ask for (default: HOST).")
@pass_session
def check(session: Session, *, door: str, name: str, server_name: str) -> int:
    """Look at the certificate a port serves.

    Exit 3 when it has expired or is not the live one, 4 when nobody answers.
    """
    address, port = _door(door)
    wanted = _live(session, name) if name else None
    served = served_leaf(address, port, server_name or address, session.patience_ms() / 1000)
    trouble = _trouble(served, wanted, wall_s())
    if session.json:
        session.screen.object("cert-check", _served(served, wanted) | {"trouble": trouble})
    else:
        rows = [
            ("serves", served.serial),
            ("valid until", f"{rfc3339(served.not_after)} ({left(served.not_after, wall_s())})"),
            ("names", ", ".join(served.names) or "-"),
            ("state", trouble or "ok"),
        ]
        session.screen.pairs(rows)
    return Exit.ATTENTION if trouble else Exit.OK


def _trouble(served: Leaf, wanted: Leaf | None, now: int) -> str:
    if served.not_after < now:
        return "the served certificate has expired"
    if wanted is not None and wanted.serial != served.serial:
        return f"STALE: the live certificate is {wanted.serial}; reload the service"
    return ""


def _served(served: Leaf, wanted: Leaf | None) -> dict[str, Any]:
    return {
        "serial": served.serial,
        "not_before": rfc3339(served.not_before),
        "not_after": rfc3339(served.not_after),
        "names": list(served.names),
        "live_serial": wanted.serial if wanted else None,
        "matches": None if wanted is None else wanted.serial == served.serial,
    }


def _door(text: str) -> tuple[str, int]:
    address, _, port = text.rpartition(":")
    if not address or not port.isdecimal() or not 0 < int(port) < 65536:  # noqa: PLR2004 (ports)
        raise click.UsageError(f'"{text}" is not HOST:PORT')
    return address.strip("[]"), int(port)


def _live(session: Session, host: str) -> Leaf:
    directory = session.paths.certificates
    file = directory / host / "live" / "cert.pem"
    if Path(host).name != host or not file.exists():
        raise NoMeshError(f"there is no certificate of {host} in {directory}")
    return read_leaf(file)


@cert.command("needs-renewal", cls=MeshCommand)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--expires-in", type=DURATION, help="Due when less than this remains.")
@pass_session
def needs_renewal(session: Session, *, file: Path | None, expires_in: Duration | None) -> int:
    """Say by exit status whether a certificate is due: 0 yes, 1 no, 2 missing, 255 other.

    Looks at FILE, or at this node's own certificate; works while the node is stopped.
    """
    try:
        leaf = read_leaf(file or own_directory(session) / "cert.pem")
        at = leaf.not_after - expires_in.s if expires_in else _due_at(session, leaf)
    except (FileNotFoundError, NoMeshError):
        return _say_need(session, MISSING, "missing")
    except MeshError as error:
        report("certmesh cert needs-renewal", error, as_json=session.json)
        return OTHER
    except OSError as error:
        trouble = MalformedMessageError(f"cannot read {file}: {error.strerror}")
        report("certmesh cert needs-renewal", trouble, as_json=session.json)
        return OTHER
    due = at <= wall_s()
    return _say_need(session, NEEDS if due else NEEDS_NOT, "due" if due else "not due")


def _due_at(session: Session, leaf: Leaf) -> int:
    policy = session.settings.policy
    return leaf.renew_at(policy.renew_at, policy.leaf_lifetime.s)


def _say_need(session: Session, status: int, state: str) -> int:
    if session.json:
        session.screen.object("cert-needs-renewal", {"state": state, "needs": status == NEEDS})
    else:
        session.screen.note(state)
    return status


def own_directory(session: Session) -> Path:
    """Return the directory with this node's live certificate.

    Raises:
        NoMeshError: The node has joined no mesh, or has no certificate yet.
    """
    paths = session.paths
    try:
        membership = decode_json(paths.membership.read_bytes(), Membership)
    except FileNotFoundError:
        raise NoMeshError(
            f"the node in {paths.home} belongs to no mesh",
            hint=f"{session.command('init NAME')} or {session.command('join INVITE')}",
        ) from None
    except MalformedMessageError as error:
        raise MalformedMessageError(f"{paths.membership}: {error.detail}") from None
    live = paths.certificates / membership.host / "live"
    if not live.exists():
        raise NoMeshError(
            f"{membership.host} has no certificate yet", hint=f"{session.command('up')}, then wait"
        )
    return live


@cert.command("path")
@click.argument("file", required=False, type=click.Choice(FILES))
@pass_session
def path_(session: Session, *, file: str | None) -> None:
    """Print where the live certificate is, for a service's configuration."""
    live = own_directory(session)
    if session.json:
        files = {name: str(live / f"{name}.pem") for name in FILES}
        session.screen.object("cert-path", {"directory": str(live), "files": files})
    else:
        session.screen.line(str(live / f"{file}.pem" if file else live))
