"""A TLS socket that gives one allowance of time to all its reads together.

A timeout of a socket is for one read. A peer that sends an octet a second, in its headers or in its
body, keeps every read short and the call alive for ever; here it is cut when the time is over.
"""

import ssl
from typing import Any

from broker.clock import boottime_ms


class TimedSocket(ssl.SSLSocket):
    """`settimeout` starts an allowance that lasts until it is called again.

    urllib3 sets it once for a request, before the first octet of the answer is read.
    """

    _until_ms: float | None = None

    def settimeout(self, value: float | None, /) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Allow `value` seconds from now for whatever is read; None allows for ever."""
        super().settimeout(value)
        self._until_ms = None if value is None else boottime_ms() + value * 1000

    def recv_into(self, *arguments: Any, **named: Any) -> int:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Read as a socket does, for no longer than what is left.

        Raises:
            TimeoutError: The allowance is used up.
        """
        if self._until_ms is not None:
            left_s = (self._until_ms - boottime_ms()) / 1000
            if left_s <= 0:
                raise TimeoutError("timed out")
            super().settimeout(left_s)
        return super().recv_into(*arguments, **named)
