"""The policy engine: which names get a certificate, and what a policy may be."""

from dataclasses import replace as rebound

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from broker.core.outage import plan_advice
from broker.core.policy import (
    Bounds,
    changed_fields,
    check_bounds,
    check_names,
    host_sans,
    lifetime_end,
    outside_of,
    patched,
    policy_note,
    warnings_about,
)
from broker.errors import CSRRejectedError, NameNotAllowedError, PolicyRefusedError
from broker.units import UnixSeconds
from broker.wire.policy import Policy, PolicyPatch
from broker.wire.profiles import PROFILES

DAY_S = 86_400
NOW = UnixSeconds(1_800_000_000)
DOMAIN = "home.internal"
POLICY = Policy(
    names=("*.home.arpa", "*.internal", "*.local"), networks=("192.168.0.0/16", "fd00::/8")
)
WILD = replace(POLICY, wildcards=True)
BOUNDS = Bounds(
    names=("home.arpa", "internal", "local"),
    networks=("192.168.0.0/16", "fd00::/8"),
    not_after=NOW + 700 * DAY_S,
)


def test_defect_24_subnet_policy_stored_shown_never_enforced_any_san_accepted() -> None:
    """What `ca policy show` prints is what issue and renewal refuse by."""
    with pytest.raises(NameNotAllowedError) as refusal:
        check_names(POLICY, DOMAIN, ["nas.home.internal", "bank.example.com", "8.8.8.8"])
    assert "bank.example.com" in refusal.value.detail
    assert "8.8.8.8" in refusal.value.detail
    assert "nas.home.internal" not in refusal.value.detail
    assert "192.168.0.0/16" in refusal.value.hint
    check_names(POLICY, DOMAIN, ["nas.home.internal", "nas.local", "192.168.4.7", "fd00::7"])


def test_wildcards_are_off_until_the_policy_turns_them_on() -> None:
    """One leaf for a whole subtree is a decision of its own."""
    assert outside_of(POLICY, DOMAIN, ["*.apps.home.arpa"]) == ("*.apps.home.arpa",)
    assert outside_of(WILD, DOMAIN, ["*.apps.home.arpa", "*.home.arpa"]) == ()
    with pytest.raises(NameNotAllowedError) as refusal:
        check_names(POLICY, DOMAIN, ["*.home.arpa"])
    assert "certmesh ca policy set wildcards=yes" in refusal.value.hint


@pytest.mark.parametrize(
    "san",
    [
        "*.home.internal",
        "*.internal",
        "*.local",
        "*.*.home.arpa",
        "a.*.home.arpa",
        "n*.home.arpa",
        "*",
        "*.",
        "*.example.com",
        "*.192.168.1.1",
        "**.home.arpa",
    ],
)
def test_a_wildcard_never_covers_the_members_of_the_mesh_nor_more_than_one_level(san: str) -> None:
    """A leaf for every name of the mesh's own domain would pass for the primary."""
    assert outside_of(WILD, DOMAIN, [san]) == (san,)


def test_the_names_a_host_did_not_ask_for_are_left_out_where_the_policy_has_no_room() -> None:
    """A mesh without `.local` still takes hosts; a source outside just has no address."""
    tight = replace(POLICY, names=("*.internal",), networks=("192.168.1.0/24",))
    granted = host_sans(tight, "nas", DOMAIN, ["10.0.0.9", "192.168.1.9"])
    assert granted == ("nas.home.internal", "192.168.1.9")
    assert host_sans(POLICY, "nas", DOMAIN, []) == ("nas.home.internal", "nas.local")


def test_a_name_that_was_asked_for_is_refused_and_never_dropped() -> None:
    """A host that silently gets less than its invite says serves a broken certificate."""
    tight = replace(POLICY, names=("*.internal",))
    granted = host_sans(tight, "nas", DOMAIN, [], ["nas.local", "files.home.arpa"])
    assert outside_of(tight, DOMAIN, granted) == ("nas.local", "files.home.arpa")


def test_the_note_tells_the_person_that_the_source_is_outside() -> None:
    """Decision 25: not refused, no address in the certificate, and said where it is decided."""
    inside = policy_note(POLICY, "192.168.4.7", ["pi.home.internal", "192.168.4.7"])
    assert inside == "source and names are inside the policy"
    outside = policy_note(POLICY, "203.0.113.9", ["pi.home.internal"])
    assert "203.0.113.9 is outside the networks" in outside
    assert "outside the policy: 'evil.com'" in policy_note(POLICY, "192.168.4.7", ["evil.com"])
    wild = policy_note(WILD, "192.168.4.7", ["*.apps.home.arpa"])
    assert wild == "covers every host directly below 'apps.home.arpa'"


@given(st.text(max_size=300), st.lists(st.text(max_size=300), max_size=100))
def test_a_note_fits_one_field_whatever_a_stranger_sends(source: str, sans: list[str]) -> None:
    """Property: hostile text neither raises nor outgrows the field it is put into."""
    assert 0 < len(policy_note(POLICY, source, sans)) <= 1024
    assert len(policy_note(POLICY, source, ["\x00" * 253] * 100)) == 1024


def test_a_patch_changes_what_it_names_and_nothing_else() -> None:
    """`None` means "as it is", also for the booleans."""
    after = patched(POLICY, PolicyPatch(leaf_lifetime_s=7 * DAY_S, wildcards=True))
    assert changed_fields(POLICY, after) == ("wildcards", "leaf_lifetime_s")
    assert patched(POLICY, PolicyPatch()) == POLICY
    assert patched(WILD, PolicyPatch(wildcards=False)).wildcards is False


def test_names_and_networks_are_kept_in_one_form() -> None:
    """Two spellings of one policy must not look like a change, nor hide a duplicate."""
    after = patched(
        POLICY,
        PolicyPatch(
            names=("Home.ARPA", "*.home.arpa", " *.local "),
            networks=("192.168.0.0/16", "FD00::/8", "192.168.0.0/16"),
        ),
    )
    assert after.names == ("*.home.arpa", "*.local")
    assert after.networks == ("192.168.0.0/16", "fd00::/8")


@pytest.mark.parametrize(
    "patch",
    [
        PolicyPatch(names=()),
        PolicyPatch(names=("",)),
        PolicyPatch(names=("*",)),
        PolicyPatch(names=("*.",)),
        PolicyPatch(names=("*.*.home.arpa",)),
        PolicyPatch(names=("ho me.arpa",)),
        PolicyPatch(names=("home\n.arpa",)),
        PolicyPatch(names=("../etc",)),
        PolicyPatch(names=("192.168.1.1",)),
        PolicyPatch(names=("x" * 254,)),
        PolicyPatch(networks=("192.168.1.5/24",)),
        PolicyPatch(networks=("10.0.0.0/33",)),
        PolicyPatch(networks=("home",)),
        PolicyPatch(networks=("",)),
    ],
)
def test_an_impossible_policy_is_refused_with_what_to_write_instead(patch: PolicyPatch) -> None:
    """A policy nobody can satisfy would stop every renewal of the mesh."""
    with pytest.raises(PolicyRefusedError) as refusal:
        patched(POLICY, patch)
    assert refusal.value.hint
    assert "\n" not in refusal.value.detail


def test_a_network_with_host_bits_is_answered_with_the_network() -> None:
    """The usual slip; the answer can be copied."""
    with pytest.raises(PolicyRefusedError) as refusal:
        patched(POLICY, PolicyPatch(networks=("192.168.1.5/24",)))
    assert refusal.value.hint == "write it as 192.168.1.0/24"


def test_a_mesh_without_addresses_is_possible() -> None:
    """Names alone are a policy."""
    after = patched(POLICY, PolicyPatch(networks=()))
    assert outside_of(after, DOMAIN, ["192.168.4.7", "nas.local"]) == ("192.168.4.7",)


def test_a_profile_brings_its_row_of_the_table() -> None:
    """`my-organization` by name but unattended by habit would be neither."""
    after = patched(POLICY, PolicyPatch(profile="my-organization"))
    row = PROFILES["my-organization"]
    assert (after.approval, after.operator_required, after.unattended) == (
        row.approval,
        row.operator_required,
        row.unattended,
    )
    kept = patched(POLICY, PolicyPatch(profile="my-organization", unattended=True))
    assert kept.unattended is True
    assert kept.operator_required is True


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"names": ("*.home.arpa", "*.example.com")}, "*.example.com"),
        ({"names": ("*.arpa",)}, "*.arpa"),
        ({"names": ("*.xlocal",)}, "*.xlocal"),
        ({"networks": ("192.0.0.0/8",)}, "192.0.0.0/8"),
        ({"networks": ("10.0.0.0/8",)}, "10.0.0.0/8"),
        ({"networks": ("fc00::/7",)}, "fc00::/7"),
        ({"networks": ("::/0",)}, "::/0"),
    ],
)
def test_a_policy_beyond_the_issuing_certificate_asks_for_a_rollover(
    change: dict[str, tuple[str, ...]], named: str
) -> None:
    """Clients check name constraints: such a leaf would be refused everywhere."""
    with pytest.raises(PolicyRefusedError) as refusal:
        check_bounds(replace(POLICY, **change), BOUNDS)
    assert named in refusal.value.detail
    assert "certmesh ca rollover start" in refusal.value.hint


def test_a_policy_inside_the_issuing_certificate_is_allowed() -> None:
    """Narrower is always possible, and back again."""
    check_bounds(POLICY, BOUNDS)
    check_bounds(replace(POLICY, names=("*.nas.home.arpa",), networks=("192.168.7.0/24",)), BOUNDS)
    check_bounds(replace(POLICY, networks=()), rebound(BOUNDS, networks=()))


def test_a_policy_that_cannot_bridge_the_outage_budget_is_warned_about() -> None:
    """The sentence is that of the status: one formula, in `broker.core.outage`."""
    policy = replace(POLICY, leaf_lifetime_s=10 * DAY_S, renew_at=0.667)
    assert warnings_about(policy, BOUNDS, NOW) == (plan_advice(policy),)
    assert warnings_about(POLICY, BOUNDS, NOW) == ()


def test_a_leaf_never_outlives_the_issuing_certificate() -> None:
    """What ends after its issuer is refused by every client."""
    assert lifetime_end(POLICY, NOW, BOUNDS.not_after) == NOW + 30 * DAY_S
    assert lifetime_end(POLICY, NOW, NOW + 60) == NOW + 60
    said = warnings_about(POLICY, rebound(BOUNDS, not_after=NOW + 5 * DAY_S), NOW)
    assert any("certmesh ca rollover start" in text for text in said)


def test_an_ended_issuing_certificate_is_a_refusal_and_not_a_crash() -> None:
    """In its last minute, notBefore still lies before notAfter because it is backdated (row 58)."""
    for late in (NOW, UnixSeconds(NOW - 30)):
        with pytest.raises(CSRRejectedError) as refusal:
            lifetime_end(POLICY, NOW, late)
        assert refusal.value.hint == "certmesh ca rollover start"


def test_a_grace_that_is_longer_than_a_certificate_lives_is_warned_about() -> None:
    """A lost disk renews as long; a shorter grace is what the setting is for."""
    usual = replace(POLICY, expired_grace_s=POLICY.leaf_lifetime_s)
    assert not warnings_about(usual, BOUNDS, NOW)
    long = replace(POLICY, expired_grace_s=POLICY.leaf_lifetime_s + 1)
    (said,) = warnings_about(long, BOUNDS, NOW)
    assert "the key of a lost disk can renew for 30d" in said
