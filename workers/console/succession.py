"""Routes of the succession: who stands by, who takes over, what the merge left for a person."""

from broker.wire.console_api import PromoteBody, StepDownBody
from broker.wire.control import Ack
from broker.wire.standby import (
    CloseReview,
    ListReviews,
    ListStandbys,
    NominateStandby,
    PromoteHere,
    PromotionAnswer,
    RemoveStandby,
    ReviewsView,
    StandbysView,
    StepDown,
    StepDownAnswer,
    SyncNow,
)
from workers.query import Number
from workers.route import Route, Visit

TURN_TIMEOUT_MS = 15_000
"""A change of roles is one transaction, but on a small board behind a slow disk."""
LIMIT_REVIEWS = Number(name="limit", summary="At most so many conflicts.", default=500)


def _nominate(visit: Visit) -> NominateStandby:
    return NominateStandby(host=visit.parameters["host"], operator=visit.caller.operator)


def _remove(visit: Visit) -> RemoveStandby:
    return RemoveStandby(host=visit.parameters["host"], operator=visit.caller.operator)


def _promote(visit: Visit) -> PromoteHere:
    body = visit.content(PromoteBody)
    return PromoteHere(operator=visit.caller.operator, force=body.force, dry_run=body.dry_run)


def _step_down(visit: Visit) -> StepDown:
    successor = visit.content(StepDownBody).successor
    return StepDown(operator=visit.caller.operator, successor=successor)


def _close(visit: Visit) -> CloseReview:
    return CloseReview(review_id=visit.parameters["id"], operator=visit.caller.operator)


SUCCESSION_ROUTES = (
    Route(
        method="GET",
        path="/v1/standbys",
        summary="The order of succession, and where this node stands in it.",
        make=lambda _visit: ListStandbys(),
        reply=StandbysView,
        scope="read",
    ),
    Route(
        method="POST",
        path="/v1/standbys/{host}",
        summary="Offer a member the issuing key.",
        make=_nominate,
        reply=Ack,
        scope="admin",
    ),
    Route(
        method="DELETE",
        path="/v1/standbys/{host}",
        summary="Take a nomination or a standby's role back.",
        make=_remove,
        reply=Ack,
        scope="admin",
    ),
    Route(
        method="POST",
        path="/v1/standby/promote",
        summary="Make this node the primary, or confirm a caretaker; dry_run only tells.",
        body=PromoteBody,
        make=_promote,
        reply=PromotionAnswer,
        timeout_ms=TURN_TIMEOUT_MS,
        scope="admin",
    ),
    Route(
        method="POST",
        path="/v1/standby/step-down",
        summary="Hand the primary's role to a standby.",
        body=StepDownBody,
        make=_step_down,
        reply=StepDownAnswer,
        timeout_ms=TURN_TIMEOUT_MS,
        scope="admin",
    ),
    Route(
        method="POST",
        path="/v1/standby/sync",
        summary="Fetch from, or bring to, the primary now.",
        make=lambda visit: SyncNow(operator=visit.caller.operator),
        reply=Ack,
        scope="admin",
    ),
    Route(
        method="GET",
        path="/v1/reviews",
        summary="What the merge decided and a person should look at.",
        make=lambda visit: ListReviews(limit=visit.number("limit")),
        reply=ReviewsView,
        scope="read",
        query=(LIMIT_REVIEWS,),
    ),
    Route(
        method="POST",
        path="/v1/reviews/{id}/close",
        summary="A person looked at it.",
        make=_close,
        reply=Ack,
        scope="admin",
    ),
)
