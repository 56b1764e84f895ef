"""What one node's files say: the ledger as it lies on disk, and the list it shows to the world."""

import contextlib
import sqlite3
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509

from broker.errors import MeshError
from broker.ledger.file import connect, inspect_file
from broker.ledger.sqlite import Ledger
from broker.wire.codec import decode_fact
from broker.wire.facts import AnyFact, CertificateIssued, CertificateRenewed, FactAdopted


@dataclass(frozen=True, slots=True)
class Picture:
    """One node's ledger after everything came to rest.

    Attributes:
        node: Whose it is.
        broken: What is wrong with its chain or its file; empty when it holds.
        differing: Projections that are not the fold of the journal.
        members: Host and state by member id.
        certificates: Member id by serial.
        keys: How many certificates name this (member id, key hash).
        issued: Serials in the order of the journal, adopted ones included.
        invites: Host, state and member id by invite id.
        approvals: State, operator and member id by approval id.
        listed: Serials in the revocation list that a primary shows, None elsewhere: others fetch
            the list every now and then, and refuse by the bundle.
    """

    node: str
    broken: str = ""
    differing: tuple[str, ...] = ()
    members: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    certificates: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[tuple[str, str], int] = field(default_factory=dict)
    issued: tuple[str, ...] = ()
    invites: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    approvals: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    listed: frozenset[str] | None = None


def take_picture(node: str, ledger: Path, crl: bytes | None) -> Picture:
    """Return what is in a ledger; the broker may have it open.

    Args:
        node: Whose it is.
        ledger: The file; the walk over its chain is made in the original, the rest in a copy.
        crl: The primary's list (DER), empty while none was signed; None on other nodes.
    """
    try:
        verdict = inspect_file(ledger)
        if verdict.first_bad is not None:
            return Picture(node, f"row {verdict.first_bad}: {verdict.detail}")
        with tempfile.TemporaryDirectory(prefix="cmp-", dir="/tmp") as place:
            copy = Path(place) / "ledger.db"
            _copy(ledger, copy)
            return _read(node, copy, crl)
    except MeshError as error:
        return Picture(node, error.detail)


def _copy(ledger: Path, copy: Path) -> None:
    with (
        contextlib.closing(connect(ledger)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)


def _read(node: str, copy: Path, crl: bytes | None) -> Picture:
    ledger = Ledger.open(copy, node=node)
    try:
        differing = ledger.differing_projections()
    finally:
        ledger.close()
    with contextlib.closing(sqlite3.connect(copy)) as db:
        return Picture(
            node=node,
            differing=differing,
            members=_by_first(db, "SELECT member_id, host, state FROM members"),
            certificates=dict(db.execute("SELECT serial, member_id FROM certificates")),
            keys={
                (member, key): count
                for member, key, count in db.execute(
                    "SELECT member_id, key_hash, COUNT(*) FROM certificates GROUP BY 1, 2"
                )
            },
            issued=_issued(db),
            invites=_by_first(db, "SELECT invite_id, host, state, member_id FROM invites"),
            approvals=_by_first(
                db, "SELECT approval_id, state, operator, member_id FROM approvals"
            ),
            listed=None if crl is None else _serials(crl),
        )


def _by_first(db: sqlite3.Connection, statement: str) -> dict[str, Any]:
    return {row[0]: tuple(row[1:]) for row in db.execute(statement)}


def _issued(db: sqlite3.Connection) -> tuple[str, ...]:
    events = ("certificate.issued", "certificate.renewed", "merge.adopted")
    rows = db.execute(
        "SELECT payload FROM journal WHERE event IN (?, ?, ?) ORDER BY sequence", events
    )
    found = (_serial_of(decode_fact(payload)) for (payload,) in rows)
    return tuple(filter(None, found))


def _serial_of(fact: AnyFact) -> str:
    if isinstance(fact, FactAdopted):
        fact = decode_fact(fact.payload)
    return fact.serial if isinstance(fact, CertificateIssued | CertificateRenewed) else ""


def _serials(crl: bytes) -> frozenset[str]:
    if not crl:
        return frozenset()
    return frozenset(f"{row.serial_number:x}" for row in x509.load_der_x509_crl(crl))
