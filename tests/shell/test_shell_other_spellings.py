"""One name in two spellings: what a machine is called, and what stands in its certificate.

A host without a dot is known to its callers by `host.domain` and `host.local`. Whoever could join
under one of those spellings would hold a certificate in the name of another member, the primary
included, although no two members share a name.
"""

import hashlib
import secrets
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from broker.clock import wall_s
from broker.errors import NameNotAllowedError
from broker.wire.approval import ApprovalView, DecideApproval
from broker.wire.claims import Head
from broker.wire.control import Ack
from broker.wire.enrollment import (
    CreateInvite,
    InvitesView,
    InviteView,
    JoinAnswer,
    ListInvites,
    PollTicket,
)
from broker.wire.ids import Service
from broker.wire.policy import PolicyPatch, PolicyView, SetPolicy
from broker.wire.roster import (
    GetMember,
    GetReach,
    LeaveMesh,
    ListMembers,
    MembersView,
    MemberView,
    ReinstateMember,
    RenameMember,
    RevocationAnswer,
    RevokeMember,
)
from tests.shell.office import Office, issued_of, join_request, make_csr, peer_of


@pytest.fixture
def office(home: Path) -> Office:
    """A mesh in which codes need no person: the least careful policy there is."""
    return Office.create(home)


def code(office: Office, offset_s: int = 0) -> str:
    """Return the TOTP code of now."""
    totp = TOTP(office.desk.state.keys.totp_secret, 6, hashes.SHA1(), 30)
    return totp.generate(wall_s() + offset_s).decode()


def invite(office: Office, host: str, *sans: str, rejoin: bool = False) -> str:
    """Create an invite and return its secret."""
    secret = secrets.token_urlsafe(16)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    request = CreateInvite(digest, host, sans, 3600, "ann", rejoin)
    office.ask(Service.CONSOLE, request, InviteView)
    return secret


def join(office: Office, host: str, **fields: str) -> JoinAnswer:
    """Join as the gateway would ask."""
    request = join_request(host, make_csr(host), **fields)
    return office.ask(Service.GATEWAY, request, JoinAnswer)


def admit(office: Office, host: str) -> JoinAnswer:
    """Let a host in by invite."""
    return join(office, host, invite_secret=invite(office, host))


def rename(office: Office, old: str, new: str) -> None:
    """Rename as the operator."""
    request = RenameMember(old, new, "ann", dry_run=False)
    office.ask(Service.CONSOLE, request, MemberView)


@pytest.mark.parametrize("spelling", ["atlas.home.internal", "atlas.local"])
def test_nobody_joins_under_the_name_by_which_the_primary_is_called(
    office: Office, spelling: str
) -> None:
    """Members trust whoever proves this name: a code must not be enough to be the primary."""
    with pytest.raises(NameNotAllowedError):
        join(office, spelling, totp_code=code(office))


@pytest.mark.parametrize("spelling", ["nas.home.internal", "nas.local"])
def test_no_invite_and_no_renaming_gives_a_member_the_name_of_another(
    office: Office, spelling: str
) -> None:
    """The same by the operator's own hand, who cannot know which spellings are one name."""
    admit(office, "nas")
    admit(office, "oak")
    with pytest.raises(NameNotAllowedError):
        invite(office, spelling)
    with pytest.raises(NameNotAllowedError):
        rename(office, "oak", spelling)


def test_a_spelling_is_refused_before_anybody_has_the_short_name(
    office: Office, home: Path
) -> None:
    """Else the host of the short name, when it comes, finds its names in another's certificate."""
    admit(office, "oak")
    for spelling in ("pine.home.internal", "pine.local"):
        with pytest.raises(NameNotAllowedError):
            rename(office, "oak", spelling)
    with pytest.raises(NameNotAllowedError):
        Office.create(home / "other", node={"name": "pine.home.internal"})


@pytest.mark.parametrize("extra", ["files.home.internal", "files.local"])
def test_a_name_that_an_invite_gave_to_a_member_is_nobody_elses_host_name(
    office: Office, extra: str
) -> None:
    """The operator gave it to one machine; a code must not give it to a second one."""
    join(office, "nas", invite_secret=invite(office, "nas", extra))
    admit(office, "oak")
    with pytest.raises(NameNotAllowedError, match="nas"):
        join(office, "files", totp_code=code(office))
    with pytest.raises(NameNotAllowedError, match="nas"):
        invite(office, "files")
    with pytest.raises(NameNotAllowedError, match="nas"):
        rename(office, "oak", "files")
    again = invite(office, "nas", extra, rejoin=True)
    assert join(office, "nas", invite_secret=again).issued is not None
    rename(office, "nas", "files")


def test_no_wildcard_covers_another_member_whichever_came_first(office: Office) -> None:
    """A member with a dotted name is verified by it: whoever covers that name could be it."""
    patch = SetPolicy(PolicyPatch(wildcards=True), "ann")
    office.ask(Service.CONSOLE, patch, PolicyView)
    admit(office, "db.home.arpa")
    with pytest.raises(NameNotAllowedError, match=r"db\.home\.arpa"):
        invite(office, "nas", "*.home.arpa")
    join(office, "nas", invite_secret=invite(office, "nas", "*.lab.home.arpa"))
    with pytest.raises(NameNotAllowedError, match="nas"):
        join(office, "web.lab.home.arpa", totp_code=code(office))
    admit(office, "lab.home.arpa")


def test_an_invite_gives_no_name_that_became_a_members_since_it_was_made(office: Office) -> None:
    """Between the two, a host may have joined under it."""
    early = invite(office, "nas", "files.local")
    admit(office, "files")
    with pytest.raises(NameNotAllowedError, match="files"):
        join(office, "nas", invite_secret=early)


def test_a_persons_yes_gives_no_name_that_became_a_members_while_it_waited(home: Path) -> None:
    """The same for a request that waits: what was free when it was asked may be taken now."""
    office = Office.create(home, approval=True)
    waiting = join(office, "files", totp_code=code(office))
    join(office, "nas", invite_secret=invite(office, "nas", "files.local"))
    request = DecideApproval(waiting.ticket_id, approve=True, operator="ann")
    office.ask(Service.CONSOLE, request, ApprovalView)
    with pytest.raises(NameNotAllowedError, match="nas"):
        office.ask(Service.GATEWAY, PollTicket(waiting.ticket_id, "ticket"), JoinAnswer)


def test_a_renamed_member_that_is_revoked_bars_its_name_though_a_younger_one_had_it_before(
    office: Office,
) -> None:
    """Who had the name last decides, not who joined last: else a code gets a revoked name."""
    admit(office, "elder")
    younger = admit(office, "nas")
    office.ask(Service.GATEWAY, LeaveMesh(peer_of(issued_of(younger), "nas")), Ack)
    rename(office, "elder", "nas")
    office.ask(Service.CONSOLE, RevokeMember("nas", "stolen", "ann"), RevocationAnswer)
    assert office.ledger.bar_of("nas") is not None
    assert join(office, "nas", totp_code=code(office)).issued is None
    office.ask(Service.CONSOLE, ReinstateMember("nas", "ann"), Ack)


def test_the_list_of_invites_says_which_of_them_replace_a_member(office: Office) -> None:
    """An invite that throws a member out is another thing than one that lets a host in."""
    admit(office, "nas")
    invite(office, "nas", rejoin=True)
    view = office.ask(Service.CONSOLE, ListInvites(), InvitesView)
    assert [line.rejoin for line in view.invites] == [True, False]


def test_of_two_that_had_a_name_people_are_shown_the_one_that_had_it_last(office: Office) -> None:
    """Else `member revoke --wait` reports how well an older revocation is enforced."""
    elder = admit(office, "elder")
    younger = admit(office, "nas")
    office.ask(Service.GATEWAY, LeaveMesh(peer_of(issued_of(younger), "nas")), Ack)
    rename(office, "elder", "nas")
    office.ask(Service.CONSOLE, RevokeMember("nas", "stolen", "ann"), RevocationAnswer)
    reach = office.ask(Service.CONSOLE, GetReach("nas"), RevocationAnswer)
    shown = office.ask(Service.CONSOLE, GetMember("nas"), MemberView)
    lines = office.ask(Service.CONSOLE, ListMembers(), MembersView).members
    assert reach.member_id == shown.member.member_id == elder.member_id
    assert [line.member_id for line in lines if line.host == "nas"] == [elder.member_id]


@pytest.mark.parametrize("way", ["leave", "rejoin"])
def test_a_member_that_goes_is_no_witness_any_more(office: Office, way: str) -> None:
    """It vouches for nothing, and every rejoin would leave one behind in memory."""
    gone = admit(office, "nas")
    state, now = office.desk.state, wall_s()
    state.witnesses.agree(gone.member_id, "nas", Head(1, 1, "00" * 32, "atlas", now), now)
    if way == "leave":
        office.ask(Service.GATEWAY, LeaveMesh(peer_of(issued_of(gone), "nas")), Ack)
    else:
        join(office, "nas", invite_secret=invite(office, "nas", rejoin=True))
    assert state.witnesses.witnesses(wall_s()) == 0
