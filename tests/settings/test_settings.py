"""The settings file: every key known, every duration with a unit, precedence as documented."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import SettingsError
from broker.runtime.duration import Duration
from broker.runtime.paths import SOCKET_PATH_BYTES_MAX, node_paths
from broker.runtime.settings import Settings, load_settings, parse_settings


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "certmesh.toml"
    path.write_text(text)
    return path


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    """A file may be empty; the defaults are the documented ones."""
    found = load_settings(_file(tmp_path, ""), {})
    assert found == Settings()
    assert found.policy.leaf_lifetime.s == 30 * 86_400
    assert found.renewal.check_every.s == 3600
    assert found.failover.tick.s == 5
    assert found.approval.decider == "deny"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("[policy]\nleaf_lifetme = '30d'", "$.policy"),
        ("[polcy]\nleaf_lifetime = '30d'", "polcy"),
        ("leaf_lifetime = '30d'", "leaf_lifetime"),
        ("[[hook]]\nname = 'a'\ncommand = ['x']\n[[hook]]\nname = 'b'\ncmd = ['y']", "$.hook[1]"),
    ],
)
def test_an_unknown_key_is_refused_and_its_path_named(tmp_path: Path, text: str, path: str) -> None:
    """A typing error must not silently leave a default in force."""
    file = _file(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load_settings(file, {})
    assert path in caught.value.detail
    assert str(file) in caught.value.detail
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("[policy]\nrenew_at = 1.5", "$.policy.renew_at"),
        ("[policy]\nleaf_lifetime = 30", "leaf_lifetime"),
        ("[policy]\nleaf_lifetime = '30 days'", "30 days"),
        ("[approval]\ndecider = 'yes-man'", "$.approval.decider"),
        ("[enrollment]\nattempts = 0", "$.enrollment.attempts"),
        ("[log]\nlevel = 3", "$.log.level"),
        ("[listen]\nbody_limit = 10", "$.listen.body_limit"),
        ("[renewal]\nkeep_versions = 1", "$.renewal.keep_versions"),
    ],
)
def test_an_impossible_value_is_refused_and_its_path_named(
    tmp_path: Path, text: str, path: str
) -> None:
    """The person reading the message finds the line."""
    with pytest.raises(SettingsError) as caught:
        load_settings(_file(tmp_path, text), {})
    assert path in caught.value.detail


@pytest.mark.parametrize("text", ["[policy", "a = ", "\x00"])
def test_broken_toml_is_refused_with_the_file_named(tmp_path: Path, text: str) -> None:
    """Not a traceback of the parser."""
    file = _file(tmp_path, text)
    with pytest.raises(SettingsError, match=str(file)):
        load_settings(file, {})


def test_a_file_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    """Somebody's editor saved it in another encoding."""
    file = tmp_path / "certmesh.toml"
    file.write_bytes(b'[node]\nname = "caf\xe9"\n')
    with pytest.raises(SettingsError, match=str(file)):
        load_settings(file, {})


def test_a_missing_file_says_which_command_makes_one(tmp_path: Path) -> None:
    """Missing home: the next step is in the message."""
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path / "nowhere" / "certmesh.toml", {})
    assert "certmesh init" in caught.value.hint


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    """Precedence: environment, file, default."""
    file = _file(tmp_path, "[log]\nlevel = 'warning'\n[heartbeat]\ninterval = '20s'")
    environ = {"CERTMESH_LOG_LEVEL": "debug", "CERTMESH_POLICY_RENEW_AT": "0.333"}
    found = load_settings(file, environ)
    assert found.log.level == "debug"
    assert found.policy.renew_at == 0.333
    assert found.heartbeat.interval.s == 20
    assert found.heartbeat.suspect_after == 3


def test_the_environment_can_set_every_plain_type(tmp_path: Path) -> None:
    """Text, number, switch, list and duration."""
    environ = {
        "CERTMESH_NODE_NAME": "atlas",
        "CERTMESH_NODE_SANS": '["atlas.home.arpa"]',
        "CERTMESH_ENROLLMENT_ATTEMPTS": "7",
        "CERTMESH_DISCOVERY_MDNS": "false",
        "CERTMESH_RENEWAL_CHECK_EVERY": "250ms",
    }
    found = load_settings(_file(tmp_path, ""), environ)
    assert found.node.name == "atlas"
    assert found.node.sans == ("atlas.home.arpa",)
    assert found.enrollment.attempts == 7
    assert found.discovery.mdns is False
    assert found.renewal.check_every.ms == 250


def test_a_bad_value_in_the_environment_is_refused_like_one_in_the_file(tmp_path: Path) -> None:
    """The same check guards both ways in."""
    with pytest.raises(SettingsError, match=r"\$\.discovery\.mdns"):
        load_settings(_file(tmp_path, ""), {"CERTMESH_DISCOVERY_MDNS": "perhaps"})


@pytest.mark.parametrize(
    ("text", "ms"),
    [("90s", 90_000), ("5m", 300_000), ("12h", 43_200_000), ("250ms", 250), ("0.5s", 500)],
)
def test_a_duration_is_a_number_with_a_unit(text: str, ms: int) -> None:
    """The units people write."""
    assert Duration.parse(text).ms == ms


def test_thirty_days_are_thirty_days() -> None:
    """The default lifetime of a leaf."""
    assert Duration.parse("30d").s == 2_592_000


@pytest.mark.parametrize("text", ["", "5", "m", "-5s", "5 s", "5S", "1e3s", "5s5m", "9" * 12])
def test_anything_else_is_no_duration(text: str) -> None:
    """A bare number is refused on purpose: nobody remembers whether it means seconds."""
    with pytest.raises(ValueError, match="no duration"):
        Duration.parse(text)


@given(ms=st.integers(1, 10**12))
def test_a_positive_duration_never_becomes_zero_seconds(ms: int) -> None:
    """Rounding up keeps a short timeout a timeout."""
    assert Duration(ms).s >= 1
    assert Duration(ms).s * 1000 >= ms > (Duration(ms).s - 1) * 1000


def test_a_run_directory_too_long_for_a_socket_is_refused_before_anything_binds() -> None:
    """Linux allows 107 bytes; ZeroMQ would fail later and less clearly."""
    with pytest.raises(SettingsError) as caught:
        node_paths(Path("/" + "d" * SOCKET_PATH_BYTES_MAX) / "certmesh.toml", Settings())
    assert "node.run_dir" in caught.value.hint


def test_a_short_run_directory_mends_a_long_home() -> None:
    """What the hint says works."""
    settings = parse_settings({"node": {"run_dir": "/run/certmesh"}}, "test")
    paths = node_paths(Path("/" + "d" * 150) / "certmesh.toml", settings)
    assert paths.api_socket == Path("/run/certmesh/api.sock")


def test_everything_lives_below_one_home_unless_settings_say_else() -> None:
    """The layout other processes and the documents rely on."""
    paths = node_paths(Path("/srv/mesh/certmesh.toml"), Settings())
    assert paths.ledger == Path("/srv/mesh/ledger.db")
    assert paths.lock == Path("/srv/mesh/broker.lock")
    assert paths.supervisord == Path("/srv/mesh/supervisord.conf")
    sockets = {
        paths.requests_socket,
        paths.control_socket,
        paths.events_socket,
        paths.api_socket,
        paths.supervisor_socket,
    }
    assert {path.parent for path in sockets} == {Path("/srv/mesh/run")}
