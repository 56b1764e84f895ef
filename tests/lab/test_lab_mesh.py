"""Four nodes on a LAN of their own: real pools, real mutual TLS, real multicast."""

from collections.abc import Iterable

import pytest

from tests.lab.host import Host
from tests.lab.mesh import Mesh
from tests.support import eventually

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(180)]


def have_found(hosts: Iterable[Host], instance: str) -> bool:
    """Whether the failover workers of these hosts resolved this mDNS instance."""
    return all(instance in _found_by(host) for host in hosts)


def _found_by(host: Host) -> set[str]:
    return {line["instance"] for line in host.events("failover", "peer.discovered")}


def test_every_node_is_up_and_heard_over_the_lan(mesh: Mesh) -> None:
    """Joined by invite, trusted by certificate, heard by heartbeat, each from its own address."""
    lines = mesh.lines()
    lines = {host.name: lines[host.name] for host in mesh.nodes}
    assert {name: line["role"] for name, line in lines.items()} == {
        "atlas": "primary",
        "birch": "standby",
        "cedar": "standby",
        "dogwood": "member",
    }
    assert {line["state"] for line in lines.values()} == {"up"}
    assert [lines[host.name]["address"] for host in mesh.nodes] == [
        host.address for host in mesh.nodes
    ]


def test_members_find_the_ca_by_multicast(mesh: Mesh) -> None:
    """Real mDNS records in real datagrams, which the switch passed on."""
    eventually(lambda: have_found(mesh.members, "certmesh-ca-atlas"), within_s=15)


def test_a_member_behind_a_cut_link_is_missed_and_then_heard_again(mesh: Mesh) -> None:
    """Over the same connections, or new ones: nothing is restarted."""
    mesh.lab.cut_from_all("dogwood")
    eventually(lambda: mesh.lines()["dogwood"]["state"] != "up", within_s=15)
    assert mesh.lines()["cedar"]["state"] == "up"
    mesh.lab.heal()
    eventually(lambda: mesh.lines()["dogwood"]["state"] == "up", within_s=15)
