"""Coverage-guided fuzzing: `python -m tests.fuzz --minutes M [--target NAME]...`.

Needs atheris, which is no part of the development environment: `make fuzz MINUTES=n` installs it
from `requirements-fuzz.lock`. Each target runs in a process of its own and gets an equal part of
the time; what it finds lies in `.fuzz/TARGET/`, a small copy of which belongs into
`tests/fuzz/corpus/TARGET/` with the mend. Last line: `N targets, N findings`.
"""

import argparse
import importlib.util
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz.place import OUTER

if TYPE_CHECKING:
    from tests.fuzz.target import Target

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
FOUND = ROOT / ".fuzz"
UNAVAILABLE = 69
SLOWER = 20
"""Instrumented code on a busy machine takes that much longer; `make check` holds the real bound."""
TIMEOUT_S = 10
MEMORY_MIB_MAX = 2048


def main() -> int:
    """Run the targets that were asked for; exit 1 when one of them broke."""
    asked = _arguments()
    if importlib.util.find_spec("atheris") is None:
        sys.stderr.write("atheris is not installed here: make fuzz MINUTES=1\n")
        return UNAVAILABLE
    if asked.inside:
        _inside(asked.inside, asked.seconds, asked.seed)
        return 0
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415 (after the check: it takes a second)

    names = asked.target or sorted(TARGETS)
    broken = [name for name in names if not _run(name, asked.minutes * 60 / len(names), asked.seed)]
    sys.stdout.write(f"{len(names)} targets, {len(broken)} findings{_listed(broken)}\n")
    return 1 if broken else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="for all targets together")
    parser.add_argument("--target", action="append", help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, default=1, help="of the fuzzer's random numbers")
    parser.add_argument("--inside", default="", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def _listed(names: list[str]) -> str:
    return f": {', '.join(names)}" if names else ""


def _run(name: str, seconds: float, seed: int) -> bool:
    """Return whether one target survived its time."""
    (FOUND / name).mkdir(parents=True, exist_ok=True)
    words = ["--inside", name, "--seconds", str(max(1, round(seconds))), "--seed", str(seed)]
    with tempfile.TemporaryDirectory(prefix="cmz-", dir="/tmp") as room:
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz", *words],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, OUTER: room},
            text=True,
            errors="replace",
        )
    said = [line for line in done.stdout.splitlines() if line.startswith(("Done ", "stat::"))]
    sys.stdout.write(f"{name:<16} {'ok' if not done.returncode else 'BROKEN'} {' '.join(said)}\n")
    sys.stdout.flush()
    if done.returncode:
        (FOUND / name / "output.txt").write_text(done.stdout)
        sys.stdout.write("\n".join(done.stdout.splitlines()[-25:]) + "\n")
    return not done.returncode


def _inside(name: str, seconds: int, seed: int) -> None:
    """Fuzz in this process until the time is over or something breaks; does not return."""
    import atheris  # noqa: PLC0415 (no part of the development environment)

    with atheris.instrument_imports(include=["broker", "workers"]):
        from tests.fuzz.mutation import mutated  # noqa: PLC0415 (instrumented while imported)
        from tests.fuzz.target import attempt  # noqa: PLC0415 (as above)
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415 (as above)

    target: Target = TARGETS[name]

    def mutate(octets: bytes, bytes_max: int, number: int) -> bytes:
        """Edit inside the structure every other time, else as libFuzzer does."""
        draw = random.Random(number)
        if number % 2:
            found: bytes = atheris.Mutate(octets, bytes_max)
            return found
        edit = (draw.randrange(64), draw.randrange(1 << 20), draw.randrange(1 << 16))
        return mutated(octets, target.form, [edit], bytes_max)

    places = (FOUND / name / "corpus", _seeds(target), CORPUS / name)
    places[0].mkdir(exist_ok=True)
    words = [
        sys.argv[0],
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-max_len={min(target.bytes_max, 65_536)}",
        f"-timeout={TIMEOUT_S}",
        f"-rss_limit_mb={MEMORY_MIB_MAX}",
        f"-artifact_prefix={FOUND / name}/",
        "-print_final_stats=1",
        *(str(path) for path in places if path.is_dir()),
    ]
    atheris.Setup(
        words,
        lambda octets: attempt(target, octets[: target.bytes_max], slower=SLOWER),
        custom_mutator=mutate,
    )
    atheris.Fuzz()


def _seeds(target: "Target") -> Path:
    directory = FOUND / target.name / "seeds"
    directory.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (directory / f"{number:03}").write_bytes(seed)
    return directory


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # libFuzzer has its own ways to end; what is left of this process is done.
    os._exit(status) if "--inside" in sys.argv else sys.exit(status)
