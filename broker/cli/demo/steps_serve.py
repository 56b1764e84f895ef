"""Steps 5 and 6: mutual TLS as any program speaks it, and a renewal that reaches the service."""

import os
import shlex
import shutil
import socket
import subprocess
import sys
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from typing_extensions import override

from broker.cli.demo import nginx
from broker.cli.demo.failure import require, until
from broker.cli.demo.foreign import foreign_identity
from broker.cli.demo.node import pick, quiet_environment, run_program
from broker.cli.demo.stage import Stage
from broker.cli.demo.tls import (
    APP_PORT,
    Connection,
    app_door,
    identity_of,
    live_serial,
    mesh_door,
    refusal,
    served_serial,
)
from broker.cli.shape import short_serial

OK = 200
APP_S = 10.0
RENEWED_S = 60.0
HOOK = "reload-app"


def start_app(stage: Stage) -> None:
    """Start the service on node-c that the certificates are for, if it does not run yet."""
    if stage.app is not None:
        return
    node, pid_file = stage.node_c, stage.home / "app.pid"
    words = (str(node.live), node.address, str(APP_PORT), str(pid_file))
    with (node.home / "log" / "app.log").open("ab") as log:
        stage.app = subprocess.Popen(  # noqa: S603 (our own module)
            (sys.executable, "-m", "broker.cli.demo.app", *words),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=quiet_environment(),
        )
    until("the service on node-c listening", pid_file.exists, APP_S, log=node.log("app"))
    if nginx.program():
        nginx.start(stage.home, node)


def speak_mutual_tls(stage: Stage) -> str:
    """Call the service with the right certificate, with none, and with another CA's."""
    start_app(stage)
    greeting = f"hello {stage.node_b.name}, this is {stage.node_c.name}"
    command = curl_command(stage)
    stage.board.show("", "copy and try:", *command_lines(command), "")
    status, body = call_service(stage)
    require(
        status == OK and greeting in body,
        f"the service answered {status}: {body[:200]!r}",
        log=stage.node_c.log("app"),
    )
    foreign = stage.context_of(foreign_identity(stage.home / "foreign", stage.node_b.server_name))
    nobody = stage.context_of(None)
    outcomes = [
        refusal(door, context, "/v1/whoami")
        for door in (app_door(stage.node_c), mesh_door(stage.node_a))
        for context in (nobody, foreign)
    ]
    _check_gateway_knows(stage)
    stage.board.show(f'{status}  "{greeting}"', f"no certificate: {outcomes[0]}", "")
    return f"{status} with, refused without, refused with another CA's (service and gateway)"


def call_service(stage: Stage) -> tuple[int, str]:
    """Call the service as node-b, with the command that was shown where curl is present."""
    caller = _call_with_curl if shutil.which("curl") else _call_with_requests
    return caller(stage, curl_command(stage))


def _check_gateway_knows(stage: Stage) -> None:
    """The same certificate opens node-a's mesh port, which tells who it thinks is calling."""
    connection = Connection(mesh_door(stage.node_a), stage.context_as(stage.node_b))
    connection.connect()
    status, body = connection.get("/v1/whoami")
    connection.close()
    require(
        status == OK and stage.node_b.name.encode() in body,
        f"node-a answered whoami with {status}: {body[:200]!r}",
        log=stage.node_a.log("gateway"),
    )


def curl_command(stage: Stage) -> list[str]:
    """Return the command a reader can copy; the service sees node-b."""
    live, node = stage.node_b.live, stage.node_c
    return [
        "curl",
        *("--cacert", str(live / "chain.pem")),
        *("--cert", str(live / "fullchain.pem")),
        *("--key", str(live / "key.pem")),
        *("--resolve", f"{node.server_name}:{APP_PORT}:{node.address}"),
        f"https://{node.server_name}:{APP_PORT}/",
    ]


def command_lines(command: list[str]) -> list[str]:
    """Return a command line broken where a shell allows it."""
    head = shlex.join(command[:7])
    return [f"{head} \\", f"    {shlex.join(command[7:])}"]


def _call_with_curl(_stage: Stage, command: list[str]) -> tuple[int, str]:
    """Run the very command that was shown, quietly, with the status on a line of its own."""
    extra = ["--silent", "--show-error", "--max-time", "10", "--write-out", "\n%{http_code}"]
    done = run_program([*command, *extra])
    body, _, status = done.stdout.rpartition("\n")
    return int(status or 0), body or done.stderr


class _ByName(HTTPAdapter):
    """Dial an address, verify another name: what `--resolve` is for curl."""

    def __init__(self, server_name: str) -> None:
        self._server_name = server_name
        super().__init__()

    @override
    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Pin the name in every pool."""
        named = {"server_hostname": self._server_name, "assert_hostname": self._server_name}
        super().init_poolmanager(*args, **(options | named))


def _call_with_requests(stage: Stage, _command: list[str]) -> tuple[int, str]:
    identity, door = identity_of(stage.node_b), app_door(stage.node_c)
    with requests.Session() as session:
        session.trust_env = False  # REQUESTS_CA_BUNDLE would silently win over our root
        session.mount("https://", _ByName(door.server_name))
        answer = session.get(
            f"https://{door.address}:{door.port}/",
            verify=str(stage.trust),
            cert=(str(identity.certificate), str(identity.key)),
            timeout=10,
        )
    return answer.status_code, answer.text


def renew_with_hook(stage: Stage) -> str:
    """Wait for node-c's renewal and see it arrive in the service, connections unbroken."""
    start_app(stage)
    _ensure_hook(stage)
    node, door = stage.node_c, app_door(stage.node_c)
    context = stage.context_as(stage.node_b)
    kept = Connection(door, context)
    kept.connect()
    require(kept.get("/")[0] == OK, "the service does not answer before the renewal")
    line_before: socket.socket = kept.tls
    before = live_serial(node)
    runs_before = len(_hook_runs(stage))
    after = until(
        f"a renewed certificate on {node.name}",
        lambda: _changed(live_serial(node), before),
        RENEWED_S,
        log=node.log("renewal-0"),
    )
    until(
        "the service serving the new certificate",
        lambda: served_serial(door, stage.context_as(stage.node_b)) == after,
        APP_S,
        log=node.log("app"),
    )
    _check_nginx(stage, after)
    run = until(
        "the hook's run in the log", lambda: _newest_run(stage, runs_before), APP_S, log=None
    )
    require(run.get("exit") == 0, f"the hook {HOOK} failed: {run}")
    _check_reported(stage, after)
    require(
        kept.get("/")[0] == OK and kept.sock is line_before,
        "the connection opened before the renewal did not survive it",
    )
    kept.close()
    stage.board.show(f"probe of :{APP_PORT} serves {short_serial(after)}, open connection kept")
    took = f"{run.get('took_s')} s"
    return f"{short_serial(before)} -> {short_serial(after)}  hook {HOOK} {took}"


def _check_nginx(stage: Stage, serial: str) -> None:
    """The certificate must have reached nginx as well, where this machine has it."""
    if not nginx.program():
        return
    until(
        "nginx serving the new certificate",
        lambda: served_serial(nginx.door(stage.node_c), stage.context_as(stage.node_b)) == serial,
        APP_S,
        log=stage.node_c.log("nginx"),
    )
    stage.board.show(f"probe of nginx on :{nginx.PORT} serves {short_serial(serial)}")


def _ensure_hook(stage: Stage) -> None:
    """Tell node-c how to reload its services, as its administrator would."""
    listed = pick(stage.node_c.ask("hook", "list"), "hooks") or ()
    if any(line.get("name") == HOOK for line in listed):
        return
    reload = (sys.executable, "-m", "broker.cli.demo.reload", str(stage.home / "app.pid"))
    # Under root a hook is nobody's unless it says whose: these signal processes of ours.
    whose = ("--user", "root") if os.geteuid() == 0 else ()
    if nginx.program():
        words = nginx.reload_words(stage.home)
        stage.node_c.ask("hook", "add", nginx.HOOK, *whose, "--", *words)
    stage.node_c.ask("hook", "add", HOOK, *whose, "--", *reload)


def _changed(now: str, before: str) -> str | None:
    return now if now != before else None


def _hook_runs(stage: Stage) -> list[dict[str, object]]:
    runs = pick(stage.node_c.ask("hook", "log", HOOK), "runs")
    return list(runs or ())


def _newest_run(stage: Stage, before: int) -> dict[str, object] | None:
    runs = _hook_runs(stage)
    return runs[0] if len(runs) > before else None


def _check_reported(stage: Stage, serial: str) -> None:
    """The loop is closed when the CA itself says that node-c serves the new serial."""

    def reported() -> bool:
        member = pick(stage.node_a.ask("member", "show", stage.node_c.name), "member")
        seen = (pick(member, "served_serial"), pick(member, "served"))
        return seen == (serial, "served")

    until("the CA knowing what node-c serves", reported, APP_S, log=stage.node_a.log("broker"))
