"""Decisions of the console on plain values. Sans-IO."""

import hashlib
from collections.abc import Iterable

from broker.errors import ForbiddenError, MalformedMessageError, UnavailableError
from broker.runtime.settings import Hook
from broker.wire.console_api import (
    CertificateView,
    HookLine,
    HookRun,
    InviteBody,
    InviteCreated,
)
from broker.wire.enrollment import CreateInvite, InviteView
from broker.wire.invite import encode_invite
from broker.wire.mesh_api import InviteTicket
from broker.wire.node import StatusView
from broker.wire.plain import decode_json

ROOT_UID = 0
RUN_LINE_BYTES_MAX = 65_536


def admit(uid: int | None, own_uid: int) -> int:
    """Return `uid` if its owner may use the local socket: the node's own user, or root.

    Raises:
        ForbiddenError: Somebody else, or nobody the kernel vouches for.
    """
    if uid is None or uid not in (own_uid, ROOT_UID):
        raise ForbiddenError(
            "this socket is for the node's own user and root",
            hint="run certmesh as the user that runs the node",
        )
    return uid


def invite_request(
    body: InviteBody, secret: str, operator: str, default_ttl_s: int
) -> CreateInvite:
    """Return what the broker is told of a new invite: the hash of its secret, never the secret."""
    return CreateInvite(
        secret_hash=hashlib.sha256(secret.encode()).hexdigest(),
        host=body.host,
        sans=body.sans,
        ttl_s=body.ttl_s or default_ttl_s,
        operator=operator,
        rejoin=body.rejoin,
    )


def compose_invite(view: InviteView, secret: str) -> InviteCreated:
    """Return the invite as its operator sees it, once.

    Raises:
        UnavailableError: The broker did not say where the mesh is to be found.
    """
    if view.primary is None or not view.pin:
        raise UnavailableError(
            "the broker does not know the primary's address yet",
            hint="try again when `certmesh status` names a primary",
        )
    ticket = InviteTicket(
        addresses=view.primary.addresses,
        enroll_port=view.primary.enroll_port,
        pin=view.pin,
        host=view.host,
        expires_at=view.expires_at,
        secret=secret,
        mesh=view.mesh_id,
        sans=view.sans,
        server_name=view.primary.server_name,
    )
    return InviteCreated(
        invite=encode_invite(ticket),
        invite_id=view.invite_id,
        host=view.host,
        sans=view.sans,
        expires_at=view.expires_at,
        state=view.state,
        pin=view.pin,
        mesh_id=view.mesh_id,
    )


def certificate_view(status: StatusView, files: dict[str, str]) -> CertificateView:
    """Return this node's certificate as the broker knows it, with its places on disk."""
    own = status.own
    return CertificateView(
        host=status.node.host,
        present=bool(own and own.serial),
        serial=own.serial if own else "",
        not_before=own.not_before if own else None,
        not_after=own.not_after if own else None,
        renew_at=own.renew_at if own else None,
        served=own.served if own else "unknown",
        served_serial=own.served_serial if own else "",
        sans=own.sans if own else (),
        last_error=own.last_error if own else "",
        files=files,
    )


def hook_line(hook: Hook) -> HookLine:
    """Return a hook of the settings as it is shown."""
    return HookLine(
        name=hook.name,
        command=hook.command,
        event=hook.event,
        timeout_ms=hook.timeout.ms,
        user=hook.user,
        retries=hook.retries,
    )


def hook_runs(lines: Iterable[bytes], name: str, limit: int) -> tuple[HookRun, ...]:
    """Return the newest runs first, of one hook if `name` is not empty; torn lines are skipped."""
    runs = []
    for line in lines:
        try:
            run = decode_json(line[:RUN_LINE_BYTES_MAX], HookRun)
        except MalformedMessageError:
            continue
        if name in ("", run.hook):
            runs.append(run)
    return tuple(reversed(runs[-limit:] if limit else []))
