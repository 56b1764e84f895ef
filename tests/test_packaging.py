"""What a stranger gets: a wheel with everything in it, a lock file that names no machine."""

import configparser
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRACKED_TEXT = ("*.py", "*.toml", "*.conf", "*.md", "*.sh", "*.lock", "*.json", "*.yml", "*.yaml")
HOSTS = re.compile(
    r"\b(pypi|pythonhosted|files\.python|crates|npmjs|registry\.npm)[a-z.]*\.(org|io|com)\b"
)
"""Package registries; the name of one in a file would tie the project to it."""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as an installer would, with nothing fetched."""
    target = tmp_path_factory.mktemp("wheel")
    backend = "import sys, hatchling.build as b; print(b.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        (sys.executable, "-c", backend, str(target)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target / done.stdout.strip().splitlines()[-1]


def test_the_wheel_holds_both_packages_and_the_process_table(wheel: Path) -> None:
    """Without supervisord.conf an installed `certmesh init` could start nothing."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert "broker/runtime/supervisord.conf" in names
    shipped = {
        str(path.relative_to(ROOT))
        for room in ("broker", "workers")
        for path in (ROOT / room).rglob("*.py")
    }
    assert shipped <= names
    assert not [name for name in names if name.startswith(("tests/", "bench/"))]


def test_the_wheel_declares_the_command_and_the_licence(wheel: Path) -> None:
    """`certmesh` on the path, Apache-2.0 beside it."""
    with zipfile.ZipFile(wheel) as archive:
        entry = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        points = configparser.RawConfigParser()
        points.read_string(archive.read(entry).decode())
        licences = [name for name in archive.namelist() if name.endswith("LICENSE")]
    assert points["console_scripts"]["certmesh"] == "broker.cli.__main__:main"
    assert licences


def test_nothing_claims_the_name_of_somebody_elses_package() -> None:
    """`certmesh` on the public index is another product."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == "certmesh-lan"
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        assert "pip install certmesh" not in document.read_text(), document


def test_the_process_table_uses_only_its_own_place() -> None:
    """An unset %(ENV_X)s stops supervisord and prints the whole environment."""
    text = (ROOT / "supervisord.conf").read_text()
    code = "\n".join(line.partition(";")[0] for line in text.splitlines())
    expansions = set(re.findall(r"%\(([^)]*)\)", code))
    assert expansions <= {"here", "process_num", "program_name"}
    table = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    table.read_string(text)
    assert table.get("supervisord", "pidfile").startswith("%(here)s/")
    assert table.get("unix_http_server", "chmod") == "0700"


def test_every_locked_package_is_pinned_by_hash() -> None:
    """Nothing unpinned is ever installed, the build backend included."""
    text = (ROOT / "requirements.lock").read_text()
    blocks = re.split(r"\n(?=[a-z])", text.partition("\n\n")[2] or text)
    pinned = {}
    for block in blocks:
        match = re.match(r"([a-z0-9._-]+)==(\S+)", block)
        if match:
            pinned[match[1]] = block.count("--hash=sha256:")
    assert {"hatchling", "pyzmq", "cryptography", "pytest", "ruff"} <= set(pinned)
    assert all(pinned.values()), [name for name, hashes in pinned.items() if not hashes]


def test_the_lock_covers_every_dependency() -> None:
    """A dependency added to pyproject.toml and not locked would fail on a clean machine."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    locked = (ROOT / "requirements.lock").read_text()
    names = {re.match(r"[A-Za-z0-9._-]+", line)[0].lower() for line in wanted}  # type: ignore[index]  # every requirement has a name
    missing = {name for name in names if f"\n{name}==" not in locked}
    assert missing == set()


def test_no_file_names_a_machine_or_a_registry() -> None:
    """The project builds wherever packages come from."""
    found = {
        str(path.relative_to(ROOT))
        for pattern in (*TRACKED_TEXT, "Makefile", ".ci/run")
        for path in ROOT.glob(
            pattern if "/" in pattern or pattern == "Makefile" else f"**/{pattern}"
        )
        if ".venv" not in path.parts and HOSTS.search(path.read_text(errors="replace"))
    }
    assert found <= {"tests/test_packaging.py"}
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    assert "/home/" not in lock
    assert "/opt/" not in lock


def _bootstrap(directory: Path, python: Path) -> subprocess.CompletedProcess[str]:
    (directory / "contrib").mkdir()
    script = directory / "contrib" / "bootstrap.sh"
    script.write_text((ROOT / "contrib" / "bootstrap.sh").read_text())
    environ = {"PATH": "/usr/bin:/bin", "PYTHON": str(python), "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(
        ("/bin/sh", str(script)), env=environ, capture_output=True, text=True, check=False
    )


def test_a_machine_without_venv_is_told_the_one_command_that_mends_it(home: Path) -> None:
    """Debian splits ensurepip off; the message is the whole answer. Exit 69."""
    python = home / "python3"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    done = _bootstrap(home, python)
    assert done.returncode == 69
    assert "sudo apt install python3-venv" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_python_too_old_is_named(home: Path) -> None:
    """Before anything is downloaded. Exit 69."""
    python = home / "python3"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    done = _bootstrap(home, python)
    assert done.returncode == 69
    assert "3.11" in done.stderr


def test_plain_make_lists_the_targets() -> None:
    """Nobody has to read the Makefile first."""
    done = subprocess.run(("make",), cwd=ROOT, capture_output=True, text=True, check=False)
    listed = re.findall(r"make ([a-z-]+)", done.stdout)
    assert {"demo", "up", "test", "check", "bench", "demo-clean"} <= set(listed)


def test_the_licence_is_apache_2() -> None:
    """As pyproject.toml declares."""
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
