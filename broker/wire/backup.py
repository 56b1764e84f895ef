"""Backups of a key holder: one encrypted file that only the recovery kit opens."""

from broker.wire.base import Body, Reply, Request, Veiled
from broker.wire.ids import Count, Hex, Host, Sequence, Term, Text, UnixSeconds


class BackupLine(Body, frozen=True):
    """One backup file; `problem` says why it would not restore, empty when it would."""

    name: Text
    path: Text
    size_bytes: Count
    created_at: UnixSeconds
    term: Term
    sequence: Sequence
    digest: Hex
    problem: Text = ""


class BackupBody(Body, frozen=True):
    """POST /v1/backups; `path` empty means the directory of the settings."""

    path: Text = ""


class TakeBackup(Request, frozen=True, tag="take-backup"):
    """Write a backup now; made and read back off the loop, answered when it is durable."""

    operator: Text
    path: Text = ""


class BackupView(Reply, frozen=True, tag="backup-view"):
    """The backup that was written and verified."""

    backup: BackupLine
    removed: tuple[Text, ...] = ()


class ListBackups(Request, frozen=True, tag="list-backups"):
    """Ask for the backups in the directory of the settings."""


class BackupsView(Reply, frozen=True, tag="backups-view"):
    """Newest first; `next_at` is when the next one is due, None when never."""

    backups: tuple[BackupLine, ...]
    directory: Text
    every_s: Count
    next_at: UnixSeconds | None


class RestoreWish(Veiled, Body, frozen=True):
    """Input of `python -m broker restore SETTINGS FILE` on standard input (JSON).

    `kit` is the recovery secret as printed, or the text of the whole kit; with `verify_only` it
    may be empty, and then only what needs no kit is checked. `verify_only` opens and checks
    everything and changes nothing. `new_passphrase` is added to the ways to unlock. `unsigned`
    accepts a file that a locked node made.
    """

    kit: str
    verify_only: bool = False
    new_passphrase: str = ""
    unsigned: bool = False


class Restored(Body, frozen=True):
    """Output of `python -m broker restore` (JSON).

    `opened` is false when no kit was given: then rows and members are not known. `unlocks` says
    that the CA will open by itself. `settings` is the settings file of the node that was backed up.
    """

    mesh_id: Hex
    mesh_name: Text
    host: Host
    pin: Hex
    term: Term
    sequence: Sequence
    created_at: UnixSeconds
    rows: Count
    members: Count
    verify_only: bool = False
    opened: bool = True
    signed: bool = True
    unlocks: bool = False
    settings: str = ""


class DestroyWish(Body, frozen=True):
    """Input of `python -m broker destroy SETTINGS` on standard input (JSON)."""

    mesh_name: Text
    operator: Text


class Destroyed(Body, frozen=True):
    """Output of `python -m broker destroy` (JSON): where the audit trail was set aside."""

    mesh_id: Hex
    mesh_name: Text
    kept: Text
    rows: Count


class PlanCollect(Request, frozen=True, tag="plan-collect"):
    """The roster-sync worker asks whose bundles a restored primary still has to see."""


class CollectSource(Body, frozen=True):
    """One member to ask."""

    host: Host
    addresses: tuple[Text, ...]
    enroll_port: Count
    server_name: Host


class CollectPlan(Reply, frozen=True, tag="collect-plan"):
    """Hosts and addresses to ask for their newest bundle; empty when nothing is to be collected."""

    sources: tuple[CollectSource, ...]


class NoteCollected(Request, frozen=True, tag="note-collected"):
    """What one member had (`bundle` empty: it did not answer); verified by the broker."""

    host: Host
    bundle: bytes = b""
