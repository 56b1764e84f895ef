"""Routes of what leaves the node: backups, and the certificates that others trust."""

from broker.wire.backup import BackupBody, BackupsView, BackupView, ListBackups, TakeBackup
from broker.wire.enrollment import GetTrust, TrustAnswer
from workers.route import Route, Visit

MAKE_TIMEOUT_MS = 600_000
"""A journal of a million rows is copied, sealed, read back and verified."""
LIST_TIMEOUT_MS = 30_000


def _take(visit: Visit) -> TakeBackup:
    return TakeBackup(operator=visit.caller.operator, path=visit.content(BackupBody).path)


BACKUP_ROUTES = (
    Route(
        method="GET",
        path="/v1/ca/trust",
        summary="Root, issuing certificate and revocation lists, as on the enrol port.",
        make=lambda _visit: GetTrust(),
        reply=TrustAnswer,
        scope="read",
    ),
    Route(
        method="GET",
        path="/v1/backups",
        summary="The backups in the directory of the settings, newest first.",
        make=lambda _visit: ListBackups(),
        reply=BackupsView,
        timeout_ms=LIST_TIMEOUT_MS,
    ),
    Route(
        method="POST",
        path="/v1/backups",
        once=False,
        summary="Make a backup now; answered when it was read back.",
        body=BackupBody,
        make=_take,
        reply=BackupView,
        timeout_ms=MAKE_TIMEOUT_MS,
    ),
)
