"""JSON bodies of the local socket: what the command sends, and answers the broker has no word for.

The console speaks for the person whose uid the kernel vouched for; no body names an operator.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from broker.wire.base import Body, Message, Veiled
from broker.wire.ids import Count, Hex, Host, Sequence, ServedState, Term, Text, UnixSeconds


class UnlockBody(Veiled, Body, frozen=True):
    """POST /v1/ca/unlock. The passphrase is never logged and never leaves the machine."""

    passphrase: Annotated[str, Meta(min_length=1, max_length=256)]


class InviteBody(Body, frozen=True):
    """POST /v1/invites; `ttl_s` 0 means the setting `enrollment.invite_ttl`."""

    host: Host
    sans: tuple[Text, ...] = ()
    ttl_s: Annotated[int, Meta(ge=0, le=31_536_000)] = 0
    rejoin: bool = False


class InviteCreated(Veiled, Message, frozen=True, tag="invite-created"):
    """The only time the secret is shown: `invite` is the `cm1:` string."""

    invite: Annotated[str, Meta(max_length=4096)]
    invite_id: Hex
    host: Host
    sans: tuple[Text, ...]
    expires_at: UnixSeconds
    state: Text
    pin: Hex
    mesh_id: Hex


class EnrollmentBody(Body, frozen=True):
    """PUT /v1/enrollment."""

    open: bool


class ReasonBody(Body, frozen=True):
    """POST /v1/approvals/{id}/approve and /deny."""

    reason: Text = ""


class RevokeBody(Body, frozen=True):
    """POST /v1/members/{host}/revoke."""

    reason: Text = ""
    dry_run: bool = False


class RenameBody(Body, frozen=True):
    """POST /v1/members/{host}/rename."""

    new_host: Host
    dry_run: bool = False


class CodeBody(Veiled, Body, frozen=True):
    """POST /v1/enrollment/totp/confirm: a code of the new secret."""

    code: Annotated[str, Meta(min_length=6, max_length=16)]


class PromoteBody(Body, frozen=True):
    """POST /v1/standby/promote."""

    force: bool = False
    dry_run: bool = False


class StepDownBody(Body, frozen=True):
    """POST /v1/standby/step-down; `successor` empty means the first ready standby."""

    successor: Text = ""


class CertificateView(Message, frozen=True, tag="certificate-view"):
    """GET /v1/certificate: this node's own certificate and where its files are.

    `present` is False while there is none; the other fields are then empty.
    """

    host: Host
    present: bool
    serial: Hex
    not_before: UnixSeconds | None
    not_after: UnixSeconds | None
    renew_at: UnixSeconds | None
    served: ServedState
    served_serial: Hex
    sans: tuple[Text, ...]
    last_error: Text
    files: dict[str, str]


class HookLine(Body, frozen=True):
    """One hook; `source` is `settings` or the directory below `hooks.d` it lies in."""

    name: Text
    command: tuple[Text, ...]
    event: tuple[Text, ...]
    timeout_ms: Count
    user: Text
    retries: Count
    source: Text = "settings"


class HooksView(Message, frozen=True, tag="hooks-view"):
    """GET /v1/hooks."""

    hooks: tuple[HookLine, ...]


class HookRun(Body, frozen=True):
    """One run of one hook, a line of `hook-runs.ndjson`.

    `exit` is the exit status, minus the signal number for a killed hook, 127 when it could not
    be started, None when nobody knows. `output` is the end of what it wrote, both streams. One
    that was `cut_short` was ended because the node stopped; it is run again at the next start.
    """

    at: UnixSeconds
    hook: Text
    event: Text
    exit: int | None
    took_s: float
    timed_out: bool = False
    output: Annotated[str, Meta(max_length=8192)] = ""
    serial: Text = ""
    cut_short: bool = False

    @property
    def failed(self) -> bool:
        """Whether the hook did not do its work."""
        return self.exit != 0 or self.timed_out


class HookTrial(HookRun, frozen=True):
    """Output of `python -m workers.renewal --test-hook NAME`: the run, and as whom it saw what."""

    user: Text = ""
    environment: dict[str, str] = msgspec.field(default_factory=dict)


class HookRunsView(Message, frozen=True, tag="hook-runs-view"):
    """GET /v1/hooks/runs, newest first."""

    runs: tuple[HookRun, ...]


class Health(Body, frozen=True):
    """GET /healthz and /readyz; `reason` says what is missing."""

    status: Text
    reason: Text = ""


class RehearsalStep(Body, frozen=True):
    """One question of a rehearsal and its answer; `hint` says what to do about it."""

    name: Text
    state: Literal["ok", "warn", "fail", "skip"]
    detail: Text
    hint: Text = ""
    took_ms: Count = 0


class Rehearsal(Body, frozen=True):
    """Output of `python -m broker rehearse` (JSON): a takeover on copies of this node's own files.

    `standbys` are the hosts that the copied roster lists as standby. `others` counts active
    members besides `host`. `survives_until` is the earliest expiry among active members.
    """

    steps: tuple[RehearsalStep, ...]
    host: Text = ""
    primary: Text = ""
    standbys: tuple[Text, ...] = ()
    others: Count = 0
    term: Term = 0
    sequence: Sequence = 0
    survives_until: UnixSeconds | None = None
