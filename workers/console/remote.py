"""Routes of the grants to renewal workers on other machines."""

from broker.wire.remote import (
    EnrollWorker,
    EnrollWorkerBody,
    ListRemoteWorkers,
    RemoteWorkersView,
    RemoteWorkerView,
    RevokeWorker,
    RevokeWorkerBody,
)
from workers.route import Route, Visit


def _enroll(visit: Visit) -> EnrollWorker:
    body = visit.content(EnrollWorkerBody)
    return EnrollWorker(host=body.host, operator=visit.caller.operator, dry_run=body.dry_run)


def _revoke(visit: Visit) -> RevokeWorker:
    return RevokeWorker(
        host=visit.parameters["host"],
        operator=visit.caller.operator,
        dry_run=visit.content(RevokeWorkerBody).dry_run,
    )


REMOTE_ROUTES = (
    Route(
        method="GET",
        path="/v1/remote-workers",
        summary="Which machines' renewal workers may work for this CA, newest grant first.",
        make=lambda _visit: ListRemoteWorkers(),
        reply=RemoteWorkersView,
        scope="read",
    ),
    Route(
        method="POST",
        path="/v1/remote-workers",
        summary="Let a member's machine in; its earlier grant ends; dry_run only tells.",
        body=EnrollWorkerBody,
        make=_enroll,
        reply=RemoteWorkerView,
        scope="admin",
    ),
    Route(
        method="POST",
        path="/v1/remote-workers/{host}/revoke",
        summary="End what a machine was granted; dry_run only tells.",
        body=RevokeWorkerBody,
        make=_revoke,
        reply=RemoteWorkerView,
        scope="admin",
    ),
)
