"""Doors and quiet keys: what may be dialled, and how often the same thing is written down."""

import pytest

from broker.core.doors import ADDRESSES_MAX, check_doors
from broker.core.limiter import source_key
from broker.core.quiet import Quiet
from broker.errors import NameNotAllowedError
from broker.units import Millis


@pytest.mark.parametrize("address", ["\x1b[31m", "a/b", "", "nas\n", "10.0.0.1:22", "-rf"])
def test_an_address_nobody_could_dial_is_refused(address: str) -> None:
    """It would be stored, dialled and shown."""
    with pytest.raises(NameNotAllowedError):
        check_doors([address], 7643)


def test_ordinary_doors_pass_and_only_the_first_few_are_kept() -> None:
    """Port 0 is a listener that is off; many addresses are no crime."""
    assert check_doors(["10.0.0.7", "fd00::1", "nas.local"], 0, 7643) == (
        "10.0.0.7",
        "fd00::1",
        "nas.local",
    )
    many = [f"10.0.0.{number}" for number in range(20)]
    assert check_doors(many, 7643) == tuple(many[:ADDRESSES_MAX])


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    """TCP has sixteen bits."""
    with pytest.raises(NameNotAllowedError):
        check_doors([], port)


def test_a_host_with_many_ipv6_addresses_is_one_source() -> None:
    """Otherwise guessing would cost nothing."""
    assert source_key("fd00::1") == source_key("fd00::ffff:1")
    assert source_key("fd00::1") != source_key("fd00:0:0:1::1")
    assert source_key("::ffff:10.0.0.7") == source_key("10.0.0.7") == "10.0.0.7"
    assert source_key("not an address") == "not an address"


def test_a_key_passes_once_in_a_while_and_memory_is_bounded() -> None:
    """What a stranger can cause is limited in rows and in bytes."""
    quiet = Quiet(keys_max=2)
    assert quiet.passes("a", Millis(0), 100)
    assert not quiet.passes("a", Millis(99), 100)
    assert quiet.passes("a", Millis(100), 100)
    assert quiet.passes("b", Millis(100), 100)
    assert quiet.passes("c", Millis(100), 100)
    assert quiet.passes("a", Millis(101), 100)  # forgotten: the one quiet for longest
    quiet.forget("c")
    assert quiet.passes("c", Millis(101), 100)
