"""Names and numbers that identify things, with their bounds."""

from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta

from broker import units

RequestId = Annotated[bytes, Meta(min_length=16, max_length=16)]
"""Random; a retry carries the same one and gets the first answer."""

Host = Annotated[str, Meta(min_length=1, max_length=253)]
"""RFC 1123 host name of a member; validated by `broker.core.names` before it means anything."""

Text = Annotated[str, Meta(max_length=1024)]
"""Free text with a bound: reasons, hints, log lines."""

Hex = Annotated[str, Meta(max_length=128, pattern=r"^[0-9a-f]*$(?!\n)")]
"""Lower-case hexadecimal: serials, fingerprints, hashes. A bare `$` would let a line feed pass."""

DER = Annotated[bytes, Meta(max_length=65536)]
"""One DER object."""

UnixSeconds = Annotated[units.UnixSeconds, Meta(ge=0, le=1 << 40)]
"""Wall time; the bound keeps a hostile number from reaching arithmetic or a column."""

Count = Annotated[int, Meta(ge=0, lt=1 << 53)]
"""Any other number of a message: never negative, exact in every JSON reader."""

Port = Annotated[int, Meta(ge=0, le=65_535)]
"""TCP port; 0 means the listener is off."""

LeaseId = Annotated[int, Meta(ge=0, lt=1 << 62)]
"""Fencing number of a lease: grows for ever, also over restarts of the broker."""

Term = Annotated[int, Meta(ge=0, lt=1 << 53)]
"""Fencing number of a primary."""

Sequence = Annotated[int, Meta(ge=0, lt=1 << 53)]
"""Number of a journal row."""

Role = Literal["none", "client", "member", "standby", "primary"]

CAState = Literal["absent", "locked", "unlocked"]

ServedState = Literal["unknown", "served", "installed", "stale", "failed"]
"""What the closed renewal loop knows about a host.

`served`: a probe of the live port saw the new serial. `installed`: on disk, no port to probe.
`stale`: the port still serves the old one. `failed`: hook or install failed, rolled back.
"""


DeliveryState = Literal["unknown", "served", "installed", "stale", "failed", "expired", "away"]
"""How it stands with a host's certificate, as the roster shows it.

`expired` and `away` (no heartbeat lately) go before what the host last said of itself.
"""


class Service(StrEnum):
    """Who talks to the broker; the capability table is keyed by it."""

    APPROVAL = "approval"
    CONSOLE = "console"
    FAILOVER = "failover"
    GATEWAY = "gateway"
    HEARTBEAT = "heartbeat"
    NOTIFY = "notify"
    REMOTE_RENEWAL = "remote-renewal"
    RENEWAL = "renewal"
    ROSTER_SYNC = "roster-sync"
    WATCHDOG = "watchdog"


__all__ = [
    "DER",
    "CAState",
    "Count",
    "DeliveryState",
    "Hex",
    "Host",
    "LeaseId",
    "Port",
    "RequestId",
    "Role",
    "Sequence",
    "ServedState",
    "Service",
    "Term",
    "Text",
    "UnixSeconds",
]
