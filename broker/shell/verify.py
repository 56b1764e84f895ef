"""`python -m broker verify SETTINGS`: check a ledger without starting a broker."""

import sys

import msgspec

from broker.errors import MeshError
from broker.ledger.file import inspect_file
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.audit import AuditVerdict


def verify(settings: Settings, paths: Paths) -> int:
    """Print an `AuditVerdict` as JSON; exit 1 when the chain is broken."""
    del settings
    try:
        found = inspect_file(paths.ledger)
        verdict = AuditVerdict(found.rows, found.head_hash.hex(), found.first_bad, found.detail)
    except MeshError as error:
        verdict = AuditVerdict(0, "", 0, error.detail)
    sys.stdout.write(msgspec.json.encode(verdict).decode() + "\n")
    return Exit.OK if verdict.first_bad is None else Exit.FAILED
