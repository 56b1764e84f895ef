"""Renewal with the old key, where a door that comes first answers with what is no use."""

from collections.abc import Callable

import pytest

from broker.runtime.paths import Paths
from broker.wire.renewal import RenewalAnswer
from broker.wire.work import Failed, Installed
from tests.workers import test_renewal_expired as scene
from tests.workers.fake_node import FakeNode
from tests.workers.small_ca import SmallCA
from workers.certstore import CertificateStore
from workers.keypair import make_key_and_csr

ca, store, counter, primary = scene.ca, scene.store, scene.counter, scene.primary
Rogue = Callable[[SmallCA, bytes], RenewalAnswer]


def of_another_ca(_: SmallCA, csr: bytes) -> RenewalAnswer:
    """Return a certificate that nobody here trusts."""
    return RenewalAnswer(scene.issued(SmallCA("evil"), csr))


def for_another_key(ca: SmallCA, _: bytes) -> RenewalAnswer:
    """Return a certificate of the mesh, for a key that is not ours."""
    return RenewalAnswer(scene.issued(ca, make_key_and_csr("nas")[1]))


def rogue(ca: SmallCA, answer: Rogue) -> FakeNode:
    """Return a member's enrol door; on the network it announces itself as the primary."""
    csr = make_key_and_csr("nas")[1]
    return FakeNode(ca, {scene.DOOR: lambda _: answer(ca, csr)}, host="pi")


@pytest.mark.parametrize("answer", [of_another_ca, for_another_key])
def test_a_door_that_gives_no_usable_certificate_does_not_hide_the_primary(
    paths: Paths, ca: SmallCA, store: CertificateStore, primary: FakeNode, answer: Rogue
) -> None:
    """It would keep an expired member out for ever, whoever its neighbour is."""
    with rogue(ca, answer) as pi:
        result = scene.renewed(paths, scene.door_of(pi), scene.door_of(primary))
    live = store.live()
    assert live is not None
    assert isinstance(result, Installed)
    assert result.serial == live.serial


@pytest.mark.usefixtures("store")
def test_when_no_other_door_is_known_it_says_who_answered_what(paths: Paths, ca: SmallCA) -> None:
    """And nothing of it is installed."""
    with rogue(ca, for_another_key) as pi:
        result = scene.renewed(paths, scene.door_of(pi))
    assert isinstance(result, Failed)
    assert "pi: gave no certificate of use" in result.detail
