"""What becomes of trouble: the exit status of every error code, and its three parts on screen.

Source: the table of exit codes the command promises its callers (README, "Exit codes"). A locked
CA is status 5 only where the key was needed; `status` itself answers 3 then, because it worked.
"""

import json
import sys
from collections.abc import Mapping
from types import MappingProxyType

from broker.cli.shape import clean
from broker.errors import ErrorCode, MeshError
from broker.runtime.exits import Exit

EXITS: Mapping[ErrorCode, Exit] = MappingProxyType(
    {
        ErrorCode.MALFORMED: Exit.FAILED,
        ErrorCode.OVERSIZED: Exit.FAILED,
        ErrorCode.UNSUPPORTED_VERSION: Exit.FAILED,
        ErrorCode.UNKNOWN_KIND: Exit.FAILED,
        ErrorCode.STORAGE: Exit.FAILED,
        ErrorCode.NOT_FOUND: Exit.FAILED,
        ErrorCode.LEDGER_DAMAGED: Exit.FAILED,
        ErrorCode.INTERNAL: Exit.FAILED,
        ErrorCode.INVITE_MALFORMED: Exit.USAGE,
        ErrorCode.UNREGISTERED: Exit.UNREACHABLE,
        ErrorCode.UNAVAILABLE: Exit.UNREACHABLE,
        ErrorCode.BUSY: Exit.UNREACHABLE,
        ErrorCode.TIMEOUT: Exit.UNREACHABLE,
        ErrorCode.PEER_UNREACHABLE: Exit.UNREACHABLE,
        ErrorCode.CLOCK_SKEW: Exit.REFUSED,
        ErrorCode.CA_LOCKED: Exit.LOCKED,
        ErrorCode.NO_MESH: Exit.NO_MESH,
        ErrorCode.NOT_A_MEMBER: Exit.NO_MESH,
        ErrorCode.FORBIDDEN: Exit.REFUSED,
        ErrorCode.BAD_PASSPHRASE: Exit.REFUSED,
        ErrorCode.BAD_CREDENTIAL: Exit.REFUSED,
        ErrorCode.INVITE_EXPIRED: Exit.REFUSED,
        ErrorCode.INVITE_USED: Exit.REFUSED,
        ErrorCode.ENROLLMENT_CLOSED: Exit.REFUSED,
        ErrorCode.NAME_NOT_ALLOWED: Exit.REFUSED,
        ErrorCode.CSR_REJECTED: Exit.REFUSED,
        ErrorCode.APPROVAL_DENIED: Exit.REFUSED,
        ErrorCode.APPROVAL_EXPIRED: Exit.REFUSED,
        ErrorCode.THROTTLED: Exit.REFUSED,
        ErrorCode.REVOKED: Exit.REFUSED,
        ErrorCode.RENEWAL_NOT_DUE: Exit.REFUSED,
        ErrorCode.BUNDLE_REJECTED: Exit.REFUSED,
        ErrorCode.PIN_MISMATCH: Exit.REFUSED,
        ErrorCode.CLAIM_REJECTED: Exit.REFUSED,
        ErrorCode.KEY_REJECTED: Exit.REFUSED,
        ErrorCode.BACKUP_REJECTED: Exit.REFUSED,
        ErrorCode.POLICY_REFUSED: Exit.REFUSED,
        ErrorCode.CERTIFICATE_EXPIRED: Exit.REFUSED,
        ErrorCode.MESH_EXISTS: Exit.CONFLICT,
        ErrorCode.NOT_PRIMARY: Exit.CONFLICT,
        ErrorCode.STALE_TERM: Exit.CONFLICT,
        ErrorCode.ALREADY_ENROLLED: Exit.CONFLICT,
        ErrorCode.CONFLICT: Exit.CONFLICT,
        ErrorCode.LEASE_LOST: Exit.CONFLICT,
        ErrorCode.RENEWAL_IN_PROGRESS: Exit.CONFLICT,
        ErrorCode.WITHHELD: Exit.CONFLICT,
        ErrorCode.FORKED: Exit.CONFLICT,
        ErrorCode.SETTINGS: Exit.SETTINGS,
    }
)

USAGE_CODE = "usage"
CRASH_CODE = "internal"
CRASH_HINT = "run it again with -v for the traceback and report it"


def exit_of(code: ErrorCode) -> Exit:
    """Return the exit status that stands for an error code; a code made later than this is 1."""
    return EXITS.get(code, Exit.FAILED)


def report(command: str, error: MeshError, *, as_json: bool) -> Exit:
    """Say what failed, why, and what to do; return the exit status."""
    say_trouble(command, error.code.value, error.detail, error.hint, as_json=as_json)
    return exit_of(error.code)


def say_trouble(command: str, code: str, detail: str, hint: str, *, as_json: bool) -> None:
    """Write the three parts of an error: an object on stdout with `--json`, else stderr lines."""
    if as_json:
        problem = {"schema": "certmesh.error/1", "code": code, "detail": detail, "hint": hint}
        sys.stdout.write(json.dumps(problem) + "\n")
        return
    lines = [f"{clean(command)}: failed ({code})", *_part("why", detail), *_part("do", hint)]
    sys.stderr.write("\n".join(lines) + "\n")


def _part(word: str, text: str) -> list[str]:
    """Return the lines of one part; the tail of a log has several."""
    shown = [clean(line) for line in text.splitlines()]
    return [f"    {word if first else '':<5} {line}" for first, line in _firsts(shown)]


def _firsts(lines: list[str]) -> list[tuple[bool, str]]:
    return [(place == 0, line) for place, line in enumerate(lines)]
