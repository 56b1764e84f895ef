"""May this peer bring the renewal? Asked on the member, before it makes a key or installs.

Either the peer holds the CA key itself, or it shows a mandate: a statement of the issuing key that
the machine `agent` may do this for this one member, for a quarter of an hour. The certificate it
connects with must be that machine's, so a mandate that leaks is worth nothing to others.
"""

from broker.errors import (
    ForbiddenError,
    MeshError,
    NoMeshError,
    NotAMemberError,
    StaleTermError,
)
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.gossip import verified_mandate
from broker.shell.peers import authorize_key_holder, note_refusal, refuse_revoked
from broker.shell.state import BrokerState
from broker.wire.claims import MandateStatement, SignedMandate
from broker.wire.renewal import StartInstall, StartRekey
from broker.wire.roster import Peer

SKEW_S = 60
"""As far as the clocks of primary and member may differ; certificates are backdated as much."""


def authorize_renewer(
    state: BrokerState, batch: Batch, caller: Caller, request: StartRekey | StartInstall
) -> None:
    """Let a key holder pass, or a renewal worker's machine with a mandate for this member.

    Raises:
        NotAMemberError: Not a key holder of this mesh, or its certificate has expired.
        RevokedError: Revoked by the roster or by the newest verified bundle.
        ClaimRejectedError: The issuing key of this mesh did not sign the mandate.
        ForbiddenError: The mandate is another machine's, for another member, or over.
        StaleTermError: Whoever leads now is not whoever sent this.
    """
    if request.mandate is None:
        authorize_key_holder(state, batch, caller, request.peer)
        require_current(state, request.term)
        return
    statement = _authorize_agent(state, batch, caller, (request.peer, request.mandate))
    # The term beside the mandate is the worker's word; the one inside is the primary's.
    require_current(state, statement.term)


def require_current(state: BrokerState, term: int) -> None:
    """Refuse a primary that was replaced: what it signs nobody may install.

    Raises:
        StaleTermError: This node knows a higher term.
    """
    highest = state.election.highest_term if state.election else 0
    if term < max(highest, state.term):
        raise StaleTermError(
            f"term {term} is over, {state.host} knows term {max(highest, state.term)}",
            hint="this primary was replaced; it will step down when it hears of it",
        )


def _authorize_agent(
    state: BrokerState, batch: Batch, caller: Caller, shown: tuple[Peer, SignedMandate]
) -> MandateStatement:
    peer, mandate = shown
    refuse_revoked(state, batch, caller, peer)
    try:
        return _mandate_of(state, caller, peer, mandate)
    except MeshError as refusal:
        note_refusal(state, batch, caller, peer, refusal.code)
        raise


def _mandate_of(
    state: BrokerState, caller: Caller, peer: Peer, mandate: SignedMandate
) -> MandateStatement:
    if peer.not_after < caller.now:
        raise NotAMemberError(f"the certificate of {peer.host} expired", hint="renew it there")
    if state.membership is None:
        raise NoMeshError("this node belongs to no mesh", hint="certmesh join INVITE")
    statement = verified_mandate(state, mandate)
    if statement.agent != peer.host:
        raise ForbiddenError(f"this mandate was given to {statement.agent}, not to {peer.host}")
    if statement.member_id != state.membership.member_id:
        raise ForbiddenError(f"this mandate is about {statement.host}, not about {state.host}")
    if statement.expires_at + SKEW_S < caller.now:
        raise ForbiddenError(
            f"the mandate of {peer.host} is over",
            hint="ask for the work again; if it is new, compare the clocks of CA and member",
        )
    return statement
