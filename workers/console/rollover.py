"""Routes of the rollover: one CA is replaced by another."""

from broker.wire.rollover import (
    AbortRollover,
    FinishRollover,
    FinishRolloverBody,
    GetRollover,
    RolloverBody,
    RolloverView,
    StartRollover,
)
from workers.route import Route, Visit

START_TIMEOUT_MS = 60_000
"""Argon2id twice or more, behind other slow jobs, on a small board."""
STEP_TIMEOUT_MS = 30_000
"""All members are looked at."""


def _start(visit: Visit) -> StartRollover:
    body = visit.content(RolloverBody)
    return StartRollover(
        passphrase=body.passphrase.encode(),
        operator=visit.caller.operator,
        names=body.names,
        networks=body.networks,
    )


def _finish(visit: Visit) -> FinishRollover:
    body = visit.content(FinishRolloverBody)
    return FinishRollover(operator=visit.caller.operator, dry_run=body.dry_run)


ROLLOVER_ROUTES = (
    Route(
        method="GET",
        path="/v1/ca/rollover",
        summary="How far the CA's replacement is, and who holds it back.",
        make=lambda _visit: GetRollover(),
        reply=RolloverView,
        timeout_ms=STEP_TIMEOUT_MS,
    ),
    Route(
        method="POST",
        path="/v1/ca/rollover",
        summary="Make the next CA and announce its root; the old one goes on signing.",
        body=RolloverBody,
        make=_start,
        reply=RolloverView,
        timeout_ms=START_TIMEOUT_MS,
    ),
    Route(
        method="DELETE",
        path="/v1/ca/rollover",
        summary="Forget the next CA, as long as it has not signed.",
        make=lambda visit: AbortRollover(operator=visit.caller.operator),
        reply=RolloverView,
        timeout_ms=STEP_TIMEOUT_MS,
    ),
    Route(
        method="POST",
        path="/v1/ca/rollover/finish",
        summary="Let the next CA sign; dry_run only tells what would be.",
        body=FinishRolloverBody,
        make=_finish,
        reply=RolloverView,
        timeout_ms=STEP_TIMEOUT_MS,
    ),
)
