"""The renewal loop: leases work until none is left, and tells the broker what came of each item.

Two of these run on each node unless the settings say otherwise. On the CA they renew members,
several at a time: see `workers.sweep`. What a node does for itself, making keys, installing,
running hooks, is done one item at a time. A result is offered under the lease it was done for: when
the lease is gone, another worker has the work, and the result is dropped.
"""

from collections.abc import Callable
from functools import partial

from broker.errors import (
    BusyError,
    LeaseLostError,
    MeshError,
    RenewalInProgressError,
    StorageError,
    ThrottledError,
)
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.base import Event
from broker.wire.control import Ack
from broker.wire.events import AuthorityMoved, RoleMoved, WorkAvailable
from broker.wire.ids import Service
from broker.wire.node import Membership
from broker.wire.work import (
    CompleteWork,
    Failed,
    Lease,
    LeaseWork,
    ReleaseLease,
    RenewMember,
    RenewOwn,
    WorkAnswer,
    WorkResult,
)
from workers.membership import load_membership
from workers.process import Desk, Outcome
from workers.renewal.errand import Errand, build_errand
from workers.renewal.logic import AFTER_FAILURE_MS, ROUND_MS_MAX, next_round_ms
from workers.renewal.patience import StoppedError
from workers.renewed import Tally, sentence_of, tell_result
from workers.sweep import Sweep

COMPLETE_TRIES = 10
COMPLETE_AGAIN_MS = 2_000
QUEUED = (BusyError, ThrottledError, RenewalInProgressError)
"""Refusals that are over in a moment, and no trouble of anybody's."""

Build = Callable[[Desk, Membership], Errand]


class RenewalLoop:
    """One renewal process; `build` makes what does the work, for tests to replace."""

    service = Service.RENEWAL
    wakes: tuple[type[Event], ...] = (WorkAvailable, RoleMoved, AuthorityMoved)

    def __init__(self, settings: Settings, paths: Paths, build: Build | None = None) -> None:
        self.period_ms = min(settings.renewal.check_every.ms, ROUND_MS_MAX)
        self._paths = paths
        self._check_every_ms = settings.renewal.check_every.ms
        self._build = build or build_errand
        self._membership: Membership | None = None
        self._errand: Errand | None = None
        self._sweep: Sweep | None = None

    def round(self, desk: Desk) -> Outcome:
        """Do all the work there is and return when to look again."""
        try:
            errand = self._current(desk)
            if errand is None:
                return Outcome(state="waiting for a mesh")
            errand.delivery.look_again()
        except StoppedError:
            return Outcome(state="stopping")  # what was cut short is finished at the next start
        except OSError as error:
            raise StorageError(f"cannot write here: {error}") from None
        desk.ask(errand.delivery.report(), Ack)
        return Outcome(next_in_ms=next_round_ms(self._drain(desk, errand), self._check_every_ms))

    def _current(self, desk: Desk) -> Errand | None:
        """Return what works for the present membership; made anew when that changes."""
        membership = load_membership(self._paths)
        if membership is not None and membership == self._membership:
            return self._errand
        if self._errand is not None:
            self._errand.close()
        if self._sweep is not None:
            self._sweep.close()
        self._sweep = None
        self._errand = None if membership is None else self._build(desk, membership)
        self._membership = membership
        if self._errand is not None:
            # Doors open as soon as the broker knows the certificate; hooks may take their time.
            desk.ask(self._errand.delivery.report(), Ack)
            self._errand.delivery.settle()
        return self._errand

    def _drain(self, desk: Desk, errand: Errand) -> int:
        """Work until no item is left or a stop is asked; return when to look again."""
        tally = Tally()
        try:
            while not desk.stopping():
                answer = desk.ask(LeaseWork(), WorkAnswer)
                if answer.lease is None:
                    return answer.next_in_ms
                if isinstance(answer.lease.item, RenewMember):
                    self._members(desk, errand).run(answer.lease, tally)
                    continue
                result = self._perform(desk, errand, answer.lease)
                if isinstance(answer.lease.item, RenewOwn) and isinstance(result, Failed):
                    break
        finally:
            tally.tell()
        return AFTER_FAILURE_MS

    def _members(self, desk: Desk, errand: Errand) -> Sweep:
        """Return what renews members; a node that leads no mesh never needs it."""
        if self._sweep is None:
            open_peers = partial(errand.open_peers, desk.paths, errand.membership)
            self._sweep = Sweep(desk, desk, open_peers, desk.settings.renewal)
        return self._sweep

    def _perform(self, desk: Desk, errand: Errand, lease: Lease) -> WorkResult | None:
        """Do one item and complete its lease; None when the lease went back or away."""
        try:
            result = self._result_of(desk, errand, lease)
            _complete(desk, lease, result)
        except StoppedError:
            desk.ask(ReleaseLease(lease.lease_id), Ack)
            return None
        except LeaseLostError as error:
            log(EventName.CERTIFICATE_RENEWAL_SKIPPED, host=lease.item.host, detail=error.detail)
            return None
        return result

    def _result_of(self, desk: Desk, errand: Errand, lease: Lease) -> WorkResult:
        try:
            if desk.stopping():
                raise StoppedError
            errand.hold.begin(lease, errand.lease_ms(lease))
            result = errand.run(lease)
        except LeaseLostError:
            raise
        except QUEUED as error:
            result = Failed(sentence_of(error), queued=True)
        except MeshError as error:
            result = Failed(sentence_of(error))
        except OSError as error:
            result = Failed(sentence_of(StorageError(f"cannot write here: {error}")))
        finally:
            errand.hold.end()
        tell_result(lease.item.host, result)
        return result


def _complete(desk: Desk, lease: Lease, result: WorkResult) -> None:
    """Offer the result until the broker takes it or the lease is over.

    A full disk refuses it for a while; what was done on this host must not be forgotten for that.
    """
    for _ in range(COMPLETE_TRIES):
        try:
            desk.ask(CompleteWork(lease.lease_id, result), Ack)
        except LeaseLostError:
            raise
        except MeshError as error:
            if not error.retryable or desk.stopping():
                raise
            desk.wait(max(error.retry_after_ms, COMPLETE_AGAIN_MS))
        else:
            return
    desk.ask(CompleteWork(lease.lease_id, result), Ack)
