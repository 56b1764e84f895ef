"""Who is connected and whether it still moves: the broker's side of the Paranoid Pirate.

A worker is `ready` while it keeps its own promise, `suspect` once it broke it, `dead` one more
deadline later, `left` when it said goodbye. Any request counts as a sign of life.
"""

from dataclasses import dataclass, field

from broker.units import Millis
from broker.wire.ids import Service
from broker.wire.liveness import SILENCE_MS_MAX, Beat, Ready

DEAD_KEPT_MS = 120_000
LEFT_KEPT_MAX = 64
"""Workers that left or died are remembered for `ps` up to this many."""
IDENTITY_PARTS = 4
"""Service, instance, pid, and something random; see `broker.client.protocol.introduce`."""
OUTDATED_KEPT_MAX = 32
OUTDATED_KEPT_MS = 10_000
"""A process of another release knocks every second, or leaves and comes back within seconds."""


@dataclass(slots=True)
class Worker:
    """One introduced process; `key` is the CURVE key of one on another machine."""

    identity: bytes
    service: Service
    instance: str
    boot_id: str
    pid: int
    seen_ms: Millis
    promise_ms: int
    key: str = ""
    liveness: str = "ready"
    beat: Beat = field(default_factory=lambda: Beat(progress=0, within_ms=0))

    @property
    def deadline_ms(self) -> int:
        """When the promise is broken."""
        return self.seen_ms + self.promise_ms


class WorkerTable:
    """All workers by routing identity.

    Args:
        promise_ms: What a worker promises before its first beat, and the shortest deadline.
    """

    def __init__(self, promise_ms: int) -> None:
        self._promise_ms = promise_ms
        self._workers: dict[bytes, Worker] = {}
        self._outdated: dict[str, Millis] = {}

    def refuse_version(self, identity: bytes, now_ms: Millis) -> None:
        """Note that a process was refused for the wire version that it speaks.

        Its identity names it (`service/instance/...`): the frames of a version look the same in
        every release, its messages do not.
        """
        instance = _instance_in(identity)
        if not instance:
            return
        self._outdated.pop(instance, None)
        self._outdated[instance] = now_ms
        if len(self._outdated) > OUTDATED_KEPT_MAX:
            del self._outdated[next(iter(self._outdated))]

    def outdated(self, now_ms: Millis) -> tuple[str, ...]:
        """Return the processes that were refused for their wire version a moment ago."""
        return tuple(
            instance
            for instance, seen_ms in self._outdated.items()
            if now_ms - seen_ms < OUTDATED_KEPT_MS
        )

    def welcome(
        self, identity: bytes, ready: Ready, now_ms: Millis, key: str = ""
    ) -> tuple[bytes, ...]:
        """Register a worker; return identities of earlier lives of the same instance."""
        earlier = tuple(
            worker.identity
            for worker in self._workers.values()
            if (worker.service, worker.instance, worker.key) == (ready.service, ready.instance, key)
            and worker.identity != identity
        )
        for gone in earlier:
            del self._workers[gone]
        self._outdated.pop(ready.instance, None)
        self._workers[identity] = Worker(
            identity,
            ready.service,
            ready.instance,
            ready.boot_id,
            ready.pid,
            now_ms,
            self._promise_ms,
            key,
        )
        return earlier

    def service_of(self, identity: bytes) -> Service | None:
        """Return the service of a worker that may send requests, None for strangers."""
        worker = self._workers.get(identity)
        if worker is None or worker.liveness == "left":
            return None
        return worker.service

    def alive(self, identity: bytes, now_ms: Millis) -> None:
        """Note that the worker sent something."""
        worker = self._workers.get(identity)
        if worker is not None:
            worker.seen_ms = now_ms
            if worker.liveness in {"suspect", "dead"}:
                worker.liveness = "ready"

    def beat(self, identity: bytes, beat: Beat, now_ms: Millis) -> bool:
        """Note a beat; return whether the worker is known."""
        worker = self._workers.get(identity)
        if worker is None or worker.liveness == "left":
            return False
        self.alive(identity, now_ms)
        worker.promise_ms = min(max(beat.within_ms, self._promise_ms), SILENCE_MS_MAX)
        worker.beat = beat
        return True

    def leave(self, identity: bytes) -> None:
        """Note a goodbye; nobody here waits for one that worked on another machine."""
        worker = self._workers.get(identity)
        if worker is not None and worker.key:
            del self._workers[identity]
        elif worker is not None:
            worker.liveness = "left"
        self._forget_oldest()

    def sweep(self, now_ms: Millis) -> tuple[Worker, ...]:
        """Advance everybody's liveness; return those that just became suspect or dead.

        Somebody dead for long is forgotten: if it is supervised, the process table speaks of it.
        """
        for identity in [w.identity for w in self._workers.values() if _is_past(w, now_ms)]:
            del self._workers[identity]
        changed = []
        for worker in self._workers.values():
            verdict = _verdict(worker, now_ms)
            if verdict != worker.liveness:
                worker.liveness = verdict
                changed.append(worker)
        return tuple(changed)

    def overdue(self) -> tuple[Worker, ...]:
        """Return workers that are suspect or dead: the watchdog ends them.

        Not those on other machines: their pids mean somebody else here.
        """
        return tuple(
            w for w in self._workers.values() if w.liveness in {"suspect", "dead"} and not w.key
        )

    def count(self, key: str, but: bytes = b"") -> int:
        """Return how many workers came with this key, the one of that identity aside."""
        return sum(1 for w in self._workers.values() if w.key == key and w.identity != but)

    def everyone(self) -> tuple[Worker, ...]:
        """Return all known workers."""
        return tuple(self._workers.values())

    def _forget_oldest(self) -> None:
        gone = [w for w in self._workers.values() if w.liveness == "left"]
        for worker in gone[: max(0, len(gone) - LEFT_KEPT_MAX)]:
            del self._workers[worker.identity]


def _instance_in(identity: bytes) -> str:
    """Return the instance that a routing identity names, empty when it names none."""
    try:
        parts = identity.decode("ascii").split("/")
    except UnicodeDecodeError:
        return ""
    named = len(parts) == IDENTITY_PARTS and parts[0] in set(Service) and parts[1].isprintable()
    return parts[1] if named else ""


def _is_past(worker: Worker, now_ms: Millis) -> bool:
    return worker.liveness == "dead" and now_ms >= worker.deadline_ms + DEAD_KEPT_MS


def _verdict(worker: Worker, now_ms: Millis) -> str:
    if worker.liveness == "left":
        return "left"
    if now_ms < worker.deadline_ms:
        return "ready"
    return "suspect" if now_ms < worker.deadline_ms + worker.promise_ms else "dead"
