"""One zeroconf engine: a service on the air, and what others put there.

Everything here may block or raise whatever zeroconf raises; `radio.py` calls it from a thread of
its own and rebuilds it when it fails. Callbacks of zeroconf only note a name and ring.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import Protocol

from zeroconf import (
    InterfaceChoice,
    IPVersion,
    ServiceBrowser,
    ServiceInfo,
    ServiceStateChange,
    Zeroconf,
)

from broker.runtime.settings import Discovery
from broker.wire.failover import Announcement, Hint
from workers.failover.logic import hint_of, instance_label

CHANGES_MAX = 256
"""Names waiting to be resolved; a flood beyond that is dropped."""

RESOLVE_MS = 300


class Air(Protocol):
    """What the radio needs of mDNS."""

    def announce(self, announcement: Announcement) -> None:
        """Publish the service, or its new details."""
        ...

    def refresh(self) -> None:
        """Say again what is published."""
        ...

    def withdraw(self) -> None:
        """Say goodbye for the service."""
        ...

    def take_change(self) -> tuple[str, bool] | None:
        """Return the next name that came (True) or went (False)."""
        ...

    def resolve(self, name: str) -> Hint | None:
        """Return what the record called `name` suggests."""
        ...

    def is_alive(self) -> bool:
        """Return whether the browse still runs."""
        ...

    def close(self) -> None:
        """Withdraw and leave."""
        ...


class ZeroconfAir:
    """The real thing, on the interfaces of the settings."""

    def __init__(self, discovery: Discovery, ring: Callable[[], None]) -> None:
        self._service = discovery.service
        self._ring = ring
        self._lock = threading.Lock()
        self._changes: dict[str, bool] = {}
        self._published: ServiceInfo | None = None
        self.zeroconf = _engine(discovery)
        try:
            self.browser = ServiceBrowser(
                self.zeroconf, self._service, handlers=[self._note_change]
            )
        except BaseException:
            self.zeroconf.close()
            raise

    def announce(self, announcement: Announcement) -> None:
        """Publish the service, or its new details when the name is the same."""
        info = self._info(announcement)
        old, self._published = self._published, info
        if old is not None and old.name == info.name:
            self.zeroconf.update_service(info)
            return
        if old is not None:
            self.zeroconf.unregister_service(old)
        # The same name may be on the air from this node's previous life: no probing, no renaming.
        self.zeroconf.register_service(info, cooperating_responders=True)

    def refresh(self) -> None:
        """Say again what is published: after a cut link nothing else would."""
        if self._published is not None:
            self.zeroconf.update_service(self._published)

    def withdraw(self) -> None:
        """Say goodbye for the service, if there is one."""
        old, self._published = self._published, None
        if old is not None:
            self.zeroconf.unregister_service(old)

    def take_change(self) -> tuple[str, bool] | None:
        """Return the next name that came (True) or went (False)."""
        with self._lock:
            name = next(iter(self._changes), None)
            return None if name is None else (name, self._changes.pop(name))

    def resolve(self, name: str) -> Hint | None:
        """Return what the record suggests; None for our own, for rubbish, and for silence."""
        if self._published is not None and name.lower() == self._published.name.lower():
            return None
        info = ServiceInfo(self._service, name)
        if not info.request(self.zeroconf, RESOLVE_MS):
            return None
        label = name.removesuffix(f".{self._service}")
        return hint_of(label, info.parsed_scoped_addresses(), info.port, info.properties)

    def is_alive(self) -> bool:
        """Return whether both the engine and the browsing thread still run."""
        loop = self.zeroconf.loop
        return (
            self.zeroconf.started
            and loop is not None
            and loop.is_running()
            and self.browser.is_alive()
        )

    def close(self) -> None:
        """Send goodbyes and stop all threads of the engine."""
        with contextlib.suppress(Exception):
            self.browser.cancel()
        self.zeroconf.close()

    def _note_change(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        del zeroconf, service_type
        with self._lock:
            if name in self._changes or len(self._changes) < CHANGES_MAX:
                self._changes[name] = state_change is not ServiceStateChange.Removed
        self._ring()

    def _info(self, announcement: Announcement) -> ServiceInfo:
        return ServiceInfo(
            self._service,
            f"{instance_label(announcement.instance)}.{self._service}",
            port=announcement.port,
            parsed_addresses=list(announcement.addresses),
            properties=dict(announcement.txt),
            server=f"{announcement.server.rstrip('.')}.",
        )


def _engine(discovery: Discovery) -> Zeroconf:
    if discovery.interfaces:
        # Given addresses work only together with V4Only (measured in network namespaces).
        return Zeroconf(interfaces=list(discovery.interfaces), ip_version=IPVersion.V4Only)
    return Zeroconf(interfaces=InterfaceChoice.All)
