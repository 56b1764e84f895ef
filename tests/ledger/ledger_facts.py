"""Facts for ledger tests: short names, plausible contents, and hypothesis strategies."""

import hashlib

from hypothesis import strategies as st

from broker.units import UnixSeconds
from broker.wire import facts
from broker.wire.codec import encode_fact
from broker.wire.facts import AnyFact
from broker.wire.ids import Role, ServedState
from broker.wire.node import Endpoint

NOW = UnixSeconds(1_700_000_000)
DAY_S = 86_400


def endpoint(host: str, port: int = 7643) -> Endpoint:
    """Return the doors of `host`."""
    return Endpoint(host, ("127.0.0.1",), port - 1, port, f"{host}.lab.internal")


def mesh() -> facts.MeshCreated:
    """Return the first fact of every mesh."""
    return facts.MeshCreated(
        mesh_id="aa",
        name="lab",
        domain="lab.internal",
        pin="cc",
        enrollment_open=False,
        approval=True,
        names=("lab.internal",),
        networks=("127.0.0.0/8",),
    )


def joined(
    host: str, member_id: str, role: Role = "member", approval_id: str = ""
) -> facts.MemberJoined:
    """Return an enrollment."""
    return facts.MemberJoined(
        member_id=member_id,
        host=host,
        sans=(f"{host}.lab.internal",),
        role=role,
        endpoint=endpoint(host),
        method="invite",
        approval_id=approval_id,
    )


def _key(serial: str) -> str:
    return hashlib.sha256(serial.encode()).hexdigest()


def issued(member_id: str, serial: str, not_before: int = NOW) -> facts.CertificateIssued:
    """Return a first certificate for 30 days, due after 20."""
    return facts.CertificateIssued(
        member_id=member_id,
        serial=serial,
        key_hash=_key(serial),
        not_before=UnixSeconds(not_before),
        not_after=UnixSeconds(not_before + 30 * DAY_S),
        renew_at=UnixSeconds(not_before + 20 * DAY_S),
        certificate=b"der of " + serial.encode(),
    )


def renewed(
    member_id: str, serial: str, replaces: str, not_before: int = NOW
) -> facts.CertificateRenewed:
    """Return a following certificate."""
    first = issued(member_id, serial, not_before)
    return facts.CertificateRenewed(
        member_id=member_id,
        serial=serial,
        key_hash=first.key_hash,
        not_before=first.not_before,
        not_after=first.not_after,
        renew_at=first.renew_at,
        certificate=first.certificate,
        replaces=replaces,
    )


def revoked(member_id: str, host: str = "web1") -> facts.MemberRevoked:
    """Return a revocation."""
    return facts.MemberRevoked(member_id=member_id, host=host, reason="stolen")


def renaming(member_id: str, before: str, host: str) -> facts.MemberRenamed:
    """Return a new name."""
    sans = (f"{host}.lab.internal",)
    return facts.MemberRenamed(member_id, before, host, sans, endpoint(host))


def invited(invite_id: str, host: str = "web1") -> facts.InviteCreated:
    """Return an open invite for a day."""
    return facts.InviteCreated(
        invite_id=invite_id, host=host, sans=(), expires_at=UnixSeconds(NOW + DAY_S)
    )


def asked(approval_id: str, host: str = "web1", expires_at: int = NOW + 600) -> AnyFact:
    """Return a join that waits for a person."""
    return facts.ApprovalRequested(
        approval_id=approval_id,
        host=host,
        sans=(f"{host}.lab.internal", "10.0.0.9"),
        csr=b"csr",
        key_hash="ee",
        ticket_hash="ff",
        method="totp",
        source="10.0.0.9",
        words=("apple", "river", "stone", "cloud"),
        addresses=("10.0.0.9",),
        mesh_port=7643,
        enroll_port=7642,
        expires_at=UnixSeconds(expires_at),
        invite_id="ab",
    )


def promoted(member_id: str, host: str = "web1") -> facts.FailoverPromoted:
    """Return the first row of a term."""
    return facts.FailoverPromoted(member_id, host, "silence", "beats stopped")


def adopted(fact: AnyFact, term: int, sequence: int, node: str = "boreas") -> facts.FactAdopted:
    """Return a row that adopts what `node` wrote; its place names it."""
    origin = facts.Origin(
        term=term,
        sequence=sequence,
        node=node,
        incarnation="bb",
        at=UnixSeconds(NOW + sequence),
        actor="ann",
        hash=hashlib.sha256(f"{term} {sequence} {node}".encode()).hexdigest(),
    )
    return facts.FactAdopted(origin, str(fact.__struct_config__.tag), encode_fact(fact))


def conflict(review_id: str, subject: str = "web1") -> facts.MergeConflict:
    """Return a conflict for the review list."""
    return facts.MergeConflict(review_id, "hostname", subject, "member a1", "member a2")


# A small world: few names, so that random facts meet, repeat and contradict each other.
_members = st.sampled_from(("a1", "a2", "a3", "a4"))
_hosts = st.sampled_from(("db", "mail", "web1"))
_serials = st.sampled_from(tuple(f"{number:02x}" for number in range(12)))
_invites = st.sampled_from(("b1", "b2"))
_approvals = st.sampled_from(("c1", "c2"))
_reviews = st.sampled_from(("d1", "d2"))
_keys = st.sampled_from(("", "e1", "e2"))
_times = st.integers(min_value=NOW, max_value=NOW + 90 * DAY_S)
_roles: st.SearchStrategy[Role] = st.sampled_from(("member", "standby", "primary"))
_served: st.SearchStrategy[ServedState] = st.sampled_from(("served", "installed", "failed"))

direct_fact: st.SearchStrategy[AnyFact] = st.one_of(
    st.builds(mesh),
    st.builds(facts.AuthorityUnlocked, st.just("passphrase")),
    st.builds(facts.AuthorityUnlockFailed, st.just("passphrase")),
    st.builds(facts.AuthorityLocked),
    st.builds(facts.EnrollmentOpened),
    st.builds(facts.EnrollmentClosed),
    st.builds(invited, _invites, _hosts),
    st.builds(facts.InviteUsed, _invites, _members, st.just("dd")),
    st.builds(facts.InviteRevoked, _invites),
    st.builds(facts.TOTPStepUsed, st.integers(min_value=0, max_value=3), _keys),
    st.builds(facts.JoinRefused, _hosts, st.just("10.0.0.7"), st.just("throttled")),
    st.builds(asked, _approvals, _hosts, _times),
    st.builds(facts.ApprovalGranted, _approvals, st.just("ann")),
    st.builds(facts.ApprovalDenied, _approvals, st.just("ann"), st.just("no")),
    st.builds(facts.ApprovalExpired, _approvals),
    st.builds(joined, _hosts, _members, _roles, st.one_of(st.just(""), _approvals)),
    st.builds(joined, _hosts, _members),
    st.builds(facts.MemberMoved, _members, st.builds(endpoint, _hosts, st.integers(1024, 1030))),
    st.builds(issued, _members, _serials, _times),
    st.builds(renewed, _members, _serials, _serials, _times),
    st.builds(facts.CertificateServed, _members, _serials, _served, st.just("probe")),
    st.builds(facts.RenewalFailed, _members, st.sampled_from(("refused", "timeout"))),
    st.builds(revoked, _members, _hosts),
    st.builds(facts.AuthFailed, _hosts, _serials, st.just("revoked")),
    st.builds(facts.StandbyNominated, _members, _hosts),
    st.builds(facts.StandbyReady, _members, _hosts),
    st.builds(facts.StandbyRemoved, _members, _hosts, st.just("retired")),
    st.builds(promoted, _members, _hosts),
    st.builds(facts.FailoverConfirmed, _hosts, st.just("peer seen")),
    st.builds(facts.FailoverDemoted, _hosts, st.just("stopped"), _hosts),
    st.builds(conflict, _reviews, _hosts),
    st.builds(facts.MergeReviewed, _reviews),
)
"""Any fact that a primary writes of its own."""

any_fact: st.SearchStrategy[AnyFact] = st.one_of(
    direct_fact,
    direct_fact,
    st.builds(adopted, direct_fact, st.integers(0, 2), st.integers(1, 30)),
)
"""Any fact of the journal, adopted ones in an order that no merge would bring them in."""
