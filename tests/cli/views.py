"""Replies of the broker for a small mesh, as tests of the screen want them."""

from broker.units import UnixSeconds
from broker.wire.authority import AuthorityView, SlotView
from broker.wire.ids import CAState, Role
from broker.wire.node import (
    Endpoint,
    MemberLine,
    Membership,
    MeshView,
    NodeView,
    OutageView,
    StatusView,
)
from broker.wire.standby import ReviewLine, StandbyLine, StandbysView

NOW = UnixSeconds(1_795_440_000)
DAY_S = 86_400
PIN = "9f3a41c207deb8aa" * 4
MESH_ID = "ab" * 16


def endpoint(host: str = "atlas") -> Endpoint:
    """Return the doors of a node."""
    return Endpoint(
        host=host,
        addresses=("127.0.0.1",),
        enroll_port=7642,
        mesh_port=7643,
        server_name=f"{host}.home.internal",
    )


def membership(host: str = "atlas") -> Membership:
    """Return what a member keeps."""
    return Membership(
        mesh_id=MESH_ID,
        mesh_name="home",
        pin=PIN,
        root_pem="-----BEGIN CERTIFICATE-----\n",
        host=host,
        member_id="cd" * 16,
        server_name=f"{host}.home.internal",
        primary=endpoint(),
    )


def member(host: str, *, days: int = 29, **changed: object) -> MemberLine:
    """Return one line of the roster."""
    fields: dict[str, object] = {
        "host": host,
        "member_id": "cd" * 16,
        "role": "member",
        "state": "up",
        "serial": "4c11e0aa",
        "not_before": UnixSeconds(NOW - DAY_S),
        "not_after": UnixSeconds(NOW + days * DAY_S),
        "renew_at": UnixSeconds(NOW + (days - 10) * DAY_S),
        "served": "served",
        "served_serial": "4c11e0aa",
        "last_seen_at": UnixSeconds(NOW - 4),
        "address": "127.0.0.1",
        "delivery": "served",
        "survives_until": UnixSeconds(NOW + days * DAY_S),
    }
    return MemberLine(**(fields | changed))  # type: ignore[arg-type]  # a sample with changes


def node(
    *,
    role: Role = "primary",
    ca: CAState = "unlocked",
    mesh: bool = True,
    led_by: str = "atlas",
    **changed: object,
) -> NodeView:
    """Return this node, in a mesh that `led_by` leads."""
    view = MeshView(
        mesh_id=MESH_ID,
        name="home",
        domain="home.internal",
        pin=PIN,
        term=3,
        primary=endpoint(led_by),
    )
    fields: dict[str, object] = {
        "host": "atlas",
        "role": role,
        "ca": ca,
        "term": 3,
        "sequence": 41,
        "bundle_sequence": 41,
        "mesh": view if mesh else None,
    }
    return NodeView(**(fields | changed))  # type: ignore[arg-type]  # a sample with changes


def status(**changed: object) -> StatusView:
    """Return a healthy screen."""
    atlas = member("atlas", role="primary", last_seen_at=NOW)
    fields: dict[str, object] = {
        "node": node(),
        "enrollment_open": False,
        "approvals_pending": 0,
        "members": (atlas, member("nas", days=21)),
        "member_count": 2,
        "warnings": (),
        "survives_until": UnixSeconds(NOW + 19 * DAY_S),
        "own": atlas,
        "now": NOW,
        "outage": outage(),
    }
    return StatusView(**(fields | changed))  # type: ignore[arg-type]  # a sample with changes


def outage(**changed: object) -> OutageView:
    """Return a budget that is met."""
    fields: dict[str, object] = {
        "budget_s": 7 * DAY_S,
        "planned_s": 8 * DAY_S,
        "met": True,
        "weakest": "nas",
        "survives_until": UnixSeconds(NOW + 19 * DAY_S),
    }
    return OutageView(**(fields | changed))  # type: ignore[arg-type]  # a sample with changes


def authority(state: CAState = "unlocked") -> AuthorityView:
    """Return the CA."""
    return AuthorityView(
        state=state,
        mesh_name="home",
        domain="home.internal",
        pin=PIN,
        term=3,
        root_pem="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        issuing_pem="",
        root_not_after=UnixSeconds(NOW + 3650 * DAY_S),
        issuing_not_after=UnixSeconds(NOW + 730 * DAY_S),
        permitted_names=("*.internal",),
        permitted_networks=("10.0.0.0/8",),
        slots=(SlotView(slot_id="1", kind="passphrase", created_at=NOW),),
    )


def standby(host: str, state: str = "ready", **changed: object) -> StandbyLine:
    """Return one line of the order of succession."""
    fields: dict[str, object] = {
        "host": host,
        "member_id": "cd" * 16,
        "role": "standby",
        "state": state,
        "ca": "unlocked",
        "lag": 0,
        "sequence": 41,
        "term": 3,
        "rank": 0,
        "last_heard_at": UnixSeconds(NOW - 1),
    }
    return StandbyLine(**(fields | changed))  # type: ignore[arg-type]  # a sample with changes


def leader(host: str = "atlas", **changed: object) -> StandbyLine:
    """Return the primary's line."""
    return standby(host, "primary", role="primary", **changed)


def standbys(*lines: StandbyLine, **changed: object) -> StandbysView:
    """Return a healthy order of succession as the primary sees it."""
    fields: dict[str, object] = {
        "host": "atlas",
        "phase": "serving",
        "mode": "automatic",
        "term": 3,
        "primary": "atlas",
        "lines": lines or (leader(), standby("nas")),
        "powers": "full",
    }
    return StandbysView(**(fields | changed))  # type: ignore[arg-type]  # a sample with changes


def review(identity: str = "a1b2c3d4e5f6a7b8", subject: str = "pi") -> ReviewLine:
    """Return a conflict that waits for a person."""
    return ReviewLine(
        review_id=identity,
        kind="hostname",
        subject=subject,
        kept="pi of atlas, term 3",
        lost="pi of nas, term 4",
        at=NOW,
        sequence=77,
    )
