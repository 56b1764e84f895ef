"""The outermost frame: arguments, settings, exit statuses."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from broker.runtime.exits import Exit
from broker.runtime.paths import Paths

PROCESS = """
import os, resource, sys
from broker.runtime.main import run_process, wants_once
def main(settings, paths):
    {body}
sys.exit(run_process(main))
"""


def _run(body: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", PROCESS.format(body=body), *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_the_status_of_a_process_is_what_its_main_returns(paths: Paths) -> None:
    """And `--once` is seen by it."""
    done = _run("return 8 if wants_once() else 7", str(paths.settings), "--once")
    assert done.returncode == 8
    assert _run("return 8 if wants_once() else 7", str(paths.settings)).returncode == 7


def test_an_unknown_settings_key_exits_78_and_names_its_path(paths: Paths) -> None:
    """One line, the key's path in the file, and what to do."""
    paths.settings.write_text("[renewal]\ncheck_evry = '1h'\n")

    done = _run("return 0", str(paths.settings))

    assert done.returncode == Exit.SETTINGS
    (line,) = done.stderr.splitlines()
    assert "check_evry" in line
    assert "renewal" in line
    assert str(paths.settings) in line


def test_a_missing_settings_file_exits_78(home: Path) -> None:
    """The hint says how to make one."""
    done = _run("return 0", str(home / "certmesh.toml"))
    assert done.returncode == Exit.SETTINGS
    assert "certmesh init" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["a.toml", "b.toml"], ["--twice"]])
def test_wrong_arguments_are_wrong_usage(arguments: list[str]) -> None:
    """Exit 2 and one line."""
    done = _run("return 0", *arguments)
    assert done.returncode == Exit.USAGE
    assert done.stderr.startswith("usage:")


def test_a_bug_exits_1_with_its_traceback(paths: Paths) -> None:
    """Supervisord restarts it; the log has the reason."""
    done = _run("raise RuntimeError('boom')", str(paths.settings))
    assert done.returncode == Exit.FAILED
    assert "RuntimeError: boom" in done.stderr


def test_files_of_a_process_are_private_and_descriptors_plenty(paths: Paths) -> None:
    """Umask 077; and libzmq aborts a process that runs out of descriptors."""
    previous = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, previous[1]))
    try:
        body = "print(os.umask(0), resource.getrlimit(resource.RLIMIT_NOFILE)[0]); return 0"
        done = _run(body, str(paths.settings))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, previous)

    umask, limit = done.stdout.split()
    assert int(umask) == 0o077
    assert int(limit) > 256


def test_a_process_started_by_a_person_survives_the_shell(paths: Paths) -> None:
    """With --foreground the death of the parent is nobody's signal."""
    body = (
        "import ctypes; level = ctypes.c_int(-1);"
        " ctypes.CDLL(None).prctl(2, ctypes.byref(level), 0, 0, 0); return level.value"
    )
    assert _run(body, str(paths.settings), "--foreground").returncode == 0
    assert _run(body, str(paths.settings)).returncode == 9
    assert os.getppid() != 0
