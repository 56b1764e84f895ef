"""A node whose disk is full: hooks run to the end and once, and the worker lives."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from broker.errors import StorageError
from broker.runtime.paths import Paths
from broker.runtime.settings import load_settings
from broker.wire.ids import Service
from tests.workers.loop_desk import desk_at
from tests.workers.small_ca import SmallCA
from tests.workers.test_renewal_again import hook
from tests.workers.test_renewal_loop import WorkBoard, join
from workers.certstore import CertificateStore
from workers.renewal.loop import RenewalLoop


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file of this process take an octet."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_delivery_that_is_finished_on_a_full_disk_ends_no_process(paths: Paths) -> None:
    """It would start again, find the same delivery cut short, and reload the service each time.

    (row 14)
    """
    ca = SmallCA()
    store = CertificateStore(paths.certificates, "nas")
    store.install(ca.sign(store.prepare(), "nas"), ca.issuing, ca.root)
    join(paths, ca)
    for number in (1, 2):
        place = f"{paths.home}/ran-{number}"
        hook(paths, f"mkdir {place} || mkdir {place}-again", name=f"hook-{number}")
    settings = load_settings(paths.settings)
    with WorkBoard(paths, ca), desk_at(paths, settings, Service.RENEWAL) as desk:
        loop = RenewalLoop(settings, paths)
        with full_disk(), pytest.raises(StorageError, match="cannot write here"):
            loop.round(desk)
        assert sorted(path.name for path in paths.home.glob("ran-*")) == ["ran-1", "ran-2"]
        loop.round(desk)
    assert sorted(path.name for path in paths.home.glob("ran-*")) == ["ran-1", "ran-2"]
