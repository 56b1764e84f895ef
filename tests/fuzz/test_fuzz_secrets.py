"""Two nodes through every command that touches a secret, and then a search for all of them (P3).

Searched afterwards: every file of both homes but the few that may hold one, all logs at debug
level, command lines and environments of all processes meanwhile, and what went through TLS and over
the sockets, as both ends saw it in clear.
"""

import base64
import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from broker.clock import wall_s
from broker.pki.kit import recovery_secret
from broker.pki.seal import open_root, open_with_passphrase
from broker.pki.totp import DIGITS, STEP_S
from broker.runtime.curve import curve_directory, read_pair
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths, node_paths
from broker.runtime.settings import load_settings
from broker.shell.vault import load_vault
from broker.wire.invite import decode_invite
from tests.faults.pool import SETTINGS, Pool
from tests.fuzz.eavesdropper import (
    ProcessWatch,
    Secret,
    leaks_in,
    leaks_in_files,
    leaks_in_recordings,
)
from tests.support import eventually

PORT = 34_000
PASSPHRASE = "thickness islamic barman banknote hatchling"
SECOND = "another phrase of words that nobody says"
RECORDER = Path(__file__).parent / "recorder"
ONLY_HERE = ("tls", "zmq")
pytestmark = [pytest.mark.faults, pytest.mark.mesh, pytest.mark.timeout(280)]


@dataclass
class Scene:
    """What was done, what is secret because of it, and what was seen meanwhile."""

    atlas: Pool
    birch: Pool
    recordings: Path
    watch: ProcessWatch
    secrets: list[Secret] = field(default_factory=list)


def _paths(pool: Pool) -> Paths:
    file = pool.home / "certmesh.toml"
    return node_paths(file, load_settings(file))


def said(pool: Pool, *words: str, text: str = "") -> dict[str, Any]:
    """Run a command that must succeed, with its secret on standard input."""
    done = pool.run(*words, text=text)
    trouble = (words, done.stdout, done.stderr, pool.log("enroll-by-hand")[-2000:])
    assert done.returncode in (Exit.OK, Exit.ATTENTION), trouble
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def code_of(key: str) -> str:
    """Return what an authenticator would show now for a key as it is typed (RFC 6238)."""
    totp = TOTP(octets_of(key), DIGITS, SHA1(), STEP_S)
    return totp.generate(wall_s()).decode()


def octets_of(key: str) -> bytes:
    """Return the secret behind a key as it is typed."""
    plain = key.replace(" ", "")
    return base64.b32decode(plain + "=" * (-len(plain) % 8))


def scalar(key: object) -> bytes:
    """Return the number that is the private half of a key."""
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.private_numbers().private_value.to_bytes(32)


def place(name: str, address: str) -> list[str]:
    """Return the options that say where a node is."""
    words = ["--node-name", name, "--listen", address]
    words += ["--enroll-port", str(PORT), "--mesh-port", str(PORT + 1)]
    for setting in (*SETTINGS, 'log.level="debug"', "pool.remote_renewal=1"):
        words += ["--setting", setting]
    return words


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """Everything that touches a secret, once."""
    with contextlib.ExitStack() as stack:
        recordings = Path(tempfile.mkdtemp(prefix="cmr-", dir="/tmp"))
        stack.callback(shutil.rmtree, recordings, ignore_errors=True)
        inside = {"PYTHONPATH": str(RECORDER), "CERTMESH_TEST_RECORD": str(recordings)}
        nodes = []
        for name in ("atlas", "birch", "cedar"):
            home = Path(tempfile.mkdtemp(prefix="cms-", dir="/tmp"))
            nodes.append(Pool(home, PASSPHRASE, name, environment=inside))
            stack.callback(nodes[-1].remove)
            shutil.rmtree(home)
        watch = stack.enter_context(ProcessWatch(str(recordings)))
        found = Scene(nodes[0], nodes[1], recordings, watch)
        _live(found, nodes[2])
        yield found


def _live(scene: Scene, cedar: Pool) -> None:
    made = _begin(scene)
    _join(scene, cedar, made)
    _use_tokens_and_backups(scene, made)
    _unlock_each_way(scene)
    _hand_over(scene)
    _collect(scene)


def _begin(scene: Scene) -> dict[str, Any]:
    settings = ["--setting", f'listen.workers="127.0.0.1:{PORT + 2}"', "--profile", "just-me"]
    words = ["init", "home", *place("atlas", "127.0.0.1"), *settings, "--passphrase-file", "-"]
    made = said(scene.atlas, *words, text=PASSPHRASE)
    said(scene.atlas, "up")
    eventually(lambda: _is_up(scene.atlas), within_s=60)
    return made


def _is_up(pool: Pool) -> bool:
    return pool.run("status").returncode in (Exit.OK, Exit.ATTENTION)


def _join(scene: Scene, cedar: Pool, made: dict[str, Any]) -> None:
    invite = str(said(scene.atlas, "invite", "create", "birch")["invite"])
    scene.secrets.append(_text("invite", decode_invite(invite).secret, *ONLY_HERE))
    said(scene.birch, "join", "-", "--yes", *place("birch", "127.0.0.2"), text=invite)
    said(scene.birch, "up")
    eventually(lambda: _is_up(scene.birch), within_s=60)
    url, pin = f"https://127.0.0.1:{PORT}", made["pin"]
    words = ["join", "--url", url, "--pin", pin, "--totp", "-", *place("cedar", "127.0.0.3")]
    said(cedar, *words, text=code_of(made["totp_key"]))


def _text(name: str, text: str, *channels: str) -> Secret:
    return Secret(name, text.encode(), channels=channels)


def _use_tokens_and_backups(scene: Scene, made: dict[str, Any]) -> None:
    token = str(said(scene.atlas, "token", "create", "prometheus", "--scope", "read")["token"])
    scene.secrets.append(_text("token", token))
    said(scene.atlas, "backup", "create")
    newest = next((scene.atlas.home / "backup").iterdir())
    said(scene.atlas, "backup", "verify", str(newest), "--kit-file", "-", text=made["recovery"])
    scene.secrets.append(Secret("recovery", recovery_secret(made["recovery"])))
    scene.secrets.append(_text("recovery text", made["recovery"]))


def _unlock_each_way(scene: Scene) -> None:
    atlas = scene.atlas
    said(atlas, "ca", "lock")
    assert atlas.run("ca", "unlock", "--passphrase-file", "-", text=SECOND).returncode == 7
    said(atlas, "ca", "unlock", "--passphrase-file", "-", text=PASSPHRASE)
    slot = said(atlas, "ca", "slot", "add", "totp", "--passphrase-file", "-", text=PASSPHRASE)
    # The authenticator's key is its own answer: it travels from the broker to the console, once.
    scene.secrets.append(Secret("unlock code", octets_of(slot["totp_key"]), channels=("zmq",)))
    said(atlas, "ca", "lock")
    said(atlas, "ca", "unlock", "--code-file", "-", text=code_of(slot["totp_key"]))


def _hand_over(scene: Scene) -> None:
    said(scene.atlas, "worker", "enroll", "birch", "--yes")
    said(scene.atlas, "standby", "nominate", "birch")
    keys = scene.birch.home / "ca" / "keys.sealed"
    eventually(lambda: keys.exists() or _sealed_elsewhere(scene.birch), within_s=60)
    for pool in (scene.atlas, scene.birch):
        pool.run("cert", "renew")  # refused when an attempt was a moment ago


def _sealed_elsewhere(pool: Pool) -> bool:
    return load_vault(_paths(pool).authority) is not None


def _collect(scene: Scene) -> None:
    atlas, birch = _paths(scene.atlas), _paths(scene.birch)
    vault = load_vault(atlas.authority)
    assert vault is not None
    opened = open_with_passphrase(vault.sealed, PASSPHRASE.encode())
    root_key = open_root(vault.sealed, PASSPHRASE.encode())
    for name, der in (("issuing key", opened.issuing_key), ("root key", root_key)):
        scene.secrets += [
            Secret(f"{name}, whole", der),
            Secret(name, scalar(load_der_private_key(der, None))),
        ]
    scene.secrets += [
        Secret("wrapping key", opened.wrapping_key),
        Secret("enrollment secret", opened.totp_secret),
        _text("passphrase", PASSPHRASE, "zmq"),
        _text("second passphrase", SECOND, "zmq"),
    ]
    for paths in (atlas, birch):
        scene.secrets += _of_the_node(paths)


def _of_the_node(paths: Paths) -> Iterator[Secret]:
    """Yield what a node keeps for itself, each with the one place where it may be."""
    host = paths.home.name
    for number, pem in enumerate(sorted(paths.certificates.rglob("key.pem"))):
        if not pem.is_symlink():
            key = load_pem_private_key(pem.read_bytes(), None)
            yield Secret(f"leaf key {number} of {host}", scalar(key), (f"{host}:certs",))
    for file in sorted(paths.credential.parent.iterdir()):
        yield Secret(f"{file.name} of {host}", file.read_bytes(), (f"{host}:credentials",))
    for file in sorted(curve_directory(paths).glob("*.key")):
        inner = str(curve_directory(paths).relative_to(paths.home))
        yield Secret(f"{file.name} of {host}", read_pair(file).secret, (f"{host}:{inner}",))


def _at_home(secret: Secret, home: Path) -> Secret:
    """Return the secret as it is looked for in this home: it may be in its own place alone."""
    own = tuple(f.partition(":")[2] for f in secret.files if f.startswith(f"{home.name}:"))
    return Secret(secret.name, secret.octets, own, secret.channels)


def test_the_search_finds_what_is_there(scene: Scene) -> None:
    """Silence is no evidence: every kind of place shows something that it is right to show."""
    kinds = {path.name.partition("-")[0] for path in scene.recordings.iterdir()}
    assert kinds == {"tls", "zmq"}
    recorded = {
        kind: b"".join(path.read_bytes() for path in scene.recordings.glob(f"{kind}-*"))
        for kind in kinds
    }
    assert "passphrase" in leaks_in(recorded["zmq"], scene.secrets)
    assert "invite" in leaks_in(recorded["tls"], scene.secrets)
    assert b"/v1/join" in recorded["tls"]
    assert b"key-package" in recorded["zmq"]
    names = {secret.name for secret in scene.secrets}
    assert len(names) == len(scene.secrets) >= 14, names
    leaves = [secret for secret in scene.secrets if secret.name.startswith("leaf key")]
    for pool in (scene.atlas, scene.birch):
        assert leaks_in_files(pool.home, [Secret(s.name, s.octets) for s in leaves]), pool.name
    assert any("environment" in who for who in scene.watch.seen.values())


def test_no_secret_is_in_a_file_where_it_does_not_belong(scene: Scene) -> None:
    """Ledgers, logs at debug level, records of deliveries, backups, sealed keys (P3)."""
    for pool in (scene.atlas, scene.birch):
        wanted = [_at_home(secret, pool.home) for secret in scene.secrets]
        assert leaks_in_files(pool.home, wanted) == set(), pool.name


def test_no_secret_is_in_a_command_line_or_an_environment(scene: Scene) -> None:
    """Every user of a machine can read the first, and every child inherits the second (P3)."""
    assert len(scene.watch.seen) > 20
    assert scene.watch.leaks(scene.secrets) == set()


def test_no_secret_goes_over_a_wire_where_it_does_not_belong(scene: Scene) -> None:
    """Not even inside TLS: whoever is at the other end is not to have it (P3)."""
    assert leaks_in_recordings(scene.recordings, scene.secrets) == set()


def test_an_aborted_broker_leaves_no_core(scene: Scene) -> None:
    """It maps the key: what it leaves behind would be the key in a file (P3)."""
    pid = scene.atlas.pids()["broker"]
    where = Path(f"/proc/{pid}/cwd").readlink()
    os.kill(pid, signal.SIGABRT)
    eventually(lambda: scene.atlas.pids().get("broker", pid) != pid, within_s=60)
    for directory in {where, scene.atlas.home}:
        cores = [path for path in directory.rglob("*core*") if path.is_file()]
        assert not [path for path in cores if path.read_bytes()[:4] == b"\x7fELF"], cores
