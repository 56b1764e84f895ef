"""`certmesh trust`: let other programs of this machine trust the mesh, or stop it."""

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from broker.cli.options import Noun, pass_session
from broker.cli.prompt import ask_yes
from broker.cli.session import Session
from broker.cli.shape import grouped
from broker.cli.truststore.anchor import Anchor, anchors_of
from broker.cli.truststore.debian import system_store
from broker.cli.truststore.nss import nss_stores
from broker.cli.truststore.store import ROOT_VARIABLE, Finding, Store
from broker.errors import MalformedMessageError, MeshError, NoMeshError
from broker.runtime.exits import Exit
from broker.wire.node import Membership
from broker.wire.plain import decode_json

STORES = ("system", "nss")
DONE = frozenset({"installed", "none"})
GONE = frozenset({"missing", "none"})


class StoreNames(click.ParamType[tuple[str, ...]]):
    """Names of stores with commas between them."""

    name = "stores"

    def convert(  # type: ignore[explicit-override]  # typing.override is 3.12
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the names, each once, or fail as wrong usage."""
        if isinstance(value, tuple):
            return value
        names = tuple(dict.fromkeys(str(value).split(",")))
        if unknown := [name for name in names if name not in STORES]:
            self.fail(f"there is no store {unknown[0]!r}: {', '.join(STORES)}", param, ctx)
        return names


stores_option = click.option(
    "--store",
    "names",
    type=StoreNames(),
    default=",".join(STORES),
    show_default=True,
    metavar="NAMES",
    help="Only these, with commas between them.",
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done.")


@click.group(cls=Noun)
def trust() -> None:
    """Let other programs of this machine trust the mesh: system, NSS and Firefox stores."""


@trust.command()
@stores_option
@dry_run_option
@pass_session
def install(session: Session, *, names: tuple[str, ...], dry_run: bool) -> int:
    """Put the mesh's root certificate into the stores."""
    question = "let programs of this machine trust every certificate of this CA?"
    wanted = _Change("install", DONE, lambda store, anchor: store.install(anchor))
    return _change(session, names, wanted, question, dry_run=dry_run)


@trust.command()
@stores_option
@dry_run_option
@pass_session
def uninstall(session: Session, *, names: tuple[str, ...], dry_run: bool) -> int:
    """Take the mesh's root certificate out of the stores; nobody else's."""
    question = "let programs of this machine trust this CA no longer?"
    wanted = _Change("uninstall", GONE, lambda store, anchor: store.uninstall(anchor))
    return _change(session, names, wanted, question, dry_run=dry_run)


@trust.command()
@stores_option
@pass_session
def status(session: Session, *, names: tuple[str, ...]) -> int:
    """Say in which stores the root is; status 3 unless it is in all of them."""
    anchors = _anchors(session)
    found = [(anchor, store.look(anchor)) for anchor in anchors for store in _stores(names)]
    if session.json:
        session.screen.object("trust-status", {**_mesh(anchors), "stores": _public(found)})
    else:
        _show(session, found)
    return _exit(finding.state in DONE for _, finding in found)


class _Change:
    """A verb, the states that need nothing, and what to do about the others."""

    def __init__(
        self, verb: str, done: frozenset[str], act: Callable[[Store, Anchor], None]
    ) -> None:
        self.verb = verb
        self.done = done
        self.act = act

    def attempt(self, store: Store, anchor: Anchor) -> Finding:
        """Return how the store stands afterwards; trouble in one never stops the others."""
        before = store.look(anchor)
        if before.state in self.done or before.state == "unavailable":
            return before
        try:
            self.act(store, anchor)
        except MeshError as error:
            detail = f"{before.detail}; {error.detail}" if before.detail else error.detail
            return Finding(before.store, before.place, before.state, detail, error.hint)
        return store.look(anchor)


def _change(
    session: Session, names: tuple[str, ...], wanted: _Change, question: str, *, dry_run: bool
) -> int:
    anchors, stores = _anchors(session), _stores(names)
    pairs = [(anchor, store) for anchor in anchors for store in stores]
    found = [(anchor, store.look(anchor)) for anchor, store in pairs]
    open_ones = [finding for _, finding in found if finding.state not in wanted.done]
    if not dry_run and any(finding.state != "unavailable" for finding in open_ones):
        for anchor in anchors:
            session.screen.note(f"mesh {anchor.mesh}  root sha256 {grouped(anchor.pin)}")
        if not ask_yes(session, question):
            session.screen.note("nothing was changed")
            return Exit.FAILED
        found = [(anchor, wanted.attempt(store, anchor)) for anchor, store in pairs]
    if session.json:
        answer = {**_mesh(anchors), "dry_run": dry_run, "stores": _public(found)}
        session.screen.object(f"trust-{wanted.verb}", answer)
    else:
        _show(session, found)
    if dry_run:
        for finding in open_ones:
            session.screen.note(f"would {wanted.verb}: {finding.place}")
        return Exit.OK
    return _exit(finding.state in wanted.done for _, finding in found)


def _stores(names: tuple[str, ...]) -> tuple[Store, ...]:
    given = os.environ.get(ROOT_VARIABLE, "")
    root = Path(given) if given else None
    home = root / "home" if root is not None else Path.home()
    found: tuple[Store, ...] = (system_store(root),) if "system" in names else ()
    return found + (nss_stores(home) if "nss" in names else ())


def _anchors(session: Session) -> tuple[Anchor, ...]:
    path = session.paths.membership
    try:
        membership = decode_json(path.read_bytes(), Membership)
    except FileNotFoundError:
        raise NoMeshError(
            f"the node in {session.home} belongs to no mesh, so there is no root to trust",
            hint=f"{session.command('init NAME')} or {session.command('join INVITE')}",
        ) from None
    except (OSError, MalformedMessageError) as error:
        raise NoMeshError(f"{path} cannot be read: {error}", hint="join again") from None
    return anchors_of(membership)


def _mesh(anchors: tuple[Anchor, ...]) -> dict[str, Any]:
    return {"mesh": anchors[0].mesh, "pin": anchors[0].pin}


def _public(found: Iterable[tuple[Anchor, Finding]]) -> list[dict[str, Any]]:
    return [{"pin": anchor.pin, **asdict(finding)} for anchor, finding in found]


def _show(session: Session, found: Iterable[tuple[Anchor, Finding]]) -> None:
    rows = list(found)
    session.screen.table(
        ("STORE", "STATE", "ROOT", "WHERE", "DETAIL"),
        [
            (finding.store, finding.state, anchor.pin[:12], finding.place, finding.detail or "-")
            for anchor, finding in rows
        ],
    )
    for hint in dict.fromkeys(finding.hint for _, finding in rows if finding.hint):
        session.screen.note(f"do: {hint}")


def _exit(fine: Iterable[bool]) -> int:
    return Exit.OK if all(fine) else Exit.ATTENTION
