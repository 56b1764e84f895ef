"""Names: what may reach a path, a log line or a certificate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.names import (
    addresses_in,
    check_host,
    granted_sans,
    is_permitted,
    server_name,
)
from broker.errors import NameNotAllowedError
from broker.runtime.settings import DEFAULT_NAMES, DEFAULT_NETWORKS

HOSTILE = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "a\\b",
    "nas\n",
    "na\ns",
    "na\x00s",
    "*",
    "*.local",
    "-rf",
    "nas-",
    "nas.",
    ".nas",
    "NAS",
    "nas nas",
    "näs",
    "a" * 64,
    "a." * 126 + "ab",
    "<img>",
    "${x}",
    "nas;rm",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_host_name_is_refused(text: str) -> None:
    """Slashes, dots, newlines, wildcards and overlong names never become a path or a log line.

    (row 45)
    """
    with pytest.raises(NameNotAllowedError) as refusal:
        check_host(text)
    assert refusal.value.hint


@pytest.mark.parametrize(
    "text", ["nas", "pi-4", "a", "0", "x" * 63, "nas.home.arpa", "a." * 126 + "a"]
)
def test_an_ordinary_host_name_passes_unchanged(text: str) -> None:
    """The name is used as it was written."""
    assert check_host(text) == text


@given(st.text(max_size=300))
def test_whatever_passes_is_safe_as_a_file_name(text: str) -> None:
    """Property: no accepted name can leave its directory or break a line (row 45)."""
    try:
        name = check_host(text)
    except NameNotAllowedError:
        return
    assert "/" not in name
    assert ".." not in name
    assert name.isascii()
    assert name.isprintable()
    assert 0 < len(name) <= 253
    assert not name.startswith("-")


def test_an_undotted_host_is_verified_by_its_name_in_the_mesh_domain() -> None:
    """A single-label SAN cannot lie inside a permitted subtree."""
    assert server_name("nas", "home.internal") == "nas.home.internal"
    assert server_name("nas.home.arpa", "home.internal") == "nas.home.arpa"


def test_granted_sans_never_hold_a_single_label() -> None:
    """X.509 linters refuse one, and so do name constraints."""
    sans = granted_sans("nas", "home.internal", ["10.0.0.7"], ["files.home.arpa"])
    assert sans == ("nas.home.internal", "nas.local", "files.home.arpa", "10.0.0.7")


@pytest.mark.parametrize(
    "san",
    ["evil.com", "local", "*.local", "8.8.8.8", "nas", "a..local", "xlocal", "mail.local.evil.com"],
)
def test_a_san_outside_is_not_permitted(san: str) -> None:
    """The policy that is shown is the policy that is enforced."""
    assert not is_permitted(san, names=DEFAULT_NAMES, networks=DEFAULT_NETWORKS)


def test_addresses_are_matched_by_network_and_family() -> None:
    """An IPv6 address is not looked for in an IPv4 network."""
    assert is_permitted("fd00::1", names=(), networks=DEFAULT_NETWORKS)
    assert not is_permitted("2001:db8::1", names=(), networks=DEFAULT_NETWORKS)
    assert addresses_in(["10.1.2.3", "8.8.8.8", "x", "::ffff"], DEFAULT_NETWORKS) == ("10.1.2.3",)
