"""Brings a certificate into service: install, hooks, probe, and back again when that fails.

What failed to come into service stays on disk and is delivered again, before another certificate
is asked for. A delivery that was cut short, by a kill or a stop, is finished at the next start:
beside the versions lies a record of the last finished one, and a live certificate it does not speak
of still needs its hooks.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from broker.clock import boottime_ms, wall_s
from broker.errors import CSRRejectedError, MalformedMessageError, MeshError, NotFoundError
from broker.runtime.events import EventName
from broker.runtime.files import private_directory, write_atomic
from broker.runtime.logs import log
from broker.runtime.settings import Renewal
from broker.units import UnixSeconds
from broker.wire.console_api import HookRun
from broker.wire.ids import ServedState
from broker.wire.plain import decode_json
from broker.wire.renewal import NoteOwnCertificate
from broker.wire.work import Installed
from workers.certstore import CertificateStore
from workers.pairs import LiveCertificate
from workers.renewal.held import Wanted, held_of, is_good
from workers.renewal.hookset import HookSet, environment_of
from workers.renewal.logic import (
    DETAIL_LENGTH_MAX,
    DeliveryRecord,
    HookEvent,
    ProbeResult,
    event_of,
    failure_text,
    judge,
    own_detail,
)
from workers.renewal.patience import StoppedError
from workers.renewal.probe import Prober

UNSERVED: frozenset[ServedState] = frozenset({"failed", "stale"})
"""States that a further attempt may mend."""

ROOTS_MAX = 4
"""What a report takes; a node trusts two at the most."""


@dataclass(slots=True)
class Delivery:
    """Delivers certificates of one host.

    Attributes:
        store: Its certificates.
        hooks: Its hooks.
        prober: Looks at its ports.
        policy: `[renewal]`.
        server_name: Name to ask the probed ports for.
    """

    store: CertificateStore
    hooks: HookSet
    prober: Prober
    policy: Renewal
    server_name: str

    def install(self, leaf: bytes, issuing: bytes, *roots: bytes) -> Installed:
        """Install a certificate for the pending key, bring it into service, say what came of it.

        Raises:
            MeshError: It was not installed; nothing changed.
        """
        before = self.store.live()
        event = event_of(before)
        self._prepare(event, before)
        # Under way: a worker that starts now must not take it for one that was cut short.
        with self._alone():
            done = self.store.install(leaf, issuing, *roots)
            live = self.store.live()
            if live is None or live.serial != done.serial:
                raise NotFoundError("another installation has replaced this certificate already")
            log(EventName.CERTIFICATE_INSTALLED, host=live.host, serial=live.serial)
            return self._serve(live, event, done.previous)

    def waiting(self, wanted: Wanted, now: UnixSeconds) -> LiveCertificate | None:
        """Return what is on disk and still has to come into service: see `held`.

        That is a version newer than the live one, or the live one while its hooks or ports fail.
        An operator who asks for a new one (`wanted.young_s`) does not mean the latter.
        """
        held, record = held_of(self.store, wanted, now), self._record()
        if held is not None or wanted.young_s or record is None or record.state not in UNSERVED:
            return held
        live = self.store.live()
        return live if live is not None and is_good(live, wanted, now) else None

    def deliver_again(self, found: LiveCertificate) -> Installed:
        """Bring a certificate into service that was installed before; raises as `install`."""
        before = self.store.live()
        is_live = before is not None and before.version == found.version
        first = is_live and not self.store.previous()
        event: HookEvent = "issued" if first else "renewed"
        self._prepare(event, before)
        with self._alone():
            live = found if is_live else self.store.bring_forward(found.version)
            log(EventName.CERTIFICATE_REDELIVERED, host=live.host, serial=live.serial)
            # What was live all the time has nothing to go back to: that was decided when it came.
            return self._serve(live, event, "" if is_live or before is None else before.version)

    def settle(self) -> None:
        """Finish a delivery that was cut short: the live certificate's hooks may not have run."""
        live = self.store.live()
        if live is None or self._record() is not None:
            return
        with self._alone() as alone:
            if alone and self._record() is None:
                previous = self.store.previous()
                event: HookEvent = "renewed" if previous else "issued"
                self._serve(live, event, previous)

    def look_again(self) -> None:
        """See whether a port that went on serving an old certificate has come round."""
        live, record = self.store.live(), self._record()
        if live is None or record is None or record.state != "stale":
            return
        probes = self.prober.glance(self.policy.probe, live.serial, self.server_name)
        if probes and all(probe.served for probe in probes):
            self._keep(DeliveryRecord(live.serial, "served"))

    def report(self) -> NoteOwnCertificate:
        """Return what this node has in service, and in which state it is.

        A certificate counts from the end of its delivery: as long as hooks and probes are under
        way, in whichever worker, it is the one before.
        """
        live, record = self._delivered()
        if live is None:
            return NoteOwnCertificate(
                present=False,
                serial="",
                not_before=UnixSeconds(0),
                not_after=UnixSeconds(0),
                state="unknown",
                detail="",
            )
        return NoteOwnCertificate(
            present=True,
            serial=live.serial,
            not_before=live.not_before,
            not_after=live.not_after,
            state=record.state if record else "installed",
            detail=record.detail if record else "",
            roots=live.trusted_pins()[:ROOTS_MAX],
        )

    def tell(self, event: str) -> str:
        """Run the hooks of something that happened to this node; return which failed, and how."""
        runs = self.hooks.run("deploy", event, environment_of(self.store, self.store.live()))
        return "; ".join(map(failure_text, _failed(runs)))[:DETAIL_LENGTH_MAX]

    def longest_ms(self) -> int:
        """Return how long hooks and probes may take."""
        return self.hooks.longest_ms() + self.prober.longest_ms(self.policy.probe)

    def _prepare(self, event: HookEvent, before: LiveCertificate | None) -> None:
        runs = self.hooks.run("pre", event, environment_of(self.store, before))
        failures = _failed(runs)
        if failures:
            raise CSRRejectedError(
                f"not installed: {'; '.join(map(failure_text, failures))}",
                hint="mend or remove the hook in hooks.d/pre",
            )

    def _serve(self, live: LiveCertificate, event: HookEvent, previous: str) -> Installed:
        """Run hooks and probes for the live certificate; go back when they say so."""
        began_ms = boottime_ms()
        runs = self.hooks.run("deploy", event, environment_of(self.store, live))
        hook_ms = boottime_ms() - began_ms if runs else 0
        failures = _failed(runs)
        probes = () if failures else self._probe(live)
        may_roll_back = self.policy.rollback and bool(previous)
        verdict = judge(failures, probes, may_roll_back=may_roll_back)
        restored, trouble = None, ""
        if verdict.roll_back:
            restored, trouble = self._roll_back(previous, live, event)
        trouble = trouble or self._finish(event, restored or live)
        detail = own_detail(verdict, restored.serial if restored else "", trouble)
        state = "failed" if restored else verdict.state
        self._keep(DeliveryRecord((restored or live).serial, state, detail))
        if verdict.state == "stale":
            log(EventName.CERTIFICATE_SERVED_MISMATCH, host=live.host, detail=detail)
        return Installed(serial=live.serial, state=state, detail=detail, hook_ms=hook_ms)

    def _probe(self, live: LiveCertificate) -> tuple[ProbeResult, ...]:
        return self.prober.probe(self.policy.probe, live.serial, self.server_name)

    def _roll_back(
        self, previous: str, failed: LiveCertificate, event: HookEvent
    ) -> tuple[LiveCertificate | None, str]:
        """Return the certificate that is live again, if any, and what went wrong on the way."""
        try:
            restored = self.store.rollback(previous, instead_of=failed.version)
        except MeshError as error:
            return None, f"could not go back: {error.detail}"
        log(EventName.CERTIFICATE_ROLLED_BACK, host=restored.host, serial=restored.serial)
        environment = environment_of(self.store, restored)
        try:
            failures = _failed(self.hooks.run("deploy", event, environment, retry=False))
        except StoppedError:
            # The last record may speak of this very certificate, from when it came: its hooks have
            # to run again, for the service may have taken the other one meanwhile.
            self._record_path.unlink(missing_ok=True)
            raise
        return restored, "; ".join(f"after that {failure_text(run)}" for run in failures)

    def _finish(self, event: HookEvent, live: LiveCertificate) -> str:
        # A failed post hook is told, but goes back to nothing: the certificate is in service.
        runs = self.hooks.run("post", event, environment_of(self.store, live))
        return "; ".join(map(failure_text, _failed(runs)))

    def _delivered(self) -> tuple[LiveCertificate | None, DeliveryRecord | None]:
        """Return the certificate whose delivery ended last, and how, if anybody knows."""
        live, last = self.store.live(), self._last_record()
        if live is None or last is None or last.serial == live.serial:
            return live, last
        earlier = self.store.version(self.store.previous())
        if earlier is None or earlier.serial != last.serial or earlier.not_after < wall_s():
            return live, None
        return earlier, last

    def _record(self) -> DeliveryRecord | None:
        """Return how the delivery of the live certificate ended; None while it has not."""
        live, last = self.store.live(), self._last_record()
        return (
            last if live is not None and last is not None and last.serial == live.serial else None
        )

    def _last_record(self) -> DeliveryRecord | None:
        try:
            return decode_json(self._record_path.read_bytes(), DeliveryRecord)
        except (OSError, MalformedMessageError):
            return None

    def _keep(self, record: DeliveryRecord) -> None:
        live = self.store.live()
        if live is None or live.serial != record.serial:
            return  # this worker was frozen, and another one's delivery is what counts now
        write_atomic(self._record_path, msgspec.json.encode(record))

    @property
    def _record_path(self) -> Path:
        return self.store.directory / "delivery.json"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Yield whether no other worker of this node is at a delivery."""
        private_directory(self.store.directory.parent)
        private_directory(self.store.directory)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self.store.directory / ".settling", flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
        finally:
            os.close(descriptor)


def _failed(runs: Sequence[HookRun]) -> list[HookRun]:
    return [run for run in runs if run.failed]
