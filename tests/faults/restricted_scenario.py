"""A node under what the systemd units forbid, as far as a process can forbid it to itself.

No capability for root and none to be had (CapabilityBoundingSet=), no rights through setuid
programs (NoNewPrivileges=), no memory that is writable and then executable
(MemoryDenyWriteExecute=), no core (LimitCORE=0). Prints JSON. `... restricted_scenario PORT`
"""

import ctypes
import json
import os
import resource
import sys
from pathlib import Path

from tests.faults.pool import Pool
from tests.support import eventually

PATIENCE_S = 120.0
_PR_SET_MDWE = 65
_REFUSE_EXEC_GAIN = 1


def forbid() -> bool:
    """Forbid this process and all it starts to make memory executable; return whether it could."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    done: int = libc.prctl(_PR_SET_MDWE, _REFUSE_EXEC_GAIN, 0, 0, 0)
    return done == 0


def main(port: int) -> None:
    """Create a node, run it, renew, stop it; print what was seen."""
    forbidden = forbid()
    pool = Pool.create(port, 'node.hook_user="root"')
    with (pool.home / "certmesh.toml").open("a") as file:
        file.write('\n[[hook]]\nname = "who"\ncommand = ["/bin/sh", "-c", "id -un"]\n')
    try:
        up = pool.run("up", timeout=PATIENCE_S)
        assert up.returncode == 0, (up.stderr, pool.log("broker"))
        eventually(pool.is_ok, within_s=PATIENCE_S)
        eventually(lambda: pool.run("cert", "renew").returncode == 0, within_s=PATIENCE_S)
        programs = pool.pids()
        status = Path(f"/proc/{programs['renewal-0']}/status").read_text()
        runs = pool.certmesh("hook", "log")["runs"]
        found = {
            "memory": forbidden,
            "uid": os.getuid(),
            "programs": len(programs),
            "effective": status.partition("CapEff:")[2].split()[0],
            "hooks": sorted({run["exit"] for run in runs}),
            "down": pool.run("down", timeout=PATIENCE_S).returncode,
        }
    finally:
        pool.remove()
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
