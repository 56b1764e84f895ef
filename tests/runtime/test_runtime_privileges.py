"""What a process gives up: seen from outside, in /proc, and felt by what it tries afterwards."""

import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from broker.runtime.paths import Paths

PROCESS = """
import os, resource, sys
from pathlib import Path
from broker.runtime.main import run_process
from broker.runtime.privileges import END_OTHERS, HOOKS, NOTHING, Needs
def main(settings, paths):
    {body}
    return 0
sys.exit(run_process(main, needs={needs}))
"""
STATUS = "print(Path('/proc/self/status').read_text())"
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to lose")
NONE = "0" * 16


def _run(paths: Paths, body: str, *, needs: str = "NOTHING", before: tuple[str, ...] = ()) -> str:
    """Run a process as supervisord starts one, and return what it printed."""
    program = PROCESS.format(body=body, needs=needs)
    done = subprocess.run(
        [*before, sys.executable, "-c", program, str(paths.settings)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _status(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def test_a_process_gains_no_rights_through_setuid_programs(paths: Paths) -> None:
    """Whoever takes over a gateway finds `su` and `sudo` without teeth (L6)."""
    assert _status(_run(paths, STATUS))["NoNewPrivs"] == "1"


@AS_ROOT
def test_a_process_of_root_has_no_capability_in_any_set(paths: Paths) -> None:
    """The bounding set too: a child that is root has none either (L6)."""
    found = _status(_run(paths, STATUS))
    sets = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    assert [found[name] for name in sets] == [NONE] * 5


@AS_ROOT
def test_what_a_process_of_root_starts_gets_nothing_back(paths: Paths) -> None:
    """Exec by uid 0 fills the sets again unless that is forbidden (capabilities(7)) (L6)."""
    body = "import subprocess; subprocess.run(['cat', '/proc/self/status'], check=True)"
    found = _status(_run(paths, body))
    assert (found["CapEff"], found["NoNewPrivs"]) == (NONE, "1")


@AS_ROOT
def test_a_port_below_1024_is_the_only_reason_to_keep_a_capability(paths: Paths) -> None:
    """The doors may be at 443; whoever does not open them does not keep the right to."""
    paths.settings.write_text('[listen]\nenroll = "127.0.0.1:443"\n')
    doors = _status(_run(paths, STATUS, needs="Needs(listens=('enroll', 'mesh'))"))
    other = _status(_run(paths, STATUS, needs="Needs(listens=('dashboard',))"))
    assert int(doors["CapEff"], 16) == 1 << 10
    assert int(doors["CapBnd"], 16) == 1 << 10
    assert other["CapEff"] == NONE


@AS_ROOT
def test_the_watchdog_may_still_end_processes_of_other_users(paths: Paths) -> None:
    """CAP_KILL and nothing else."""
    assert int(_status(_run(paths, STATUS, needs="END_OTHERS"))["CapEff"], 16) == 1 << 5


def test_a_renewal_process_keeps_what_hooks_need(paths: Paths) -> None:
    """`sudo systemctl reload nginx` in a hook works, as does `user = ...` where root runs it."""
    found = _status(_run(paths, STATUS, needs="HOOKS"))
    own = _status(subprocess.check_output(["cat", "/proc/self/status"], text=True))
    assert found["NoNewPrivs"] == own["NoNewPrivs"]
    assert found["CapEff"] == own["CapEff"]


@AS_ROOT
def test_a_renewal_process_that_is_no_root_may_use_sudo_in_hooks(paths: Paths) -> None:
    """The commonest hook of all on a node without root; other processes may not."""
    program = (
        "import os, sys; from pathlib import Path; from broker.runtime import privileges as p;"
        " from broker.runtime.settings import Settings; from broker.runtime.paths import Paths;"
        f" home = Path({str(paths.home)!r}); os.setgroups([]); os.setresuid(65534, 65534, 65534);"
        " p.give_up(getattr(p, sys.argv[1]), Paths(home, home, home), Settings());"
        " print(Path('/proc/self/status').read_text())"
    )
    found = {
        needs: _status(subprocess.check_output([sys.executable, "-c", program, needs], text=True))
        for needs in ("HOOKS", "NOTHING")
    }
    assert found["HOOKS"]["NoNewPrivs"] == _status(_run(paths, STATUS, needs="HOOKS"))["NoNewPrivs"]
    assert found["NOTHING"]["NoNewPrivs"] == "1"


@AS_ROOT
def test_root_on_a_home_of_somebody_else_keeps_the_right_to_its_files(paths: Paths) -> None:
    """A container runs as root on a mounted directory of uid 1000: it has to go on working."""
    os.chown(paths.home, 65534, 65534)
    body = "(paths.home / 'made').write_text(''); " + STATUS
    found = _status(_run(paths, body))
    assert int(found["CapEff"], 16) == 1 << 1 | 1 << 3


@AS_ROOT
def test_root_below_a_directory_that_is_closed_to_it_keeps_the_right_to_pass(paths: Paths) -> None:
    """`sudo certmesh --home ~/mesh init`: root's own home, below a person's that is 0750."""
    inner = paths.home / "mesh"
    inner.mkdir(mode=0o700)
    (inner / "certmesh.toml").write_text("")
    os.chown(paths.home, 65534, 65534)
    paths.home.chmod(0o750)
    body = "(paths.home / 'made').write_text('')"
    _run(replace(paths, home=inner), body)
    assert (inner / "made").exists()


@AS_ROOT
@pytest.mark.parametrize("key", ["backup.directory", "notify.ntfy_token_file"])
def test_root_keeps_the_right_to_places_of_others_that_the_settings_name(
    paths: Paths, key: str, tmp_path: Path
) -> None:
    """Backups on a share of uid 1000, a secret in a person's home: as before an upgrade."""
    place = tmp_path / "theirs"
    place.mkdir()
    os.chown(place, 65534, 65534)
    place.chmod(0o700)
    (place / "token").write_text("")
    section, _, name = key.partition(".")
    value = place if name == "directory" else place / "token"
    whom = 'ntfy = "https://ntfy.example/x"\n' if section == "notify" else ""
    paths.settings.write_text(f'[{section}]\n{whom}{name} = "{value}"\n')
    _run(paths, f"os.listdir({str(place)!r})", needs=f"Needs(places=({key!r},))")
    assert _status(_run(paths, STATUS))["CapEff"] == NONE


@pytest.mark.parametrize("needs", ["NOTHING", "HOOKS"])
def test_no_core_dump_and_no_debugger_of_the_same_user(paths: Paths, needs: str) -> None:
    """Keys are in memory, and no core may hold one.

    The limit alone does not stop a core pattern that is a pipe (core(5)); a process that is not
    dumpable leaves none in any way (P3) (L5).
    """
    body = (
        "import ctypes; print(resource.getrlimit(resource.RLIMIT_CORE)[0],"
        " ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        assert _run(paths, body, needs=needs).split() == ["0", "0"]
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


@AS_ROOT
def test_a_process_without_the_right_to_drop_rights_still_starts(paths: Paths) -> None:
    """Containers often lack CAP_SETPCAP: then the bounding set stays, the others are emptied."""
    before = ("setpriv", "--bounding-set", "-setpcap", "--inh-caps", "-setpcap")
    found = _status(_run(paths, STATUS, before=before))
    assert (found["CapEff"], found["CapPrm"], found["NoNewPrivs"]) == (NONE, NONE, "1")


def test_a_process_that_a_person_started_keeps_that_persons_files(paths: Paths) -> None:
    """`certmesh backup restore` by root writes into directories of the broker's own user."""
    program = PROCESS.format(body=STATUS, needs="NOTHING")
    line = [sys.executable, "-c", program, str(paths.settings), "--foreground"]
    found = _status(subprocess.check_output(line, text=True, timeout=20))
    own = _status(subprocess.check_output(["cat", "/proc/self/status"], text=True))
    assert found["CapEff"] == own["CapEff"]
