"""Who had a name before, and whose word it takes to give it to somebody else.

A name is never barred for ever and never taken silently. An active member is replaced, and the name
of a revoked one given away, only by a person's word: an invite made with that knowledge, or a yes
to a question that says so. Names of members that left, or came back with a new identity, are free.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from broker.core.names import MDNS, server_name
from broker.errors import AlreadyEnrolledError, ApprovalDeniedError, NameNotAllowedError
from broker.ledger.rows import ApprovalRow, InviteRow, MemberRow
from broker.shell.batch import Batch
from broker.shell.state import BrokerState
from broker.wire.events import BundleMoved
from broker.wire.facts import MemberRevoked

REASON_LENGTH_MAX = 200
"""As much of an operator's reason as fits into a question."""


def check_not_taken(
    state: BrokerState, domain: str, host: str, sans: Iterable[str], *, before: str = ""
) -> None:
    """Refuse names of other members: nodes and clients know each other by them.

    Args:
        state: The broker.
        domain: The mesh's own.
        host: Who would have the names; what it is called itself counts too.
        sans: What else would stand in its certificate.
        before: Its name until now, where that is another one.

    Raises:
        NameNotAllowedError: An active member goes by one of them, or has it from its invite.
    """
    own = {host, before or host}
    for san in sans:
        for other in _called(state, domain, san):
            if other not in own:
                raise _taken(san, other)
    name = server_name(host, domain)
    for given in (name, f"{host}.{MDNS}", f"*.{name.partition('.')[2]}"):
        if other := state.ledger.granted_to_another(given, before or host):
            raise _taken(given, other)


def _called(state: BrokerState, domain: str, san: str) -> Iterator[str]:
    """Yield active members that callers would find behind a name, or below a wildcard."""
    if san.startswith("*."):
        # The whole roster is read: wildcards are rare, and a person gave each of them.
        hosts = (host for _, host in state.ledger.active_members())
        yield from (host for host in hosts if host.partition(".")[2] == san[2:])
        return
    for name in (san, san.removesuffix(f".{domain}"), san.removesuffix(f".{MDNS}")):
        holder = state.ledger.member_by_host(name)
        if holder is not None:
            yield holder.host


def _taken(name: str, host: str) -> NameNotAllowedError:
    return NameNotAllowedError(
        f"{name!r} is a name of the member {host}",
        hint="whoever had it in a certificate could pass for that member",
    )


@dataclass(frozen=True, slots=True)
class Concern:
    """Why a person has to agree to a join; `active` is the member that would be replaced."""

    member_id: str
    note: str
    active: MemberRow | None = None


def concern_about(state: BrokerState, host: str) -> Concern | None:
    """Return what speaks against giving this name to a new identity, None when it is free.

    Raises:
        AlreadyEnrolledError: It belongs to somebody whom no join replaces.
    """
    holder = state.ledger.member_by_host(host)
    if holder is not None:
        refuse_key_holder(holder)
        note = f"{host} is an active member: approving replaces it"
        return Concern(holder.member_id, note, holder)
    bar = state.ledger.bar_of(host)
    if bar is None:
        return None
    return Concern(bar.member_id, f"this name was revoked on {_day(bar.at)}{_because(bar.reason)}")


def refuse_key_holder(member: MemberRow) -> None:
    """Refuse to replace or let go somebody who has the CA key, or may have fetched it already.

    Raises:
        AlreadyEnrolledError: A primary, a standby, or somebody nominated.
    """
    if member.role == "primary":
        raise AlreadyEnrolledError(
            f"{member.host} is the primary of this mesh",
            hint="let a standby take over first: certmesh standby promote, there",
        )
    if member.role != "member" or member.nominated:
        raise AlreadyEnrolledError(
            f"{member.host} is a standby of this mesh and holds its CA key",
            hint=f"on the primary: certmesh standby remove {member.host}",
        )


def is_agreed(state: BrokerState, concern: Concern, invite: InviteRow | None) -> bool:
    """Return whether an operator made this invite knowing what it would do."""
    if invite is None or (concern.active is not None and not invite.rejoin):
        return False
    return state.ledger.invite_postdates(invite.invite_id, concern.member_id)


def is_answered(concern: Concern, asked: ApprovalRow) -> bool:
    """Return whether this very thing was before the person who agreed; more may have been."""
    return concern.member_id == asked.replaces and asked.note.startswith(concern.note)


def require_answered(concern: Concern | None, asked: ApprovalRow) -> None:
    """Refuse an approval that was given before something happened to the name.

    Raises:
        ApprovalDeniedError: A person has to be asked again.
    """
    if concern is not None and not is_answered(concern, asked):
        raise ApprovalDeniedError(
            f"since this was asked, {asked.host} changed hands: {concern.note}",
            hint="join again; a person is asked about it as it is now",
        )


def make_way(state: BrokerState, batch: Batch, concern: Concern | None, actor: str) -> None:
    """Revoke the identity that is replaced; the drain that does it enrolls the new one."""
    if concern is None or concern.active is None:
        return
    gone = concern.active
    reason = "the host joined again with another key"
    put_out(state, batch, MemberRevoked(gone.member_id, gone.host, reason, "rejoined"), actor)


def put_out(state: BrokerState, batch: Batch, fact: MemberRevoked, actor: str) -> None:
    """Revoke a member: the next bundle says so, and it vouches for nothing any more."""
    batch.append(fact, actor)
    batch.publish(BundleMoved(state.ledger.bundle_sequence()))
    batch.after_commit.append(lambda: state.witnesses.forget(fact.member_id))


def _day(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def _because(reason: str) -> str:
    said = "".join(letter if letter.isprintable() else "?" for letter in reason)
    return f" because {said[:REASON_LENGTH_MAX]}" if said else ""
