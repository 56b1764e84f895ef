"""The policy through the broker: shown, changed, and obeyed by issue and renewal alike."""

import hashlib
import secrets
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from msgspec.structs import replace

from broker.clock import wall_s
from broker.errors import (
    ForbiddenError,
    NameNotAllowedError,
    NotPrimaryError,
    PolicyRefusedError,
)
from broker.ledger.sqlite import Ledger
from broker.runtime.paths import node_paths
from broker.shell.create import create_mesh
from broker.shell.desk import Desk
from broker.shell.serve import make_state
from broker.wire.approval import ApprovalView, DecideApproval
from broker.wire.enrollment import CreateInvite, InviteView, Issued, JoinAnswer, PollTicket
from broker.wire.ids import Service
from broker.wire.policy import GetPolicy, PolicyPatch, PolicyView, SetPolicy
from broker.wire.renewal import RenewalAnswer, RenewAsPeer
from tests.creation import wished
from tests.shell.mesh_room import Room
from tests.shell.office import (
    PASSPHRASE,
    Office,
    issued_of,
    join_request,
    make_csr,
    office_settings,
    peer_of,
)
from tests.shell.scenes import Make
from tests.shell.test_shell_joining import code

DAY_S = 86_400


@pytest.fixture
def office(home: Path) -> Office:
    """A mesh without approval, its members at 127.0.0.0/8."""
    return Office.create(home)


def change(office: Office, *, dry_run: bool = False, **fields: Any) -> PolicyView:
    """Change the policy as ann."""
    request = SetPolicy(PolicyPatch(**fields), "ann", dry_run=dry_run)
    return office.ask(Service.CONSOLE, request, PolicyView)


def shown(office: Office) -> PolicyView:
    """Return the policy as it is shown."""
    return office.ask(Service.CONSOLE, GetPolicy(), PolicyView)


def invited(office: Office, host: str, *sans: str) -> str:
    """Return the secret of an invite."""
    secret = secrets.token_urlsafe(16)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    office.ask(Service.CONSOLE, CreateInvite(digest, host, sans, 3600, "ann"), InviteView)
    return secret


def join(office: Office, host: str, *sans: str, source: str = "127.0.0.9") -> Issued:
    """Let a host join by invite with these extra names."""
    secret = invited(office, host, *sans)
    request = join_request(
        host, make_csr(host), invite_secret=secret, source=source, addresses=(source,)
    )
    return issued_of(office.ask(Service.GATEWAY, request, JoinAnswer))


def renew(office: Office, host: str, issued: Issued) -> Issued:
    """Let a member renew its certificate."""
    request = RenewAsPeer(peer_of(issued, host), make_csr(host))
    return office.ask(Service.GATEWAY, request, RenewalAnswer).issued


def names_in(issued: Issued) -> list[str]:
    """Return the names of a certificate."""
    leaf = x509.load_der_x509_certificate(issued.leaf)
    sans = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in sans]


def rows(office: Office, event: str) -> int:
    """Return how many rows of the journal say this."""
    return sum(1 for row in office.ledger.audit(0, 1000) if row.event == event)


def test_a_change_is_in_force_for_the_next_certificate_and_after_a_crash(office: Office) -> None:
    """The policy is mesh state: no settings file of any node says otherwise."""
    view = change(office, leaf_lifetime_s=10 * DAY_S, renew_at=0.25)
    assert view.changed == ("leaf_lifetime_s", "renew_at")
    issued = join(office, "nas")
    assert 10 * DAY_S - 5 <= issued.not_after - wall_s() <= 10 * DAY_S
    assert issued.renew_at - wall_s() < 0.3 * 10 * DAY_S
    office.crash()
    assert shown(office).policy == view.policy


def test_what_changes_nothing_writes_nothing(office: Office) -> None:
    """The audit trail has decisions, not echoes."""
    before = office.ledger.head
    view = change(office, leaf_lifetime_s=30 * DAY_S)
    assert view.changed == ()
    assert office.ledger.head == before


def test_a_dry_run_tells_who_would_fall_outside_and_changes_nothing(office: Office) -> None:
    """The question is asked before the answer hurts."""
    join(office, "nas", "files.home.arpa")
    before = office.ledger.head
    view = change(office, dry_run=True, names=("*.internal", "*.local"))
    assert view.changed == ("names",)
    assert view.outside_total == 1
    assert (view.outside[0].host, view.outside[0].names) == ("nas", ("files.home.arpa",))
    assert office.ledger.head == before
    assert "*.home.arpa" in shown(office).policy.names


def test_a_member_outside_keeps_its_certificate_and_is_refused_the_next(office: Office) -> None:
    """Nobody is thrown out by a typing error; the renewal says why it does not come."""
    issued = join(office, "nas", "files.home.arpa")
    change(office, names=("*.internal", "*.local"))
    assert shown(office).outside_total == 1
    with pytest.raises(NameNotAllowedError) as refusal:
        renew(office, "nas", issued)
    assert refusal.value.detail == "outside the policy of this mesh: 'files.home.arpa'"
    assert "certmesh ca policy show" in refusal.value.hint
    change(office, names=("*.internal", "*.local", "*.home.arpa"))
    assert renew(office, "nas", issued).serial != issued.serial


def test_an_address_outside_is_refused_at_renewal_too(office: Office) -> None:
    """Networks bind IP SANs by whichever door they come."""
    issued = join(office, "nas", source="10.0.0.9")
    assert "10.0.0.9" in names_in(issued)
    change(office, networks=("127.0.0.0/8",))
    with pytest.raises(NameNotAllowedError, match=r"10\.0\.0\.9"):
        renew(office, "nas", issued)


def test_a_source_outside_gets_no_address_and_is_not_refused(office: Office) -> None:
    """Decision 25: routed clients join by their names."""
    change(office, networks=("127.0.0.0/8",))
    assert names_in(join(office, "nas", source="10.0.0.9")) == ["nas.home.internal", "nas.local"]


def test_a_mesh_without_local_names_still_takes_hosts(home: Path) -> None:
    """The mDNS name is a courtesy, not a condition."""
    tight = Office.create(home, policy={"names": ("*.internal",)})
    assert names_in(join(tight, "nas")) == ["nas.home.internal", "127.0.0.9"]


def test_a_wildcard_needs_the_policy_an_invite_and_its_renewals_the_policy_again(
    office: Office,
) -> None:
    """Off again means off: also for whom it was granted before."""
    with pytest.raises(NameNotAllowedError, match="apps"):
        invited(office, "nas", "*.apps.home.arpa")
    change(office, wildcards=True)
    issued = join(office, "nas", "*.apps.home.arpa")
    assert "*.apps.home.arpa" in names_in(issued)
    again = renew(office, "nas", issued)
    assert "*.apps.home.arpa" in names_in(again)
    change(office, wildcards=False)
    with pytest.raises(NameNotAllowedError, match="apps"):
        renew(office, "nas", again)


@pytest.mark.parametrize("san", ["*.home.internal", "*.internal", "*.example.com"])
def test_no_invite_makes_a_leaf_that_passes_for_other_members(office: Office, san: str) -> None:
    """An invite is for one host."""
    change(office, wildcards=True)
    with pytest.raises(NameNotAllowedError):
        invited(office, "nas", san)


@pytest.mark.parametrize("san", ["atlas.home.internal", "atlas.local"])
def test_no_invite_names_another_member(office: Office, san: str) -> None:
    """Nodes verify each other by name: its holder could pass for the primary."""
    with pytest.raises(NameNotAllowedError, match="is a name of the member atlas"):
        invited(office, "nas", san)
    join(office, "pi.home.arpa")
    with pytest.raises(NameNotAllowedError, match=r"pi\.home\.arpa"):
        invited(office, "nas", "pi.home.arpa")
    assert "nas2.home.internal" in names_in(join(office, "nas", "nas2.home.internal"))


def test_a_host_gives_itself_no_wildcard(home: Path) -> None:
    """Not even the first one, by its settings."""
    with pytest.raises(NameNotAllowedError):
        Office.create(home, node={"sans": ("*.apps.home.arpa",)}, policy={"wildcards": True})


def test_a_policy_beyond_the_issuing_certificate_is_refused(office: Office) -> None:
    """The view says how far it goes, the refusal what to do."""
    assert "*.home.arpa" in shown(office).permitted_names
    with pytest.raises(PolicyRefusedError) as refusal:
        change(office, names=("*.internal", "*.local", "*.example.com"))
    assert "certmesh ca rollover start" in refusal.value.hint
    assert "8.0.0.0/8" not in shown(office).permitted_networks
    with pytest.raises(PolicyRefusedError, match=r"8\.0\.0\.0/8"):
        change(office, networks=("127.0.0.0/8", "8.0.0.0/8"))


def test_the_primary_never_locks_itself_out(office: Office) -> None:
    """A CA that cannot renew its own certificate stops serving within a month."""
    with pytest.raises(PolicyRefusedError, match="atlas itself would fall outside"):
        change(office, names=("*.home.arpa",))
    with pytest.raises(PolicyRefusedError, match="atlas itself"):
        change(office, dry_run=True, networks=("192.168.0.0/16",))
    assert rows(office, "policy.changed") == 0


def test_the_warnings_are_about_this_very_node(office: Office) -> None:
    """A policy that nobody carries out is a wish."""
    said = " / ".join(change(office, dry_run=True, unattended=False, approval=True).warnings)
    assert "opens the CA without a person, by a credential slot" in said
    assert "answers each with no" in said
    profile = change(office, dry_run=True, profile="my-organization")
    assert any("certmesh enrollment close" in text for text in profile.warnings)
    assert change(office, dry_run=True, leaf_lifetime_s=20 * DAY_S).warnings
    assert shown(office).warnings == ()


def test_defect_22_just_me_with_approval_on_can_never_approve(home: Path) -> None:
    """Profile just-me asks for no operator, so nobody's decision has to be enough."""
    office = Office.create(home)
    assert shown(office).policy.profile == "just-me"
    change(office, approval=True)
    request = join_request("pi", make_csr("pi"), totp_code=code(office))
    pending = office.ask(Service.GATEWAY, request, JoinAnswer)
    assert pending.issued is None
    decide = DecideApproval(pending.ticket_id, approve=True, operator="")
    office.ask(Service.CONSOLE, decide, ApprovalView)
    poll = PollTicket(pending.ticket_id, "ticket")
    assert issued_of(office.ask(Service.GATEWAY, poll, JoinAnswer)).serial


def test_my_organization_keeps_no_secret_beside_the_keys(home: Path) -> None:
    """Unattended is off: whatever the wish says, nothing on the disk opens the CA."""
    org = make_organization(home)
    assert not org.paths.credential.exists()
    assert org.desk.state.keys.state == "locked"


def make_organization(home: Path) -> Office:
    """Return a mesh of that profile, though the wish asks for a credential slot."""
    settings = office_settings()
    paths = node_paths(home / "certmesh.toml", settings)
    wish = wished("home", PASSPHRASE, settings=settings)
    wish = replace(wish, policy=replace(wish.policy, profile="my-organization", unattended=False))
    creation = create_mesh(settings, paths, wish)
    ledger = Ledger.open(paths.ledger, node="atlas")
    return Office(paths, settings, creation, Desk(make_state(settings, paths, ledger)))


def test_an_operator_is_asked_for_where_the_policy_says_so(office: Office) -> None:
    """Turning it on takes effect with the next decision."""
    change(office, operator_required=True)
    with pytest.raises(ForbiddenError):
        office.ask(Service.CONSOLE, SetPolicy(PolicyPatch(wildcards=True), ""), PolicyView)


def test_gateways_and_workers_do_not_govern(office: Office) -> None:
    """The capability table, for the one request that changes everything (row 41, P4)."""
    for service in (Service.GATEWAY, Service.RENEWAL, Service.APPROVAL):
        with pytest.raises(ForbiddenError):
            office.ask(service, SetPolicy(PolicyPatch(wildcards=True), "eve"), PolicyView)


def test_a_standby_shows_the_policy_and_changes_nothing(room: Room) -> None:
    """It has the roster and the key, but one node decides."""
    primary, standby = room["atlas"], room["birch"]
    primary.ask(Service.CONSOLE, SetPolicy(PolicyPatch(wildcards=True), "ann"), PolicyView)
    room.run(5_000, until=lambda: room.lag("birch") == 0)
    assert standby.ask(Service.CONSOLE, GetPolicy(), PolicyView).policy.wildcards is True
    with pytest.raises(NotPrimaryError):
        standby.ask(Service.CONSOLE, SetPolicy(PolicyPatch(wildcards=False), "ann"), PolicyView)


def test_a_standby_that_takes_over_issues_by_the_policy_of_the_mesh(make: Make) -> None:
    """Not by its own settings file."""
    room = make("birch", "cedar")
    room.nominate("birch")
    patch = PolicyPatch(leaf_lifetime_s=10 * DAY_S, wildcards=True)
    room["atlas"].ask(Service.CONSOLE, SetPolicy(patch, "ann"), PolicyView)
    room.run(5_000, until=lambda: room.lag("birch") == 0)
    room["atlas"].down = True
    room.run(60_000, until=lambda: room.serves(room["birch"]))
    state = room["birch"].office.desk.state
    assert state.mesh().policy.leaf_lifetime_s == 10 * DAY_S


def test_a_standby_of_an_attended_mesh_keeps_no_secret_beside_its_keys(make: Make) -> None:
    """A stolen standby would open itself, whatever its own settings say."""
    room = make("birch", "cedar")
    patch = PolicyPatch(unattended=False)
    room["atlas"].ask(Service.CONSOLE, SetPolicy(patch, "ann"), PolicyView)
    room.nominate("birch")
    birch = room["birch"].office
    assert birch.settings.standby.unattended is True
    assert birch.desk.state.keys.state == "unlocked"
    assert not birch.paths.credential.exists()
