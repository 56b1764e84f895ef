"""What a probe may look at."""

import pytest

from broker.errors import SettingsError
from broker.runtime.settings import parse_settings
from broker.runtime.target import Target, parse_target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("tcp://127.0.0.1:443", Target("tcp", "127.0.0.1", 443)),
        ("tcp://nas.home.arpa:8443", Target("tcp", "nas.home.arpa", 8443)),
        ("tcp://[::1]:443", Target("tcp", "::1", 443)),
        ("postgresql://127.0.0.1:5432", Target("postgresql", "127.0.0.1", 5432)),
    ],
)
def test_a_target_is_a_scheme_a_host_and_a_port(text: str, target: Target) -> None:
    """IPv6 in brackets, as in every URL."""
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1:443", "https://nas:443", "tcp://nas", "tcp://nas:0", "tcp://nas:70000",
     "tcp://nas:443/x", "tcp://::1:443", "tcp://nas:44 3", "tcp://nas:443\n", ""],
)  # fmt: skip
def test_a_probe_that_could_never_answer_is_refused_by_the_settings(text: str) -> None:
    """Otherwise every renewal would be rolled back, for a typing error."""
    with pytest.raises(SettingsError, match="probe"):
        parse_settings({"renewal": {"probe": [text]}}, "certmesh.toml")
