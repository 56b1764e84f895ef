"""The switch without its wires: which frame goes where, when, and which never arrives.

Pure: frames and `now_ms` in, deliveries out. Addresses are learned as any switch does it, so a
host that lies about its own Ethernet address is believed here too.
"""

import heapq
from collections.abc import Iterator
from itertools import count

from tests.lab.link import PERFECT, Link, Quality

HEADER_BYTES = 14
Life = tuple[int, int]
_ARP = b"\x08\x06"
_IPV4_GROUP = b"\x01\x00\x5e"
"""Ethernet addresses of IPv4 multicast groups begin so (RFC 1112, 6.4)."""
_GROUP_BIT = 1
"""First bit on the wire of a destination: a group, or everybody (IEEE 802.3, 3.2.3)."""


class Fabric:
    """Ports by host name, a link for each ordered pair, frames under way."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._ports: dict[str, int] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._homes: dict[bytes, str] = {}
        self._under_way: list[tuple[float, int, Life, str, str, bytes]] = []
        self._order = count()
        self._lives = count(1)

    def attach(self, host: str) -> None:
        """Give a host a port."""
        self._ports[host] = next(self._lives)

    def detach(self, host: str) -> None:
        """Take the port away; what is under way to or from it is lost."""
        self._ports.pop(host, None)
        self._homes = {mac: home for mac, home in self._homes.items() if home != host}

    def link(self, source: str, target: str) -> Link:
        """Return one direction between two hosts, which need not be there yet."""
        found = self._links.get((source, target))
        if found is None:
            found = self._links[source, target] = Link(f"{self._seed} {source} {target}")
        return found

    def set_quality(self, source: str, target: str, quality: Quality) -> None:
        """Make one direction this good from the next frame on; a cut loses those under way too."""
        self.link(source, target).quality = PERFECT if quality == PERFECT else quality

    def heal(self) -> None:
        """Make every link perfect."""
        for link in self._links.values():
            link.quality = PERFECT

    def receive(self, source: str, frame: bytes, now_ms: float) -> list[tuple[str, bytes]]:
        """Take a frame from a host; return what is delivered at once."""
        if len(frame) < HEADER_BYTES or source not in self._ports:
            return []
        self._homes[frame[6:12]] = source
        at_once = []
        for target in self._targets(source, frame):
            link = self.link(source, target)
            for delay_ms in self._admit(link, source, target, frame, now_ms):
                if delay_ms == 0.0:
                    link.passed += 1
                    at_once.append((target, frame))
                else:
                    self._send_later(source, target, frame, now_ms + delay_ms)
        return at_once

    def deliveries(self, now_ms: float) -> Iterator[tuple[str, bytes]]:
        """Yield the delayed frames that are due, unless their link was cut meanwhile."""
        while self._under_way and self._under_way[0][0] <= now_ms:
            _, _, life, source, target, frame = heapq.heappop(self._under_way)
            link = self.link(source, target)
            if link.quality.cut or self._life(source, target) != life:
                link.dropped += 1
            else:
                link.passed += 1
                yield target, frame

    def wait_ms(self, now_ms: float) -> float | None:
        """Return how long nothing is due, None while nothing is under way."""
        return max(0.0, self._under_way[0][0] - now_ms) if self._under_way else None

    def _targets(self, source: str, frame: bytes) -> list[str]:
        if not frame[0] & _GROUP_BIT:
            home = self._homes.get(frame[:6])
            if home is not None:
                return [home] if home != source else []
        return [host for host in self._ports if host != source]

    def _admit(
        self, link: Link, source: str, target: str, frame: bytes, now_ms: float
    ) -> tuple[float, ...]:
        # A cut of one direction spares ARP: without answers the neighbour entries expire, and
        # what was cut in one direction would be silent in both half a minute later.
        if link.quality.cut and frame[12:14] == _ARP:
            backwards = self.link(target, source).quality
            return () if backwards.cut else (0.0,)
        if link.quality.no_multicast and frame[:3] == _IPV4_GROUP:
            link.dropped += 1
            return ()
        return link.admit(len(frame), now_ms)

    def _send_later(self, source: str, target: str, frame: bytes, due_ms: float) -> None:
        entry = (due_ms, next(self._order), self._life(source, target), source, target, frame)
        heapq.heappush(self._under_way, entry)

    def _life(self, source: str, target: str) -> Life:
        """Return what changes whenever one of the two ports does."""
        return self._ports.get(source, 0), self._ports.get(target, 0)
