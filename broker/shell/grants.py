"""Grants to renewal workers on other machines, as this broker applies them.

A grant is a fact of the journal, so it survives a takeover. Which grants live is asked of the
ledger every time, rows of the open drain included.
"""

from msgspec.structs import replace

from broker.core.remote import RemoteGrant
from broker.pki.statement import sign_mandate
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.state import BrokerState
from broker.units import UnixSeconds
from broker.wire.claims import MandateStatement
from broker.wire.work import RenewMember

MANDATE_S = 900
"""A renewal takes seconds, with the slowest hooks of a member about two minutes."""


def living_grant(state: BrokerState, public_key: str) -> RemoteGrant | None:
    """Return the grant that a CURVE key works under now, None when there is none.

    A node that does not serve knows the grants too and has no work to give.
    """
    row = state.ledger.worker_by_key(public_key)
    if row is None:
        return None
    return RemoteGrant(row.grant_id, row.host, row.member_id, row.public_key)


def with_mandate(
    state: BrokerState, grant: RemoteGrant, item: RenewMember, now: UnixSeconds
) -> RenewMember:
    """Return `item` with what makes its member listen to the machine of `grant`."""
    issuer, membership = state.issuer(), state.membership
    assert membership is not None, "a primary belongs to its mesh"
    statement = MandateStatement(
        mesh_id=membership.mesh_id,
        agent=grant.host,
        host=item.host,
        member_id=item.member_id,
        term=item.term,
        expires_at=UnixSeconds(now + MANDATE_S),
    )
    return replace(item, mandate=sign_mandate(issuer, statement))


def count_renewal(state: BrokerState, batch: Batch, caller: Caller) -> None:
    """Count a certificate that was brought to its member, if from another machine."""
    grant = caller.grant
    if grant is not None:
        batch.after_commit.append(lambda: state.remote_renewals.update((grant.grant_id,)))
