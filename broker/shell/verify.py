"""`python -m broker verify SETTINGS`: check a ledger without starting a broker."""

import sys

import msgspec

from broker.errors import LedgerDamagedError
from broker.ledger.sqlite import Ledger
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.shell.serve import own_host
from broker.wire.audit import AuditVerdict


def verify(settings: Settings, paths: Paths) -> int:
    """Print an `AuditVerdict` as JSON; exit 1 when the chain is broken."""
    try:
        ledger = Ledger.open(paths.ledger, node=own_host(settings))
    except LedgerDamagedError as error:
        verdict = AuditVerdict(0, "", 0, error.detail)
    else:
        rows, head_hash, first_bad, detail = ledger.verify_chain()
        ledger.close()
        verdict = AuditVerdict(rows, head_hash, first_bad, detail)
    sys.stdout.write(msgspec.json.encode(verdict).decode() + "\n")
    return Exit.OK if verdict.first_bad is None else Exit.FAILED
