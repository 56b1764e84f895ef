"""The renewal loop: leases work until none is left, and tells the broker what came of each item.

Two of these run on each node. On the CA they call members; on a member they make keys, install and
run hooks. A result is offered under the lease it was done for: when the lease is gone, another
worker has the work, and the result is dropped.
"""

from collections.abc import Callable

from broker.errors import LeaseLostError, MeshError, StorageError
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
    Installed,
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
from workers.renewal.logic import (
    AFTER_FAILURE_MS,
    CHECK_COMPLETE,
    DETAIL_LENGTH_MAX,
    ROUND_MS_MAX,
    next_round_ms,
    summary_of,
)
from workers.renewal.patience import StoppedError

COMPLETE_TRIES = 10
COMPLETE_AGAIN_MS = 2_000
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

    def round(self, desk: Desk) -> Outcome:
        """Do all the work there is and return when to look again."""
        errand = self._current(desk)
        if errand is None:
            return Outcome(state="waiting for a mesh")
        errand.delivery.look_again()
        desk.ask(errand.delivery.report(), Ack)
        return Outcome(next_in_ms=next_round_ms(self._drain(desk, errand), self._check_every_ms))

    def _current(self, desk: Desk) -> Errand | None:
        """Return what works for the present membership; made anew when that changes."""
        membership = load_membership(self._paths)
        if membership is not None and membership == self._membership:
            return self._errand
        if self._errand is not None:
            self._errand.close()
        self._errand = None if membership is None else self._build(desk, membership)
        self._membership = membership
        if self._errand is not None:
            # Doors open as soon as the broker knows the certificate; hooks may take their time.
            desk.ask(self._errand.delivery.report(), Ack)
            self._errand.delivery.settle()
        return self._errand

    def _drain(self, desk: Desk, errand: Errand) -> int:
        """Work until no item is left or a stop is asked; return when to look again."""
        renewed: list[bool] = []
        while not desk.stopping():
            answer = desk.ask(LeaseWork(), WorkAnswer)
            if answer.lease is None:
                _tell_complete(renewed)
                return answer.next_in_ms
            result = self._perform(desk, errand, answer.lease)
            if isinstance(answer.lease.item, RenewMember) and result is not None:
                renewed.append(isinstance(result, Installed))
            if isinstance(answer.lease.item, RenewOwn) and isinstance(result, Failed):
                break
        _tell_complete(renewed)
        return AFTER_FAILURE_MS

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
        except MeshError as error:
            result = Failed(_sentence(error))
        except OSError as error:
            result = Failed(_sentence(StorageError(f"cannot write here: {error}")))
        finally:
            errand.hold.end()
        _tell(lease, result)
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


def _sentence(error: MeshError) -> str:
    text = f"{error.detail} ({error.hint})" if error.hint else error.detail
    return text[:DETAIL_LENGTH_MAX]


def _tell(lease: Lease, result: WorkResult) -> None:
    host = lease.item.host
    if isinstance(result, Failed):
        log(
            EventName.CERTIFICATE_RENEWAL_FAILED,
            message=summary_of(result),
            host=host,
            detail=result.detail,
        )
    elif isinstance(result, Installed):
        log(
            EventName.CERTIFICATE_RENEWED,
            level="warning" if result.state in {"failed", "stale"} else "info",
            message=summary_of(result),
            host=host,
            serial=result.serial,
            state=result.state,
            detail=result.detail,
        )


def _tell_complete(renewed: list[bool]) -> None:
    if renewed:
        log(
            EventName.CERTIFICATE_RENEWED,
            message=CHECK_COMPLETE,
            count=sum(renewed),
            failed=len(renewed) - sum(renewed),
        )
