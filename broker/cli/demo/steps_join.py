"""Steps 3 and 4: one member by invite, one by TOTP code and a person's word."""

import base64
import shutil
import sys
from urllib.parse import parse_qs, urlsplit

import click
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from broker.cli.demo.failure import require, until
from broker.cli.demo.node import ENROLL_PORT, Answer, Node, pick
from broker.cli.demo.place import prepare
from broker.cli.demo.stage import Stage
from broker.cli.demo.tls import live_serial
from broker.cli.shape import short_serial
from broker.clock import wall_s
from broker.runtime.exits import Exit
from broker.wire.invite import decode_invite, encode_invite

TRUSTED_S = 15.0
WAIT = "20s"
WORDS = 4


def join_with_invite(stage: Stage) -> str:
    """Join node-b by an invite; a wrong pin is refused before the secret leaves."""
    made = stage.node_a.ask("invite", "create", stage.node_b.name, "--ttl", "10m")
    invite = str(pick(made, "invite"))
    _refuse_wrong_pin(stage, invite)
    joined = stage.node_b.ask("join", invite)
    until_member(stage.node_b)
    _check_key_stayed(stage.node_a, stage.node_b)
    _refuse_spent_invite(stage, invite)
    serial = live_serial(stage.node_b)
    stage.board.show(f"issued {short_serial(serial)}  valid until {pick(joined, 'not_after')}")
    return "wrong pin refused, CA pinned, key stayed, invite spent"


def _refuse_wrong_pin(stage: Stage, invite: str) -> None:
    """The pin is checked on the first handshake: the invite must still be unspent after it."""
    ticket = decode_invite(invite)
    flipped = ticket.pin[:-1] + ("0" if ticket.pin[-1] != "0" else "1")
    wrong = encode_invite(msgspec.structs.replace(ticket, pin=flipped))
    answer = stage.node_b.call("join", wrong)
    require(
        answer.status == Exit.REFUSED and answer.code == "pin_mismatch",
        f"another CA's pin was not refused: {answer.sentence}",
        log=stage.node_a.log("gateway"),
    )
    invites = pick(stage.node_a.ask("invite", "list"), "invites") or ()
    states = [line.get("state") for line in invites if line.get("host") == stage.node_b.name]
    require(states == ["open"], f"the invite is {states} after a refusal by pin")
    rows = pick(stage.node_a.ask("audit", "show"), "rows") or ()
    require(
        not any(row.get("event") == "join.refused" for row in rows),
        "the CA saw a join attempt from a caller that should have left at the handshake",
    )


def _refuse_spent_invite(stage: Stage, invite: str) -> None:
    """Whoever finds the invite later gets nothing for it, not even under the same name."""
    answer = _stranger(stage, stage.node_b.name).call("join", invite)
    require(
        answer.status == Exit.REFUSED and answer.code == "invite_used",
        f"a used invite was not refused: {answer.sentence}",
        log=stage.node_a.log("gateway"),
    )


def _stranger(stage: Stage, name: str) -> Node:
    """Return a fourth machine that calls itself `name` and never gets in."""
    stranger = Node(name, "127.0.0.3", stage.home / "stranger", dict(stage.node_c.settings))
    stranger.settings["node.name"] = name
    if stranger.home.exists():
        shutil.rmtree(stranger.home)
    prepare(stranger)
    return stranger


def until_member(node: Node) -> None:
    """Wait until the running node knows that it belongs to the mesh and has its certificate."""

    def belongs() -> bool:
        answer = node.call("status")
        role = pick(pick(answer.body, "node"), "role")
        return role == "member" and (node.live / "cert.pem").exists()

    until(f"{node.name} a member", belongs, TRUSTED_S, log=node.log("broker"))


def _check_key_stayed(primary: Node, member: Node) -> None:
    """Search everything the CA's node wrote for the member's private key.

    The public half is searched as well, and must be found: a search that finds nothing at all
    would prove nothing.
    """
    pem = (member.live / "key.pem").read_bytes()
    key = serialization.load_pem_private_key(pem, password=None)
    require(isinstance(key, ec.EllipticCurvePrivateKey), "the member's key is not ECDSA")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    secret = key.private_numbers().private_value.to_bytes(32, "big")
    public = key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    seen = [path.read_bytes() for path in primary.home.rglob("*") if path.is_file()]
    require(
        not any(secret in content or pem.splitlines()[1] in content for content in seen),
        f"the private key of {member.name} is on {primary.name}",
    )
    require(any(public in content for content in seen), "the search for the key found nothing")
    leaf = x509.load_pem_x509_certificate((member.live / "cert.pem").read_bytes())
    require(leaf.public_key() == key.public_key(), "certificate and key do not match")


def join_with_code(stage: Stage) -> str:
    """Join node-c by a TOTP code; a person compares words and approves."""
    stage.node_a.ask("enrollment", "open")
    code = totp_code(str(stage.creation.get("totp_uri", "")))
    asked = _ask_to_join(stage, stage.node_c, code)
    require(
        asked.status == Exit.WAITING,
        f"the join did not wait for a person: {asked.sentence}",
        log=stage.node_a.log("gateway"),
    )
    approval = _pending(stage, stage.node_c.name)
    words = [str(word) for word in pick(approval, "words") or ()]
    require(len(words) == WORDS, f"{len(words)} comparison words instead of {WORDS}")
    shown = [str(word) for word in pick(asked.body, "words") or ()]
    require(shown == words, f"the screens differ: {shown} there, {words} here")
    _decide(stage, approval, words)
    joined = _ask_to_join(stage, stage.node_c, code, "--wait", WAIT)
    require(joined.status == Exit.OK, f"approved, but not joined: {joined.sentence}")
    until_member(stage.node_c)
    _refuse_reused_code(stage, code)
    stage.node_a.ask("enrollment", "close")
    return "TOTP and approval, words equal on both sides, reused code refused"


def _ask_to_join(stage: Stage, node: Node, code: str, *more: str) -> Answer:
    """Run the join; the code goes through standard input, secrets have no place in argv."""
    url = f"https://{stage.node_a.address}:{ENROLL_PORT}"
    return node.call("join", "--url", url, "--pin", stage.pin, "--totp", "-", *more, typed=code)


def _pending(stage: Stage, host: str) -> dict[str, object]:
    waiting = pick(stage.node_a.ask("approval", "list"), "approvals") or ()
    found = [line for line in waiting if line["host"] == host and line["state"] == "pending"]
    require(len(found) == 1, f"{len(found)} requests of {host} wait instead of one")
    line: dict[str, object] = found[0]
    return line


def _decide(stage: Stage, approval: dict[str, object], words: list[str]) -> None:
    """Approve; with `--manual` only when the person says so."""
    stage.board.show(
        "",
        f"PENDING  {approval['host']}  from {approval['source']}",
        f"         words on both screens:  {'  '.join(words)}",
        f"         policy: {approval['note']}",
    )
    if stage.options.manual:
        agreed = click.confirm("         approve?", err=True)
        require(agreed, "you said no, so node-c stays outside", todo="run the demo again")
    asked = str(approval["approval_id"])
    stage.node_a.ask("approval", "approve", asked)
    decided = pick(stage.node_a.ask("approval", "show", asked), "approval")
    require(bool(pick(decided, "operator")), "nobody's name stands beside the approval")
    who = "you" if stage.options.manual else "demo (use --manual to decide yourself)"
    stage.board.show(f"approved by {who}", "")


def _refuse_reused_code(stage: Stage, code: str) -> None:
    """A code somebody saw on a screen is worthless: each step of the clock counts once."""
    answer = _ask_to_join(stage, _stranger(stage, "node-d"), code)
    require(
        answer.status == Exit.REFUSED and answer.code == "bad_credential",
        f"a used TOTP code was not refused: {answer.sentence}",
    )


def totp_code(uri: str) -> str:
    """Return the code an authenticator would show now for an `otpauth:` URI (RFC 6238)."""
    require(uri.startswith("otpauth://totp/"), "certmesh init showed no TOTP URI")
    given = {key: values[0] for key, values in parse_qs(urlsplit(uri).query).items()}
    padded = given["secret"] + "=" * (-len(given["secret"]) % 8)
    algorithms: dict[str, hashes.SHA1 | hashes.SHA256 | hashes.SHA512] = {
        "SHA1": hashes.SHA1(),  # noqa: S303 (RFC 6238's default; HMAC needs no collision resistance)
        "SHA256": hashes.SHA256(),
        "SHA512": hashes.SHA512(),
    }
    clockwork = TOTP(
        base64.b32decode(padded),
        int(given.get("digits", "6")),
        algorithms[given.get("algorithm", "SHA1")],
        int(given.get("period", "30")),
        enforce_key_length=False,
    )
    return clockwork.generate(wall_s()).decode()


def require_terminal() -> None:
    """Refuse `--manual` where nobody can answer."""
    if not sys.stdin.isatty():
        raise click.UsageError("--manual needs a terminal")
