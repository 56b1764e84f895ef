"""The switch without wires: what it forwards, and that its dice fall the same way twice."""

from tests.lab.fabric import Fabric
from tests.lab.link import CUT, Link, Quality

ATLAS, BIRCH = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
EVERYBODY = b"\xff" * 6
IPV4, ARP = b"\x08\x00", b"\x08\x06"


def frame(target: bytes, source: bytes, kind: bytes = IPV4) -> bytes:
    """Return a short Ethernet frame."""
    return target + source + kind + b"payload"


def three(seed: int = 1) -> Fabric:
    """Return a switch with three hosts."""
    fabric = Fabric(seed)
    for host in ("atlas", "birch", "cedar"):
        fabric.attach(host)
    return fabric


def targets(deliveries: list[tuple[str, bytes]]) -> list[str]:
    """Return who got something."""
    return [host for host, _ in deliveries]


def test_a_frame_to_a_learned_address_goes_there_alone() -> None:
    """And to everybody else before that, never back."""
    fabric = three()
    assert targets(fabric.receive("atlas", frame(BIRCH, ATLAS), 0)) == ["birch", "cedar"]
    assert targets(fabric.receive("birch", frame(ATLAS, BIRCH), 0)) == ["atlas"]
    assert targets(fabric.receive("atlas", frame(BIRCH, ATLAS), 0)) == ["birch"]
    assert targets(fabric.receive("birch", frame(EVERYBODY, BIRCH), 0)) == ["atlas", "cedar"]


def test_the_same_seed_loses_the_same_frames() -> None:
    """A failing run can be repeated."""

    def fates(seed: str) -> list[bool]:
        link = Link(seed)
        link.quality = Quality(loss=0.5)
        return [bool(link.admit(100, 0)) for _ in range(200)]

    assert fates("1") == fates("1")
    assert fates("1") != fates("2")
    assert 70 <= sum(fates("1")) <= 130


def test_a_slow_link_queues_and_then_drops() -> None:
    """1000 bits a second is 8 ms a byte; half a second of backlog is the most."""
    link = Link("1")
    link.quality = Quality(rate_kbit=1)
    assert link.admit(25, 0) == (200,)
    assert link.admit(25, 0) == (400,)
    assert link.admit(25, 0) == ()
    assert link.admit(25, 300) == (300,)


def test_a_cut_loses_what_is_under_way() -> None:
    """Otherwise an answer would arrive after the cable was pulled."""
    fabric = three()
    fabric.set_quality("atlas", "birch", Quality(delay_ms=10))
    fabric.receive("atlas", frame(EVERYBODY, ATLAS), 0)
    assert fabric.wait_ms(4) == 6
    fabric.set_quality("atlas", "birch", CUT)
    assert list(fabric.deliveries(10)) == []
    assert fabric.link("atlas", "birch").dropped == 1
    assert fabric.wait_ms(10) is None


def test_a_delayed_frame_does_not_reach_the_next_life_of_a_host() -> None:
    """A power cycle empties every queue."""
    fabric = three()
    fabric.set_quality("atlas", "birch", Quality(delay_ms=10))
    fabric.receive("atlas", frame(EVERYBODY, ATLAS), 0)
    fabric.detach("birch")
    fabric.attach("birch")
    assert list(fabric.deliveries(10)) == []


def test_a_cut_in_one_direction_spares_arp_and_a_whole_cut_does_not() -> None:
    """Without ARP one direction would take the other along when neighbour entries expire."""
    fabric = three()
    fabric.set_quality("atlas", "birch", CUT)
    assert targets(fabric.receive("atlas", frame(EVERYBODY, ATLAS, ARP), 0)) == ["birch", "cedar"]
    assert targets(fabric.receive("atlas", frame(EVERYBODY, ATLAS), 0)) == ["cedar"]
    fabric.set_quality("birch", "atlas", CUT)
    assert targets(fabric.receive("atlas", frame(EVERYBODY, ATLAS, ARP), 0)) == ["cedar"]
