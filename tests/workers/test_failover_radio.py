"""The radio thread: leases, failures and rubbish, first with a fake air, then with real mDNS."""

import logging
import secrets
import socket
import threading
from collections.abc import Callable, Iterator

import msgspec
import pytest
from zeroconf import IPVersion, ServiceInfo, Zeroconf

from broker.runtime.events import EventName
from broker.runtime.settings import Discovery
from broker.wire.failover import Announcement, Hint
from tests.support import eventually, throughout
from tests.workers.loop_desk import PIN, logged
from workers.failover.air import Air, ZeroconfAir
from workers.failover.radio import LEAVE_S, Radio

ANNOUNCEMENT = Announcement(
    instance="certmesh-ca-node-a",
    port=7642,
    addresses=("127.0.0.2",),
    server="node-a.local.",
    txt={"role": "primary", "fingerprint": PIN, "profile": "open", "auth": "invite", "term": "3"},
)


def at_term(term: int) -> Announcement:
    """Return the announcement of another term."""
    return msgspec.structs.replace(ANNOUNCEMENT, txt={**ANNOUNCEMENT.txt, "term": str(term)})


class FakeAir:
    """An air whose state and failures the test sets."""

    def __init__(self, studio: "Studio") -> None:
        self.studio = studio
        self.alive = True
        self.on_air: Announcement | None = None
        self.closed = False

    def announce(self, announcement: Announcement) -> None:
        """Note it, or fail as told."""
        self.studio.fail_if_told("announce")
        self.on_air = announcement

    def refresh(self) -> None:
        """Nothing to see."""

    def withdraw(self) -> None:
        """Note it."""
        self.on_air = None

    def take_change(self) -> tuple[str, bool] | None:
        """Return the next change of the test."""
        return self.studio.changes.pop(0) if self.studio.changes else None

    def resolve(self, name: str) -> Hint | None:
        """Return a hint, or break on rubbish."""
        if name.startswith("rubbish"):
            raise IndexError("a hostile record")
        return Hint(name, ("127.0.0.9",), 7642, "primary", PIN, "3")

    def is_alive(self) -> bool:
        """Return what the test set."""
        return self.alive

    def close(self) -> None:
        """Note it."""
        self.on_air = None
        self.closed = True


class Studio:
    """Opens fake airs."""

    def __init__(self) -> None:
        self.airs: list[FakeAir] = []
        self.failing: set[str] = set()
        self.changes: list[tuple[str, bool]] = []

    def fail_if_told(self, what: str) -> None:
        """Raise when the test says so."""
        if what in self.failing:
            raise OSError(f"{what} failed")

    def open(self, ring: Callable[[], None]) -> Air:
        """Open the next one."""
        self.fail_if_told("open")
        ring()
        self.airs.append(FakeAir(self))
        return self.airs[-1]

    @property
    def on_air(self) -> Announcement | None:
        """What the newest air carries."""
        return self.airs[-1].on_air if self.airs else None


@pytest.fixture
def studio() -> Studio:
    """The fake."""
    return Studio()


@pytest.fixture
def radio(studio: Studio) -> Iterator[Radio]:
    """A radio over the fake, with a long lease."""
    with Radio(studio.open, lease_ms=60_000, backoff_ms=20) as found:
        yield found


@pytest.fixture(autouse=True)
def _all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "certmesh")


def test_what_is_wanted_is_announced_changed_and_withdrawn(radio: Radio, studio: Studio) -> None:
    """The plan of the broker is what is on the air."""
    for wanted in (ANNOUNCEMENT, at_term(4), None, at_term(5)):
        radio.want(wanted, PIN)
        eventually(lambda w=wanted: studio.on_air == w and studio.airs)  # type: ignore[misc]  # a default binds it


def test_an_announcement_nobody_renews_is_withdrawn(
    studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule 8 of the primary: a broker that does not answer must not look alive."""
    with Radio(studio.open, lease_ms=300) as radio:
        radio.want(ANNOUNCEMENT, PIN)
        eventually(lambda: studio.on_air)

        eventually(lambda: studio.on_air is None)
        eventually(lambda: logged(caplog, EventName.PRIMARY_WITHDRAWN))
        assert not radio.is_announcing()

        radio.want(ANNOUNCEMENT, PIN)
        eventually(lambda: studio.on_air)
    assert logged(caplog, EventName.PRIMARY_WITHDRAWN)[0]["reason"] == "the broker does not answer"


def test_a_dead_browse_is_logged_and_started_again(
    radio: Radio, studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    """Defect 10: a browse failure ended the loop for good, silently."""
    radio.want(ANNOUNCEMENT, PIN)
    eventually(lambda: studio.on_air)

    studio.airs[0].alive = False

    eventually(lambda: len(studio.airs) == 2 and studio.on_air == ANNOUNCEMENT)
    assert studio.airs[0].closed
    (line,) = logged(caplog, EventName.DISCOVERY_FAILED)
    assert "the browse ended by itself" in line["reason"]
    assert line["retry_in_ms"] == 20
    eventually(lambda: radio.trouble() == "")
    assert logged(caplog, EventName.DISCOVERY_RECOVERED)


def test_a_network_that_cannot_be_opened_is_trouble_with_backoff(
    radio: Radio, studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    """It shows in `certmesh ps`, is tried again, ever more slowly, and recovers."""
    studio.failing.add("open")
    radio.want(ANNOUNCEMENT, PIN)
    eventually(lambda: len(logged(caplog, EventName.DISCOVERY_FAILED)) >= 3)
    assert "open failed" in radio.trouble()
    pauses = [line["retry_in_ms"] for line in logged(caplog, EventName.DISCOVERY_FAILED)]
    assert pauses[:3] == [20, 40, 80]

    studio.failing.clear()

    eventually(lambda: studio.on_air == ANNOUNCEMENT)
    eventually(lambda: radio.trouble() == "")


def test_a_failed_announcement_is_tried_again(radio: Radio, studio: Studio) -> None:
    """Whatever zeroconf raises."""
    studio.failing.add("announce")
    radio.want(ANNOUNCEMENT, PIN)
    eventually(lambda: len(studio.airs) >= 2)

    studio.failing.clear()

    eventually(lambda: studio.on_air == ANNOUNCEMENT)


def test_a_record_that_breaks_the_parser_takes_nothing_off_the_air(
    radio: Radio, studio: Studio
) -> None:
    """One hostile packet must not withdraw the primary's announcement (row 25)."""
    radio.want(ANNOUNCEMENT, PIN)
    eventually(lambda: studio.on_air)

    studio.changes += [("rubbish", True), ("good", True)]

    eventually(lambda: [hint.instance for hint in radio.hints()] == ["good"])
    assert len(studio.airs) == 1
    assert radio.trouble() == ""


def test_a_removed_service_is_dropped(radio: Radio, studio: Studio) -> None:
    """As far as mDNS notices at all."""
    radio.want(None, PIN)
    studio.changes.append(("good", True))
    eventually(radio.hints)

    studio.changes.append(("good", False))

    eventually(lambda: radio.hints() == ())


def test_a_radio_nobody_wanted_anything_of_opens_nothing(studio: Studio) -> None:
    """With mDNS off there is no thread and no socket."""
    before = threading.active_count()

    with Radio(studio.open, lease_ms=1000):
        assert threading.active_count() == before
    assert studio.airs == []


def test_at_the_end_the_announcement_is_withdrawn(radio: Radio, studio: Studio) -> None:
    """Others must learn of a planned stop at once."""
    radio.want(ANNOUNCEMENT, PIN)
    eventually(lambda: studio.on_air)

    radio.close()

    assert studio.airs[0].closed
    assert not radio._thread.is_alive()
    assert LEAVE_S < 1


# Real mDNS, on the loopback interface only.


@pytest.fixture
def discovery() -> Discovery:
    """A service type of this test's own."""
    name = f"_cm{secrets.token_hex(4)}._tcp.local."
    return Discovery(interfaces=("127.0.0.1",), service=name)


@pytest.fixture
def listener(discovery: Discovery) -> Iterator[Radio]:
    """Another node's radio."""
    with real_radio(discovery) as radio:
        radio.want(None, PIN)
        yield radio


def real_radio(discovery: Discovery) -> Radio:
    """Return a radio on real multicast."""
    return Radio(lambda ring: ZeroconfAir(discovery, ring), lease_ms=60_000, backoff_ms=50)


def test_an_announcement_is_heard_updated_and_withdrawn_on_real_multicast(
    discovery: Discovery, listener: Radio
) -> None:
    """Announce, a new term, and a goodbye that others notice at once."""
    with real_radio(discovery) as speaker:
        speaker.want(ANNOUNCEMENT, PIN)
        (heard,) = eventually(listener.hints)
        assert heard == Hint("certmesh-ca-node-a", ("127.0.0.2",), 7642, "primary", PIN, "3")

        speaker.want(at_term(4), PIN)
        eventually(lambda: [hint.term for hint in listener.hints()] == ["4"])
        assert speaker.hints() == ()

    eventually(lambda: listener.hints() == ())


def test_a_withdrawn_announcement_is_noticed_and_can_come_back(
    discovery: Discovery, listener: Radio
) -> None:
    """A locked CA leaves the air without leaving the process."""
    with real_radio(discovery) as speaker:
        speaker.want(ANNOUNCEMENT, PIN)
        eventually(listener.hints)
        speaker.want(None, PIN)
        eventually(lambda: listener.hints() == ())

        speaker.want(ANNOUNCEMENT, PIN)
        eventually(listener.hints)


@pytest.mark.parametrize("part", ["browser", "engine"])
def test_a_browse_killed_for_real_comes_back(discovery: Discovery, part: str) -> None:
    """Defect 10, with the real library: its threads end behind our back."""
    with real_radio(discovery) as radio, real_radio(discovery) as speaker:
        radio.want(None, PIN)
        air = eventually(lambda: radio._air)
        assert isinstance(air, ZeroconfAir)
        if part == "browser":
            air.browser.cancel()
        else:
            air.zeroconf.close()

        speaker.want(ANNOUNCEMENT, PIN)

        eventually(radio.hints)
        assert radio._air is not air


def test_rubbish_on_the_wire_harms_nothing(discovery: Discovery, listener: Radio) -> None:
    """Raw noise to the mDNS port and records with hostile TXT, next to an honest one (row 25)."""
    service = discovery.service
    hostile = [
        ServiceInfo(
            service,
            f"evil-{number}.{service}",
            port=1,
            parsed_addresses=["127.0.0.66"],
            properties=text,
            server=f"evil-{number}.local.",
        )
        for number, text in enumerate(
            [b"", b"\xff\x00", b"\x05role=\x03\xff\xfe\xfd", b"\x0crole=primary\x00\x00"]
        )
    ]
    with Zeroconf(["127.0.0.1"], ip_version=IPVersion.V4Only) as attacker:
        for info in hostile:
            attacker.register_service(info, cooperating_responders=True)
        shout(b"\x00" * 5, b"\xff" * 300, secrets.token_bytes(900))
        with real_radio(discovery) as speaker:
            speaker.want(ANNOUNCEMENT, PIN)
            eventually(lambda: "certmesh-ca-node-a" in {h.instance for h in listener.hints()})

    claims = {hint.fingerprint for hint in listener.hints()}
    assert claims <= {PIN, ""}
    throughout(lambda: listener.trouble() == "", 0.3)


def shout(*packets: bytes) -> None:
    """Send raw datagrams to the mDNS group on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        for packet in packets:
            raw.sendto(packet, ("224.0.0.251", 5353))
