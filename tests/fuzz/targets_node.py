"""Ways in by files of this node, by programs on it, and by what mDNS and a webhook bring."""

import contextlib
import functools
import hashlib
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import click
import msgspec

from broker.cli import aside, tomlfile, versions
from broker.cli.commands import destroy, leave, trust
from broker.cli.commands.cert import own_directory
from broker.cli.nodehome import setting_options
from broker.cli.session import Session
from broker.errors import KeyRejectedError, MeshError
from broker.pki.authority import pem
from broker.runtime.curve import read_pair
from broker.runtime.paths import Paths, node_paths
from broker.runtime.settings import Settings, load_settings
from broker.shell.membership import read_membership
from broker.shell.vault import SealedFile, _sealed
from broker.shell.verified import MARK, _known
from broker.wire.codec import encode_body
from broker.wire.console_api import HookRun
from broker.wire.failover import Hint
from broker.wire.node import Membership
from tests.fuzz.place import file_of, place
from tests.fuzz.target import Target
from tests.pki.making import authority, sealed_keys
from tests.wire.samples import sample
from workers.approval.dialogue import SCHEME, SignedQuestion, hear_answer, sign_answer
from workers.console.logic import hook_runs
from workers.enroll.logic import Order, Ticket, read_order
from workers.enroll.ticket import TicketFile
from workers.failover.logic import hint_of, keep
from workers.material import find_material
from workers.membership import load_membership
from workers.renewal.delivery import Delivery
from workers.renewal.runlog import RunLog
from workers.root import roots_of
from workers.watchdog.listener import Feed, ProtocolError

SETTINGS = b"""
hook = [{name = "nginx", command = ["/bin/true"], timeout = "30s"}]
[node]
name = "atlas"
sans = ["atlas.home.arpa"]
[listen]
enroll = "127.0.0.1:7642"
[approval]
decider = "webhook"
webhook = "https://127.0.0.1:1/x"
webhook_secret_file = "s"
[notify]
smtp = "smtp://127.0.0.1:25"
smtp_from = "a@b.example"
smtp_to = ["c@d.example"]
[renewal]
jitter = 0.05
probe = ["tcp://127.0.0.1:443"]
"""
SETTINGS_FILES = (SETTINGS, b"node = 3\n", b"hook = 3\n", b"hook = [1]\n", b"[[node]]\n")
ENVIRONMENT = {"CERTMESH_NODE_NAME": "atlas", "CERTMESH_RENEWAL_JITTER": "0.1"}
EVENT = b"ver:3.0 serial:21 pool:watchdog eventname:TICK_5 len:15\nwhen:1201063880"
SECRET = b"s" * 32
ASKED = SignedQuestion(b"{}", "1780000000", "00" * 32)


@functools.cache
def paths() -> Paths:
    """Return the paths of the node in the private directory."""
    found = node_paths(place() / "certmesh.toml", Settings())
    for directory in (found.run, found.data):
        directory.mkdir(mode=0o700, exist_ok=True)
    return found


def session() -> Session:
    """Return the command's view of that node."""
    file_of(b'[node]\nname = "atlas"\n', "certmesh.toml")
    return Session(home_option=str(place()))


def _settings(octets: bytes) -> None:
    path = file_of(octets, "some.toml")
    for environment in ({}, ENVIRONMENT):
        _try(load_settings, path, {**environment, "HOME": "/"})
    text = octets.decode("utf-8", "replace")
    _try(tomlfile.parsed, text, "x")
    _try(tomlfile.with_key, text, "node", "name", "birch")
    _try(tomlfile.with_hook, text, {"name": "h", "command": ["/bin/true"]})
    _try(tomlfile.without_hook, text, "nginx")


def _environment(octets: bytes) -> None:
    text = octets.decode("utf-8", "replace")
    for name in ("NODE_NAME", "RENEWAL_JITTER", "POOL_RENEWAL", "HEARTBEAT_INTERVAL"):
        _try(load_settings, file_of(SETTINGS, "some.toml"), {f"CERTMESH_{name}": text})


def _option(octets: bytes) -> None:
    setting_options((octets.decode("utf-8", "replace"),))


def _membership(octets: bytes) -> None:
    at, now = paths(), session()
    file_of(octets, str(at.membership.relative_to(place())))
    readers: tuple[Callable[[], object], ...] = (
        lambda: read_membership(at),
        lambda: find_material(at),
        lambda: own_directory(now),
        lambda: destroy._membership(now),
        lambda: leave._membership(now),
        lambda: trust._anchors(now),
        lambda: roots_of(cast("Membership", load_membership(at))),
    )
    for read in readers:
        _try(read)


def _try(call: Callable[..., object], *given: object) -> None:
    """Call one of several readers of the same octets; a typed refusal is as good as an answer."""
    with contextlib.suppress(MeshError):
        call(*given)


def _a_membership() -> bytes:
    made = msgspec.structs.replace(
        sample(Membership),
        host="atlas",
        root_pem=pem(authority().root),
        other_roots=(pem(authority().root),),
    )
    return msgspec.json.encode(made)


def _records(octets: bytes) -> None:
    path = file_of(octets, "certs/delivery.json")
    versions.last_delivery(path.parent)
    store: Any = SimpleNamespace(directory=path.parent)
    blank = cast("Any", None)
    Delivery(store, blank, blank, blank, "atlas")._last_record()


def _left(octets: bytes) -> None:
    file_of(octets, str((paths().data / aside.NOTE).relative_to(place())))
    aside.begun(paths())


def _runs(octets: bytes) -> None:
    file_of(octets, str(paths().hook_runs.relative_to(place())))
    hook_runs(octets.splitlines(), "", 50)
    RunLog(paths()).runs()


def _ticket(octets: bytes) -> None:
    file_of(octets, str((paths().data / "ticket.json").relative_to(place())))
    TicketFile(paths()).load()


def _mark(octets: bytes) -> None:
    file_of(octets, str((paths().run / MARK).relative_to(place())))
    file_of(b"", str(paths().ledger.relative_to(place())))
    _known(paths())


def _pair(octets: bytes) -> None:
    read_pair(file_of(octets, "curve.key"))


def _vault(octets: bytes) -> None:
    _sealed(file_of(octets, "keys.sealed"))


def _a_vault() -> bytes:
    body = encode_body(sealed_keys())
    return encode_body(SealedFile(digest=hashlib.sha256(body).digest(), body=body))


def _feed(octets: bytes) -> None:
    feed = Feed()
    for start in range(0, len(octets), 97):
        feed.receive(octets[start : start + 97])


def _webhook(octets: bytes) -> None:
    signature = SCHEME + sign_answer(SECRET, ASKED.signature, octets)
    hear_answer(200, octets, signature, SECRET, ASKED)


def record(octets: bytes) -> Hint | None:
    """Return the hint of an mDNS record: label, addresses, port, then TXT pairs, one a line."""
    label, addresses, port, *pairs = (*octets.split(b"\n"), b"", b"", b"")
    txt = {key: value or None for key, _, value in (pair.partition(b"=") for pair in pairs)}
    number = int.from_bytes(port[-3:])
    texts = addresses.decode("utf-8", "replace").split(",")
    return hint_of(label.decode("utf-8", "replace"), texts, number, txt)


def _radio(octets: bytes) -> None:
    found = record(octets)
    if found is None:
        return
    shown = (found.instance, found.role, found.fingerprint, found.term, *found.addresses)
    assert all(text.isprintable() for text in shown), shown
    # What the worker keeps must be a message to the broker, or one record would silence it.
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Hint) == found
    keep({}, found.instance, found, "ab")


def _json(kind: type[msgspec.Struct], **fields: object) -> Callable[[], tuple[bytes, ...]]:
    given: Mapping[str, object] = fields
    return lambda: (msgspec.json.encode(kind(**given) if given else sample(kind)),)


RADIO = b"certmesh-ca-atlas\n10.0.0.7,fe80::1%2\n\x1d\xdb\nrole=primary\nterm=4\nfingerprint=0a1b"

NODE_TARGETS = (
    Target("settings", _settings, lambda: SETTINGS_FILES, "text", bytes_max=65_536),
    Target(
        "environment",
        _environment,
        lambda: (b"0.1", b"atlas", b"30s", b"[1]"),
        "text",
        bytes_max=16_384,
    ),
    Target(
        "setting-option",
        _option,
        lambda: (b'node.sans=["a.b"]', b"node.name=x"),
        "text",
        refusals=(MeshError, click.UsageError),
        bytes_max=16_384,
    ),
    Target("membership", _membership, lambda: (_a_membership(),), "json", bytes_max=60_000),
    Target(
        "delivery",
        _records,
        lambda: (b'{"serial":"0a","state":"served","detail":"x"}',),
        "json",
    ),
    Target("leaving", _left, lambda: (b'{"told":true,"place":"left-2026"}',), "json"),
    Target("hook-runs", _runs, _json(HookRun), "json", bytes_max=262_144),
    Target("join-ticket", _ticket, _json(Ticket), "json"),
    Target("join-order", read_order, _json(Order), "json"),
    Target(
        "verified-mark",
        _mark,
        lambda: (b'{"boot":"b","inode":1,"term":1,"sequence":1,"hash":"00"}',),
        "json",
    ),
    Target(
        "curve-key",
        _pair,
        lambda: (b"0a" * 32 + b"\n",),
        refusals=(KeyRejectedError,),
        bytes_max=4096,
    ),
    Target("vault", _vault, lambda: (_a_vault(),), "msgpack"),
    Target("supervisord", _feed, lambda: (EVENT, EVENT * 2), refusals=(ProtocolError,)),
    Target(
        "webhook-answer",
        _webhook,
        lambda: (b'{"decision":"deny","operator":"ann","reason":"no"}',),
        "json",
        bytes_max=65_536,
    ),
    Target("mdns", _radio, lambda: (RADIO,), bytes_max=9000),
)
