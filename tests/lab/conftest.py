"""Fixtures of the laboratory: a LAN per module, and one mesh, whole again after each test."""

from collections.abc import Iterator

import pytest

from tests.lab import mesh as meshes
from tests.lab.hosts import Lab, lab_available
from tests.lab.mesh import Mesh, found_mesh


@pytest.fixture(scope="module")
def shared_lab() -> Iterator[Lab]:
    """Three hosts on a LAN; skips where this machine cannot have one."""
    if reason := lab_available():
        pytest.skip(reason)
    with Lab.open() as found:
        yield found


@pytest.fixture
def lab(shared_lab: Lab) -> Iterator[Lab]:
    """The same LAN, healed and powered on again after the test."""
    yield shared_lab
    shared_lab.heal()
    for host in shared_lab.hosts:
        if not host.is_on:
            host.power_on()


@pytest.fixture(scope="session")
def shared_mesh() -> Iterator[Mesh]:
    """A running mesh on a LAN of its own, and a stranger, elm; made once, for it takes a while."""
    if reason := lab_available():
        pytest.skip(reason)
    with Lab.open((*meshes.HOSTS, meshes.STRANGER)) as found:
        yield found_mesh(found)


@pytest.fixture
def mesh(shared_mesh: Mesh) -> Iterator[Mesh]:
    """The same mesh, mended after the test."""
    yield shared_mesh
    shared_mesh.mend()
