"""The wish for a new mesh, as `certmesh init` would write it."""

from msgspec.structs import replace

from broker.cli.profiles import first_policy
from broker.runtime.settings import Settings
from broker.wire.authority import CreateMesh
from broker.wire.profiles import PROFILES


def wished(
    name: str,
    passphrase: str,
    *,
    settings: Settings | None = None,
    credential: bool = True,
    approval: bool = False,
) -> CreateMesh:
    """Return the wish for a mesh with open enrollment, where nobody has to be named."""
    policy = first_policy(PROFILES["just-me"], (settings or Settings()).policy)
    return CreateMesh(name, passphrase, credential, True, replace(policy, approval=approval))
