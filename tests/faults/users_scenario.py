"""A node of several users, lived through as root in namespaces of its own; prints JSON.

The accounts are ones that every Debian has; all have the group nogroup. The interpreter may lie
below a directory that only root enters: there that directory is replaced, in this namespace alone.
`python -m tests.faults.users_scenario PORT`
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.faults.pool import Pool
from tests.support import eventually

BROKER, DOORS, OTHERS, HOOK_USER = "_apt", "nobody", "sync", "games"
GROUP = "nogroup"
NAMESPACE = (
    *("unshare", "--mount", "--propagation", "private", "--net"),
    *("--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc", "--"),
)
"""Whatever happens to it, nothing of it stays: no mount, no port, no process."""
START_S = 90.0
CHECKED = ("Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs")


def open_the_way() -> None:
    """Let other users reach the interpreter: a fresh /root with nothing but its directory in it.

    And let this namespace reach itself.
    """
    _do("ip", "link", "set", "lo", "up")
    real = Path(sys.executable).resolve()
    if not real.is_relative_to("/root"):
        return
    top = Path(*real.parts[:3])
    with tempfile.TemporaryDirectory(dir="/tmp") as aside:
        _do("mount", "--bind", str(top), aside)
        _do("mount", "-t", "tmpfs", "-o", "mode=0755", "none", "/root")
        top.mkdir()
        _do("mount", "--bind", aside, str(top))
        _do("umount", aside)


def _do(*words: str) -> None:
    subprocess.run(words, check=True, timeout=30)


def as_user(user: str, group: str, *words: str) -> dict[str, Any]:
    """Return what the intruder reports when it runs as `user`."""
    who = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
    line = [*who, sys.executable, "-m", "tests.faults.intruder", *words]
    done = subprocess.run(line, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def standing(pids: Mapping[str, int]) -> dict[str, dict[str, str]]:
    """Return who each process is and what it may do, in the kernel's words."""
    found = {}
    for program, pid in pids.items():
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        pairs = (line.partition(":") for line in lines)
        found[program] = {name: text.strip() for name, _, text in pairs if name in CHECKED}
    return found


def renew(node: Pool) -> None:
    """Ask for a renewal; a second after the last attempt at the earliest."""
    eventually(lambda: node.run("cert", "renew").returncode == 0, within_s=START_S)


class Scenario:
    """One node with `[users]`, and what is tried against it."""

    def __init__(self, port: int) -> None:
        # Below a directory of root's own: in /tmp itself nobody trusts another user's directory.
        self.place = Path(tempfile.mkdtemp(prefix="cmd-", dir="/tmp"))
        self.place.chmod(0o755)
        self.data = self.place / "data"
        self.said = Path(tempfile.mkdtemp(prefix="cmh-", dir="/tmp"))
        self.said.chmod(0o777)
        users = {"broker": BROKER, "gateway": DOORS, "workers": OTHERS}
        self.pool = Pool.create(
            port,
            f'node.data_dir="{self.data}"',
            *(f'users.{kind}="{name}"' for kind, name in users.items()),
        )
        self.member: Pool | None = None
        hook = f'["/bin/sh", "-c", "id -un > {self.said}/$CERTMESH_SERIAL"]'
        with (self.pool.home / "certmesh.toml").open("a") as file:
            file.write(f'\n[[hook]]\nname = "who"\nuser = "{HOOK_USER}"\ncommand = {hook}\n')

    def live(self) -> dict[str, Any]:
        """Run the node, use it, attack it; return everything that was seen."""
        started = self.pool.run("up", timeout=START_S)
        assert started.returncode == 0, (started.stdout, self.pool.log("broker"))
        eventually(self.pool.is_ok, within_s=START_S)
        return {
            "processes": standing(self.pool.pids()),
            "mesh": self._use(),
            "files": self._files(),
            "seats": self._seats(),
            "refusals": self._refusals(),
            "restarted": self._restart(),
        }

    def _use(self) -> dict[str, Any]:
        """Let a member join, renew this node, run a hook; return what came of it."""
        self.member = self.pool.joined("cedar", "127.0.0.2")
        up = self.member.run("up", timeout=START_S)
        assert up.returncode == 0, up.stderr
        eventually(self.member.is_ok, within_s=START_S)
        for node in (self.pool, self.member):
            renew(node)
        eventually(lambda: len(list(self.said.iterdir())) > 1, within_s=START_S)
        live = self.data / "certs" / "atlas" / "live"
        return {
            "hook_ran_as": sorted({path.read_text().strip() for path in self.said.iterdir()}),
            "key_mode": oct((live / "key.pem").stat().st_mode & 0o777),
            "members": len(self.pool.certmesh("status")["members"]),
        }

    def _files(self) -> dict[str, Any]:
        home, data, settings = self.pool.home, self.data, str(self.pool.home / "certmesh.toml")
        closed = [data / name for name in ("ledger.db", "ledger.db-wal", "ca", "credentials", "")]
        closed += [data / "ca" / "keys.sealed", data / "credentials" / "ca-unlock"]
        closed += [data / "broker.lock", home / "supervisord.conf"]
        kept = [home, data, data / "ca", data / "trust", home / "run", home / "run" / "broker"]
        kept += [home / "certmesh.toml", data / "membership.json", home / "hooks.d", home / "log"]
        kept += [
            data / "certs",
            data / "hook-runs",
            data / "certs" / "atlas",
            data / "certs" / "atlas" / "live" / "key.pem",
        ]
        doors = ("supervisor.sock", "console/api.sock", "broker/broker.sock")
        sockets = [str(home / "run" / name) for name in doors]
        gateway = (DOORS, GROUP, settings)
        return {
            "gateway_reads": as_user(*gateway, "read", *map(str, closed)),
            "gateway_writes": as_user(*gateway, "write", *(str(p) for p in kept if p.exists())),
            "gateway_connects": as_user(*gateway, "connect", *sockets),
            "stranger_connects": as_user(HOOK_USER, "games", settings, "connect", *sockets),
            "debugger": as_user(
                *gateway, "read", *(f"/proc/{self.pool.pids()['gateway']}/{n}" for n in DEBUGGED)
            ),
        }

    def _seats(self) -> dict[str, Any]:
        settings = str(self.pool.home / "certmesh.toml")
        found = {
            f"{user} as {service}": as_user(user, GROUP, settings, "be", service)
            for user, service in (
                (DOORS, "console"),
                (DOORS, "watchdog"),
                (DOORS, "gateway"),
                (OTHERS, "console"),
                (OTHERS, "heartbeat"),
            )
        }
        return found | {"open directory": self._open_directory()}

    def _open_directory(self) -> dict[str, Any]:
        """Take the directories' protection away from the plain node: what holds then?"""
        assert self.member is not None
        home = self.member.home
        home.chmod(0o755)
        (home / "certmesh.toml").chmod(0o644)
        (home / "run").chmod(0o777)
        for socket in ("broker.sock", "control.sock", "events.sock"):
            (home / "run" / socket).chmod(0o777)
        return as_user(HOOK_USER, "games", str(home / "certmesh.toml"), "be", "gateway")

    def _refusals(self) -> list[str]:
        rows = self.pool.certmesh("audit", "show", "--limit", "200")["rows"]
        refused = [row for row in rows if row["event"] == "action.refused"]
        return sorted(f"{row['actor']} {row['fields']['subject']}" for row in refused)

    def _restart(self) -> dict[str, Any]:
        """Stop, let nobody but the watchdog be root, and start: all is found where it was left."""
        before = self.pool.certmesh("status")["own"]["serial"]
        self.pool.certmesh("down")
        settings = self.pool.home / "certmesh.toml"
        more = f'[users]\nconsole = "{OTHERS}"\nrenewal = "{OTHERS}"\n'
        text = settings.read_text().replace("[users]\n", more)
        settings.write_text(text.replace(f'user = "{HOOK_USER}"\n', ""))
        up = self.pool.run("up", timeout=START_S)
        assert up.returncode == 0, up.stderr
        eventually(self.pool.is_ok, within_s=START_S)
        own = self.pool.certmesh("status")["own"]["serial"]
        renew(self.pool)
        found = standing(self.pool.pids())
        return {
            "same_certificate": own == before,
            "audit": self.pool.run("audit", "verify").returncode,
            "roots": sorted(name for name, line in found.items() if line["Uid"].startswith("0")),
            "hook_ran_as": eventually(self._newest_word, within_s=START_S),
        }

    def _newest_word(self) -> str:
        newest = max(self.said.iterdir(), key=lambda path: path.stat().st_mtime)
        word = newest.read_text().strip()
        assert word != HOOK_USER
        return word

    def end(self) -> None:
        """Stop everything and remove it."""
        for node in (self.member, self.pool):
            if node is not None:
                node.remove()
        for place in (self.place, self.said):
            shutil.rmtree(place, ignore_errors=True)


DEBUGGED = ("mem", "environ", "fd", "maps")


def main(port: int) -> None:
    """Live through it and print what was seen."""
    os.umask(0o022)
    open_the_way()
    scenario = Scenario(port)
    try:
        sys.stdout.write(json.dumps(scenario.live()))
    finally:
        scenario.end()


if __name__ == "__main__":
    main(int(sys.argv[1]))
