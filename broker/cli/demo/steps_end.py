"""Steps 12 and 13: revocation that holds at the next request, and a trail nobody can rewrite."""

import http.client
import json
import shutil
import sqlite3
import ssl
import sys
import tempfile
from pathlib import Path

from broker.cli.demo.failure import StepError, require
from broker.cli.demo.node import pick, run_program
from broker.cli.demo.stage import Stage
from broker.cli.demo.tls import Connection, mesh_door
from broker.clock import boottime_ms

OK = 200
FORBIDDEN = 403
WHOAMI = "/v1/whoami"


def revoke_member(stage: Stage) -> str:
    """Revoke node-c; the primary refuses it at the next request, on open connections too."""
    door, context = mesh_door(stage.primary), stage.context_as(stage.node_c)
    kept = Connection(door, context)
    kept.connect()
    require(kept.get(WHOAMI)[0] == OK, "node-c is refused before it is revoked")
    session = kept.tls.session
    stage.primary.ask("member", "revoke", stage.node_c.name, "--reason", "end of the demo", "--yes")
    began_ms = boottime_ms()
    verdict = _verdict(kept)
    took_ms = boottime_ms() - began_ms
    require(
        verdict == "revoked",
        f"the open connection of node-c got {verdict} after the revocation",
        log=stage.primary.log("gateway"),
    )
    fresh = Connection(door, stage.context_as(stage.node_c))
    fresh.connect()
    require(_verdict(fresh) == "revoked", "a new connection of node-c was not refused")
    _check_resumption(stage, context, session)
    return f"refused in {took_ms} ms on an open connection, and with a resumed session"


def _verdict(connection: Connection) -> str:
    """Return the code of the refusal on this very connection, or what came instead."""
    try:
        status, body = connection.get(WHOAMI)
    except (OSError, http.client.HTTPException) as error:
        return f"no answer ({error})"
    finally:
        connection.close()
    try:
        code = str(json.loads(body).get("code"))
    except ValueError:
        code = ""
    return code if status == FORBIDDEN else f"status {status}"


def _check_resumption(
    stage: Stage, context: ssl.SSLContext, session: ssl.SSLSession | None
) -> None:
    """A resumed session would skip the certificate; the server must not take one."""
    resumed = Connection(mesh_door(stage.primary), context, session)
    resumed.connect()
    require(not resumed.tls.session_reused, "the gateway resumed a session of a revoked member")
    require(_verdict(resumed) == "revoked", "a resumed session was served after the revocation")


def audit(stage: Stage) -> str:
    """Verify the hash chain, then forge one row of a copy and see it found."""
    verdict = stage.primary.ask("audit", "verify")
    rows = int(pick(verdict, "rows") or 0)
    require(rows > 0 and pick(verdict, "first_bad") is None, f"the chain is broken: {verdict}")
    with tempfile.TemporaryDirectory(prefix="certmesh-audit-", dir=stage.home) as scratch:
        copy = Path(scratch)
        _copy_ledger(stage.primary.home / "ledger.db", copy)
        status, whole = _verify(copy)
        require(status == 0, f"an untouched copy does not verify: {whole}")
        forged = _forge(copy / "ledger.db")
        status, found = _verify(copy)
        require(status != 0, f"row {forged} of a copy was forged and nobody noticed")
        require(found.get("first_bad") == forged, f"forged row {forged}, found {found}")
    return f"{rows} events, hash chain verified, forged row {forged} of a copy detected"


def _copy_ledger(ledger: Path, copy: Path) -> None:
    """Copy the ledger consistently while its broker goes on writing."""
    (copy / "certmesh.toml").write_text('node.name = "node-a"\n')
    source = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    target = sqlite3.connect(copy / "ledger.db")
    try:
        source.backup(target)
    finally:
        target.close()
        source.close()
    shutil.copy(ledger.with_name("membership.json"), copy)


def _forge(ledger: Path) -> int:
    """Change one byte in the middle of the history, as somebody with root could."""
    database = sqlite3.connect(ledger)
    try:
        (count,) = database.execute("SELECT max(sequence) FROM journal").fetchone()
        row = int(count) // 2
        database.execute("DROP TRIGGER IF EXISTS journal_is_append_only")
        changed = database.execute(
            "UPDATE journal SET at = at + 3600 WHERE sequence = ?", (row,)
        ).rowcount
        database.commit()
    finally:
        database.close()
    if changed != 1:
        raise StepError(f"row {row} of the copy could not be forged")
    return row


def _verify(home: Path) -> tuple[int, dict[str, object]]:
    """Run the broker's own check on a ledger that no broker has open."""
    settings = str(home / "certmesh.toml")
    done = run_program((sys.executable, "-m", "broker", "verify", settings))
    try:
        return done.returncode, json.loads(done.stdout)
    except ValueError:
        return done.returncode, {"detail": done.stderr[-400:]}
