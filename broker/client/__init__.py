"""The callers' side of the broker: requests that survive its restarts, and its events.

`AsyncLink` and `AsyncSubscription` are imported on first use: asyncio costs memory in each of
the processes that never need it.
"""

from typing import TYPE_CHECKING, Any

from broker.client.link import Link
from broker.client.protocol import URGENT
from broker.client.subscription import Subscription

if TYPE_CHECKING:
    from broker.client.async_link import AsyncLink
    from broker.client.async_subscription import AsyncSubscription

__all__ = ["URGENT", "AsyncLink", "AsyncSubscription", "Link", "Subscription"]


def __getattr__(name: str) -> Any:
    if name == "AsyncLink":
        from broker.client.async_link import AsyncLink  # noqa: PLC0415 (asyncio only where used)

        return AsyncLink
    if name == "AsyncSubscription":
        from broker.client.async_subscription import AsyncSubscription  # noqa: PLC0415 (as above)

        return AsyncSubscription
    raise AttributeError(name)
