"""What this node is called before it is a member of anything."""

import socket

from broker.runtime.settings import Settings


def own_host(settings: Settings) -> str:
    """Return this node's host name: the setting, else the machine's first label."""
    return settings.node.name or socket.gethostname().split(".")[0].lower()
