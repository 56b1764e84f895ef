"""Steps 8 to 11: a second box takes over when the first one dies, and the first comes back."""

import http.client
import json
import os
import signal
import stat
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from broker.cli.demo.failure import StepError, require, until
from broker.cli.demo.node import Node, pick
from broker.cli.demo.stage import Stage
from broker.cli.demo.steps_serve import OK, call_service, start_app
from broker.cli.demo.tls import Connection, live_serial, mesh_door
from broker.cli.shape import short_serial
from broker.clock import boottime_ms

PRIVATE = 0o600
CONFLICT = 409
READY_S = 30.0
TAKEOVER_S = 30.0
FOLLOW_S = 15.0
RENEWED_S = 30.0
RETURN_S = 45.0


def make_standby(stage: Stage) -> str:
    """Nominate node-b, wait until it is ready, and look at how it keeps the key."""
    primary, standby = stage.node_a, stage.node_b
    primary.ask("standby", "nominate", standby.name, "--wait", f"{READY_S:.0f}s")
    line = until(
        f"{standby.name} ready to take over",
        lambda: _ready_line(primary, standby.name),
        READY_S,
        log=standby.log("roster-sync"),
    )
    _check_key_at_rest(standby.home / "ca")
    shown = pick(standby.ask("ca", "show"), "state")
    require(shown == "unlocked", f"the CA key on {standby.name} is {shown}")
    return f"{standby.name} holds the CA key, sealed at rest, lag {line['lag']} rows"


def _standbys(node: Node) -> dict[str, object]:
    """Return the order of succession; status 3 only says that somebody should look at it."""
    answer = node.call("standby", "list")
    require(answer.status in (0, 3), answer.sentence, log=node.log("console"))
    return answer.body


def _ready_line(primary: Node, host: str) -> dict[str, object] | None:
    lines = pick(_standbys(primary), "lines") or ()
    for line in lines:
        if (line.get("host"), line.get("state"), line.get("lag")) == (host, "ready", 0):
            return dict(line)
    return None


def _check_key_at_rest(directory: Path) -> None:
    """The received key lies there as sealed as on the primary."""
    sealed = directory / "keys.sealed"
    require(sealed.exists(), f"{sealed} is missing")
    mode = stat.S_IMODE(sealed.stat().st_mode)
    require(mode == PRIVATE, f"{sealed} has mode {mode:o}, not 600")
    for path in directory.iterdir():
        content = path.read_bytes()
        require(b"PRIVATE KEY" not in content, f"{path} holds a key in the clear")
        try:
            serialization.load_der_private_key(content, password=None)
        except (ValueError, TypeError):
            continue
        raise StepError(f"{path} is a private key without any seal")


def kill_primary(stage: Stage) -> str:
    """Kill every process of node-a at once and wait for node-b to lead and node-c to follow."""
    lost, heir, member = stage.node_a, stage.node_b, stage.node_c
    before = int(pick(_standbys(heir), "term") or 0)
    victims = lost.process_ids()
    require(victims, f"no process of {lost.name} is running")
    began_ms = boottime_ms()
    for pid in victims:
        _kill(pid)
    until(
        f"{heir.name} primary",
        lambda: _phase(heir) == "serving",
        TAKEOVER_S,
        log=heir.log("broker"),
    )
    took_s = (boottime_ms() - began_ms) / 1000
    stage.heir = heir
    after = int(pick(_standbys(heir), "term") or 0)
    require(after > before, f"the term stayed {after}")
    until(
        f"{member.name} following {heir.name}",
        lambda: _primary_of(member) == heir.name,
        FOLLOW_S,
        log=member.log("heartbeat"),
    )
    followed_s = (boottime_ms() - began_ms) / 1000
    grace = lost.settings["failover.grace"]
    stage.board.show(f"{len(victims)} processes killed; grace {grace}; {member.name} follows")
    return (
        f"{heir.name} primary after {took_s:.1f} s, term {before} -> {after}, "
        f"followed at {followed_s:.1f} s"
    )


def renew_at_heir(stage: Stage) -> str:
    """Renew node-c at its new primary; the chain and the service are the same as before."""
    start_app(stage)
    member = stage.node_c
    before = live_serial(member)
    member.ask("cert", "renew")
    after = until(
        f"a certificate from {stage.primary.name}",
        lambda: _other(live_serial(member), before),
        RENEWED_S,
        log=member.log("renewal-0"),
    )
    line = pick(stage.primary.ask("member", "show", member.name), "member")
    require(pick(line, "serial") == after, f"{stage.primary.name} does not know {after}")
    status, body = until(
        "the service answering", lambda: _greeted(stage), FOLLOW_S, log=member.log("app")
    )
    require(status == OK, f"the service answered {status}: {body[:200]!r}")
    serials = f"{short_serial(before)} -> {short_serial(after)}"
    return f"{serials} by {stage.primary.name}, same root, {status}"


def bring_back(stage: Stage) -> str:
    """Start node-a again: it follows, and what it would sign in its old term nobody takes."""
    returned, member = stage.node_a, stage.node_c
    began_ms = boottime_ms()
    returned.ask("up", "--no-wait")
    until(
        f"{returned.name} standby in step",
        lambda: _ready_line(stage.primary, returned.name),
        RETURN_S,
        log=returned.log("broker"),
    )
    took_s = (boottime_ms() - began_ms) / 1000
    refused = returned.call("invite", "create", "node-d")
    require(refused.code == "not_primary", f"{returned.name} still serves: {refused.sentence}")
    code = _call_in_term(stage, returned, member, term=1)
    require(code == "stale_term", f"{member.name} took a call of term 1: {code}")
    return f"standby in step after {took_s:.1f} s; its term-1 call was refused"


def _call_in_term(stage: Stage, source: Node, target: Node, *, term: int) -> str:
    """Call a member as the primary of some term would; return the code of the refusal."""
    connection = Connection(mesh_door(target), stage.context_as(source))
    connection.connect()
    try:
        body = json.dumps({"term": term})
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/renewal/csr", body, headers)
        answer = connection.getresponse()
        text = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return f"no answer ({error})"
    finally:
        connection.close()
    if answer.status != CONFLICT:
        return f"status {answer.status}: {text[:200]!r}"
    return str(json.loads(text).get("code"))


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it died with its supervisord a moment ago


def _phase(node: Node) -> str:
    return str(pick(_standbys(node), "phase"))


def _primary_of(node: Node) -> str:
    mesh = pick(node.call("status").body, "mesh") or {}
    return str((mesh.get("primary") or {}).get("host", ""))


def _other(now: str, before: str) -> str | None:
    return now if now != before else None


def _greeted(stage: Stage) -> tuple[int, str] | None:
    status, body = call_service(stage)
    return (status, body) if status == OK else None
