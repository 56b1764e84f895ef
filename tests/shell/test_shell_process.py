"""The broker as a real process: signals, locks, kill -9, slow keys, deferred answers."""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.client.link import Link
from broker.errors import BadPassphraseError, DeadlineError, ThrottledError
from broker.ledger.sqlite import Ledger
from broker.wire.authority import AuthorityView, LockAuthority, UnlockAuthority
from broker.wire.enrollment import CreateInvite, EnrollmentView, InviteView, SetEnrollment
from broker.wire.ids import Service
from broker.wire.node import GetNode, NodeView
from tests.shell.office import PASSPHRASE, Office
from tests.support import eventually

SLOW_KDF = {"kdf_memory": 67_108_864, "kdf_passes": 6}


def spawn(office: Office) -> subprocess.Popen[bytes]:
    """Start `python -m broker` on the office's home."""
    command = [sys.executable, "-m", "broker", str(office.paths.settings), "--foreground"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@contextmanager
def running(office: Office) -> Iterator[subprocess.Popen[bytes]]:
    """Run the broker for a while."""
    process = spawn(office)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def on_disk(home: Path, **ca: int) -> Office:
    """Create a mesh whose broker is not running."""
    office = Office.create(home, ca=ca)
    office.ledger.close()
    lines = "".join(f"{key} = {value}\n" for key, value in ca.items())
    office.paths.settings.write_text(
        '[node]\nname = "atlas"\n[listen]\nenroll = "127.0.0.1:7642"\nmesh = "127.0.0.1:7643"\n'
        f"[ca]\n{lines}"
    )
    return office


def link(office: Office, instance: str = "console") -> Link:
    """Return a link of the console."""
    return Link(office.paths, Service.CONSOLE, instance)


def test_sigterm_ends_the_broker_with_status_zero(home: Path) -> None:
    """Asked to stop is not a crash."""
    office = on_disk(home)
    with running(office) as process, link(office) as console:
        assert console.ask(GetNode(), NodeView, timeout_ms=10_000).role == "primary"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_a_second_broker_says_who_holds_the_lock_and_exits_75(home: Path) -> None:
    """The first one keeps its sockets and its callers (row 56)."""
    office = on_disk(home)
    with running(office) as first, link(office) as console:
        console.ask(GetNode(), NodeView, timeout_ms=10_000)
        second = spawn(office)
        _, words = second.communicate(timeout=20)
        assert second.returncode == 75
        assert f"pid {first.pid}".encode() in words
        assert console.ask(GetNode(), NodeView).role == "primary"


def test_what_was_acknowledged_survives_kill_nine(home: Path) -> None:
    """An answer is a promise: every acknowledged invite is in the ledger after each kill.

    (row 1, P1)
    """
    office, acknowledged = on_disk(home), set[str]()
    for _ in range(3):
        with running(office) as process, link(office) as console:
            console.ask(GetNode(), NodeView, timeout_ms=10_000)
            killer = threading.Timer(0.15, process.kill)
            killer.start()
            while process.poll() is None:
                digest = secrets.token_hex(32)
                with contextlib.suppress(Exception):
                    wanted = CreateInvite(digest, "nas", (), 60, "root")
                    console.ask(wanted, InviteView, timeout_ms=300)
                    acknowledged.add(digest)
            killer.join()
        ledger = Ledger.open(office.paths.ledger, node="atlas")
        assert ledger.verify_chain()[2] is None
        assert ledger.differing_projections() == ()
        lost = [digest for digest in acknowledged if ledger.invite(digest) is None]
        ledger.close()
        assert lost == []
    assert acknowledged


def test_a_request_in_flight_is_answered_by_the_next_broker_once(home: Path) -> None:
    """The link repeats the same id; the caller notices nothing but time (row 2, P2)."""
    office = on_disk(home)
    with running(office) as first, link(office) as console:
        console.ask(GetNode(), NodeView, timeout_ms=10_000)
        first.kill()
        first.wait()
        with running(office):
            view = console.ask(
                SetEnrollment(open=False, operator="root"), EnrollmentView, timeout_ms=15_000
            )
    assert view.open is False
    ledger = Ledger.open(office.paths.ledger, node="atlas")
    events = [row.event for row in ledger.audit(0, 100)]
    ledger.close()
    assert events.count("enrollment.closed") == 1


def test_deriving_a_key_does_not_hold_up_anybody(home: Path) -> None:
    """Argon2id runs off the loop: other callers are answered meanwhile."""
    office = on_disk(home, **SLOW_KDF)
    with running(office), link(office) as console, link(office, "other") as other:
        console.ask(LockAuthority("root"), AuthorityView, timeout_ms=10_000)
        answered = in_background(
            lambda: console.ask(
                UnlockAuthority(PASSPHRASE.encode(), "root"), AuthorityView, timeout_ms=30_000
            )
        )
        counted = 0
        while answered.alive():
            assert other.ask(GetNode(), NodeView).host == "atlas"
            counted += 1
        assert answered.value().state == "unlocked"
        assert counted > 20


def test_a_wrong_passphrase_is_one_clear_error_and_guessing_has_to_wait(home: Path) -> None:
    """Nothing changes, and the sixth guess is throttled (row 51)."""
    office = on_disk(home)
    with running(office), link(office) as console:
        console.ask(LockAuthority("root"), AuthorityView, timeout_ms=10_000)
        wrong = UnlockAuthority(b"not this one", "root")
        for _ in range(5):
            with pytest.raises(BadPassphraseError):
                console.ask(wrong, AuthorityView, timeout_ms=10_000)
        with pytest.raises(ThrottledError):
            console.ask(wrong, AuthorityView)
        assert console.ask(GetNode(), NodeView).ca == "locked"


def test_a_broker_that_is_told_to_stop_takes_the_guesses_along(home: Path) -> None:
    """Restarting the node at once must not give five more passphrases."""
    office = on_disk(home)
    wrong = UnlockAuthority(b"not this one", "root")
    with running(office) as process, link(office) as console:
        console.ask(LockAuthority("root"), AuthorityView, timeout_ms=10_000)
        for _ in range(5):
            with pytest.raises(BadPassphraseError):
                console.ask(wrong, AuthorityView, timeout_ms=10_000)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    with running(office), link(office) as console:
        console.ask(LockAuthority("root"), AuthorityView, timeout_ms=10_000)
        with pytest.raises(ThrottledError):
            console.ask(wrong, AuthorityView)


def test_a_frozen_broker_is_a_timeout_and_not_a_hang(home: Path) -> None:
    """SIGSTOP: the kernel still takes bytes, only an answer proves life (row 4)."""
    office = on_disk(home)
    with running(office) as process, link(office) as console:
        console.ask(GetNode(), NodeView, timeout_ms=10_000)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(DeadlineError):
            console.ask(GetNode(), NodeView, timeout_ms=700)
        process.send_signal(signal.SIGCONT)
        assert eventually(lambda: console.ask(GetNode(), NodeView).host) == "atlas"


def test_a_broker_without_settings_says_so_and_exits_78(home: Path) -> None:
    """A missing home is bad settings, not a crash loop's food."""
    command = [sys.executable, "-m", "broker", str(home / "nowhere" / "certmesh.toml")]
    done = subprocess.run([*command, "--foreground"], capture_output=True, check=False, timeout=20)
    assert done.returncode == 78
    assert b"certmesh init" in done.stderr


def test_a_damaged_ledger_stops_the_broker_with_what_to_do(home: Path) -> None:
    """Defect: an unreadable roster meant "uninitialized" (row 18)."""
    office = on_disk(home)
    raw = bytearray(office.paths.ledger.read_bytes())
    raw[0:16] = b"not a database!!"
    office.paths.ledger.write_bytes(raw)
    done = spawn(office)
    _, words = done.communicate(timeout=20)
    assert done.returncode == 1
    assert str(office.paths.ledger).encode() in words
    assert os.path.getsize(office.paths.ledger) == len(raw)  # noqa: PTH202 (unchanged, not recreated)


class in_background:  # noqa: N801 (reads as a verb)
    """Runs one call in a thread and hands out what it returned or raised."""

    def __init__(self, call: Callable[[], AuthorityView]) -> None:
        self._outcome: list[AuthorityView | BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(call,))
        self._thread.start()

    def _run(self, call: Callable[[], AuthorityView]) -> None:
        try:
            self._outcome.append(call())
        except BaseException as error:  # noqa: BLE001 (handed to the test)
            self._outcome.append(error)

    def alive(self) -> bool:
        """Whether the call is still going on."""
        return self._thread.is_alive()

    def value(self) -> AuthorityView:
        """Return the answer."""
        self._thread.join(10)
        (outcome,) = self._outcome
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome
