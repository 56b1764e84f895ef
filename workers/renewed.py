"""What is said of renewals, to the broker and in the log."""

from dataclasses import dataclass

from broker.errors import MeshError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.wire.work import Failed, Installed, WorkResult

DETAIL_LENGTH_MAX = 1024
"""What a `Text` of the wire takes."""

RENEWED = "Certificate renewed"
RENEWED_HOOK_FAILED = "Certificate renewed but hook failed"
RENEWAL_FAILED = "Certificate renewal failed"
CHECK_COMPLETE = "Renewal check complete"


@dataclass(slots=True)
class Tally:
    """How many members were renewed, and for how many it failed."""

    renewed: int = 0
    failed: int = 0

    def count(self, result: WorkResult) -> None:
        """Count one result that the broker took."""
        if isinstance(result, Installed):
            self.renewed += 1
        else:
            self.failed += 1

    def tell(self) -> None:
        """Log the end of a check in which there was any member to renew."""
        if self.renewed or self.failed:
            log(
                EventName.CERTIFICATE_RENEWED,
                message=CHECK_COMPLETE,
                count=self.renewed,
                failed=self.failed,
            )


def sentence_of(error: MeshError) -> str:
    """Return what an operator reads about a failure: what happened, and the advice."""
    text = f"{error.detail} ({error.hint})" if error.hint else error.detail
    return text[:DETAIL_LENGTH_MAX]


def summary_of(result: Installed | Failed) -> str:
    """Return the constant text that says how a renewal ended."""
    if isinstance(result, Failed):
        return RENEWAL_FAILED
    return RENEWED_HOOK_FAILED if result.state == "failed" else RENEWED


def tell_result(host: str, result: WorkResult) -> None:
    """Log how a renewal of `host` ended; other results are not told."""
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
