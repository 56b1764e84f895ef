"""What the issuing certificate of this node permits: the frame in which a policy can move."""

from broker.core.policy import Bounds
from broker.errors import NotFoundError
from broker.pki.chain import read_certificate
from broker.pki.profile import facts_of
from broker.shell.state import BrokerState


def bounds_of(state: BrokerState) -> Bounds:
    """Return what the issuing certificate of this node permits, locked or not.

    Raises:
        NotFoundError: A standby that has not received the key yet.
    """
    vault = state.keys.vault
    if vault is None:
        raise NotFoundError(
            f"{state.host} holds no CA key yet", hint="certmesh standby sync, then ask again"
        )
    facts = facts_of(read_certificate(vault.issuing))
    return Bounds(facts.names, tuple(map(str, facts.networks)), facts.not_after)


def permitted_names(bounds: Bounds) -> tuple[str, ...]:
    """Return the permitted domains as a policy writes them."""
    return tuple(f"*.{name}" for name in bounds.names)
